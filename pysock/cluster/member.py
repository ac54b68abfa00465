"""All that makes a server a node of a cluster: made when the server is about to serve, ended with it."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable
from functools import partial

from pysock._version import __version__
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.cluster.bus.contract import BusState
from pysock.cluster.directory.events import NodeEvent, Replaced, StateEvent
from pysock.cluster.directory.machine import Directory
from pysock.cluster.directory.messages import NodeInfo
from pysock.cluster.directory.words import NodeChange
from pysock.cluster.finding import Found, reached_from
from pysock.cluster.groups import Heard
from pysock.cluster.receiving import Receiving
from pysock.cluster.sending import Sending
from pysock.cluster.services import Services
from pysock.cluster.station import Station
from pysock.cluster.view import View
from pysock.directory.nodes import reachable
from pysock.errors import BusDown
from pysock.states import ServerState
from pysock.wire.nodes import NodeRow, NodeState

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.cluster.bus.contract import Bus
    from pysock.cluster.directory.events import Event
    from pysock.cluster.subjects import Subjects
    from pysock.engine.contract import Engine
    from pysock.running import Running

#: How long the goodbye of a node may take to come back, in seconds, before the bus is left without it.
_GOODBYE: Final = 1.0
#: Seconds after which another node of the same name is none that hands its clients over to this one, or takes them:
#: those are both there for no longer.
DOUBLED: Final = 40.0
#: What becomes of a node that clients should know.
_ELSEWHERE: Final = (NodeChange.JOINED, NodeChange.CHANGED, NodeChange.LEFT, NodeChange.GONE)


class Wanted(NamedTuple):
    """What a program has said of its node."""

    node: str
    unique: str | None
    handlers: dict[str, Callable[..., Any]]


class Member(Unique):
    """One node.

    :param happened: told of each event that a program may want to know of, in the station's thread.
    """

    def __init__(
        self,
        wanted: Wanted,
        bus: Bus,
        subjects: Subjects,
        running: Running,
        engine: Engine,
        happened: Callable[[Event], None],
    ) -> None:
        self.bus: Bus = bus
        self.subjects: Subjects = subjects
        self.running: Running = running
        self.engine: Engine = engine
        self.limit: int = running.limits.max_payload
        self._wanted = wanted
        self._happened = happened
        self._is_doubled = False  # another node has its name, and that was told
        self.directory: Directory = Directory(
            secrets.randbits(64) or 1, self._info(), monotonic(), random.SystemRandom(), wanted.unique
        )
        self.view: View = View(self.directory, running.clients)
        self.station: Station = Station(bus, self.directory, subjects, self._event)
        self.receiving: Receiving = Receiving(self.directory, self.station, running, engine)
        self.sending: Sending = Sending(self.directory, bus, subjects, running.clients)
        self.services: Services = Services(
            wanted.handlers, self.directory, self.receiving, running, self.sending.largest
        )
        self.found: Found = Found(self.directory, self._own, self._others)
        self.groups: Heard = Heard(running.clients.groups, bus, subjects, self.receiving.heard)

    # Its life

    def begin(self) -> None:
        """Be a node, as soon as there is a bus."""
        for subject in (self.subjects.all, self.subjects.broadcast, self.subjects.node(self.directory.epoch)):
            self.bus.subscribe(subject, self.receiving.heard)
        self.services.begin(self.bus, self.subjects)
        self.found.begin(self.bus, self.subjects)
        self.groups.begin()
        self.running.lameness.watch(self.describe)
        nodes = self.running.clients.nodes
        if nodes is not None and not nodes.is_given:
            nodes.others = partial(self._others, self.directory.info.host)
        self.bus.start(self._bus_changed)
        self.station.start()

    def _bus_changed(self, state: BusState) -> None:
        if state is BusState.CONNECTED:
            self.sending.connected()
        self.station.bus_changed(state)

    def wait(self, seconds: float) -> None:
        """Wait until the others are known.

        :raises BusDown: the bus isn't there in this time.
        """
        if self.station.connected.wait(seconds):
            return
        try:
            self.bus.publish(self.subjects.all, b"")
        except BusDown as error:
            raise BusDown(f"{error}; the server can't do without (required=), and has waited {seconds:g} s") from None
        raise BusDown(f"the cluster wasn't known within {seconds:g} s, and the server can't do without (required=)")

    def drain(self) -> None:
        """The server goes: calls are for others, and clients too."""
        self.services.end()
        self.found.end()
        self.describe()

    def end(self) -> None:
        """Leave the cluster."""
        self.groups.end()
        self.services.end()
        self.found.end()
        self.station.goodbye()
        if self.bus.state is BusState.CONNECTED:
            self.receiving.goodbye.wait(_GOODBYE)
        self.bus.close()

    # What it says of itself

    def describe(self) -> None:
        """It has changed."""
        self.station.described(self._info())

    def _info(self) -> NodeInfo:
        running, nodes = self.running, self.running.clients.nodes
        addresses = reachable(running.listening.addresses) if nodes is None else nodes.own()
        is_going = running.lameness.is_lame or running.state >= ServerState.DRAINING
        return NodeInfo(
            self._wanted.node,
            socket.gethostname(),
            tuple(addresses),
            running.limits.max_clients,
            int(NodeState.DRAINING if is_going or running.lameness.ends else NodeState.SERVING),
            f"pysock/{__version__}",
        )

    def _own(self, host: str) -> NodeRow:
        """For clients on this host: this node."""
        return _row(host, self.directory.info, len(self.running.clients))

    def _others(self, host: str) -> list[NodeRow]:
        """For clients on this host: the other nodes, as far as they can be reached from there."""
        rows = [_row(host, node.info, len(node.roster)) for node in self.directory.nodes.values()]
        return [row for row in rows if row.addresses]

    def joined(self, client_id: int, moved: bool) -> None:
        """In the loop's thread: this client was let in, or has moved here."""
        row = self.engine.info(client_id)
        if row is not None:
            self.station.joined(client_id, row.name.encode("utf-8", "surrogateescape"), row.connected_at, moved)

    # What happens

    def _event(self, event: Event) -> None:
        if isinstance(event, Replaced):
            self.engine.call_later(lambda: self._replace(event.client_id))
            return
        if isinstance(event, StateEvent):
            log.info("the cluster is %s", event.new)
        elif isinstance(event, NodeEvent):
            log.info("node %r of the cluster: %s", event.node.info.name, event.change)
            self._look_for_doubles(event)
            if self.running.clients.nodes is not None and event.change in _ELSEWHERE:
                self.running.clients.nodes.renew()
        self._happened(event)

    def _replace(self, client_id: int) -> None:
        if self.engine.info(client_id) is not None:
            self.running.hooks.replace(client_id)

    def _look_for_doubles(self, event: NodeEvent) -> None:
        if event.change is NodeChange.JOINED and event.node.info.name == self._wanted.node and not self._is_doubled:
            self.station.alarm(DOUBLED, partial(self._tell_of_double, event.node.epoch))

    def _tell_of_double(self, epoch: int) -> None:
        if self._is_doubled or epoch not in self.directory.nodes:
            return
        self._is_doubled = True
        log.warning(
            "two nodes of the cluster are called %r: the addresses of their clients say too little; give each"
            " Cluster another node=",
            self._wanted.node,
        )


def _row(host: str, info: NodeInfo, clients: int) -> NodeRow:
    state = NodeState.SERVING if info.state == NodeState.SERVING else NodeState.DRAINING
    return NodeRow(reached_from(host, info.addresses, info.host), clients, info.capacity, state)
