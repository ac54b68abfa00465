"""The service ``_nodes`` of one server: where the servers of its service are, and how many clients this one has.

Whoever asks with the version of the list that it has is answered when there is another one, so that nobody has to ask
again and again. The loop knows nothing of all this: it is a service as others are, whose answer may come later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from threading import RLock

from pysock.address import INHERITED
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.deferral import Deferred
from pysock.wire.nodes import NodeRow, NodeState, encode_nodes

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import Address
    from pysock.clients import ServedSocket
    from pysock.engine.deferral import Ended

#: Hosts of those who listen everywhere, at which nobody can be reached.
_ANYWHERE: Final = frozenset(("", "0.0.0.0", "::"))  # noqa: S104  # nobody listens because of it


class _Waiting(Deferred):
    """One that is answered when there is something new."""

    __slots__ = ("_client_id", "_nodes")

    def __init__(self, nodes: Advertised, client_id: int) -> None:
        super().__init__()
        self._nodes = nodes
        self._client_id = client_id

    def ended(self, why: Ended) -> bool:
        """Nobody waits any more, and nothing was begun."""
        del why
        self._nodes.forget(self._client_id, self)
        return False


class Advertised(Unique):
    """See the head of this file.

    :param addresses: of the service's servers, this one's among them; none: where this one listens.
    :param listening: where it listens.
    :param count: how many clients it has.
    :param capacity: how many it takes at most.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        listening: Callable[[], Iterable[Address]],
        count: Callable[[], int],
        capacity: int,
    ) -> None:
        self._addresses = tuple(addresses)
        self._listening = listening
        self._count = count
        self._capacity = capacity
        #: Servers that are known beside those, each with its load: of a cluster's other nodes.
        self.others: Callable[[], list[NodeRow]] = list
        self._state = NodeState.SERVING
        self._is_over = False
        # Any number, so that the list of a server that was started again isn't taken for its old one.
        self._version = random.SystemRandom().getrandbits(64)
        self._lock = RLock()  # re-entrant, because a signal's handler may say that it is lame
        self._waiting: dict[int, list[_Waiting]] = {}  # by the ids of their clients

    def serve(self, client: ServedSocket, request: bytes) -> bytes | _Waiting:
        """The handler."""
        with self._lock:
            is_new = request != self._version.to_bytes(8, "big")
            if not (is_new or self._is_over or client.is_closing):
                waiting = _Waiting(self, client.id)
                self._waiting.setdefault(client.id, []).append(waiting)
                return waiting
        return self._answer()

    def set(self, addresses: Iterable[Address]) -> None:
        """From now on these are the servers; who waits is told."""
        self._change(tuple(addresses), self._state)

    def lame(self, lame: bool) -> None:
        """New clients are to go elsewhere, or are welcome again."""
        self._change(self._addresses, NodeState.DRAINING if lame or self._is_over else NodeState.SERVING)

    def drain(self) -> None:
        """The server goes: nobody waits for news of it any more."""
        with self._lock:
            self._is_over = True
        self._change(self._addresses, NodeState.DRAINING)
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        self._tell(waiting)

    def _change(self, addresses: tuple[Address, ...], state: NodeState) -> None:
        with self._lock:
            if (addresses, state) == (self._addresses, self._state):
                return
            self._addresses, self._state = addresses, state
            self._version = (self._version + 1) % 2**64
            waiting, self._waiting = self._waiting, {}
        self._tell(waiting)

    def renew(self) -> None:
        """The others are others now; who waits is told."""
        with self._lock:
            if self._is_over:
                return
            self._version = (self._version + 1) % 2**64
            waiting, self._waiting = self._waiting, {}
        self._tell(waiting)

    @property
    def is_given(self) -> bool:
        """Whether the program has said where the servers are."""
        return bool(self._addresses)

    def release(self, client_id: int) -> None:
        """The client's connection is to be closed when it has all its answers."""
        with self._lock:
            waiting = {client_id: self._waiting.pop(client_id, [])}
        self._tell(waiting)

    def _tell(self, waiting: dict[int, list[_Waiting]]) -> None:
        answer = self._answer() if waiting else b""
        for each in waiting.values():
            for one in each:
                one.answer(answer)

    def forget(self, client_id: int, waiting: _Waiting) -> None:
        """It isn't waited for."""
        with self._lock:
            left = [one for one in self._waiting.pop(client_id, []) if one is not waiting]
            if left:
                self._waiting[client_id] = left

    def abandon(self) -> None:
        """In a forked child: who had the lock may not be here."""
        self._lock = RLock()
        self._waiting = {}

    def own(self) -> list[str]:
        """Where this one is reached."""
        return _own([address.bare() for address in self._addresses], reachable(self._listening()))

    def _answer(self) -> bytes:
        with self._lock:  # else a new version may go with an old list, and nobody would ask again
            version, addresses, state = self._version, self._addresses, self._state
        given = [address.bare() for address in addresses]
        here = reachable(self._listening())
        own = _own(given, here)
        mine = NodeRow(tuple(own), self._count(), self._capacity, state)
        others = self.others()
        known = {*own, *(address for other in others for address in other.addresses)}
        return encode_nodes(version, [mine, *others, *(NodeRow((one,)) for one in given if one not in known)])


def _own(given: list[str], here: list[str]) -> list[str]:
    """Of the addresses of a service's servers those of the one that listens here."""
    return [one for one in given if one in here] if given else here


def reachable(addresses: Iterable[Address]) -> list[str]:
    """Those at which clients can reach who listens there."""
    return [address.bare() for address in addresses if _can_be_reached(address)]


def _can_be_reached(address: Address) -> bool:
    if address.transport in {"unix", "abstract"}:
        return True
    return address.host not in _ANYWHERE and address.transport not in INHERITED
