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

    def add(self, connection: Connection) -> int:
        """Make a row; the new client id."""
        with self.lock:
            if self._free:
                slot = self._free.pop()
                self._generations[slot] = self._generations[slot] % _GENERATIONS + 1
            else:
                slot = len(self._generations)
                if slot >> SLOT_BITS:
                    raise MemoryError
                self._generations.append(1)
            client_id = self._generations[slot] << 32 | slot
            self.rows[client_id] = connection
            return client_id

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
