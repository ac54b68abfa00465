"""The client table: rows by client id, who was let in, and names.

A client id is ``generation << 32 | loop << SLOT_BITS | slot``, and the loop's number is 0: a slot is used again under
the next generation, so an id that is out of date finds nobody. The loop's thread alone changes the table, under
``lock`` where other threads look at more than one thing.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from time import time

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.contract import SLOT_BITS

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.door.proxied import Via
    from pysock.engine.rows import ClientInfo
    from pysock.states import DisconnectReason

_GENERATIONS: Final = 2**32 - 1
#: Clients that went are remembered, the last ones.
GONE_MAX: Final = 1000
_SLOT: Final = (1 << SLOT_BITS) - 1


class Leaver:
    """A client that went. Its row is made where somebody looks, until it loses that one."""

    __slots__ = ("at", "connection", "reason", "row")

    def __init__(self, connection: Connection, reason: DisconnectReason) -> None:
        self.connection: Connection | None = connection
        self.row: ClientInfo | None = None  # in its place, of its last moment
        self.reason: DisconnectReason = reason
        self.at: float = time()


class Rows(Unique):
    """All connections of one engine."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler may ask while its own thread is inside.
        self.lock: threading.RLock = threading.RLock()
        self.rows: dict[int, Connection] = {}
        self.clients: dict[int, Connection] = {}  # of the rows, those that were let in, oldest first
        self.gone: deque[Leaver] = deque(maxlen=GONE_MAX)  # the last that were let in and went
        self.vias: dict[int, Via] = {}  # of the rows, those that came through a proxy
        self._names: dict[str, dict[int, None]] = {}
        self._generations: list[int] = []  # by slot
        self._free: list[int] = []
        self._kept: set[int] = set()  # slots for those that come from another process
        self._first: int = 0  # generation, behind which each slot begins
        self.coming: int = 0  # the id of the next row, if it isn't a new one

    def add(self, connection: Connection) -> int:
        """Make a row; the new client id."""
        with self.lock:
            if self.coming:
                return self._add_old(connection)
            if self._free:
                slot = self._free.pop()
                self._generations[slot] = self._generations[slot] % _GENERATIONS + 1
            else:
                slot = len(self._generations)
                if slot >> SLOT_BITS:
                    raise MemoryError
                self._generations.append(self._first % _GENERATIONS + 1)
            client_id = self._generations[slot] << 32 | slot
            self.rows[client_id] = connection
            return client_id

    def _add_old(self, connection: Connection) -> int:
        client_id, self.coming = self.coming, 0
        slot = client_id & _SLOT
        self._make_slots(slot + 1)
        self._kept.discard(slot)
        self._generations[slot] = client_id >> 32
        self.rows[client_id] = connection
        return client_id

    def may_add(self, client_id: int) -> bool:
        """Whether it is an id of this loop, whose slot nobody has or had."""
        slot = client_id & _SLOT
        is_ours = client_id & 0xFFFFFFFF == slot and client_id >> 32
        return bool(is_ours) and (slot >= len(self._generations) or slot in self._kept)

    def places(self) -> tuple[int, int]:
        """How many slots were used, and the highest generation of one."""
        return len(self._generations), max(self._generations, default=0)

    def reserve(self, slots: int, generation: int) -> None:
        """Keep the first slots for those that come from another process; 0: no more do."""
        with self.lock:
            if slots:
                self._first = generation
                self._make_slots(slots)
            else:
                self._free += sorted(self._kept, reverse=True)
                self._kept.clear()

    def _make_slots(self, slots: int) -> None:
        new = range(len(self._generations), slots)
        self._generations += [self._first] * len(new)
        self._kept.update(new)

    def let_in(self, client_id: int, connection: Connection, name: str) -> None:
        """It is a client from now on."""
        with self.lock:
            self.clients[client_id] = connection
            if name:
                self._names.setdefault(name, {})[client_id] = None

    def leave(self, connection: Connection, name: str, reason: DisconnectReason) -> None:
        """It isn't a client any more, but one that went; the row stays, so that the disconnect callback can look at it.
        The lock is held.
        """
        client_id = connection.client_id
        if self.clients.pop(client_id, None) is None:
            return
        with suppress(MemoryError):  # it isn't worth more
            connection.leaver = Leaver(connection, reason)
            self.gone.append(connection.leaver)
        if name:
            self._forget_name(client_id, name)

    def move_away(self, client_id: int, name: str) -> None:
        """It is another process's, and its row is free. The lock is held."""
        if self.clients.pop(client_id, None) is not None and name:
            self._forget_name(client_id, name)
        self.remove(client_id)

    def _forget_name(self, client_id: int, name: str) -> None:
        ids = self._names[name]
        del ids[client_id]
        if not ids:
            del self._names[name]

    def remove(self, client_id: int) -> None:
        """Free the row."""
        with self.lock:
            self.rows.pop(client_id, None)  # in a child where a disconnect hook forked it is gone
            self.vias.pop(client_id, None)
            self._free.append(client_id & _SLOT)

    def abandon(self) -> list[Connection]:
        """In a forked child: empty it; who was in it. Who has the lock may not be here."""
        self.lock = threading.RLock()
        rows = list(self.rows.values())
        for part in (self.rows, self.clients, self.vias, self._names):
            part.clear()
        return rows

    def find(self, name: str) -> int | None:
        """Who came last under this name."""
        with self.lock:
            ids = self._names.get(name)
            return next(reversed(ids)) if ids else None
