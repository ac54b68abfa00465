"""What a limit or a fault cost somebody is counted, and told of once a second at most: a storm of them must not become
a storm of log lines. What came in between is told of when that second is over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from pysock.base.logs import TELL_EVERY
from pysock.causes import Cause, level_and_line


class Causes:
    """The counters by cause, and which of them nobody has been told of."""

    __slots__ = ("_details", "_log", "_noted", "_tell_at", "_untold", "counts", "rest_at")

    def __init__(self, noted: Callable[[int, int], None], log: Callable[[int, str], None]) -> None:
        self._noted = noted
        self._log = log
        self._details: dict[Cause, str] = {}  # of those untold, what is to be said of the last one
        self.counts: list[int] = [0] * len(Cause)
        self._untold = [0] * len(Cause)
        self._tell_at = [0.0] * len(Cause)  # the next time
        self.rest_at: float | None = None  # when to tell of the rest; None: there is none

    def note(self, cause: Cause, now: float, detail: str = "") -> None:
        """Count one. It comes before the client is told: who hears of it may ask for the counters.

        :param detail: what its line in the log says beside.
        """
        if detail:
            self._details[cause] = detail
        self.counts[cause] += 1
        self._untold[cause] += 1
        if now >= self._tell_at[cause]:
            self._tell(cause, now)
        elif self.rest_at is None:
            self.rest_at = now + TELL_EVERY

    def note_later(self, cause: Cause, now: float) -> None:
        """For the middle of an output, where who is told may want to send something: the loop tells it in its turn."""
        self.counts[cause] += 1
        self._untold[cause] += 1
        if self.rest_at is None:
            self.rest_at = max(now, self._tell_at[cause])

    def tell_rest(self, now: float) -> None:
        """Tell of those that came too soon after the last of their kind."""
        self.rest_at = None
        for cause in Cause:
            if self._untold[cause]:
                self._tell(cause, now)

    def forget(self) -> None:
        """Tell nobody of what was noted so far."""
        self.rest_at = None
        self._untold = [0] * len(Cause)

    def _tell(self, cause: Cause, now: float) -> None:
        self._tell_at[cause] = now + TELL_EVERY
        times, self._untold[cause] = self._untold[cause], 0
        with suppress(MemoryError):  # nobody pays for it
            if cause in self._details:
                self._log(*level_and_line(cause, times, self._details.pop(cause)))
            else:
                self._noted(cause, times)
