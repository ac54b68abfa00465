"""Time: deadlines in O(1), and how long to poll before a sleep.

All deadlines of a kind last equally long. So a queue in order of starting is a queue in order of ending: starting
appends, stopping takes out, expiring looks at the head.

Nobody is late because the loop was busy: what came in time may lie in the kernel, or had no room there. So a deadline
expires only by the time of the loop's last look at the kernel, and after all that was found is dealt with; and each
kind has a clock of its own, for which a turn's work counts for an eighth of the deadline at most. ``csrc/timers.c``
does the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pysock.clock import monotonic

Who = TypeVar("Who")
Events = TypeVar("Events")

#: The loop has looked so often before anybody is late.
_LOOKS: Final = 8
#: Windows: after a sleep that lasted longer than so many, nothing would have come soon.
_FAR: Final = 5
#: Polls in vain in a row, where something might come soon.
_TRIES: Final = 4
#: Where nothing does, one wait in 2 ** so many polls.
_MISSES_MAX: Final = 6


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

    def pop_expired(self, looked: float) -> Who | None:
        """Take out one whose deadline has passed."""
        end = self.next_end()
        if end is None or end > looked:
            return None
        return self.ends.popitem(last=False)[0]


class Linger(Generic[Events]):
    """Polling without sleeping before a wait, for ``window`` seconds.

    Whether that pays is tried, as KVM's halt polling does (Linux, Documentation/virt/kvm/halt-polling.rst): a few polls
    in vain double the number of waits until the next one, so a server with a request now and then burns no CPU for it.
    The same rule, with its reasons, is in ``csrc/linger.h``.
    """

    __slots__ = ("_misses", "_poll", "_skip", "_tries", "_window")

    def __init__(self, poll: Callable[[float | None], Events], window: float) -> None:
        self._poll = poll
        self._window = window
        self._misses = self._tries = self._skip = 0

    def wait(self, timeout: float | None) -> Events:
        """Poll, then sleep; what the poll found."""
        if timeout == 0 or not self._window:
            return self._poll(timeout)
        if self._skip:
            self._skip -= 1
            return self._poll(timeout)
        return self._linger(self._window if timeout is None else min(self._window, timeout), timeout)

    def _linger(self, window: float, timeout: float | None) -> Events:
        poll = self._poll
        found = poll(0)
        end = monotonic() + window
        while not found and monotonic() < end:
            found = poll(0)
        if found:
            self._tries = 0
            self._misses //= 2
            return found
        found = poll(None if timeout is None else max(0.0, timeout - window))
        self._missed(monotonic() - end)
        return found

    def _missed(self, slept: float) -> None:
        self._tries += 1
        if slept < _FAR * self._window and self._tries < _TRIES:
            return
        self._tries = 0
        self._misses = min(self._misses + 1, _MISSES_MAX)
        self._skip = (1 << self._misses) - 1
