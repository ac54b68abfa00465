"""Groups: clients that a server has put together under a name, so that something can be sent to all of them.

Both engines know clients, and no groups: this file owns who is in which. A client is in it from ``join()`` until
``leave()``, or until its connection ends; the engine is given the ids of a group as one block of memory, kept until
somebody joins or leaves.

Threads: any thread may join, leave, look and send. All is under one lock, never while the engine is called; it is
re-entrant, since a signal handler may ask while its own thread is inside.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator

from pysock.base.aliases import Ids
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost, ParameterError

if TYPE_CHECKING:
    from typing import Final

    from pysock.base import kinds
    from pysock.data import DataSocket

#: Names of groups that nobody is in any more, and that are still known. The oldest are forgotten first.
EMPTY_MAX: Final = 1000
#: Clients that went, whose groups are remembered: as many as engines remember.
LEFT_MAX: Final = 1000


class _Members:
    """Of one group, in the order in which they joined."""

    __slots__ = ("clients", "ids")

    def __init__(self) -> None:
        self.clients: dict[int, DataSocket] = {}
        self.ids: Ids | None = b""  # None: to be made anew


class Groups(Unique):
    """All groups of one server."""

    __slots__ = ("_empty", "_groups", "_left", "_lock", "_of", "watch")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._groups: dict[str, _Members] = {}
        self._empty: dict[str, None] = {}  # of them, those that nobody is in: who has left first is first
        self._of: dict[int, dict[str, None]] = {}  # by client id
        #: Told when somebody is in a group where nobody was, or the last one has left it. Under the lock.
        self.watch: Callable[[str], object] | None = None
        self._left: dict[int, tuple[str, ...]] = {}  # likewise, of those whose connection has ended: the last ones

    def join(self, client: DataSocket, name: str, is_gone: Callable[[], bool]) -> None:
        """Put a client into a group, if it isn't in it.

        :param is_gone: whether ``leave_all`` has been called for it, or is being called.
        :raises ConnectionLost: it has, and so it would never leave.
        """
        with self._lock:
            if is_gone():
                raise ConnectionLost(f"client {shown(client.id)} isn't connected any more: it can't join {name!r}")
            members = self._groups.setdefault(name, _Members())
            self._empty.pop(name, None)
            if members.clients.setdefault(client.id, client) is client:
                members.ids = None
            self._of.setdefault(client.id, {})[name] = None
            if self.watch is not None and len(members.clients) == 1:
                self.watch(name)

    def leave(self, client: DataSocket, name: str) -> None:
        """Take a client out of a group, if it is in it."""
        with self._lock:
            names = self._of.get(client.id, {})
            if name not in names:
                return
            del names[name]
            if not names:
                del self._of[client.id]
            self._take(client.id, name)

    def _take(self, client_id: int, name: str) -> None:
        members = self._groups[name]
        del members.clients[client_id]
        members.ids = None
        if not members.clients:
            self._empty[name] = None
            if self.watch is not None:
                self.watch(name)
            if len(self._empty) > EMPTY_MAX:
                forgotten = next(iter(self._empty))
                del self._empty[forgotten], self._groups[forgotten]

    def leave_all(self, client_id: int) -> tuple[str, ...]:
        """Its connection has ended: take it out of all its groups, and return which they were."""
        with self._lock:
            names = tuple(self._of.pop(client_id, ()))
            for name in names:
                self._take(client_id, name)
            if names:
                self._left[client_id] = names
                if len(self._left) > LEFT_MAX:
                    del self._left[next(iter(self._left))]
            return names

    def of_all(self) -> dict[int, tuple[str, ...]]:
        """Of all who are in any: the groups of each."""
        with self._lock:
            return {client_id: tuple(names) for client_id, names in self._of.items()}

    def of_left(self, client_id: int) -> tuple[str, ...]:
        """The groups that one was in whose connection has ended, as far as that is remembered; or is in, if nobody has
        been told yet that it has.
        """
        with self._lock:
            return self._left.get(client_id) or tuple(self._of.get(client_id, ()))

    def of(self, client_id: int) -> tuple[str, ...]:
        """The groups that a client is in, in the order in which it joined them."""
        with self._lock:
            return tuple(self._of.get(client_id, ()))

    def is_known(self, name: str) -> bool:
        """Whether somebody is in this group, or was, of the last :data:`EMPTY_MAX` that became empty."""
        with self._lock:
            return name in self._groups

    def clients(self, name: str) -> dict[int, DataSocket]:
        """Who is in it now."""
        with self._lock:
            members = self._groups.get(name)
            return {} if members is None else dict(members.clients)

    def count(self, name: str) -> int:
        """How many are in it now."""
        with self._lock:
            members = self._groups.get(name)
            return 0 if members is None else len(members.clients)

    def has(self, name: str, client: object) -> bool:
        """Whether this one is in it now."""
        with self._lock:
            members = self._groups.get(name)
            return members is not None and members.clients.get(getattr(client, "id", -1)) is client

    def ids(self, name: str) -> Ids:
        """Their ids, as an engine takes them."""
        with self._lock:
            members = self._groups.get(name)
            if members is None:
                return b""
            if members.ids is None:
                members.ids = array("Q", members.clients).tobytes()
            return members.ids


class Table(Protocol):
    """The table that the clients of the groups are in."""

    groups: Groups

    def broadcast(self, payload: kinds.Buffer, *, where: kinds.Where | None, but: DataSocket | None) -> int:
        """Send a payload to those that are meant; return to how many."""


class Group:
    """The clients of a server that are in the group of this name. It is alive; made by ``server.clients.group()``.

    :ivar name: its name.
    """

    __slots__ = ("_table", "name")

    def __init__(self, name: str, table: Table) -> None:
        self.name: str = name
        self._table: Table = table

    def send(self, payload: kinds.Buffer, *, but: DataSocket | None = None) -> int:
        """Send ``payload`` to every client in it that takes so much, as :meth:`ClientTable.broadcast` does to all.

        :param but: this one doesn't get it.
        :return: how many it reached; 0 where nobody is in it. In another thread than the loop's these are the clients
            of this moment: one may go before its turn comes.
        """
        return self._table.broadcast(payload, where={"group": self.name}, but=but)

    def __len__(self) -> int:
        return self._table.groups.count(self.name)

    def __iter__(self) -> Iterator[DataSocket]:
        """The clients of this moment, in the order in which they joined."""
        return iter(self._table.groups.clients(self.name).values())

    def __contains__(self, client: object) -> bool:
        return self._table.groups.has(self.name, client)

    def __repr__(self) -> str:
        return f"<Group {self.name!r} of {len(self)}>"


def checked_name(name: object) -> str:
    """Return it: the name of a group.

    :raises TypeError: it is no text.
    :raises ValueError: it is empty.
    """
    if not isinstance(name, str):
        raise TypeError(f"a group's name is a str, not {name!r}")
    if not name:
        raise ParameterError("group", "must not be empty", name="a group's name")
    return name
