"""A service that streams the words of a text, as a model does its tokens, to clients of any speed.

In one terminal:    python -m pysock.examples.tokens --bind unix:tokens.sock
In another:         python -m pysock.examples.tokens --connect unix:tokens.sock

The second command is three clients at a time: one takes the words as they come, one is slow, and one leaves early. The
slow one holds up nobody but itself, and the server tells of the one that left. The text is pysock's guide, or a file
given with ``--text``. A client of any kind gets the whole of it as one reply:

    pysock call unix:tokens.sock ""
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pysock
from pysock.examples import _arguments

#: The pages that are installed with pysock.
GUIDE = Path(pysock.__file__).parent / "docs" / "guide.md"
#: How many words the one that leaves has enough with, and how long the slow one thinks about each, in seconds.
ENOUGH = 10
PAUSE = 0.0005


def make_server(addresses: list[str], text: bytes) -> pysock.Server:
    """Return the server: its one service streams the words of this text."""
    server = pysock.Server(*addresses, limits=pysock.Limits(stream_window=4096))
    words = text.split()

    @server.service
    def tokens(client: pysock.DataSocket, request: bytes) -> Iterator[bytes]:
        """All words, or as many as the request says."""
        name, count = client.name, 0
        try:
            for count, word in enumerate(words[: int(request or len(words))], 1):  # noqa: B007  # it is told below
                yield word + b" "
        except GeneratorExit:
            print(f"client {name!r} left at word {count} of {len(words)}", flush=True)
            raise

    return server


def read(address: str, name: str, pause: float = 0.0, enough: int | None = None) -> int:
    """Be one client; return how many words it got."""
    count = 0
    with pysock.connect(address, name) as client, client.stream(b"") as words:
        for count, _word in enumerate(words, 1):
            time.sleep(pause)
            if count == enough:
                break
    return count


def three(address: str) -> None:
    """Three clients at a time; each tells when it has done."""

    def run(name: str, pause: float = 0.0, enough: int | None = None) -> None:
        print(f"{name}: {read(address, name, pause, enough)} words", flush=True)

    read(address, "first", enough=1)  # where nobody serves, this says so
    others = [
        threading.Thread(target=run, args=("slow", PAUSE)),
        threading.Thread(target=run, args=("leaves", 0.0, ENOUGH)),
    ]
    for thread in others:
        thread.start()
    run("fast")
    for thread in others:
        thread.join()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; or be three clients."""
    parser = _arguments.parser("tokens", __doc__, "unix:tokens.sock")
    parser.add_argument("--connect", metavar="ADDR", help="be three clients of a server that runs")
    parser.add_argument("--text", metavar="FILE", type=Path, default=GUIDE, help="whose words are streamed")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        if options.connect:
            three(options.connect)
        else:
            _arguments.serve(make_server(_arguments.addresses(options), options.text.read_bytes()))


if __name__ == "__main__":
    main()
