"""Who is where, as a program sees it: rows of clients and of nodes, made when somebody looks. No message is needed."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView

from pysock.base.ids import read, shown
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.cluster.directory.rivals import OWN
from pysock.cluster.directory.rows import stamp_of, unpack
from pysock.wire.nodes import NodeState

if TYPE_CHECKING:
    from typing import Final

    from pysock.clients import ClientTable
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.directory.messages import NodeInfo
    from pysock.cluster.directory.node import Node

#: Of names that aren't UTF-8 nothing is lost.
_ERRORS: Final = "surrogateescape"


class ClusterClient(NamedTuple):
    """One client of a cluster, as this node knows it.

    :ivar name: as the client calls itself; it proves nothing.
    :ivar node: the name of the node that it is connected to.
    :ivar id: its number there.
    :ivar connected_at: when it was accepted, in seconds since the epoch, by that node's clock.
    :ivar epoch: by this its node is told from one that had the same name before.
    :ivar is_local: whether that is this node.
    :ivar stale: it isn't known whether it is still there: the bus is down, or its node is silent.
    """

    name: str
    node: str
    id: int
    connected_at: float
    epoch: int
    is_local: bool
    stale: bool

    @property
    def address(self) -> str:
        """By what it is found in ``cluster.clients``: ``"NODE/1.7"``."""
        return f"{self.node}/{shown(self.id)}"


class ClusterNode(NamedTuple):
    """One node of a cluster, as this one knows it.

    :ivar name: its name.
    :ivar host: that of its machine.
    :ivar addresses: where clients reach it.
    :ivar clients: how many it has.
    :ivar capacity: how many it takes at most.
    :ivar draining: it wants no new ones.
    :ivar software: ``"pysock/0.1"``.
    :ivar epoch: by this it is told from one that had the same name before.
    :ivar is_local: whether it is this one.
    :ivar suspect: it has been silent for 3 seconds.
    :ivar stale: the bus is down, or was, and it hasn't been heard since.
    """

    name: str
    host: str
    addresses: tuple[str, ...]
    clients: int
    capacity: int
    draining: bool
    software: str
    epoch: int
    is_local: bool
    suspect: bool
    stale: bool


def node_row(info: NodeInfo, epoch: int, clients: int, *, local: bool, suspect: bool, stale: bool) -> ClusterNode:
    """The row of a node."""
    name, host, addresses, capacity, state, software = info
    draining = state != NodeState.SERVING
    return ClusterNode(name, host, addresses, clients, capacity, draining, software, epoch, local, suspect, stale)


class View(Unique):
    """What one node knows.

    :param table: of its own clients, which knows of each at once; the directory does a moment later.
    """

    def __init__(self, directory: Directory, table: ClientTable) -> None:
        self.directory: Directory = directory
        self._table = table

    # Nodes

    def nodes(self) -> list[ClusterNode]:
        """All of them: this one, then the others in the order in which they were heard."""
        own = self.directory
        here = node_row(own.info, own.epoch, len(self._table), local=True, suspect=False, stale=False)
        return [here, *map(other_row, own.nodes.values())]

    def node_of(self, epoch: int) -> Node | None:
        """Another node."""
        return self.directory.nodes.get(epoch)

    # Clients

    def by_name(self, name: str) -> ClusterClient | None:
        """The one that has come last under this name; before all others one that isn't known to be gone."""
        rows = self.directory.names.of(name.encode("utf-8", _ERRORS))
        newest = self._own_by_name(name)
        if newest is not None and newest.id not in self.directory.own.roster.rows:
            return newest  # it came just now
        found = [(not row.stale, stamp_of(packed), row) for packed in rows if (row := self.row(packed)) is not None]
        return max(found)[2] if found else newest

    def all_by_name(self, name: str) -> list[ClusterClient]:
        """All of this name, who came first first."""
        rows = sorted(self.directory.names.of(name.encode("utf-8", _ERRORS)), key=stamp_of)
        found = [row for packed in rows if (row := self.row(packed)) is not None]
        newest = self._own_by_name(name)
        return found if newest is None or newest in found else [*found, newest]

    def _own_by_name(self, name: str) -> ClusterClient | None:
        try:
            client = self._table.by_name(name) if name else None
        except (KeyError, UnicodeEncodeError):
            return None
        if client is None:
            return None
        return self._own(client.id, name, float(int(client.connected_at)))

    def _own(self, client_id: int, name: str, connected_at: float) -> ClusterClient:
        own = self.directory
        return ClusterClient(name, own.info.name, client_id, connected_at, own.epoch, True, False)

    def by_address(self, address: str) -> ClusterClient | None:
        """The one that has this address."""
        node, _, text = address.rpartition("/")
        client_id = read(text)
        if client_id is None:
            return None
        own = self.directory
        if node == own.info.name and (packed := own.own.roster.rows.get(client_id)) is not None:
            return self.row(packed)
        for other in own.nodes.values():
            if other.info.name == node and (packed := other.roster.rows.get(client_id)) is not None:
                return self.row(packed)
        return None

    def row(self, packed: bytes) -> ClusterClient | None:
        """Of a row of the directory; ``None``: its node has gone meanwhile."""
        index, client_id, _, connected_at, name = unpack(packed)
        text = name.decode("utf-8", _ERRORS)
        if index == OWN:
            return self._own(client_id, text, float(connected_at))
        node = self.directory.by_index.get(index)
        if node is None:
            return None
        stale = node.is_stale or node.is_suspect
        return ClusterClient(text, node.info.name, client_id, float(connected_at), node.epoch, False, stale)

    def rows(self) -> Iterator[ClusterClient]:
        """All of them, this node's first."""
        own = self.directory
        for roster in (own.own.roster, *(node.roster for node in own.nodes.values())):
            for packed in roster:
                if (row := self.row(packed)) is not None:
                    yield row

    def count(self) -> int:
        """How many there are."""
        own = self.directory
        return len(own.own.roster) + sum(len(node.roster) for node in own.nodes.values())


def other_row(node: Node) -> ClusterNode:
    """The row of another node."""
    suspect, stale = node.is_suspect, node.is_stale
    return node_row(node.info, node.epoch, len(node.roster), local=False, suspect=suspect, stale=stale)


class ClusterClients(Unique, Mapping[str, ClusterClient]):
    """All clients of a cluster: ``"NODE/1.7" -> ClusterClient``. It is alive, and each look at it costs no message."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __getitem__(self, address: str) -> ClusterClient:
        found = self._view.by_address(address) if isinstance(address, str) else None
        if found is None:
            raise KeyError(address)
        return found

    def __iter__(self) -> Iterator[str]:
        return (row.address for row in self._view.rows())

    def __len__(self) -> int:
        return self._view.count()

    def values(self) -> ValuesView[ClusterClient]:
        """The rows."""
        return _Values(self)

    def items(self) -> ItemsView[str, ClusterClient]:
        """Pairs of address and row."""
        return _Items(self)

    def __repr__(self) -> str:
        return f"<ClusterClients of {len(self)}>"


class _Values(ValuesView[ClusterClient]):
    _mapping: ClusterClients

    def __iter__(self) -> Iterator[ClusterClient]:
        return self._mapping._view.rows()


class _Items(ItemsView[str, ClusterClient]):
    _mapping: ClusterClients

    def __iter__(self) -> Iterator[tuple[str, ClusterClient]]:
        return ((row.address, row) for row in self._mapping._view.rows())
