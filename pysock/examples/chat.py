"""Rooms in which clients talk: groups, late comers, and clients that don't keep up.

    python -m pysock.examples.chat --bind unix:chat.sock
    python -m pysock.examples.chat --connect unix:chat.sock --name anna --room tea
    python -m pysock.examples.chat --connect unix:chat.sock --name bert --room tea

What is typed is said to the others in the room. Who comes late is told the last lines first. To a client that is
stopped (Ctrl-Z) the room goes on talking: what is too old is dropped for it, and as it goes on it is told how many
lines it has missed.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import Final

import pysock
from pysock.examples import _arguments

#: Lines of a room that a late comer is told.
REMEMBERED: Final = 10
#: Far less than the defaults: whoever has not read so much is not interested in all of it any more.
LIMITS: Final = pysock.Limits(push_soft=64 * 1024, push_hard=256 * 1024, output_timeout=3600)


def make_server(addresses: list[str]) -> pysock.Server:
    """Return a server without rooms; they come to be as clients enter them."""
    server = pysock.Server(*addresses, slow="drop-old", limits=LIMITS)
    said: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    @server.service("enter")
    def enter(client: pysock.DataSocket, request: bytes) -> None:
        room = request.decode()
        for line in said[room]:
            client.send(line)
        client.join(room)
        tell(client, b"* %s has come" % name_of(client))

    @server.service("say")
    def say(client: pysock.DataSocket, request: bytes) -> None:
        tell(client, b"%s: %s" % (name_of(client), request))

    @server.on_disconnect
    def leave(client: pysock.DataSocket, reason: pysock.DisconnectReason) -> None:
        tell(client, b"* %s is gone: %s" % (name_of(client), str(reason).encode()))

    def tell(client: pysock.DataSocket, line: bytes) -> None:
        for room in client.groups:
            said[room].append(line)
            server.clients.group(room).send(line, but=client)

    return server


def name_of(client: pysock.DataSocket) -> bytes:
    """As the client gave it to ``connect()``."""
    return (client.name or "somebody").encode()


def talk(address: str, name: str, room: str) -> None:
    """Say each line that is typed, and print what others say, until the input ends."""
    with pysock.connect(address, name) as client:

        @client.on_gap
        def missed(lines: int) -> None:
            print(f"... {lines} lines are missing ...", flush=True)

        @client.on_push
        def heard(line: bytes) -> None:
            print(line.decode(), flush=True)

        client.request(room.encode(), service="enter")
        for line in sys.stdin:
            client.notify(line.rstrip("\n").encode(), service="say")


def main() -> None:
    """Serve, or talk with ``--connect``."""
    parser = _arguments.parser("chat", __doc__, "unix:chat.sock")
    parser.add_argument("--connect", metavar="ADDR", help="be a client of the server there")
    parser.add_argument("--name", default="", help="by which the others know you")
    parser.add_argument("--room", default="hall", help="where to talk (default: %(default)s)")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        if options.connect:
            talk(options.connect, options.name, options.room)
        else:
            _arguments.serve(make_server(_arguments.addresses(options)))


if __name__ == "__main__":
    main()
