"""An address that is no server's, but a cluster's: ``cluster+nats://HOST:4222/NAME``. Where its nodes are is asked of
the bus that joins them.

The cluster stands above the clients, which know only this of it.
"""

from __future__ import annotations

from importlib import import_module

from pysock.base.lean import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.wire.nodes import NodeRow

#: How such an address begins.
CLUSTER: Final = "cluster+"


class Finder(Protocol):
    """Of one cluster."""

    def find(self, seconds: float | None) -> tuple[NodeRow, ...]:
        """Ask where the nodes are, within so many seconds. It waits.

        :raises BusDown: the bus isn't there, or doesn't let this program in.
        :raises ConnectionRefusedError: no node is there.
        :raises RequestTimeout: nobody has answered in time.
        """


def is_cluster(address: object) -> bool:
    """Whether it names one."""
    return isinstance(address, str) and address[: len(CLUSTER)].lower() == CLUSTER


def finder_of(url: str) -> Finder:
    """The finder that such an address means.

    :raises ValueError: the URL is wrong.
    :raises ImportError: what the bus needs isn't installed; the message says how to install it.
    """
    finding: Any = import_module("pysock.cluster.finding")
    made: Finder = finding.BusFinder(url[len(CLUSTER) :])
    return made
