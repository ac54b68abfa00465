"""The directory of one node: messages and time in, messages and events out. It does no I/O and has no clock.

Whoever drives it hands over what is heard, says how late it is, and takes what is to be sent and what has happened. One
thread changes it at a time; any may look.
"""

from __future__ import annotations

import math
import random
from collections import deque

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory import messages, telling
from pysock.cluster.directory.events import Deaf, NodeEvent, Replaced, StateEvent
from pysock.cluster.directory.messages import MessageKind, NodeInfo, Tag, UnknownMajor
from pysock.cluster.directory.names import Names
from pysock.cluster.directory.node import Fetch, Node
from pysock.cluster.directory.own import Batch, Own
from pysock.cluster.directory.rivals import OWN, Rivals
from pysock.cluster.directory.rows import decode_rows, pack
from pysock.cluster.directory.words import (
    BATCH,
    DEAF,
    FETCHED_AT_ONCE,
    GONE,
    HEARTBEAT,
    JITTER,
    JITTER_MAX,
    NODES_MAX,
    PAGE_TIMEOUT,
    PAGE_TRIES,
    RECONNECT,
    REMEMBERED,
    SETTLED_AFTER,
    SHOWN_WITHIN,
    STALL,
    SUSPECT,
    ClusterState,
    NodeChange,
)
from pysock.wire.format import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from pysock.cluster.directory.events import Event
    from pysock.cluster.directory.messages import Message

_INDICES: Final = 2**16


