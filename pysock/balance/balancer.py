"""Balancer: what one client knows of the servers of a service, and where it goes next. No I/O.

It is given addresses, and learns others from the servers (the service ``_nodes``), from whichever it is connected to.
The clients of a pool share one. This file owns the lock; nothing that waits is done under it.
"""

from __future__ import annotations

import errno
import threading

from pysock.address import Address
from pysock.balance.finding import Finder, finder_of, is_cluster
from pysock.balance.nodes import Nodes
from pysock.balance.order import ORDERS, Orderly
from pysock.balance.policy import CHANCE, SUBSET, checked_balance
from pysock.balance.round import Round
from pysock.balance.targets import Target, checked_targets, key_of, refuse_unreachable
from pysock.base.lean import TYPE_CHECKING, replace
from pysock.base.logs import client_log as log
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from random import Random
    from typing import Any, Final, TypeAlias, TypeVar

    from pysock.balance.targets import Targets
    from pysock.wire.nodes import NodeList, NodeRow

    Member = TypeVar("Member")


#: Of so many nodes that were listed it is remembered that they are no more.
_GONE_MAX: Final = 1000

#: What the parameter ``balance`` is; pools hand over the balancer that their clients share.
Balanced: TypeAlias = "str | Balancer | None"


#: A program's clients that don't hear from servers of those that come and go ask a cluster again after so many seconds.
_FRESH: Final = 5.0


