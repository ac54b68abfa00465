"""Timeouts in seconds, and the moments at which they are over."""

from __future__ import annotations

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: Seconds that nobody waits out: 68 years. More than this the clocks of the system calls may not take.
FOREVER: Final = 2**31


def checked_timeout(timeout: float) -> float | None:
    """Return the seconds, or ``None`` for ``math.inf`` and the like: the engines' word for waiting for ever.

    :raises ValueError: it is less than 0, or not a number.
    """
    if not isinstance(timeout, (int, float)) or not timeout >= 0:  # so that NaN doesn't pass
        raise ParameterError("timeout", f"must be 0 or more seconds, not {timeout!r}", name="a timeout")
    return None if timeout >= FOREVER else timeout


def deadline_of(seconds: float | None) -> float | None:
    """When a timeout that begins now is over, by the monotonic clock."""
    return None if seconds is None else monotonic() + seconds


def time_left(deadline: float | None) -> float | None:
    """Seconds to go, at least 0."""
    return None if deadline is None else max(0.0, deadline - monotonic())
