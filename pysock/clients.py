"""ClientTable: the server's database of connected clients, keyed by client id.

The engine owns the rows. This file owns the objects, each a :class:`ServedSocket`: at most one for a client, made when
a handler or the program first asks for it, dropped when the client goes. An idle client costs no Python object.

Threads: any thread may look into the table while the loop runs. There is no lock here; single operations on a dict
are atomic, and :meth:`ClientTable._find` is written for clients that go between two of its lines.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView

from pysock.address import Address
from pysock.base.aliases import Ids
from pysock.base.ids import read, shown
from pysock.base.lean import TYPE_CHECKING, cast
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.data import NO_ROW, DataSocket
from pysock.directory.groups import Group, Groups, checked_name
from pysock.directory.rows import ClientRow, LeftClient, Snapshot, left_of, row_of
from pysock.directory.selection import EVERYBODY, Selection, checked_selection, selection_of
from pysock.engine.contract import Engine
from pysock.engine.rows import ClientInfo, Gone
from pysock.errors import ConnectionLost, ParameterError
from pysock.states import ConnectionState

if TYPE_CHECKING:
    from typing import Any

    from pysock.asking.asking import Asking
    from pysock.asking.asks import Asks
    from pysock.base import kinds
    from pysock.directory.nodes import Advertised
    from pysock.tls.info import TLSInfo


class ServedSocket(DataSocket):
    """A client of a server. Made by the client table only."""

    __slots__ = ("_groups", "_last", "_table", "_tls", "asks", "is_closing")

    def __init__(self, client_id: int, table: ClientTable) -> None:
        super().__init__(client_id)
        self._table = table
        self._last: ClientInfo | None = None
        self._groups: tuple[str, ...] = ()  # that it was in
        self._tls: TLSInfo | None = None  # once it was asked for, or the client has gone
        self.asks: Asks | None = None  # what it was asked, once it was
        self.is_closing: bool = False  # it is to have all its answers, and then to go

    def _row(self) -> ClientInfo:
        if self._last is None:
            row = self._table.engine_info(self.id)
            if row is not None:
                return row
        # It went between the two looks, or before anything could be noted of it.
        return self._last or NO_ROW._replace(client_id=self.id)

    def _reached(self, row: ClientInfo) -> str:
        return self._table.master_address(row.master)

    def gone(self, row: ClientInfo | None) -> None:
        """Keep the last figures: from now on the engine knows nothing of this client."""
        if self._table.speaks_tls:
            self._tls = self.tls
        self._last = (row or self._row())._replace(state=ConnectionState.CLOSED, fd=-1)
        self._groups = self._table.groups.leave_all(self.id)
        if self.asks is not None:
            self.asks.end(f"client {shown(self.id)} has gone without an answer")

    @property
    def tls(self) -> TLSInfo | None:
        """See :attr:`DataSocket.tls`."""
        if self._tls is None and self._last is None:
            self._tls = self._table.tls_of(self.id)
        return self._tls

    @property
    def is_proxied(self) -> bool:
        """Whether it has come where only proxies do."""
        return self._table.is_proxied(self._row().master)

    @property
    def is_gone(self) -> bool:
        """Whether the engine knows nothing of it any more."""
        return self._last is not None

    def request(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = 10.0) -> Any:
        """See :meth:`DataSocket.request`."""
        return self._table.asking.ask(self, payload, service, timeout)

    def send(self, payload: kinds.Buffer) -> None:
        """See :meth:`DataSocket.send`."""
        if not self._table.push(self.id, payload):
            raise ConnectionLost(f"client {shown(self.id)} isn't connected any more")

    def close(self) -> None:
        """See :meth:`DataSocket.close`."""
        if self.asks is not None:  # first: else the loop may be faster, and have other words
            self.asks.end(f"the connection of client {shown(self.id)} was closed before it had answered")
        self._table.let_go(self)
        self._table.disconnect(self.id)

    def join(self, group: str) -> None:
        """See :meth:`DataSocket.join`."""
        self._table.groups.join(self, checked_name(group), lambda: self._last is not None)

    def leave(self, group: str) -> None:
        """See :meth:`DataSocket.leave`."""
        self._table.groups.leave(self, checked_name(group))

    @property
    def groups(self) -> tuple[str, ...]:
        """See :attr:`DataSocket.groups`."""
        return self._groups or self._table.groups.of(self.id)


class ClientTable(Unique, Mapping[int, DataSocket]):
    """The clients that were let in and are connected, oldest first: ``id -> DataSocket``.

    It is alive: it changes while the server runs. Iterating goes over the ids of the moment it began, and
    ``values()`` and ``items()`` leave out those who have gone since.
    """

    __slots__ = ("_addresses", "_engine", "_limit", "_sockets", "asking", "groups", "nodes", "speaks_tls")

    def __init__(self, max_payload: int) -> None:
        self._limit = max_payload
        self._engine: Engine | None = None
        self._addresses: Sequence[Address] = ()
        self._sockets: dict[int, ServedSocket] = {}
        self.groups: Groups = Groups()
        self.asking: Asking
        self.speaks_tls: bool = False
        self.nodes: Advertised | None = None  # the service that tells of them, if there is one

    def by_name(self, name: str) -> DataSocket:
        """Return the client that connected last under this name.

        :raises KeyError: no client has it.
        """
        # A client may go between being found and being looked up; then an older one may have the same name.
        while self._engine is not None and (client_id := self._engine.find(name)) is not None:
            found = self._find(client_id)
            if found is not None:
                return found
        raise KeyError(name)

    def group(self, name: str) -> Group:
        """Return the group of this name, into which clients were put by :meth:`DataSocket.join`.

        :raises KeyError: nobody is in it, nor has been, as far as this is known: of groups that became empty the last
            1,000 are. A :class:`Group` that you have may be empty, and nobody gets what it sends then.
        """
        if not self.groups.is_known(checked_name(name)):
            raise KeyError(f"nobody is in a group {name!r}, nor has been: a client is put into it by join({name!r})")
        return Group(name, self)

    def broadcast(
        self, payload: kinds.Buffer, *, where: kinds.Where | None = None, but: DataSocket | None = None
    ) -> int:
        """Send ``payload`` to every client that takes so much, as :meth:`DataSocket.send` does; return to how many.

        In another thread than the loop's these are the clients of this moment: one may go before its turn comes.

        :param where: only to those of whom all of this is true: ``{"uid": 1000, "name": "sensor-*", "group": "red"}``.
            The uid is that of the process at the other end of a Unix socket; in the pattern ``*`` is any text, ``?``
            any character, ``[0-9]`` one of these and ``[!0-9]`` none of them.
        :param but: this one doesn't get it.
        :raises FrameTooLarge: the payload is over ``Limits.max_payload``.
        :raises OSError: ``ENOBUFS``: as with :meth:`DataSocket.send`; then nobody gets it.
        :raises TypeError: the payload isn't bytes-like; or ``where`` or ``but`` isn't what is said here.
        :raises ValueError: there is no such field; or ``but`` is a client of another server.
        """
        payload = checked(payload, self._limit, "Limits.max_payload")
        wanted, other = selection_of(where), self._id_of(but)
        if self._engine is None:
            return 0
        if wanted == EVERYBODY and not other:
            return self._engine.broadcast(payload)
        among = None if wanted.group is None else self.groups.ids(wanted.group)
        if among is None or other or wanted.uid is not None or wanted.name is not None:
            among = self._engine.select(wanted.uid, wanted.name, among, other)
        return self._engine.push_to(among, payload)

    def snapshot(self, *, uid: int | None = None, name: str | None = None, group: str | None = None) -> Snapshot:
        """Who is connected now, oldest first, and what each has done and waits for: rows that don't change any more.

        :param uid: only those whose process, at the other end of a Unix socket, is this user's; and so on, as
            :meth:`where` has it.
        """
        wanted = self._selected(uid, name, group)
        engine, groups = self._engine, self.groups.of_all()
        return Snapshot([] if engine is None else engine.rows(wanted), groups, self.master_address)

    def where(self, *, uid: int | None = None, name: str | None = None, group: str | None = None) -> list[DataSocket]:
        """The clients of this moment of whom all that is given is true.

        :param uid: of the process at the other end of a Unix socket.
        :param name: a pattern for the client's name, in which ``*`` is any text, ``?`` any character, ``[0-9]`` one of
            these and ``[!0-9]`` none of them.
        :param group: that it is in.
        :raises TypeError: one of them is of another type.
        :raises ValueError: there can be no such user, or group.
        """
        wanted = self._selected(uid, name, group)
        ids = self if wanted is None else array("Q", wanted)
        return [found for one in ids if (found := self._find(one)) is not None]

    def left(self) -> list[LeftClient]:
        """The last 1,000 that were let in and went, each as it was in its last moment; who went last is last."""
        gone = () if self._engine is None else self._engine.gone()
        return [left_of(one, self.groups.of_left(one.row.client_id), self.master_address) for one in gone]

    def _selected(self, uid: int | None, name: str | None, group: str | None) -> Ids | None:
        """The ids of those who are meant; ``None``: all."""
        wanted = checked_selection(Selection(uid, name, group))
        if self._engine is None or wanted == EVERYBODY:
            return None
        among = None if group is None else self.groups.ids(group)
        return self._engine.select(uid, name, among, 0)

    def _id_of(self, client: DataSocket | None) -> int:
        if client is None:
            return 0
        if not isinstance(client, DataSocket):
            raise TypeError(f"but= takes a client, a DataSocket, not {client!r}")
        if not isinstance(client, ServedSocket) or client._table is not self:
            raise ParameterError("but", f"must be a client of this server, not {client!r}", name="but=")
        return client.id

    def __getitem__(self, client_id: int | str) -> DataSocket:
        """The client with this id: a number, or the text that people get to read, ``"1.7"``."""
        found = self._find(_number(client_id))
        if found is None:
            raise KeyError(client_id)
        return found

    def __iter__(self) -> Iterator[int]:
        return iter([] if self._engine is None else self._engine.client_ids())

    def __len__(self) -> int:
        return 0 if self._engine is None else self._engine.client_count()

    def __contains__(self, client_id: object) -> bool:
        number = _number(client_id)
        return self._engine is not None and _is_id(number) and self._engine.attach(number)  # type: ignore[arg-type]

    def values(self) -> ValuesView[DataSocket]:
        """The data sockets; those who go meanwhile are left out."""
        return _Values(self)

    def items(self) -> ItemsView[int, DataSocket]:
        """Pairs of id and data socket; those who go meanwhile are left out."""
        return _Items(self)

    def __repr__(self) -> str:
        return f"<ClientTable of {len(self)}>"

    # For the server and its data sockets; not public.

    def serve(self, engine: Engine, addresses: Sequence[Address]) -> None:
        """From now on this is the table of ``engine``, whose master sockets have these addresses."""
        self._engine = engine
        self._addresses = addresses

    def abandon(self, elsewhere: Engine) -> None:
        """In a forked child: whatever is asked, this raises. Who has the groups' lock may not be here."""
        self._engine, self.groups = elsewhere, cast(Groups, elsewhere)
        if self.nodes is not None:
            self.nodes.abandon()

    def obtain(self, client_id: int) -> ServedSocket:
        """In the loop's thread: the object of a client that is known to be connected, also of one not let in yet."""
        found = self._sockets.get(client_id)
        return found or self._sockets.setdefault(client_id, ServedSocket(client_id, self))

    def forget(self, client_id: int) -> ServedSocket | None:
        """In the loop's thread, when a client goes: drop its object, which keeps the last figures."""
        found = self._sockets.pop(client_id, None)
        if found is not None:
            found.gone(self.engine_info(client_id))
        return found

    def known(self, client_id: int) -> ServedSocket | None:
        """The object of a client, if it has one."""
        return self._sockets.get(client_id)

    def all_known(self) -> list[ServedSocket]:
        """All that there are."""
        return list(self._sockets.values())

    def drop(self, client_id: int) -> None:
        """As ``forget``, for an object that nobody else has: its last figures are of no use."""
        self._sockets.pop(client_id, None)

    def engine_info(self, client_id: int) -> ClientInfo | None:
        """The engine's row of a client."""
        return None if self._engine is None else self._engine.info(client_id)

    def tls_of(self, client_id: int) -> TLSInfo | None:
        """What came of a client's handshake."""
        return None if self._engine is None else self._engine.tls_of(client_id)

    def came_by_tls(self, client_id: int) -> bool:
        """Whether it came through a master socket at which TLS is spoken."""
        row = self.engine_info(client_id)
        return row is not None and self._addresses[row.master].transport == "tls"

    def row(self, client_id: int) -> ClientRow | None:
        """One row, as a snapshot has it."""
        info = self.engine_info(client_id)
        return None if info is None else row_of(info, self.groups.of(client_id), self.master_address)

    def left_row(self, client: ServedSocket, reason: int) -> LeftClient:
        """Of one that went just now: as ``left`` will have it."""
        return left_of(Gone(client._row(), reason, time.time()), client.groups, self.master_address)

    def master_address(self, index: int) -> str:
        """The address of the master socket with this index, without its options."""
        return self._addresses[index].bare() if 0 <= index < len(self._addresses) else ""

    def is_proxied(self, index: int) -> bool:
        """Whether clients come through proxies to the master socket with this index."""
        return 0 <= index < len(self._addresses) and self._addresses[index].proxy is not None

    def push(self, client_id: int, payload: kinds.Buffer) -> bool:
        """Check the payload and give it to the engine; ``False`` if the client is gone."""
        payload = checked(payload, self._limit, "Limits.max_payload")
        return self._engine is not None and self._engine.push(client_id, payload)

    def ask_no_more(self) -> None:
        """The server goes: nobody is waited for, and nobody waits for news of it."""
        if self.nodes is not None:
            self.nodes.drain()
        self.asking.end(self.all_known(), "the server stops, and reads nothing more")

    def lame(self, lame: bool) -> None:
        """New clients are to go to other servers, or are welcome again."""
        if self.nodes is not None:
            self.nodes.lame(lame)

    def let_go(self, client: ServedSocket) -> None:
        """It is to be closed in order: what waits for something new is answered, else it would keep it open."""
        client.is_closing = True
        if self.nodes is not None:
            self.nodes.release(client.id)

    def disconnect(self, client_id: int) -> None:
        """Close a client's connection in order, if it is still there."""
        if self._engine is not None:
            self._engine.disconnect(client_id)

    def _find(self, client_id: object) -> ServedSocket | None:
        if client_id not in self:
            return None
        assert isinstance(client_id, int)
        found = self._sockets.get(client_id)
        if found is None:
            found = self._sockets.setdefault(client_id, ServedSocket(client_id, self))
            # The client may have gone just before the object was noted, and forget() not have seen it: look again.
            if client_id not in self:
                self.forget(client_id)
                return None
        return found


class _Values(ValuesView[DataSocket]):
    _mapping: ClientTable

    def __iter__(self) -> Iterator[DataSocket]:
        return (found for key in self._mapping if (found := self._mapping._find(key)) is not None)


class _Items(ItemsView[int, DataSocket]):
    _mapping: ClientTable

    def __iter__(self) -> Iterator[tuple[int, DataSocket]]:
        return ((key, found) for key in self._mapping if (found := self._mapping._find(key)) is not None)


def _number(client_id: object) -> object:
    return read(client_id) if isinstance(client_id, str) else client_id


def _is_id(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 64
