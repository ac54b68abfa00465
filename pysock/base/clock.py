"""The clock of every deadline, grace and linger: CLOCK_MONOTONIC (clock_gettime(2)), as ``time.monotonic`` reads it.

Tests stop or move the other names: freezegun puts functions of its own in the place of ``time.monotonic`` and the like,
in every module that has them. A deadline that looked at those would never come, and a loop that waits for it would burn
a processor. What is told as a time of day (``connected_at``) is ``time.time()``, and stands still as the test wants.
"""

from __future__ import annotations

import time
from functools import partial

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: Seconds, from some moment in the past.
monotonic: Final = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
