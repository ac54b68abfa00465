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

#: What going to sleep and being woken costs, roughly, in seconds: a wait that was only so much longer than the window
#: would have been caught by a wider one.
_WAKEUP: Final = 50e-6
#: A wait so many times longer than that won't be caught by any window.
_FAR: Final = 10


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
    """Polling without sleeping before a wait, for at most ``most`` seconds.

    The window adapts as KVM's halt polling does (Linux, Documentation/virt/kvm/halt-polling.rst): a wait that ends just
    after going to sleep widens it, one that lasts far longer narrows it to nothing. So a server with a request now and
    then burns no CPU for it.
    """

    __slots__ = ("_far", "_most", "_poll", "_soon", "window")

    def __init__(self, poll: Callable[[float | None], Events], most: float) -> None:
        self._poll = poll
        self._most = most
        self._soon = most + _WAKEUP
        self._far = self._soon * _FAR
        self.window = 0.0

    def wait(self, timeout: float | None) -> Events:
        """Poll, then sleep; what the poll found."""
        poll, window = self._poll, self.window
        if timeout == 0 or not self._most:
            return poll(timeout)
        if window:
            found = poll(0)
            if found:
                return found
        start = monotonic()
        end = start + (window if timeout is None else min(window, timeout))
        while window and monotonic() < end:
            found = poll(0)
            if found:
                return found
        found = poll(timeout if timeout is None else max(0.0, timeout - window))
        self.adapt(monotonic() - start)
        return found

    def adapt(self, waited: float) -> None:
        """Learn from a wait that ended in a sleep."""
        if waited <= self._soon:
            self.window = min(self._most, self.window * 2 or self._most / 4)
        elif waited > self._far:
            self.window = 0.0