def balancer_of(
    address: Targets,
    balance: Balanced,
    *,
    discovers: bool,
    pool: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Balancer:
    """The one of a client with these parameters of ``connect()``.

    :param pool: the clients of a pool share it.
    :param options: the other parameters, some of which say to which addresses it may go.

    :raises ValueError: one of them is wrong.
    :raises TypeError: likewise.
    """
    if isinstance(balance, Balancer):
        return balance
    mode = checked_balance(balance)
    if is_cluster(address):
        assert isinstance(address, str)
        finder, word = finder_of(address), mode or "p2c"
        mode = "pool" if pool and word == "p2c" else word
        return Balancer((), mode, discovers=discovers, finder=finder, only=_transports(options or {}))
    return Balancer(checked_targets(address), "pool" if pool and mode == "p2c" else mode, discovers=discovers)


def _transports(options: Mapping[str, Any]) -> frozenset[str]:
    """Those that parameters of ``connect()`` leave; none: all."""
    if options.get("tls") is not None:
        return frozenset(("tls",))
    return frozenset(("unix", "abstract")) if options.get("server_uid") is not None else frozenset()


class Balancer(Unique):
    """See the head of this file.

    :param seeds: the addresses that the program gave.
    :param mode: a word of ``order.py``; ``None``: in their order, and of a single one nothing is learned.
    :param discovers: whether it learns of others.
    :param finder: finds them, in the place of seeds.
    :param only: of the transports that it finds these are used; none: all.
    :ivar version: of the list of nodes that it was told last; empty: of none.
    """

    def __init__(
        self,
        seeds: tuple[Address, ...],
        mode: str | None = None,
        *,
        discovers: bool = False,
        chance: Random = CHANCE,
        finder: Finder | None = None,
        only: frozenset[str] = frozenset(),
    ) -> None:
        self.finder: Finder | None = finder
        self._only = only
        self._found_at = float("-inf")
        self.seeds: tuple[Address, ...] = seeds
        self.alone: bool = mode is None and len(seeds) == 1
        self.discovers: bool = discovers and not self.alone
        self.version: bytes = b""
        self._mode = mode or "first"
        self._orderly = Orderly(chance)
        self._nodes = Nodes()
        self._learned: tuple[Address, ...] = ()
        self._is_at_a_loss = False
        self._listed: frozenset[str] = frozenset()
        self._gone: dict[str, None] = {}  # they were listed, and are no more; the latest last
        self._given: dict[str, str] = {}  # node -> the key of the address that leads to it
        self._lock = threading.Lock()

    def __str__(self) -> str:
        if self.finder is not None:
            return str(self.finder)
        return str(self.seeds[0]) if len(self.seeds) == 1 else f"one of {', '.join(map(str, self.seeds))}"

    def wanted(self) -> tuple[Address, ...]:
        """The addresses whose nodes are to be looked up for a round."""
        with self._lock:
            return tuple(dict.fromkeys(self.seeds + self._learned))

    def round(self, targets: Iterable[Target], now: float) -> Round:
        """A round of these nodes; those that are aside, or not listed any more, come last."""
        by_key = {target.key: target for target in targets}
        with self._lock:
            self._given = {target.key: target.given for target in by_key.values()}
            self._nodes.keep(by_key)
            aside = self._nodes.aside(by_key, now)
            gone = [key for key, target in by_key.items() if self._gone.keys() & {key, target.given}]
            late = aside.union(gone)
            good = [key for key in by_key if key not in late]
            order = ORDERS[self._mode]
            first = order(good, self._nodes, self._orderly)
            then = [key for key in by_key if key in late]
        compared = len(first) if self._mode == "p2c" else 0
        return Round([by_key[key] for key in first + then], compared)

    # Of a cluster

    def has_to_find(self, now: float) -> bool:
        """Whether it is to be asked where the nodes are: none is known, or none of them has let the client in."""
        if self.finder is None:
            return False
        return not self._learned or self._is_at_a_loss or (not self.discovers and now - self._found_at > _FRESH)

    def found(self, rows: Iterable[NodeRow], now: float) -> None:
        """They are there.

        :raises ConnectionRefusedError: the client can go to none of these addresses.
        """
        texts = tuple(dict.fromkeys(address for row in rows for address in row.addresses))
        learned = tuple(like for text in texts if (like := self._like_ours(text)) is not None)
        if not learned:
            words = f"{self} has no address to which this client goes, by tls= or server_uid=, but {', '.join(texts)}"
            raise ConnectionRefusedError(errno.ECONNREFUSED, words)
        with self._lock:
            listed = frozenset(map(key_of, learned))
            self._note_gone(listed)
            self._learned, self._listed = learned, listed
            self._found_at, self._is_at_a_loss = now, False

    def at_a_loss(self) -> None:
        """None of those that are known has let the client in."""
        self._is_at_a_loss = True

    # For pools

    def spread(self) -> int:
        """How many connections a pool begins with: one to each of the nodes that are its own."""
        if self._mode != "pool":
            return 1
        with self._lock:
            known = {*self._given.values(), *map(key_of, self._learned)}
            return min(SUBSET, max(len(self._given), len(known)))

    def two_of(self, connections: Collection[Member]) -> Collection[Member]:
        """Of which of them a call takes the better one."""
        if self._mode != "pool" or len(connections) <= 2:
            return connections
        return self._orderly.chance.sample(list(connections), 2)

    # What happens

    def begins(self, address: Address) -> None:
        """An attempt to connect there."""
        with self._lock:
            self._nodes[key_of(address)].begins()

    def given_up(self, address: Address) -> None:
        """It was ended by this side."""
        with self._lock:
            self._nodes[key_of(address)].given_up()

    def failed(self, address: Address, now: float) -> None:
        """It came to nothing."""
        with self._lock:
            self._nodes[key_of(address)].failed(now)

    def let_in(self, address: Address, now: float) -> None:
        """It has let the client in."""
        with self._lock:
            self._nodes[key_of(address)].let_in(now)

    def ended(self, address: Address, now: float, *, lost: bool) -> None:
        """A connection there has ended."""
        with self._lock:
            self._nodes[key_of(address)].ended(now, lost)

    def told(self, address: Address, told: NodeList) -> bool:
        """What the server there says of the nodes; whether it was among them, and is no more: then it is to be left."""
        learned = [like for text in told.addresses if (like := self._like_ours(text)) is not None]
        listed = frozenset(map(key_of, learned))
        with self._lock:
            self.version = told.version
            self._note_gone(listed)
            self._learned, self._listed = tuple(learned), listed
            key = key_of(address)
            return bool(self._gone.keys() & {key, self._given.get(key, key)})

    def _note_gone(self, listed: frozenset[str]) -> None:
        """Servers of a new address after each restart come and go for years, so only the latest are remembered."""
        self._gone.update(dict.fromkeys(sorted(self._listed - listed)))
        for key in listed & self._gone.keys():
            del self._gone[key]
        while len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def _like_ours(self, text: str) -> Address | None:
        """An address that a server tells of, with the options of ours; ``None``: it is none that we would go to. Who
        was given addresses of TLS isn't led to another transport.
        """
        try:
            address = Address.parse(text)
            refuse_unreachable(address)
        except ValueError as error:
            log.warning("a server of %s lists a node that can't be used: %s", self, error)
            return None
        if self.finder is not None:
            return address if not self._only or address.transport in self._only else None
        ours = next((seed for seed in self.seeds if seed.transport == address.transport), None)
        if ours is None:
            log.info("a server of %s lists %s, whose transport isn't that of the addresses given", self, address)
            return None
        return replace(ours, host=address.host, port=address.port) if address.host else address

    def forked(self) -> None:
        """In a forked child: the connections are the parent's, and so was whoever held the lock."""
        self._lock = threading.Lock()
        self._nodes, self._orderly = Nodes(), Orderly(self._orderly.chance)
