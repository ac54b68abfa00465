"""What other threads want of the supervisor: its own thread does it, between two things that happen.

This file owns how they are handed over, and how one waits for the end of a change of all workers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any


class Orders(Unique):
    """Those of one supervisor.

    :param wake: ends its sleep; any thread may call it.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._given: deque[Callable[[], object]] = deque()

    def give(self, order: Callable[[], object]) -> None:
        """In any thread: have it done soon."""
        self._given.append(order)
        self._wake()

    def obtain(self, order: Callable[[], Any], timeout: float) -> Any:
        """In any other thread: have it done, and return what it returns.

        :raises TimeoutError: it wasn't done in so many seconds.
        """
        done, found = threading.Event(), []

        def carried_out() -> None:
            found.append(order())
            done.set()

        self.give(carried_out)
        if not done.wait(timeout):
            raise TimeoutError(f"the supervisor hasn't done it within {timeout:g} seconds")
        return found[0]

    def carry_out(self) -> None:
        """In the supervisor's own thread."""
        while self._given:
            self._given.popleft()()


class Wish:
    """That all workers are changed, and somebody waits for it.

    :ivar is_over: it was, or it couldn't be.
    :ivar why_not: then why; empty: it was.
    """

    def __init__(self) -> None:
        self.is_over: threading.Event = threading.Event()
        self.why_not: str = ""


class Wishes(Unique):
    """Those that there are, in the supervisor's thread: a change grants those that were there when it began."""

    def __init__(self) -> None:
        self._waiting: list[Wish] = []
        self._under_way: list[Wish] = []

    def add(self, wish: Wish) -> None:
        """Grant it by the next change."""
        self._waiting.append(wish)

    def begins(self) -> None:
        """A change does."""
        self._under_way += self._waiting
        self._waiting.clear()

    def settled(self, why_not: str) -> None:
        """It is over."""
        for wish in self._under_way:
            wish.why_not = why_not
            wish.is_over.set()
        self._under_way.clear()

    def end(self) -> None:
        """There won't be another one."""
        self.begins()
        self.settled("the service stops")