class Directory:
    """See the head of this file.

    :param epoch: of this node: 64 bits by chance.
    :param unique: which of several clients of one name stays: ``"newest"``, ``"oldest"``; ``None``: all.
    :ivar nodes: the others, by epoch; those that were heard first are first.
    :ivar clock: Lamport's, of this node.
    :ivar out: what is to be sent: to which node, or ``None``: to all.
    :ivar events: what has happened.
    :ivar foreign: messages that are none of ours, or broken.
    :ivar other_versions: messages of a protocol that this one doesn't speak, by version.
    """

    settled_after: float = SETTLED_AFTER  # so long it listens who there is, before all is known

    def __init__(
        self, epoch: int, info: NodeInfo, now: float, chance: random.Random, unique: str | None = None
    ) -> None:
        self.epoch: int = epoch
        self.info: NodeInfo = info
        self.state: ClusterState = ClusterState.LOST
        self.own: Own = Own()
        self.names: Names = Names()
        self.nodes: dict[int, Node] = {}
        self.by_index: dict[int, Node] = {}
        self.out: deque[tuple[int | None, bytes]] = deque()
        self.events: deque[Event] = deque()
        self.foreign: int = 0
        self.other_versions: dict[int, int] = {}
        self.fetched: int = 0
        self.clock: int = 0
        self._chance = chance
        self.rivals: Rivals = Rivals(epoch, unique, self.names, self.by_index.get)
        self._last_index = OWN
        self._now = now
        self._since = now  # when the state has become what it is
        self._beat_at = now
        self._heard_self = now  # its own heartbeat
        self._is_shown = False  # all have been asked to show themselves, and it was heard

    # What happens here

    def joined(self, client_id: int, name: bytes, connected_at: float, now: float) -> None:
        """A client has come to this node."""
        self.clock += 1
        row = pack(OWN, client_id, self.clock, int(connected_at) & 0xFFFFFFFF, name)
        if client_id in self.own.roster.rows:
            return
        self.own.joined(row, now)
        if self.names.put(row):
            self._replace(self.rivals.losers([row]))

    def left(self, client_id: int, now: float) -> None:
        """It has gone."""
        row = self.own.left(client_id, now)
        if row is not None:
            self.names.take(row)

    def described(self, info: NodeInfo, now: float) -> None:
        """The node has other addresses, say."""
        if info != self.info:
            self.info = info
            self._beat_at = min(self._beat_at, now)

    def connected(self, now: float) -> None:
        """The bus is there."""
        self._now = now
        self._become(ClusterState.SYNCING, now)
        self._is_shown = False
        self._beat_at = self._heard_self = now
        for node in self.nodes.values():
            node.heard_at = now

    def lost(self, now: float) -> None:
        """The bus is down."""
        self._become(ClusterState.LOST, now)
        for node in self.nodes.values():
            node.is_stale = True
            node.forget_fetch()

    def goodbye(self) -> None:
        """The node goes. Whoever heard anything of it after this would take it for one that has come."""
        self._flush()
        self._beat_at = math.inf
        self._send(None, MessageKind.BYE)

    # What is heard

    def heard(self, payload: bytes, now: float) -> None:
        """A message has come. It never raises."""
        message = self.decoded(payload)
        if message is not None:
            self.take(message, now)

    def decoded(self, payload: bytes) -> Message | None:
        """A message, taken apart; ``None``: it is none of ours. Any thread may."""
        if not payload:
            return None  # somebody looks whether the bus works
        try:
            return messages.decode(payload)
        except UnknownMajor as error:
            self.other_versions[error.major] = self.other_versions.get(error.major, 0) + 1
        except Malformed:
            self.foreign += 1
        return None

    def take(self, message: Message, now: float) -> None:
        """One that was taken apart; those that aren't of the directory are let be."""
        self._wake(now)
        hear = _HEARS.get(message.kind)
        if hear is None or self.state is ClusterState.LOST:
            return  # or it is from before it was lost
        self.clock = max(self.clock, min(message.clock, 2**63))
        try:
            if message.epoch == self.epoch:
                self._hear_self(message, now)
            else:
                hear(self, message, now)
        except Malformed:
            self.foreign += 1

    def _hear_self(self, message: Message, now: float) -> None:
        """What this node hears of its own is its probe."""
        if message.kind == MessageKind.HEARTBEAT:
            self._heard_self = now
            self._is_shown = True

    def _hear_heartbeat(self, message: Message, now: float) -> None:
        number, count = message.number(Tag.NUMBER), message.number(Tag.COUNT)
        hashed, said = message.number(Tag.HASH), message.fields.get(Tag.NODE, b"")
        node = self.nodes.get(message.epoch)
        info = node.info if node is not None and node.said == said else messages.decode_node(said)
        if node is None:
            node = self._new_node(message.epoch, info, now)
            if node is None:
                return
        node.said = said
        is_back = self._is_alive(node, info, now)
        if Tag.HELLO in message.fields:
            self._beat_at = min(self._beat_at, now + self._chance.random() * SHOWN_WITHIN)
        if not node.agrees(number, count, hashed):
            self._wants(node, now)
        self._decide_came(node)
        if is_back:
            self._replace(self.rivals.all_losers())

    def _new_node(self, epoch: int, info: NodeInfo, now: float) -> Node | None:
        if len(self.nodes) >= NODES_MAX:
            self.foreign += 1
            return None
        while (self._last_index or OWN) in self.by_index or self._last_index == OWN:
            self._last_index = (self._last_index + 1) % _INDICES
        node = Node(epoch, self._last_index, info, self.names, now)
        self.nodes = {**self.nodes, epoch: node}  # whoever goes through them isn't disturbed
        self.by_index[node.index] = node
        self.events.append(NodeEvent(node, NodeChange.JOINED))
        return node

    def _is_alive(self, node: Node, info: NodeInfo, now: float) -> bool:
        """It was heard; whether it was in doubt."""
        node.heard_at = now
        if node.info != info:
            node.info = info
            self.events.append(NodeEvent(node, NodeChange.CHANGED))
        is_back = node.is_suspect or node.is_stale
        if is_back:
            node.is_suspect = node.is_stale = False
            self.events.append(NodeEvent(node, NodeChange.BACK))
        return is_back

    def _hear_batch(self, message: Message, now: float) -> None:
        node = self.nodes.get(message.epoch)
        if node is None:
            return  # its heartbeat is still to come
        left = message.fields.get(Tag.LEFT, b"")
        ids = [int.from_bytes(left[at : at + 8], "big") for at in range(0, len(left), 8)]
        batch = Batch(message.number(Tag.NUMBER), ids, decode_rows(message.body, node.index))
        if not node.batch(batch, len(message.body) + len(left)):
            self._wants(node, now)
        self._decide_came(node)

    def _hear_bye(self, message: Message, now: float) -> None:
        del now
        node = self.nodes.get(message.epoch)
        if node is not None:
            self._remove(node, NodeChange.LEFT)

    def _hear_fetch(self, message: Message, now: float) -> None:
        session, page = message.number(Tag.SESSION), message.number(Tag.PAGE)
        self._flush()
        kept = self.own.page(message.epoch, session, page, now)
        self._send(message.epoch, MessageKind.PAGE, *telling.page(session, page, kept))

    def _hear_page(self, message: Message, now: float) -> None:
        node = self.nodes.get(message.epoch)
        if node is None or node.fetch is None or node.fetch.session != message.number(Tag.SESSION):
            return
        page, pages, number = message.number(Tag.PAGE), message.number(Tag.PAGES), message.number(Tag.NUMBER)
        if node.page(number, page, pages, decode_rows(message.body, node.index)):
            self.fetched += 1
            if not node.is_synced:
                self._wants(node, now)
        self._decide_came(node)

    # Whose name it is

    def _decide_came(self, node: Node) -> None:
        if node.came:
            came, node.came = node.came, []
            self._replace(self.rivals.losers(came))

    def _replace(self, losers: Iterable[int]) -> None:
        self.events.extend(map(Replaced, losers))

    # As time goes by

    def step(self, now: float) -> float:
        """Do what is due; in how many seconds to come again, at the latest."""
        self._wake(now)
        if self.state is ClusterState.LOST:
            return self._step_lost(now)
        if now - self._heard_self > RECONNECT:
            self._heard_self = now
            self.events.append(Deaf())
        self._tell(now)
        self._look(now)
        self._fetch(now)
        self._settle(now)
        return max(0.001, min(HEARTBEAT, self._due() - now))

    def _wake(self, now: float) -> None:
        """Where it was stopped itself, what was said meanwhile is still to be heard."""
        late = now - self._now - HEARTBEAT
        if late > STALL:
            self._heard_self += late
            for node in self.nodes.values():
                node.heard_at += late
        self._now = now

    def _step_lost(self, now: float) -> float:
        self._flush()  # which nobody hears: they will find that numbers are missing
        if now - self._since >= REMEMBERED:
            for node in list(self.nodes.values()):
                self._remove(node, NodeChange.GONE)
        return HEARTBEAT

    def _due(self) -> float:
        now = self._now
        due = [self._beat_at, self._heard_self + RECONNECT]
        if self.own.since is not None:
            due.append(self.own.since + BATCH)
        if now < self._since + self.settled_after:
            due.append(self._since + self.settled_after)
        for node in self.nodes.values():
            if not self._is_deaf:
                due.append(node.heard_at + (GONE if node.is_suspect else SUSPECT))
            if node.fetch is not None:
                due.append(node.fetch.asked_at + PAGE_TIMEOUT)
            elif node.due is not None:
                due.append(node.due if node.due > now else now + PAGE_TIMEOUT)
        return min(due)

    @property
    def _is_deaf(self) -> bool:
        """Who doesn't hear himself can't say who else is silent."""
        return self._now - self._heard_self > DEAF

    def _tell(self, now: float) -> None:
        if now >= self._beat_at:
            self._flush()
            self._beat_at = now + HEARTBEAT
            self.own.drop(now)
            self._send(None, MessageKind.HEARTBEAT, telling.heartbeat(self.own, self.info, hello=not self._is_shown))
        elif self.own.since is not None and (now >= self.own.since + BATCH or self.own.is_full):
            self._flush()

    def _flush(self) -> None:
        for batch in self.own.flush():
            self._send(None, MessageKind.BATCH, *telling.batch(batch))

    def _look(self, now: float) -> None:
        """Who is silent."""
        if self._is_deaf:
            return
        for node in list(self.nodes.values()):
            silent = now - node.heard_at
            if silent >= GONE:
                self._remove(node, NodeChange.GONE)
            elif silent >= SUSPECT and not node.is_suspect:
                node.is_suspect = True
                self.events.append(NodeEvent(node, NodeChange.SUSPECT))

    def _remove(self, node: Node, change: NodeChange) -> None:
        self.nodes = {epoch: one for epoch, one in self.nodes.items() if one is not node}
        node.clear()
        self.by_index.pop(node.index, None)
        self.events.append(NodeEvent(node, change))

    def _wants(self, node: Node, now: float) -> None:
        """Its list has to be fetched, soon."""
        if node.due is None and node.fetch is None:
            node.due = now + self._chance.random() * min(JITTER_MAX, JITTER * len(self.nodes))

    def _fetch(self, now: float) -> None:
        fetching = sum(node.fetch is not None for node in self.nodes.values())
        for node in self.nodes.values():
            if node.fetch is None and node.due is not None and node.due <= now and fetching < FETCHED_AT_ONCE:
                node.fetch, node.due = Fetch(self._chance.getrandbits(32)), None
                fetching += 1
            if node.fetch is not None and now - node.fetch.asked_at >= PAGE_TIMEOUT:
                self._ask_page(node, node.fetch, now)

    def _ask_page(self, node: Node, fetch: Fetch, now: float) -> None:
        fetch.tries += 1
        if fetch.tries > PAGE_TRIES:
            node.forget_fetch()
            node.due = now + HEARTBEAT + self._chance.random()
            return
        fetch.asked_at = now
        self._send(node.epoch, MessageKind.FETCH, telling.wanted(fetch))

    def _settle(self, now: float) -> None:
        if self.state is not ClusterState.SYNCING or not self._is_shown or now < self._since + self.settled_after:
            return
        if all(node.is_synced and not node.is_stale for node in self.nodes.values()):
            self._become(ClusterState.CONNECTED, now)

    # Within

    def _become(self, state: ClusterState, now: float) -> None:
        if state is not self.state:
            self.events.append(StateEvent(self.state, state))
            self.state, self._since = state, now

    def _send(self, to: int | None, kind: MessageKind, fields: Iterable[bytes] = (), body: bytes = b"") -> None:
        self.clock += 1
        if self.state is not ClusterState.LOST:
            self.out.append((to, messages.encode(kind, self.epoch, self.clock, fields, body)))


_HEARS: Final[dict[int, Callable[[Directory, Message, float], None]]] = {
    MessageKind.HEARTBEAT: Directory._hear_heartbeat,
    MessageKind.BATCH: Directory._hear_batch,
    MessageKind.BYE: Directory._hear_bye,
    MessageKind.FETCH: Directory._hear_fetch,
    MessageKind.PAGE: Directory._hear_page,
}
