"""How soon a worker that has ended has a successor: at once, almost, and later and later if they don't live long."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: The first pause and the longest one, in seconds; and how long one has to live to be followed soon.
FIRST: Final = 0.1
LONGEST: Final = 10.0
HEALTHY: Final = 60.0


class Pace:
    """That of the workers of one number."""

    def __init__(self) -> None:
        self._pause = 0.0

    def next(self, lived: float) -> float:
        """How many seconds until the next one, after one that has lived for so many."""
        self._pause = FIRST if lived >= HEALTHY else min(max(FIRST, 2 * self._pause), LONGEST)
        return self._pause
