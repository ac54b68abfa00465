"""The hub of the local bus: a :class:`pysock.Server` of the framing ``u32``, which passes records on.

It runs in whichever node has found none and got the lock of the socket file first; the lock, the file, who may connect
(this user), and what becomes of a member that doesn't read are the server's. This file owns who has subscribed to what,
and is called in that server's loop only.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pysock import Limits, Server
from pysock._version import __version__
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.cluster.bus.local import records as wire
from pysock.errors import PysockError
from pysock.states import DisconnectReason, ServerState

if TYPE_CHECKING:
    from typing import Final

    from pysock import DataSocket
    from pysock.address import Address
    from pysock.cluster.bus.routes import Route

#: Bytes that may wait for a member for some seconds, and at all: of NATS it is the second that counts, too.
_SOFT, _SOFT_SECONDS, _HARD = 16 * 1024 * 1024, 5.0, 64 * 1024 * 1024
#: How long its end may take, in seconds: some may not read.
_FLUSH: Final = 0.25
_MEMBERS_MAX: Final = 256
#: So many of those that were cut are remembered, to be told when they come back.
_CUT_MAX: Final = 1024
_SLOW: Final = (DisconnectReason.OVER_A_LIMIT, DisconnectReason.TIMED_OUT)


class _Member:
    """One node: what it has subscribed to, and what is to be sent to it in this turn."""

    __slots__ = ("chunks", "client", "routes", "token")

    def __init__(self, client: DataSocket, token: bytes) -> None:
        self.client = client
        self.token = token
        self.routes: set[Route] = set()
        self.chunks: list[bytes] = []


class Hub:
    """Of one address.

    :raises OSError: it can't be used; ``AddressInUse``: there is another hub.
    """

    def __init__(self, address: Address) -> None:
        limits = Limits(
            max_clients=_MEMBERS_MAX,
            max_payload=wire.MESSAGE_MAX,
            push_soft=_SOFT,
            push_soft_seconds=_SOFT_SECONDS,
            push_hard=_HARD,
        )
        self._members: dict[int, _Member] = {}
        self._on: dict[Route, list[_Member]] = {}
        self._cut: dict[bytes, None] = {}
        self._busy: dict[int, _Member] = {}  # those with chunks
        self._kinds: dict[int, Callable[[_Member, bytes], None]] = {
            wire.PUBLISH: self._publish,
            wire.REQUEST: self._request,
            wire.ANSWER: self._answer,
            wire.SUBSCRIBE: self._subscribe,
            wire.UNSUBSCRIBE: self._unsubscribe,
        }
        self._server = Server(address, framing="u32", limits=limits, name="pysock bus")
        self._server.batch_service(self._take)
        self._server.on_disconnect(self._gone)
        self._server.start()

    @property
    def is_serving(self) -> bool:
        """Whether it runs."""
        return self._server.state is ServerState.SERVING

    def stop(self) -> None:
        """End it, and wait for the end. What waits for its members is still sent: the last of it may be a goodbye."""
        self._server.stop(_FLUSH)

    # In the loop

    def _take(self, clients: list[DataSocket], messages: list[bytes]) -> list[None]:
        for client, message in zip(clients, messages, strict=True):
            self._message(client, message)
        busy, self._busy = self._busy, {}
        for member in busy.values():
            chunks, member.chunks = member.chunks, []
            _send(member.client, chunks)
        return [None] * len(messages)

    def _message(self, client: DataSocket, message: bytes) -> None:
        try:
            for record in wire.records(message):
                self._record(client, record)
        except wire.BadRecord as error:
            log.warning("the local bus: bytes of %r are no records: %s", client, error)
            client.close()

    def _record(self, client: DataSocket, record: bytes) -> None:
        member = self._members.get(client.id)
        if member is None:
            self._hello(client, record)
            return
        kind = self._kinds.get(record[0])
        if kind is not None:  # else it is of a later version
            kind(member, record)

    def _hello(self, client: DataSocket, record: bytes) -> None:
        version, token, _name = wire.read_node(record)
        was_cut = self._cut.pop(token, 0) is None
        welcome = wire.Welcome(wire.VERSION, client.id, wire.MAX_PAYLOAD, was_cut, f"pysock {__version__}")
        member = _Member(client, token)
        if version == wire.VERSION:
            self._members[client.id] = member
        self._put(member, wire.hub_hello(welcome))

    def _put(self, member: _Member, chunk: bytes) -> None:
        member.chunks.append(chunk)
        self._busy[member.client.id] = member

    def _publish(self, _member: _Member, record: bytes) -> None:
        self._pass_on(wire.subject_end(record)[0], record)

    def _request(self, member: _Member, record: bytes) -> None:
        if not self._pass_on(wire.subject_end(record)[0], record):
            self._put(member, wire.nobody(*wire.asked(record)))

    def _pass_on(self, subject: bytes, record: bytes) -> bool:
        everybody = self._on.get((subject, False))
        if everybody:
            whole = wire.passed_on(record)
            for member in everybody:
                self._put(member, whole)
        some = self._on.get((subject, True))
        if some:
            self._put(random.choice(some), wire.queued(record))  # noqa: S311  # no secret
        return bool(everybody or some)

    def _answer(self, _member: _Member, record: bytes) -> None:
        asker = self._members.get(wire.asked(record)[0])
        if asker is not None:
            self._put(asker, wire.passed_on(record))

    def _subscribe(self, member: _Member, record: bytes) -> None:
        route = wire.read_route(record)
        if route not in member.routes:
            member.routes.add(route)
            self._on.setdefault(route, []).append(member)

    def _unsubscribe(self, member: _Member, record: bytes) -> None:
        route = wire.read_route(record)
        if route in member.routes:
            member.routes.remove(route)
            self._leave(member, route)

    def _leave(self, member: _Member, route: Route) -> None:
        left = self._on[route]
        left.remove(member)
        if not left:
            del self._on[route]

    def _gone(self, client: DataSocket, reason: DisconnectReason) -> None:
        self._busy.pop(client.id, None)
        member = self._members.pop(client.id, None)
        if member is None:
            return
        for route in member.routes:
            self._leave(member, route)
        if reason in _SLOW:
            self._cut[member.token] = None
            while len(self._cut) > _CUT_MAX:
                del self._cut[next(iter(self._cut))]


def _send(client: DataSocket, chunks: list[bytes]) -> None:
    """In messages that aren't too long."""
    gathered: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size >= wire.GATHERED:
                client.send(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            client.send(b"".join(gathered))
    except (PysockError, OSError):  # it has gone, and with it what it would have got
        client.close()
