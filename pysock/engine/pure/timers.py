"""Time: deadlines in O(1).

All deadlines of a kind last equally long. So a queue in order of starting is a queue in order of ending: starting
appends, stopping takes out, expiring looks at the head.

Nobody is late because the loop was busy: what came in time may lie in the kernel, or had no room there. So a deadline
expires only by the time of the loop's last look at the kernel, and after all that was found is dealt with; and each
kind has a clock of its own, for which a turn's work counts for an eighth of the deadline at most.
``csrc/table/timers.c`` does the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import Final

Who = TypeVar("Who")

#: The loop has looked so often before anybody is late.
_LOOKS: Final = 8


class Deadlines(Generic[Who]):
    """All the deadlines of one kind; ``ends`` says when they come, by the clock of the kind.

    Where a method takes a time, that is the monotonic clock's: of the last look, if it isn't said otherwise.
    """

    __slots__ = ("_held", "_most", "_seconds", "ends")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._most = seconds / _LOOKS
        self._held = 0.0  # by how much the clock of the kind is behind the monotonic one
        # Not a dict: finding the first of a dict walks over all that were taken out of its front before.
        self.ends: OrderedDict[Who, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ends)

    def __contains__(self, who: Who) -> bool:
        return who in self.ends

    def start(self, who: Who, looked: float) -> None:
        """Start, or start anew, with the last look."""
        self.ends.pop(who, None)
        self.ends[who] = looked - self._held + self._seconds

    def start_now(self, who: Who, looked: float) -> None:
        """The same from this moment on, where handlers may have run since."""
        self.start(who, looked + min(monotonic() - looked, self._most))

    def worked(self, seconds: float) -> None:
        """A turn's work has taken so long."""
        if seconds > self._most:
            self._held += seconds - self._most

    def stop(self, who: Who) -> None:
        """Stop it, if it runs."""
        self.ends.pop(who, None)

    def first(self) -> Who | None:
        """Whose deadline comes first."""
        return next(iter(self.ends), None)

    def age(self, looked: float) -> float:
        """How long the first has been running; 0 where none is."""
        end = self.next_end()
        return 0.0 if end is None else max(0.0, looked - (end - self._seconds))

    def next_end(self) -> float | None:
        """When the first deadline comes, by the monotonic clock."""
        for end in self.ends.values():
            return end + self._held
        return None

    def left(self, who: Who, now: float) -> float | None:
        """How long until its deadline comes; ``None``: it has none."""
        end = self.ends.get(who)
        return None if end is None else max(0.0, end + self._held - now)

    def go_on(self, lefts: Mapping[Who, float], now: float) -> None:
        """Those that stood still go on, each with what was left of it."""
        for who, left in lefts.items():
            self.ends[who] = now - self._held + min(left, self._seconds)
        for who in sorted(self.ends, key=self.ends.__getitem__) if lefts else ():
            self.ends.move_to_end(who)

    def pop_expired(self, looked: float) -> Who | None:
        """Take out one whose deadline has passed."""
        end = self.next_end()
        if end is None or end > looked:
            return None
        return self.ends.popitem(last=False)[0]
