"""The smallest server: it answers every request with the same text in capitals.

In one terminal:    python -m pysock.examples.upper --bind unix:upper.sock
In another:         pysock call unix:upper.sock "hello"

With ``--framing line`` a message is a line of text, and any program that can talk to a socket is a client:

    python -m pysock.examples.upper --bind unix:upper.sock --framing line
    echo hello | socat - UNIX-CONNECT:upper.sock
"""

from __future__ import annotations

import pysock
from pysock.examples import _arguments


def upper(client: pysock.DataSocket, request: bytes) -> bytes:
    """The service: bytes in, bytes out."""
    return request.upper()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = _arguments.parser("upper", __doc__, "unix:upper.sock")
    parser.add_argument("--framing", default="pysock", help="pysock, u32, line or raw (default: %(default)s)")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        server = pysock.Server(*_arguments.addresses(options), framing=options.framing)
        server.service(upper)
        _arguments.serve(server)


if __name__ == "__main__":
    main()
