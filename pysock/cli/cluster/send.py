"""``pysock cluster send``: a push to one client of a cluster, to a group, or to all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from pysock.cli.admin.asking import print_json
from pysock.cli.call import standard_input
from pysock.cli.cluster.looking import cluster_arguments, nobody, onlooker
from pysock.cli.options import example

if TYPE_CHECKING:
    from pysock.cluster.observing import Onlooker


@click.command(epilog=example('pysock cluster send nats://127.0.0.1:4222/prod --to anna "hello"'))
@cluster_arguments
@click.argument("payload", default="-")
@click.option(
    "--to", metavar="CLIENT", show_envvar=True, help="One client: its address, NODE/1.7, or a name: the newest of it."
)
@click.option("--group", metavar="NAME", show_envvar=True, help="The members of a group, on all nodes.")
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    envvar="PYSOCK_CLUSTER_SEND_ALL",
    show_envvar=True,
    help="All clients of all nodes.",
)
def send(
    url: str,
    cluster_name: str | None,
    timeout: float,
    json: bool,
    payload: str,
    to: str | None,
    group: str | None,
    everybody: bool,
) -> None:
    """Push to clients of a cluster, once or not at all. URL is that of its bus; --to, --group or --all says to whom.

    PAYLOAD is what is pushed; "-" or nothing reads it from standard input. The exit code is 1 where there is no such
    client, no member of the group, or no node; what is still on its way to a client then may be lost as ever.
    """
    if (to is not None) + (group is not None) + everybody != 1:
        raise click.UsageError("say to whom: one of --to CLIENT, --group NAME and --all")
    data = standard_input() if payload == "-" else os.fsencode(payload)
    with onlooker(url, cluster_name, timeout) as looker:
        if not looker.nodes:
            raise nobody(looker)
        told = _sent(looker, to, group, data, timeout)
    if json:
        print_json(told)
    else:
        click.echo(told["told"])


def _sent(looker: Onlooker, to: str | None, group: str | None, data: bytes, timeout: float) -> dict[str, Any]:
    if to is not None:
        row = looker.client(to)
        if row is None or not looker.push(row, data, timeout):
            raise click.ClickException(f"no client of cluster {looker.name!r} is {to!r}: see pysock cluster clients")
        return {"to": row.address, "told": f"in the queue of client {row.address}"}
    if group is not None:
        if not looker.to_group(group, data, timeout):
            raise click.ClickException(f"no node of cluster {looker.name!r} has a member of group {group!r}")
        return {"group": group, "told": f"told the nodes that have members of group {group!r}"}
    if not looker.to_all(data, timeout):
        raise nobody(looker)
    return {"all": True, "told": f"told all {len(looker.nodes)} nodes"}
