"""How clients that may use the bus find the nodes: they ask, under one subject, and any one node answers for all.

This file owns both ends of that. What is answered is a list as that of the service ``_nodes``, without those addresses
that mean nothing on the machine of the one who asks.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.deadlines import FOREVER
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.directory.messages import MessageKind, Tag, encode, text
from pysock.cluster.subjects import Subjects
from pysock.cluster.url import parted
from pysock.errors import BusDown, RequestTimeout
from pysock.wire.format import Malformed
from pysock.wire.nodes import NodeRow, NodeState, decode_nodes, encode_nodes

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.bus.contract import Bus, Heard, Subscription
    from pysock.cluster.directory.machine import Directory

#: How addresses begin that mean nothing on another machine.
_ONE_HOST: Final = ("unix:", "abstract:")
#: For so many seconds an attempt to connect to the bus is made again, and so is a question that nobody has heard: the
#: local bus may have lost its hub just now, and a node may be about to come.
_GRACE: Final = 0.5
_PAUSE: Final = 0.05
#: Seconds for an answer, where the program waits for ever.
_LONGEST: Final = 60.0
_LOOK_EVERY: Final = 0.01


class Found(Unique):
    """A node's end.

    :param own: this node, for clients.
    :param others: the other ones, as far as they are reached from a host.
    """

    def __init__(
        self, directory: Directory, own: Callable[[str], NodeRow], others: Callable[[str], list[NodeRow]]
    ) -> None:
        self._directory = directory
        self._own = own
        self._others = others
        self._subscribed: list[Subscription] = []

    def begin(self, bus: Bus, subjects: Subjects) -> None:
        """Answer from now on."""
        self._subscribed.append(bus.subscribe(subjects.find, self._asked, queue=True))

    def end(self) -> None:
        """Others do."""
        while self._subscribed:
            self._subscribed.pop().end()

    def _asked(self, heard: Heard) -> None:
        message = self._directory.decoded(heard.payload)
        if message is None or message.kind != MessageKind.FIND or heard.answer is None:
            return
        try:
            host = message.text(Tag.HOST)
        except Malformed:
            self._directory.foreign += 1
            return
        heard.answer(encode_nodes(0, [self._own(host), *self._others(host)]))


def reached_from(host: str, addresses: tuple[str, ...], theirs: str) -> tuple[str, ...]:
    """Those of a node's addresses that mean something on this host.

    :param theirs: the node's host.
    """
    return tuple(one for one in addresses if host == theirs or not one.startswith(_ONE_HOST))


class BusFinder:
    """A client's end: see :class:`pysock.balance.finding.Finder`. It keeps nothing open.

    :param url: of the bus, with the cluster's name behind it.
    :raises ValueError: it is wrong.
    :raises ImportError: what the bus needs isn't installed.
    """

    def __init__(self, url: str) -> None:
        self._url, self._name = parted(url)
        self._subjects = Subjects(self._name)
        self._bus().close()  # it says what is wrong with the URL, and what is missing

    def __str__(self) -> str:
        return f"cluster {self._name!r}"

    def _bus(self) -> Bus:
        bus = bus_of(self._url, node=f"client-{os.getpid()}", prefix=self._subjects.prefix)
        bus.is_guest = True
        return bus

    def find(self, seconds: float | None) -> tuple[NodeRow, ...]:
        """See :class:`pysock.balance.finding.Finder`."""
        until, bus = monotonic() + min(_LONGEST, FOREVER if seconds is None else seconds), self._bus()
        try:
            connected(bus, until)
            return self._answered(bus, until)
        finally:
            bus.close()

    def _answered(self, bus: Bus, until: float) -> tuple[NodeRow, ...]:
        question = encode(MessageKind.FIND, 0, 0, [text(Tag.HOST, socket.gethostname())])
        patience = min(until, monotonic() + _GRACE)
        while True:
            outcome, answer = asked(bus, self._subjects.find, question, until)
            if outcome is Outcome.ANSWERED:
                return self._read(answer)
            if outcome is Outcome.LATE:
                raise RequestTimeout(f"no node of {self} has answered in time, though one hears what is asked")
            if outcome is Outcome.LOST:
                raise BusDown(f"the bus of {self} went down")
            if monotonic() >= patience:
                raise self._nobody(f"nobody there is a node of {self}: start one, or correct the name")
            threading.Event().wait(_PAUSE)

    def _read(self, answer: bytes) -> tuple[NodeRow, ...]:
        try:
            nodes = decode_nodes(answer).nodes
        except Malformed as error:
            raise self._nobody(f"whoever answers for {self} is none of its nodes: {error}") from None
        serving = [row for row in nodes if row.state == NodeState.SERVING and row.addresses]
        found = tuple(serving or (row for row in nodes if row.addresses))
        if not found:
            problem = f"none of the {len(nodes)} nodes of {self} tells an address that clients on this machine reach"
            raise self._nobody(f"{problem}: give their servers one, by advertise= or where they listen")
        return found

    def _nobody(self, why: str) -> ConnectionRefusedError:
        return ConnectionRefusedError(errno.ECONNREFUSED, f"the bus is there, but {why}")


def connected(bus: Bus, until: float, changed: Callable[[BusState], object] = lambda _: None) -> None:
    """Have it connect, and wait until it is.

    :param changed: told of each change of its state, too.
    :raises BusDown: it isn't, in time.
    """
    there, patience = threading.Event(), min(until, monotonic() + _GRACE)

    def told(state: BusState) -> None:
        changed(state)
        if state is BusState.CONNECTED:
            there.set()

    bus.start(told)
    while not there.wait(_LOOK_EVERY):
        has_failed = bus.is_refused or (bus.has_failed and monotonic() >= patience)
        if has_failed or monotonic() >= until:
            error = BusDown(f"the bus {bus.where} can't be used: {bus.why}")
            error.for_good = bus.is_refused
            raise error


def asked(bus: Bus, subject: str, payload: bytes, until: float) -> tuple[Outcome, bytes]:
    """Ask, and wait for the end."""
    ends: list[tuple[Outcome, bytes]] = []
    done = threading.Event()

    def ended(outcome: Outcome, answer: bytes) -> None:
        ends.append((outcome, answer))
        done.set()

    bus.request(subject, payload, max(0.0, until - monotonic()), ended)
    done.wait()
    return ends[0]
