"""Routes are pushed to clients that survive a restart of the server.

The server keeps the table in a file, so that it is there again when the server is. Start the two in any order, stop the
server and start it again: the watching client is back by itself, and begins its copy of the table anew, for it may have
missed changes.

    python -m pysock.examples.watch --bind unix:watch.sock --file routes.txt
    python -m pysock.examples.watch --connect unix:watch.sock
    pysock call unix:watch.sock --service add "10.1.0.0/16 192.168.1.1"
"""

from __future__ import annotations

import os
from pathlib import Path

import pysock
from pysock.examples import _arguments
from pysock.examples.routing_table import Routes, apply_change, parse_route


def load(file: Path) -> Routes:
    """Return the table of the last run; the first has none."""
    if not file.exists():
        return {}
    return dict(parse_route(line) for line in file.read_text().splitlines())


def save(routes: Routes, file: Path) -> None:
    """Replace the file in one step: whenever the server is killed, there is a whole one."""
    new = file.with_name(f"{file.name}.new")
    new.write_text("".join(f"{network} {gateway}\n" for network, gateway in routes.items()))
    os.replace(new, file)


def make_server(addresses: list[str], file: Path) -> pysock.Server:
    """Return a server with the table that is in the file."""
    server = pysock.Server(*addresses)
    routes = load(file)

    @server.on_connect
    def bring_up_to_date(client: pysock.DataSocket) -> None:
        for network, gateway in routes.items():
            client.send(f"+ {network} {gateway}".encode())

    @server.service("add", idempotent=True)  # to set a route twice is as good as once
    def add(_client: pysock.DataSocket, request: bytes) -> None:
        network, gateway = parse_route(request.decode())
        if routes.get(network) != gateway:
            routes[network] = gateway
            save(routes, file)
            server.clients.broadcast(f"+ {network} {gateway}".encode())

    return server


def watch(address: str) -> None:
    """Print each change and the size of the table that results, for ever."""
    routes: Routes = {}
    with pysock.connect(address, reconnect=True, timeout=None) as client:
        print("connected to", address, flush=True)

        @client.on_reconnect
        def begin_anew(_client: pysock.Client) -> None:
            routes.clear()
            print("connected again", flush=True)

        for push in client.pushes():
            change = push.decode()
            apply_change(routes, change)
            print(f"{change}  ({len(routes)} routes)", flush=True)


def main() -> None:
    """Serve, or watch with ``--connect``."""
    parser = _arguments.parser("watch", __doc__, "unix:watch.sock")
    parser.add_argument("--file", metavar="FILE", type=Path, default=Path("routes.txt"), help="where the table is kept")
    parser.add_argument("--connect", metavar="ADDR", help="be a client of the server there, and print the changes")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        if options.connect:
            watch(options.connect)
        else:
            _arguments.serve(make_server(_arguments.addresses(options), options.file))


if __name__ == "__main__":
    main()
