"""Time: deadlines in O(1), and how long to poll before a sleep.

All deadlines of a kind last equally long. So a queue in order of starting is a queue in order of ending: starting
appends, stopping takes out, expiring looks at the head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, Generic, TypeVar

Who = TypeVar("Who")
Events = TypeVar("Events")

#: Windows: after a sleep that lasted longer than so many, nothing would have come soon.
_FAR: Final = 5
#: Polls in vain in a row, where something might come soon.
_TRIES: Final = 4
#: Where nothing does, one wait in 2 ** so many polls.
_MISSES_MAX: Final = 6


class Deadlines(Generic[Who]):
    """All the deadlines of one kind; ``ends`` says when they come."""

    __slots__ = ("_seconds", "ends")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Not a dict: finding the first of a dict walks over all that were taken out of its front before.
        self.ends: OrderedDict[Who, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ends)

    def __contains__(self, who: Who) -> bool:
        return who in self.ends

    def start(self, who: Who, now: float) -> None:
        """Start, or start anew."""
        self.ends.pop(who, None)
        self.ends[who] = now + self._seconds

    def stop(self, who: Who) -> None:
        """Stop it, if it runs."""
        self.ends.pop(who, None)

    def first(self) -> Who | None:
        """Whose deadline comes first."""
        return next(iter(self.ends), None)

    def age(self, now: float) -> float:
        """How long the first has been running; 0 where none is."""
        end = self.next_end()
        return 0.0 if end is None else now - (end - self._seconds)

    def next_end(self) -> float | None:
        """When the first deadline comes."""
        return next(iter(self.ends.values()), None)

    def pop_expired(self, now: float) -> Who | None:
        """Take out one whose deadline has passed."""
        end = self.next_end()
        if end is None or end > now:
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
