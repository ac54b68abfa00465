"""What the connections of both healing clients share: the machine, why it has ended for good, and how that is told."""

from __future__ import annotations

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.calls.ended import Ended
from pysock.engine.link import nothing_sent
from pysock.errors import ConnectionLost, RequestTimeout
from pysock.healing.machine import Machine, State

if TYPE_CHECKING:
    from pysock.balance.balancer import Balancer
    from pysock.calls.introduced import Introduced
    from pysock.healing.policy import Backoff


class Life(Unique):
    """See the head of this file.

    :param balancer: knows where the server is, or the servers are.
    :param timeout: seconds for one round of the addresses.
    """

    def __init__(self, balancer: Balancer, backoff: Backoff, timeout: float | None) -> None:
        self.over: Ended | None = None  # why it has ended for good
        self.dropped: int = 0  # pushes, of all connections but the newest
        self.missed: int = 0  # likewise
        self._balancer = balancer
        self._timeout = timeout
        self._machine = Machine(backoff.spans(balancer.seeds), monotonic())

    @property
    def state(self) -> State:
        """Of the machine."""
        return self._machine.state

    def _ended_by(self, why: Ended | None) -> None:
        """For good; what it was told first stays."""
        self.over = self.over or why

    def _count_pushes(self, before: Introduced) -> None:
        """Those that didn't come, or weren't taken, of a connection that was the newest."""
        self.dropped += before.dropped_pushes
        self.missed += before.missed_pushes

    def _round_within(self, left: float | None) -> float | None:
        """The seconds for one round of the addresses, where so many are left in all."""
        return min((each for each in (left, self._timeout) if each is not None), default=None)

    def _for_good(self) -> ConnectionLost:
        error = self._machine.error
        if error is None or (self.over is not None and self.over.how == "left"):
            return nothing_sent("this client is closed: connect() again")
        lost = nothing_sent(f"this client has ended: {error}")
        lost.__cause__ = error
        return lost

    def _late(self) -> RequestTimeout:
        late = RequestTimeout(f"{self._balancer}: not connected in time{self._because()}")
        late.started = False
        return late

    def _because(self) -> str:
        why = self._why()
        return "" if why is None else f" ({why})"

    def _why(self) -> object:
        """Why there is no connection."""
        return self._machine.error
