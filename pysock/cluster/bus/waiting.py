"""Requests that wait for their answer: by number, each with a deadline, and one timer for all. One thread's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from pysock.cluster.bus.contract import Ends

#: The deadlines of answered requests are kept until they are over, or so many are.
_STALE_MAX = 65_536


class Waiting:
    """By number. The first one is random: an answer to a node that was here before isn't taken for one of ours."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = count(secrets.randbits(62)).__next__
        self._ends: dict[int, Ends] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, ended: Ends, deadline: float) -> int:
        """Its number."""
        number = self._next()
        self._ends[number] = ended
        heappush(self._deadlines, (deadline, number))
        return number

    def take(self, number: int) -> Ends | None:
        """Whom to tell of its end; ``None``: it has ended, or isn't ours."""
        return self._ends.pop(number, None)

    def next_deadline(self) -> float | None:
        """When to call :meth:`late`; that of an answered request is left out, if it is cheap to know."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self._ends:
            heappop(deadlines)
        if len(deadlines) > _STALE_MAX + 2 * len(self._ends):
            self._deadlines = deadlines = sorted(one for one in deadlines if one[1] in self._ends)
        return deadlines[0][0] if deadlines else None

    def late(self) -> list[Ends]:
        """Those whose time is over."""
        now, ended = self._clock(), []
        while self._deadlines and self._deadlines[0][0] <= now:
            if (ends := self._ends.pop(heappop(self._deadlines)[1], None)) is not None:
                ended.append(ends)
        return ended

    def all(self) -> list[Ends]:
        """All of them; none waits any more."""
        ended = list(self._ends.values())
        self._ends.clear()
        self._deadlines.clear()
        return ended
