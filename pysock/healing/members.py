"""What both pools share: their connections, how many calls are in each, and which of them has the fewest.

With ``balance="p2c"`` they lead to a few nodes, which are this pool's own as long as they answer, and a call takes the
better one of two of them at random: so neither the nodes nor the connections are all in the same moment the best.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysock.address import Address, AddressLike
from pysock.balance.balancer import balancer_of
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Generic, Protocol, TypeVar
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost, ParameterError

if TYPE_CHECKING:
    from typing import Any


class Closable(Protocol):
    """A client of either kind."""

    @property
    def closed(self) -> bool:
        """Whether it has ended for good."""

    @property
    def address(self) -> Address:
        """Where it leads to."""


Member = TypeVar("Member", bound=Closable)


class Members(Unique, Generic[Member]):
    """See the head of this file. Who may look at them when is the pool's affair."""

    _instead = "make a Pool of its own"

    def __init__(
        self, address: AddressLike | Sequence[AddressLike], size: int, name: str | None, options: dict[str, Any]
    ) -> None:
        self._size = _checked_size(size)
        self._address = address
        self._name = name
        self._options = {"reconnect": True, **options}
        self._heals = bool(self._options["reconnect"])
        self._balancer = balancer_of(
            address, options.pop("balance", None), discovers=self._heals, pool=True, options=options
        )
        self._options["balance"] = self._balancer
        self._calls: dict[Member, int] = {}  # that are in each
        self._coming = 0  # connections that are being made
        self._closed = False

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._calls)

    def _best(self) -> tuple[Member | None, bool]:
        """The one with the fewest calls, and whether there may be no more."""
        for client in [one for one in self._calls if one.closed]:
            del self._calls[client]
            if not self._heals:  # else it has said so itself
                self._balancer.ended(client.address, monotonic(), lost=False)
        among = self._balancer.two_of(self._calls)
        best = min(among, key=self._calls.__getitem__, default=None)
        return best, len(self._calls) + self._coming >= self._size

    def _first_ones(self) -> int:
        """How many connections there are to be in any case, now that one has been made."""
        return min(self._size, self._balancer.spread())

    def __repr__(self) -> str:
        return f"<Pool {len(self._calls)} of {self._size} {'closed' if self._closed else 'open'} {self._address}>"


def closed_pool() -> ConnectionLost:
    """What a call is told."""
    return ConnectionLost("this pool is closed: make a new one")


def _checked_size(size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ParameterError("size", f"must be a number of connections from 1 on, not {size!r}", name="a pool's size")
    return size
