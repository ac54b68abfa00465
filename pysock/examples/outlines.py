"""A service that computes, in processes of its own: it parses Python files, and says what they define.

In one terminal:    python -m pysock.examples.outlines --bind unix:outlines.sock
In another:         python -m pysock.examples.outlines --bind unix:outlines.sock --ask

The second one asks for all modules of Python's standard library, and then for one of them alone while the others are
parsed still: the loop is free, and the clients take turns. ``--ask DIRECTORY`` asks for the files of another directory.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pysock
from pysock.examples import _arguments
from pysock.examples._parsing import outline


def serve(addresses: list[str], processes: int) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    server = pysock.Server(*addresses)
    server.service("outline", processes=processes)(outline)
    _arguments.serve(server)


def ask(address: str, directory: Path) -> None:
    """Two clients: one with all files of a directory, one with a single file."""
    sources = [path.read_bytes() for path in sorted(directory.glob("*.py"))]

    def ask_for_all() -> None:
        began = time.perf_counter()
        with pysock.connect(address) as client:
            outlines = client.request_many(sources, service="outline", timeout=None, return_exceptions=True)
        lines = sum(len(one.splitlines()) for one in outlines if isinstance(one, bytes))
        print(f"{len(sources)} files define {lines} names: {time.perf_counter() - began:.2f} s")

    asking = threading.Thread(target=ask_for_all)
    asking.start()
    began = time.perf_counter()
    with pysock.connect(address) as client:
        mine = client.request(Path(json.__file__).read_bytes(), service="outline", timeout=None)
    print(f"{json.__file__} alone: {time.perf_counter() - began:.2f} s\n{mine.decode()}")
    asking.join()


def main() -> None:
    """Serve, or ask."""
    parser = _arguments.parser("outlines", __doc__, "unix:outlines.sock")
    parser.add_argument("--processes", type=int, default=2, help="how many parse (default: %(default)s)")
    library = str(Path(json.__file__).parent.parent)
    parser.add_argument("--ask", metavar="DIRECTORY", nargs="?", const=library, help="be the client")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        addresses = _arguments.addresses(options)
        if options.ask is None:
            serve(addresses, options.processes)
        else:
            ask(addresses[0], Path(options.ask))


if __name__ == "__main__":
    main()
