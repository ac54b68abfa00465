"""Workers that have served long enough, or grown too large, and are followed by new ones.

This file owns who is to go, and when: each limit is another one for each worker, by up to a tenth less, so that they
don't all go at once. How one is replaced is the crew's matter; where that fails it is tried again later.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.supervision.member import Member, State

if TYPE_CHECKING:
    from typing import Final

#: How often it is looked, in seconds.
_EVERY: Final = 1.0
#: After a worker that couldn't be replaced was to be.
_AGAIN: Final = 60.0
_JITTER: Final = 0.1


class Bounds(NamedTuple):
    """What a worker is replaced at; ``None``: never for that.

    :ivar requests: that it has served.
    :ivar rss: bytes of memory that it has in use; Linux.
    :ivar age: seconds since its start.
    """

    requests: float | None = None
    rss: float | None = None
    age: float | None = None


class Recycling(Unique):
    """That of one service."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._own: dict[Member, Bounds] = {}  # each one's
        self._not_before: dict[Member, float] = {}
        self.is_wanted: bool = any(bound is not None for bound in bounds)
        self.next_look: float | None = monotonic() if self.is_wanted else None  #: by the clock of deadlines

    def first(self, members: Iterable[Member]) -> tuple[Member, str, str] | None:
        """Who is to go now, for which bound, and why in words."""
        now = monotonic()
        if self.next_look is None or now < self.next_look:
            return None
        self.next_look = now + _EVERY
        there = [member for member in members if member.state is State.SERVING]
        self._own = {member: self._own.get(member) or self._drawn() for member in there}
        self._not_before = {member: at for member, at in self._not_before.items() if member in self._own}
        for member in there:
            if self._bounds.requests is not None:
                member.line.say("count")  # its answer is there at the next look
            bound, why = self._why(member, now)
            if why and self._not_before.get(member, 0.0) <= now:
                self._not_before[member] = now + _AGAIN
                return member, bound, why
        return None

    def _drawn(self) -> Bounds:
        less = random.uniform(1 - _JITTER, 1)  # noqa: S311  # it is no secret
        return Bounds(*(bound and bound * less for bound in self._bounds))

    def _why(self, member: Member, now: float) -> tuple[str, str]:
        own = self._own[member]
        age, rss = now - member.started, _rss(member.process.pid) if own.rss is not None else 0
        if own.requests is not None and member.requests >= own.requests:
            return "requests", f"it has served {member.requests} requests"
        if own.rss is not None and rss >= own.rss:
            return "rss", f"it has {rss // 1024**2} MiB of memory"
        if own.age is not None and age >= own.age:
            return "age", f"it is {age:.0f} seconds old"
        return "", ""


def _rss(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
