"""Who is late: the deadlines of all connections of one engine, and what becomes of who misses one.

``timers`` has the time of each kind. Deadlines of requests are another matter: their clients set them, see ``waiting``.
"""

from __future__ import annotations

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.poll import TOLD_MAX
from pysock.wire.endings import End

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.timers import Deadlines

#: What takes less, in seconds, is no concern to any deadline.
_LONG_WORK: Final = 0.001


class Lateness(Unique):
    """Of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        kinds: list[Deadlines[Any]] = [core.cirs, core.frames, core.outputs, core.idles, core.slow]
        self._kinds = kinds
        #: Who has a deadline, by kind.
        self.running: list[dict[Any, float]] = [kind.ends for kind in kinds]
        self._full_looks = 0  # so often in a row there was more to tell of than the poll tells at once

    def next_ends(self) -> list[float]:
        """When the next deadline of each kind comes, where there is one."""
        return [end for kind in self._kinds if (end := kind.next_end()) is not None]

    def expire(self, told: int) -> None:
        """End whose deadline has passed.

        :param told: of so many the poll has told in this turn.
        """
        if not self._has_seen_all(told):
            return
        core = self._core
        now = core.now
        while late := core.cirs.pop_expired(now):
            dismiss(late, End.CIR_LATE)
        while late := core.frames.pop_expired(now):
            dismiss(late, End.FRAME_LATE)
        while slow := core.outputs.pop_expired(now):
            slow.cut(End.OUTPUT_STALLED)
        while slow := core.slow.pop_expired(now):
            slow.has_been_slow()
        while late := core.idles.pop_expired(now):
            dismiss(late, End.IDLE)

    def _has_seen_all(self, told: int) -> bool:
        """Whether the poll has told of everybody who is ready: it takes turns, so after some looks it has."""
        self._full_looks = self._full_looks + 1 if told >= TOLD_MAX else 0
        if 0 < self._full_looks <= len(self._core.table.rows) // TOLD_MAX:
            return False
        self._full_looks = 0
        return True

    def work_done(self) -> None:
        """Handlers may have taken long: whatever is reckoned from now on begins now."""
        core, now = self._core, monotonic()
        worked = now - core.now
        if worked > _LONG_WORK:
            for kind in self._kinds:
                kind.worked(worked)
            core.held_up.turn_took(worked)
        core.now, core.held_up.requests = now, 0
