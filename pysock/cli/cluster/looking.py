"""What the commands to a cluster share: they look at it by its bus, as nobody's node.

This file owns their common options, and how nodes and clients are told as JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pysock.cli.clustered import as_options
from pysock.cli.options import timeout_option
from pysock.cluster.url import parted
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from pysock.cluster.directory.events import Event
    from pysock.cluster.observing import Onlooker
    from pysock.cluster.view import ClusterClient, ClusterNode

F = TypeVar("F", bound=Callable[..., Any])


def check_url(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """It stays text. What is wrong with the bus is said where it is used."""
    if value.startswith("cluster+"):
        raise click.UsageError(f"URL is that of the bus, as the nodes have it: {value.removeprefix('cluster+')}")
    try:
        parted(value)
    except ParameterError as error:
        raise click.UsageError(f"the name of the cluster, which URL ends with, {error.problem}") from None
    return value


def cluster_arguments(function: F) -> F:
    """Add the URL, ``--cluster-name``, ``--timeout`` and ``--json``."""
    function = click.option("--json", is_flag=True, show_envvar=True, help="Print the answer as JSON.")(function)
    function = timeout_option(function)
    words = "The cluster's, where the URL hasn't one.  [default: default]"
    function = click.option("--cluster-name", metavar="NAME", show_envvar=True, help=words)(function)
    return click.argument("url", metavar="URL", callback=check_url)(function)


@contextmanager
def onlooker(
    url: str, name: str | None, timeout: float, happened: Callable[[Event], None] = lambda _: None
) -> Iterator[Onlooker]:
    """One that knows all."""
    from pysock.cluster.observing import Onlooker  # noqa: PLC0415  # other commands don't pay for it

    logging.getLogger("pysock").addHandler(logging.NullHandler())  # what the bus logs is an error here, or an event
    with as_options("URL"), Onlooker(url, name, happened) as made:
        made.look(timeout)
        yield made


def nobody(looker: Onlooker) -> click.ClickException:
    """What is said where there is no node."""
    text = f"the bus {looker.bus.where} is there, but nobody there is a node of cluster {looker.name!r}"
    return click.ClickException(f"{text}: start one, or correct the name")


def node_as_json(node: ClusterNode) -> dict[str, Any]:
    """One node."""
    told = node._asdict()
    del told["is_local"]
    return {**told, "epoch": f"{node.epoch:016x}"}


def client_as_json(client: ClusterClient) -> dict[str, Any]:
    """One client."""
    return {
        "address": client.address,
        "name": client.name,
        "node": client.node,
        "connected_at": client.connected_at,
        "stale": client.stale,
    }
