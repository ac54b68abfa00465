"""What is to be done at a moment, unless it has become needless before. Any thread sets one or calls it off."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Lock

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    #: The moment, a number that tells two of one moment apart, and what to do; nothing: it was called off.
    Alarm: TypeAlias = tuple[float, int, list[Callable[[], object]]]

#: Alarms that were called off are kept until their moment, or until there are so many.
_STALE_MAX: Final = 4096


class Alarms:
    """Those of one node."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next = count().__next__
        self._alarms: list[Alarm] = []
        self._stale = 0

    def set(self, moment: float, function: Callable[[], object]) -> Alarm:
        """Have it called then."""
        alarm: Alarm = (moment, self._next(), [function])
        with self._lock:
            heappush(self._alarms, alarm)
        return alarm

    def call_off(self, alarm: Alarm) -> None:
        """It needn't be; it keeps nothing alive any more."""
        with self._lock:
            if not alarm[2]:
                return
            alarm[2].clear()
            self._stale += 1
            if self._stale > _STALE_MAX and self._stale * 2 > len(self._alarms):
                self._alarms = [one for one in self._alarms if one[2]]
                heapify(self._alarms)
                self._stale = 0

    def due(self, now: float) -> list[Callable[[], object]]:
        """What is to be done now, each once."""
        functions: list[Callable[[], object]] = []
        with self._lock:
            while self._alarms and self._alarms[0][0] <= now:
                found = heappop(self._alarms)[2]
                self._stale -= not found
                functions += found
                found.clear()
        return functions

    def next(self) -> float:
        """The moment of the first one; infinity: there is none."""
        with self._lock:
            return self._alarms[0][0] if self._alarms else float("inf")
