"""The probe: a message to oneself, again and again, and what it means if it doesn't come back. No I/O.

That a connection is open, and answers a PING, doesn't say that messages come through it. A Redis that was demoted in a
failover goes on answering and hears nothing any more (centrifugal/centrifuge#594), and so does one end of a connection
that is cut in one direction.
"""

from __future__ import annotations

from enum import Enum

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: Seconds between two of them.
PROBE_EVERY: Final = 2.0
#: So many on their way, none of them back: the connection is dead. It is noticed within 6 seconds.
MISSING_MAX: Final = 2


class Due(Enum):
    """What is to be done now."""

    NOTHING = 0
    SEND = 1
    GIVE_UP = 2


class Prober:
    """One connection after the other. Whoever has it says when it is, by any clock that goes forwards."""

    def __init__(self, every: float = PROBE_EVERY, missing: int = MISSING_MAX) -> None:
        self._every = every
        self._missing_max = missing
        self._missing = 0
        self.due: float | None = None  # when to ask; None: there is no connection

    def begin(self, now: float) -> None:
        """There is a new connection: the first probe is due."""
        self._missing, self.due = 0, now

    def end(self) -> None:
        """There is none."""
        self.due = None

    def ask(self, now: float) -> Due:
        """At least at the time ``due``. A process that was stopped for long may have its answers unread: it gets a
        whole span to read them.
        """
        if self.due is None or now < self.due:
            return Due.NOTHING
        if self._missing >= self._missing_max:
            self.end()
            return Due.GIVE_UP
        self.due = now + self._every
        self._missing += 1
        return Due.SEND

    def heard(self) -> None:
        """One came back."""
        self._missing = 0
