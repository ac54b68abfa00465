"""Whose turn it is: several threads use one client, one call at a time."""

from __future__ import annotations

import threading

from pysock.base.deadlines import deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.link import BUSY
from pysock.errors import PysockError, RequestTimeout

if TYPE_CHECKING:
    from typing import Any


class Turns:
    """The lock of one client's connection, and how many threads want it."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        # Re-entrant only because such a lock knows whose it is, which typeshed doesn't.
        self.lock: Any = threading.RLock()
        self.waiting: int = 0  # only a hint, so it needs no lock itself

    def idle_lock(self) -> Any:
        """The lock; but not for a signal's handler in the middle of a call of this thread, which would spoil that.

        :raises PysockError: it is one.
        """
        lock = self.lock
        if lock._is_owned():
            raise PysockError(BUSY)
        return lock

    def acquire(self, seconds: float | None) -> float | None:
        """Take the lock, which the caller gives back; the time that is left then.

        :raises RequestTimeout: another thread has it for so long.
        """
        deadline = deadline_of(seconds)
        self.waiting += 1
        try:
            if not self.lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
                raise RequestTimeout("another thread's call on this client took all the time")
        finally:
            self.waiting -= 1
        return time_left(deadline)
