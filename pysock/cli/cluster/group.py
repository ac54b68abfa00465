"""The group of the commands to a cluster."""

from __future__ import annotations

import click

from pysock.cli.cluster.check import check
from pysock.cli.cluster.clients import clients
from pysock.cli.cluster.nodes import nodes
from pysock.cli.cluster.send import send
from pysock.cli.cluster.watch import watch
from pysock.cli.options import example


@click.group(epilog=example("pysock cluster nodes local:shop"))
def cluster() -> None:
    """Look at a cluster, and reach its clients, by its bus.

    URL is that of the bus, with the cluster's name behind it: local:BUS/NAME, nats://HOST:4222/NAME, or
    redis://HOST:6379/NAME.
    """


for _command in (nodes, clients, send, watch, check):
    cluster.add_command(_command)
