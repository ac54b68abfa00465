"""What may have happened in a directory."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

    from pysock.cluster.directory.node import Node
    from pysock.cluster.directory.words import ClusterState, NodeChange


class NodeEvent(NamedTuple):
    """Something has become of a node."""

    node: Node
    change: NodeChange


class StateEvent(NamedTuple):
    """The state is another one."""

    old: ClusterState
    new: ClusterState


class Replaced(NamedTuple):
    """A client of this node has to go, since another one has its name."""

    client_id: int


class Deaf(NamedTuple):
    """The node doesn't hear itself: the bus has to connect again."""


if TYPE_CHECKING:
    Event: TypeAlias = NodeEvent | StateEvent | Replaced | Deaf
