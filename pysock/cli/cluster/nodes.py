"""``pysock cluster nodes``: which servers behave as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from pysock.cli.admin.asking import print_json
from pysock.cli.admin.shown import columns, plain
from pysock.cli.cluster.looking import cluster_arguments, nobody, node_as_json, onlooker
from pysock.cli.options import example

if TYPE_CHECKING:
    from pysock.cluster.view import ClusterNode

_HEAD: Final = ("NODE", "STATE", "CLIENTS", "ROOM", "HOST", "SOFTWARE", "ADDRESSES")
_RIGHT: Final = "<<>>"


@click.command(epilog=example("pysock cluster nodes nats://127.0.0.1:4222/prod"))
@cluster_arguments
def nodes(url: str, cluster_name: str | None, timeout: float, json: bool) -> None:
    """Show the nodes of a cluster. URL is that of its bus, with the cluster's name behind it.

    It takes more than a second: so often each node says that it is there. The nodes don't notice.
    """
    with onlooker(url, cluster_name, timeout) as looker:
        found = looker.nodes
    if json:
        print_json({"cluster": looker.name, "nodes": [node_as_json(node) for node in found]})
    elif found:
        rows = [_cells(node) for node in found]
        clients = sum(node.clients for node in found)
        click.echo("\n".join(columns(_HEAD, rows, _RIGHT)))
        click.echo(f"{counted(len(found), 'node')}, {counted(clients, 'client')}")
    if not found:
        raise nobody(looker)


def counted(number: int, what: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def state_of(node: ClusterNode) -> str:
    """In a word."""
    doubt = "silent" if node.suspect else "stale" if node.stale else ""
    return doubt or ("draining" if node.draining else "serving")


def _cells(node: ClusterNode) -> tuple[str, ...]:
    room = max(0, node.capacity - node.clients)
    where = " ".join(map(plain, node.addresses)) or "-"
    return node.name, state_of(node), str(node.clients), str(room), plain(node.host), plain(node.software), where
