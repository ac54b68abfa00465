"""The page that the workers of one service share: a row for each, with how many clients it has and when it last turned.

This file owns the layout, which is that of ``ps_seat`` in ``csrc/pysock_abi.h``. Each worker's loop writes its own row;
anybody may read all of them at any time, also that of a worker that hangs or has died.
"""

from __future__ import annotations

import struct

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Final

#: turned_ns, clients, open, awake.
_ROW: Final = struct.Struct("=QIII44x")
SEAT_BYTES: Final = _ROW.size


class _Mine:
    """Which worker this process is: number 0 of 1 where nobody has said otherwise.

    :ivar worker: its number; one that takes its place has the same.
    :ivar workers: how many there are.
    """

    def __init__(self) -> None:
        self.worker: int = 0
        self.workers: int = 1


#: Known before the program is imported.
mine: _Mine = _Mine()


class Seat(NamedTuple):
    """Which row is an engine's.

    :param page: writable memory, shared with the others: ``mmap.mmap``, say.
    :param rows: so many are in it.
    :param mine: this engine's.
    """

    page: Any
    rows: int
    mine: int


class SeatRow(NamedTuple):
    """What a row says.

    :param turned_ns: when its loop last began a turn, by CLOCK_MONOTONIC; there is one at least every second.
    :param clients: connected ones, and those that wait to be let in.
    :param open: it accepts.
    :param awake: it is in a turn.
    """

    turned_ns: int
    clients: int
    open: bool
    awake: bool


def read_seat(page: Any, number: int) -> SeatRow:
    """Return one as it is."""
    turned_ns, clients, is_open, awake = _ROW.unpack_from(page, number * SEAT_BYTES)
    return SeatRow(turned_ns, clients, bool(is_open), bool(awake))


def clear_seat(page: Any, number: int) -> None:
    """Nobody sits there any more."""
    _ROW.pack_into(page, number * SEAT_BYTES, 0, 0, 0, 0)
