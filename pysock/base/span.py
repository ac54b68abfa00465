"""The time while something runs, for whose end other threads wait."""

from __future__ import annotations

import threading

from pysock.base.unique import Unique


class Span(Unique):
    """It begins once, in one thread, and ends in any. A bare lock, which is held meanwhile: it can be waited for in a
    signal's handler, which an Event can't.
    """

    def __init__(self) -> None:
        self._held = threading.Lock()

    def begin(self) -> None:
        """From now on who waits does."""
        self._held.acquire()

    def end(self) -> None:
        """Let them go on. Called again it does nothing."""
        if self._held.locked():
            self._held.release()

    def wait(self, seconds: float) -> bool:
        """Wait so long; whether it is over, or has never begun."""
        over = self._held.acquire(timeout=seconds)
        if over:
            self._held.release()
        return over
