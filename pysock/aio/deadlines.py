"""The deadlines of one asyncio client: one heap, and one timer of the loop for the earliest."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Final

#: Deadlines of what has ended long ago are thrown out from so many on.
_MANY: Final = 4096


class Deadlines:
    """Moments by the monotonic clock, each with a number.

    :param living: the numbers that are still awaited.
    :param expire: is called with a number that is late.
    """

    __slots__ = ("_expire", "_heap", "_living", "_loop", "_most", "_shared", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, living: Collection[int], expire: Callable[[int], None]) -> None:
        self._loop = loop
        self._living = living
        self._expire = expire
        self._heap: list[list[Any]] = []  # each a moment, and the first and the last number it is for
        self._shared: list[Any] | None = None
        self._most = _MANY
        self._timer: Any = None
        self._when = 0.0

    def share(self, when: float, number: int) -> list[Any]:
        """Remember one of a number, and of those that follow it as long as the caller sets the list's last item to
        them. That ends when the next one is shared, or before ``when``.
        """
        self._shared = self.add(when, number)
        return self._shared

    def add(self, when: float, number: int) -> list[Any]:
        """Remember one."""
        added = [when, number, number]
        heap = self._heap
        heappush(heap, added)
        if self._timer is None or when < self._when:
            self._set(when)
        if len(heap) > self._most:
            numbers = sorted(self._living)
            self._heap = [one for one in heap if one is self._shared or _of(one, numbers)]
            heapify(self._heap)
            self._most = max(_MANY, 2 * len(self._heap))
        return added

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = monotonic()
        heap, numbers = self._heap, sorted(self._living)
        while heap and (heap[0][0] <= now or not (heap[0] is self._shared or _of(heap[0], numbers))):
            for number in _of(heappop(heap), numbers):
                if number in self._living:
                    self._expire(number)
        if heap:
            self._set(heap[0][0])

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._shared = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _of(one: list[Any], numbers: list[int]) -> list[int]:
    """Those of the numbers, which are in order, that a deadline is for."""
    return numbers[bisect_left(numbers, one[1]) : bisect_right(numbers, one[2])]
