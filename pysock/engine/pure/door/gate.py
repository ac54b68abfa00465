"""Workers that share a listener, and how clients spread evenly over them. ``csrc/loop/gate.c`` has the same rules, and
says why.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.seats import SEAT_BYTES, Seat, SeatRow, read_seat

if TYPE_CHECKING:
    from typing import Final

#: So many clients more than the fewest are no reason to leave one to others; nor is one in so many of them.
_SLACK: Final = 16
_PART: Final = 8
#: In seconds: the first of several pauses in a row, and the longest.
_PAUSE: Final = 0.005
_PAUSE_MAX: Final = 0.08
#: A worker in a turn that takes so long gets no clients; nor one that has not even slept for so long.
_STUCK_NS: Final = 250_000_000
_GONE_NS: Final = 2_500_000_000

#: Where in a row the numbers are that its worker writes, as 32-bit ones. The first two are one number of 64 bits.
_CLIENTS, _OPEN, _AWAKE = 2, 3, 4
_WORDS: Final = SEAT_BYTES // 4


class Gate(Unique):
    """That of one engine."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._pause = 0.0
        self._words = memoryview(seat.page).cast("B").cast("I")
        self._times = memoryview(seat.page).cast("B").cast("Q")
        self._at = seat.mine * _WORDS

    def open(self, is_open: bool, now: float, clients: int) -> None:
        """It accepts from now on; or not."""
        self.turn(now)
        self.rest(clients)
        self._words[self._at + _OPEN] = is_open

    def turn(self, now: float) -> None:
        """A turn begins."""
        self._times[self._at // 2] = int(now * 1e9)
        self._words[self._at + _AWAKE] = 1

    def rest(self, clients: int) -> None:
        """And has ended."""
        self._words[self._at + _CLIENTS] = clients
        self._words[self._at + _AWAKE] = 0

    def is_shut(self, now: float, clients: int) -> bool:
        """Whether it has clearly more clients than another that would take the next one."""
        self._words[self._at + _CLIENTS] = clients
        page, rows, mine = self._seat
        now_ns = int(now * 1e9)
        others = [read_seat(page, number) for number in range(rows) if number != mine]
        taking = [row.clients for row in others if _takes_clients(row, now_ns)]
        shut = bool(taking) and clients > min(taking) + max(_SLACK, min(taking) // _PART)
        if not shut:
            self._pause = 0.0
        return shut

    def others_accept(self) -> bool:
        """Whether somebody else takes who comes from now on, if perhaps not at once."""
        page, rows, mine = self._seat
        return any(read_seat(page, number).open for number in range(rows) if number != mine)

    def pause(self) -> float:
        """How long until it looks again."""
        self._pause = min(max(2 * self._pause, _PAUSE), _PAUSE_MAX)
        return self._pause

    def leave(self) -> None:
        """In a forked child: the row is the parent's."""
        size = len(self._words)
        self._words, self._times = memoryview(bytearray(4 * size)).cast("I"), memoryview(bytearray(4 * size)).cast("Q")


def _takes_clients(row: SeatRow, now_ns: int) -> bool:
    return row.open and now_ns - row.turned_ns < (_STUCK_NS if row.awake else _GONE_NS)
