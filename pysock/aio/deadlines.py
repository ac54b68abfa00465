"""The deadlines of one asyncio client: one heap, and one timer of the loop for the earliest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
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

    __slots__ = ("_expire", "_heap", "_living", "_loop", "_most", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, living: Container[int], expire: Callable[[int], None]) -> None:
        self._loop = loop
        self._living = living
        self._expire = expire
        self._heap: list[tuple[float, int]] = []
        self._most = _MANY
        self._timer: Any = None
        self._when = 0.0

    def add(self, when: float, number: int) -> None:
        """Remember one."""
        heap = self._heap
        heappush(heap, (when, number))
        if self._timer is None or when < self._when:
            self._set(when)
        if len(heap) > self._most:
            self._heap = [one for one in heap if one[1] in self._living]
            heapify(self._heap)
            self._most = max(_MANY, 2 * len(self._heap))

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = monotonic()
        heap = self._heap
        while heap and (heap[0][0] <= now or heap[0][1] not in self._living):
            _, number = heappop(heap)
            if number in self._living:
                self._expire(number)
        if heap:
            self._set(heap[0][0])

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
