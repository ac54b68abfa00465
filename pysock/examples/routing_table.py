"""A server keeps a table of routes and pushes every change to all of its clients.

The server, two clients that watch the table, and somebody who changes it, each in a terminal of its own:

    python -m pysock.examples.routing_table --bind unix:routes.sock
    python -m pysock.examples.routing_table --connect unix:routes.sock
    pysock call unix:routes.sock --service add "10.1.0.0/16 192.168.1.1"
    pysock call unix:routes.sock --service remove 10.1.0.0/16

A client that joins late is brought up to date: it is sent the routes that are there when it joins, then the changes.
None is missed or comes twice, because the server's loop does both, one hook or handler at a time. A thread that changes
routes would leave that to the loop, too, by ``server.call_soon(...)``.
"""

from __future__ import annotations

import ipaddress

import pysock
from pysock.examples import _arguments

#: Network -> gateway, both as text. What is pushed is one change: ``+ NETWORK GATEWAY`` or ``- NETWORK``.
Routes = dict[str, str]


def make_server(addresses: list[str]) -> pysock.Server:
    """Return a server with an empty table."""
    server = pysock.Server(*addresses)
    routes: Routes = {}

    @server.on_join
    def bring_up_to_date(client: pysock.DataSocket, _row: pysock.ClientRow) -> None:
        for network, gateway in routes.items():
            client.send(f"+ {network} {gateway}".encode())

    @server.service("add")
    def add(_client: pysock.DataSocket, request: bytes) -> None:
        network, gateway = parse_route(request.decode())
        if routes.get(network) != gateway:
            routes[network] = gateway
            server.clients.broadcast(f"+ {network} {gateway}".encode())

    @server.service("remove")
    def remove(_client: pysock.DataSocket, request: bytes) -> None:
        network = request.decode().strip()
        if routes.pop(network, None) is None:
            raise pysock.RemoteError(f"there is no route to {network}")
        server.clients.broadcast(f"- {network}".encode())

    return server


def parse_route(text: str) -> tuple[str, str]:
    """Return network and gateway of ``"NETWORK GATEWAY"``. The client that sent nonsense is told so."""
    try:
        network, gateway = text.split()
        return str(ipaddress.ip_network(network)), str(ipaddress.ip_address(gateway))
    except ValueError as error:
        raise pysock.RemoteError(f"a route is NETWORK GATEWAY, as 10.1.0.0/16 192.168.1.1: {error}") from error


def apply_change(routes: Routes, change: str) -> None:
    """Do to a client's copy of the table what was done to the server's."""
    action, network, *gateway = change.split()
    if action == "+":
        routes[network] = gateway[0]
    else:
        routes.pop(network, None)


def watch(address: str) -> None:
    """Print each change and the size of the table that results, until the server stops."""
    routes: Routes = {}
    with pysock.connect(address) as client:
        print("connected to", address, flush=True)
        for push in client.pushes():
            change = push.decode()
            apply_change(routes, change)
            print(f"{change}  ({len(routes)} routes)", flush=True)


def main() -> None:
    """Serve, or watch with ``--connect``."""
    parser = _arguments.parser("routing_table", __doc__, "unix:routes.sock")
    parser.add_argument("--connect", metavar="ADDR", help="be a client of the server there, and print the changes")
    options = parser.parse_args()
    with _arguments.one_line_errors():
        if options.connect:
            watch(options.connect)
        else:
            _arguments.serve(make_server(_arguments.addresses(options)))


if __name__ == "__main__":
    main()
