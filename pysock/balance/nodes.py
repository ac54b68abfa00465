"""The nodes of one service as one client knows them: which of them fail, and so are put aside for a while. No I/O.

A node is put aside after 3 attempts to connect that failed in a row, or 5 connections in a row that were lost, for 30
seconds; each time for twice as long. It is asked again then, or where nobody else answers. Never more than half of them
are aside: where so many fail at once, it is rather this side that is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable

from pysock.balance.policy import ASIDE, FAILURES, LONGEST_ASIDE, LOSSES
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

#: Doubling on would not end otherwise.
_DOUBLINGS_MAX: Final = 20


class Node:
    """What is known of one.

    :ivar failures: attempts to connect that failed in a row.
    :ivar losses: connections in a row that were lost.
    :ivar until: it is aside until then.
    :ivar opened: when the newest connection came about.
    :ivar connections: that lead to it now, or are being made, of those who share this.
    """

    __slots__ = ("_times", "connections", "failures", "losses", "opened", "until")

    def __init__(self) -> None:
        self.failures: int = 0
        self.losses: int = 0
        self.until: float = 0.0
        self.opened: float = 0.0
        self.connections: int = 0
        self._times = 0  # that it was put aside, in a row

    def begins(self) -> None:
        """An attempt to connect."""
        self.connections += 1

    def given_up(self) -> None:
        """It was ended by this side, which says nothing of the node."""
        self.connections = max(0, self.connections - 1)

    def failed(self, now: float) -> None:
        """It came to nothing."""
        self.given_up()
        self.failures += 1
        if self.failures >= FAILURES:
            self._put_aside(now)

    def let_in(self, now: float) -> None:
        """It has taken this client."""
        self.failures = 0
        self.until = 0.0
        self.opened = now

    def ended(self, now: float, lost: bool) -> None:
        """The connection has ended: it was lost, or the server said goodbye, or nobody wanted it any more."""
        self.given_up()
        if now - self.opened >= ASIDE:
            self.losses = self._times = 0
        self.losses = self.losses + 1 if lost else 0
        if self.losses >= LOSSES:
            self._put_aside(now)

    def _put_aside(self, now: float) -> None:
        self.failures = self.losses = 0
        self.until = now + min(LONGEST_ASIDE, ASIDE * 2.0 ** min(self._times, _DOUBLINGS_MAX))
        self._times += 1


class Nodes(Unique):
    """All of them, by their keys."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def __getitem__(self, key: str) -> Node:
        return self._nodes.setdefault(key, Node())

    def aside(self, keys: Iterable[str], now: float) -> set[str]:
        """Those of these nodes that are aside: half of them at most, the ones that come back last."""
        among = list(dict.fromkeys(keys))
        bad = [(self._nodes[key].until, key) for key in among if key in self._nodes and self._nodes[key].until > now]
        return {key for _, key in sorted(bad, reverse=True)[: len(among) // 2]}

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all others that no connection leads to: in the course of time there may be many."""
        kept = set(keys)
        self._nodes = {key: node for key, node in self._nodes.items() if key in kept or node.connections}
