"""The part of the pure engine by which clients move: :class:`pysock.engine.moving.Moving`."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.contract import SLOT_BITS
from pysock.engine.pure.moving import holding
from pysock.engine.pure.moving.packing import check, make, row_of
from pysock.engine.pure.output import ASLEEP, HELD, PACKED
from pysock.handover.rows import Row, decode_rows, encode_rows
from pysock.states import ConnectionState

if TYPE_CHECKING:
    from pysock.engine.pure.accept import Masters
    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core


class MovingEngine(Unique):
    """What ``PureEngine`` has of it."""

    _core: Core
    _masters: Masters

    # --- the old side ---

    def freeze(self) -> None:
        self._masters.freeze()

    def hold(self, but: Sequence[int] = ()) -> list[int]:
        return holding.hold(self._core, frozenset(but))

    def pack(self, ids: Sequence[int]) -> tuple[bytes, list[int]]:
        packed = [one for one in self._these(ids) if one.moving in {HELD, PACKED}]
        rows = encode_rows(map(row_of, packed))
        for connection in packed:
            connection.moving = PACKED
        return rows, [connection.fd for connection in packed]

    def discard(self, ids: Sequence[int]) -> None:
        gone = [one for one in self._these(ids) if one.moving >= PACKED]
        asleep = sum(one.moving == ASLEEP for one in gone)
        holding.discard(self._core, gone)
        self._core.moved_out += len(gone) - asleep
        self._core.moved_in -= asleep

    def moved(self) -> tuple[int, int]:
        return self._core.moved_in, self._core.moved_out

    def thaw(self) -> None:
        holding.thaw(self._core)
        self._masters.thaw()

    def dismiss(self, ids: Sequence[int] = ()) -> None:
        holding.dismiss(self._core, frozenset(ids))

    def hurry(self) -> None:
        holding.hurry(self._core)

    def places(self) -> tuple[int, int]:
        return self._core.table.places()

    def stand_aside(self) -> None:
        """The server stops."""
        holding.stand_aside(self._core)

    def set_aside(self) -> None:
        """The loop ends."""
        holding.set_aside(self._core)

    def here(self) -> list[Connection]:
        """All but those that may be another's by now."""
        return [one for one in self._core.table.rows.values() if one.moving < PACKED]

    def _these(self, ids: Sequence[int]) -> list[Connection]:
        found = (self._core.table.rows.get(client_id) for client_id in ids)
        return [one for one in found if one is not None and one.protocol.state is not ConnectionState.CLOSED]

    # --- the new side ---

    def reserve(self, slots: int, generation: int = 0) -> None:
        if slots >> SLOT_BITS:
            raise OSError(errno.ENOSPC, f"the client table has no {slots} slots")
        self._core.table.reserve(slots, generation)

    def add(self, rows: bytes, descriptors: Sequence[int]) -> list[int]:
        core, listeners = self._core, self._masters.listeners()
        coming = decode_rows(rows)
        if len(coming) > len(descriptors):
            raise ValueError(f"row {len(descriptors)}: there is no descriptor for it")
        if len(coming) < len(descriptors):
            raise ValueError(f"{len(descriptors)} descriptors came with {len(coming)} rows")
        ids: set[int] = set()
        for number, row in enumerate(coming):
            try:
                check(row, core, listeners, ids)
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from None
            ids.add(row.client_id)
        return self._add(coming, descriptors)

    def _add(self, rows: Sequence[Row], descriptors: Sequence[int]) -> list[int]:
        added: list[Connection] = []
        sockets: list[socket.socket] = []
        now = monotonic()
        try:
            for row, fd in zip(rows, descriptors, strict=True):
                sockets.append(socket.socket(fileno=fd))
                listener = self._masters.listeners()[row.listener]
                added.append(make(self._core, sockets[-1], listener, row, now))
                holding.count(added[-1], -1)
        except BaseException:
            for sock in sockets:
                sock.detach()
            holding.discard(self._core, added)
            raise
        self._core.moved_in += len(added)
        return [connection.client_id for connection in added]

    def activate(self) -> None:
        holding.wake(self._core, frozenset((ASLEEP,)))
