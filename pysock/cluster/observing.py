"""Who looks at a cluster from outside: it knows what a node knows, reaches whom a node reaches, and has no clients.

For the commands of operators. Whoever may use the bus can do this; the nodes don't notice.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind, NodeInfo, Tag
from pysock.cluster.directory.observer import Observer
from pysock.cluster.finding import asked, connected
from pysock.cluster.sending import Sending
from pysock.cluster.station import Station
from pysock.cluster.subjects import Subjects
from pysock.cluster.url import parted
from pysock.cluster.view import View
from pysock.cluster.waiting import settled
from pysock.errors import BusDown, DeliveryUnknown, FrameTooLarge, RequestTimeout

if TYPE_CHECKING:
    from typing import Any

    from pysock.cluster.bus.contract import Bus, BusReport, Heard
    from pysock.cluster.directory.events import Event
    from pysock.cluster.view import ClusterClient, ClusterNode


class _Nobody:
    """In the place of a table of clients."""

    def __len__(self) -> int:
        return 0

    def by_name(self, name: str) -> Any:
        """There is none."""
        raise KeyError(name)


class Onlooker(Unique):
    """One of a cluster, for a ``with`` statement.

    :param url: of the bus, with the cluster's name behind it, as for :class:`pysock.Cluster`.
    :param name: the cluster's, where the URL hasn't one.
    :param happened: told of each event of the directory's, in the station's thread; it must not wait.
    :ivar bus: its end of the bus.
    :ivar directory: what it knows.
    :raises ParameterError: the URL or the name is wrong.
    :raises ImportError: what the bus needs isn't installed.
    """

    def __init__(self, url: str, name: str | None = None, happened: Callable[[Event], None] = lambda _: None) -> None:
        self.name: str
        bus_url, self.name = parted(url, name)
        self.subjects: Subjects = Subjects(self.name)
        self.bus: Bus = bus_of(bus_url, node=f"onlooker-{os.getpid()}", prefix=self.subjects.prefix)
        self.bus.is_guest = True
        epoch, chance = secrets.randbits(64) or 1, random.SystemRandom()
        self.directory: Observer = Observer(epoch, NodeInfo("onlooker"), monotonic(), chance)
        table: Any = _Nobody()
        self._view = View(self.directory, table)
        self._sending = Sending(self.directory, self.bus, self.subjects, table)
        self._station = Station(self.bus, self.directory, self.subjects, happened)

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._station.goodbye()
        self.bus.close()

    def look(self, seconds: float) -> None:
        """Begin, and wait until all nodes have been heard, and who their clients are. It takes more than a second.

        :raises BusDown: the bus can't be used.
        :raises RequestTimeout: some list hasn't come in this time.
        """
        until = monotonic() + seconds
        for subject in (self.subjects.all, self.subjects.node(self.directory.epoch)):
            self.bus.subscribe(subject, self._heard)
        self._station.start()
        connected(self.bus, until, self._station.bus_changed)
        if self._station.connected.wait(max(0.0, until - monotonic())):
            return
        if self.bus.state is BusState.LOST:
            raise BusDown(f"the bus {self.bus.where} went down: {self.bus.why}")
        late = sum(not node.is_synced for node in self.directory.nodes.values())
        raise RequestTimeout(
            f"{late} of {len(self.directory.nodes)} nodes of cluster {self.name!r} haven't told within {seconds:g}"
            " seconds which clients they have: look again"
        )

    def _heard(self, heard: Heard) -> None:
        message = self.directory.decoded(heard.payload)
        if message is not None:
            self._station.heard(message)

    # What is known

    @property
    def nodes(self) -> list[ClusterNode]:
        """All of them, by name."""
        return sorted(self._view.nodes()[1:])

    @property
    def clients(self) -> list[ClusterClient]:
        """All of them, who came first first."""
        return sorted(self._view.rows(), key=lambda row: (row.connected_at, row.node, row.id))

    def client(self, to: str) -> ClusterClient | None:
        """The one with this address, else the one that has come last under this name."""
        return self._view.by_address(to) or self._view.by_name(to)

    def row(self, packed: bytes) -> ClusterClient | None:
        """Of a row of the directory."""
        return self._view.row(packed)

    @property
    def most(self) -> int:
        """How many bytes a payload may have."""
        return self._sending.largest()

    def examined(self, seconds: float) -> BusReport:
        """The bus as a node would use it, under each kind of subject."""
        own, each = self.subjects, (self.subjects.group("check"), self.subjects.service("check"))
        subjects = (own.all, own.broadcast, own.find, own.node(self.directory.epoch), *each)
        return self.bus.check(subjects, seconds)

    # What it sends

    def push(self, row: ClusterClient, payload: bytes, seconds: float) -> bool:
        """Push to one client: whether it is in its queue. See :meth:`pysock.Cluster.send`."""
        result = settled("send", lambda waiter: self._sending.push_surely(row, payload, seconds, waiter), False, bool)
        return bool(result)

    def to_group(self, name: str, payload: bytes, seconds: float) -> bool:
        """Push to the members of a group; ``False``: no node has one.

        :raises FrameTooLarge: it is over what the bus takes less 4 KiB.
        :raises BusDown: the bus is down; surely nobody has got it.
        :raises DeliveryUnknown: no node says that it has got it, though one may have.
        """
        return self._spread(
            self.subjects.group(name), MessageKind.GROUP, [messages.text(Tag.GROUP, name)], payload, seconds
        )

    def to_all(self, payload: bytes, seconds: float) -> bool:
        """Push to all clients; ``False``: there is no node. It raises as :meth:`to_group`."""
        return self._spread(self.subjects.broadcast, MessageKind.BROADCAST, [], payload, seconds)

    def _spread(self, subject: str, kind: MessageKind, fields: list[bytes], payload: bytes, seconds: float) -> bool:
        if len(payload) > self.most:
            raise FrameTooLarge(
                f"a payload of {len(payload)} bytes is over what the cluster's bus takes, {self.most} bytes"
            )
        message = messages.encode(kind, self.directory.epoch, self.directory.clock, fields, payload)
        outcome, _ = asked(self.bus, subject, message, monotonic() + seconds)
        if outcome in (Outcome.LATE, Outcome.LOST):
            raise DeliveryUnknown(f"no node has answered ({outcome.value}): clients may have got it, or may not")
        return outcome is Outcome.ANSWERED
