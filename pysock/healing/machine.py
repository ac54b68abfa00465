"""The life of a client that heals, as a table, and the moments at which something is due. No I/O: whoever drives it
says what happened and when, and asks what to do.

::

    WAITING -> CONNECTING -> OPEN -> DRAINING -> CONNECTING -> ...
       ^           |           |
       +-----------+-----------+            CLOSED can be reached from everywhere, and left from nowhere

The states are those of the connection that new requests would take. One that the server has said goodbye on is
DRAINING: what is on its way on it may come to its end while the next connection is made, at once if this one has lived
for a while.
"""

from __future__ import annotations

from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.healing.policy import is_passing

if TYPE_CHECKING:
    from typing import Final

    from pysock.healing.policy import Spans


class State(IntEnum):
    """Of one client."""

    WAITING = 1  # there is no connection; the next attempt is due at some moment
    CONNECTING = 2  # an attempt goes on
    OPEN = 3  # requests may go
    DRAINING = 4  # the server has said goodbye; another connection is due
    CLOSED = 5


class Event(IntEnum):
    """What can happen to it."""

    ATTEMPT = 0  # what was due is begun
    LET_IN = 1
    FAILED = 2  # the attempt failed, as the next one may not
    REFUSED = 3  # it failed for good; or the server doesn't want this client back
    GOODBYE = 4  # the server says that it goes
    LOST = 5  # the connection ended
    FORKED = 6  # this is a forked child, and the connection is the parent's
    CLOSE = 7


def _table() -> dict[tuple[State, Event], State]:
    s, e = State, Event
    table = {
        (s.WAITING, e.ATTEMPT): s.CONNECTING,
        (s.DRAINING, e.ATTEMPT): s.CONNECTING,
        (s.CONNECTING, e.LET_IN): s.OPEN,
        (s.CONNECTING, e.FAILED): s.WAITING,
        (s.OPEN, e.GOODBYE): s.DRAINING,
        (s.OPEN, e.LOST): s.WAITING,
        (s.DRAINING, e.LOST): s.WAITING,
    }
    living = (s.WAITING, s.CONNECTING, s.OPEN, s.DRAINING)
    table |= {(state, e.FORKED): s.WAITING for state in living}
    table |= {(state, event): s.CLOSED for state in living for event in (e.REFUSED, e.CLOSE)}
    return table


TABLE: Final = _table()


class Machine(Unique):
    """When one client connects.

    :ivar error: what ended it for good, or what the last attempt failed with.
    """

    def __init__(self, spans: Spans, now: float) -> None:
        self.state: State = State.WAITING
        self.error: BaseException | None = None
        self._spans = spans
        self._failures = 0
        self._due = now
        self._opened = now

    def _happens(self, event: Event) -> None:
        after = TABLE.get((self.state, event))
        if after is None:
            raise PysockError(f"a client that is {self.state.name} can't have {event.name}")
        self.state = after

    def due_in(self, now: float) -> float | None:
        """Seconds until an attempt is to be made; ``None``: none is."""
        return max(0.0, self._due - now) if self.state in (State.WAITING, State.DRAINING) else None

    def begin(self) -> None:
        """An attempt begins."""
        self._happens(Event.ATTEMPT)

    def let_in(self, now: float) -> None:
        """It came to a connection."""
        self._happens(Event.LET_IN)
        self._opened = now
        self.error = None

    def failed(self, error: BaseException, now: float) -> bool:
        """It came to nothing; whether there will be another."""
        self.error = error
        if not is_passing(error):
            self._happens(Event.REFUSED)
            return False
        self._happens(Event.FAILED)
        self._wait(now)
        return True

    def given_up(self, now: float) -> None:
        """Whoever made the attempt ended it: it says nothing of the server."""
        self._happens(Event.FAILED)
        self._due = now

    def goodbye(self, now: float) -> None:
        """The server goes, and has said so on the open connection."""
        self._happens(Event.GOODBYE)
        if self._has_lived(now):
            self._due = now
        else:
            self._wait(now)  # else one that says so to all who come would be asked without end

    def lost(self, now: float) -> None:
        """The open connection ended, or the one that drained before another was begun."""
        drained = self.state is State.DRAINING
        self._happens(Event.LOST)
        if not drained:
            self._has_lived(now)
            self._wait(now)

    def forked(self, now: float) -> None:
        """There is none in this process."""
        if self.state is not State.CLOSED:
            self._happens(Event.FORKED)
            self._failures = 0
            self._due = now

    def unwanted(self, error: BaseException) -> None:
        """The server doesn't want this client back."""
        self._happens(Event.REFUSED)
        self.error = error

    def close(self) -> None:
        """The program closes it. Called again it does nothing."""
        if self.state is not State.CLOSED:
            self._happens(Event.CLOSE)

    def _has_lived(self, now: float) -> bool:
        """Whether the connection has lived for so long that what came before it is forgotten."""
        lived = now - self._opened >= self._spans.span(self._failures)
        if lived:
            self._failures = 0
        return lived

    def _wait(self, now: float) -> None:
        self._due = now + self._spans.wait(self._failures)
        self._failures += 1
