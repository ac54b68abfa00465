"""``pysock cluster clients``: who is connected to which node of a cluster."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import click

from pysock.cli.admin.asking import print_json
from pysock.cli.admin.shown import columns, plain, span
from pysock.cli.cluster.looking import client_as_json, cluster_arguments, nobody, onlooker
from pysock.cli.cluster.nodes import counted
from pysock.cli.options import example

if TYPE_CHECKING:
    from pysock.cluster.view import ClusterClient

_HEAD: Final = ("ADDRESS", "NAME", "NODE", "SINCE", "")


@click.command(epilog=example("pysock cluster clients local:shop --name 'sensor-*'"))
@cluster_arguments
@click.option("--node", metavar="NAME", show_envvar=True, help="Only those of this node.")
@click.option("--name", metavar="PATTERN", show_envvar=True, help="Only those of this name; a pattern, as 'sensor-*'.")
def clients(url: str, cluster_name: str | None, timeout: float, json: bool, node: str | None, name: str | None) -> None:
    """Show the clients of all nodes of a cluster, oldest first. URL is that of its bus.

    SINCE is by the clock of the client's node.
    """
    with onlooker(url, cluster_name, timeout) as looker:
        nodes = looker.nodes
        found = [row for row in looker.clients if _is_meant(row, node, name)]
    if not nodes:
        raise nobody(looker)
    if json:
        print_json({"cluster": looker.name, "clients": [client_as_json(row) for row in found]})
        return
    now = time.time()
    if found:
        click.echo("\n".join(columns(_HEAD, [_cells(row, now) for row in found])))
    click.echo(f"{counted(len(found), 'client')} of {counted(len(nodes), 'node')}")


def _is_meant(row: ClusterClient, node: str | None, name: str | None) -> bool:
    return node in (None, row.node) and (name is None or fnmatchcase(row.name, name))


def _cells(row: ClusterClient, now: float) -> tuple[str, ...]:
    return row.address, plain(row.name), row.node, span(now - row.connected_at), "stale" if row.stale else ""
