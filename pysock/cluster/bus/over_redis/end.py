"""A node's end of a bus that is a Redis, or a Valkey.

Its publish and subscribe is nearly what a bus promises: it tells how many heard a message, so a request that reached
nobody ends at once. It has no queues, so each member has a channel of its own, and whoever publishes picks one; if that
has gone, which the Redis tells, another one is picked. Where a member comes or goes just then, its message may be heard
after a later one.

A Redis that was demoted in a failover goes on answering, and what is published there reaches few. So with each probe it
is asked what it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import hiredis

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.cluster.bus.contract import Outcome
from pysock.cluster.bus.looped import FAR, PATIENCE, Looped
from pysock.cluster.bus.over_redis import wire
from pysock.cluster.bus.over_redis.link import Link
from pysock.cluster.bus.over_redis.queues import Queues
from pysock.cluster.bus.reasons import explained

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.cluster.bus.over_redis.link import Server
    from pysock.cluster.bus.over_redis.sentinel import Sentinels
    from pysock.cluster.bus.routes import Route

#: Seconds in which a server may have cut this end as too slow.
_HELD_UP: Final = 0.25
_WRONG_USER: Final = (
    "the server refuses this user: give the right one, redis://USER:PASSWORD@HOST or redis://:PASSWORD@HOST"
)
_TOO_OLD: Final = "it is older than Redis 6, and can't be a bus: run a newer one"
#: What the server and the library say, in small letters, and what it means.
_MEANINGS: Final = {
    "noauth": _WRONG_USER,
    "wrongpass": _WRONG_USER,
    "noperm": (
        "the server allows this user too little: ACL SETUSER ... +@pubsub +@connection &{prefix}.* is what it needs"
    ),
    "unknown command": _TOO_OLD,
    "noproto": _TOO_OLD,
    "protocol error": "what listens there is no Redis: is the port right? A Redis has 6379",
    "certificate": (
        "its certificate isn't trusted: add its authority to the system's, or to a file that SSL_CERT_FILE names"
    ),
    "ssl": "TLS failed: is it rediss:// at a port where TLS is spoken?",
}
#: What answers a command, though it comes as a message does.
_CONFIRMED: Final = ([b"subscribe"], [b"unsubscribe"])
_REPLICA: Final = "it is a replica, where few would hear: name the primary, or what leads to it"
_CLUSTER: Final = (
    "it is one of a Redis Cluster, which doesn't tell whether a message was heard: use a Redis that is none, with"
    " replicas and Sentinels, redis+sentinel://HOST:26379/MASTER, or NATS"
)
_SENTINEL: Final = (
    "it is a Sentinel, which carries no messages, but knows who does: say redis+sentinel://HOST:PORT/MASTER"
)


class RedisBus(Looped):
    """See :class:`pysock.cluster.bus.contract.Bus`.

    :param server: where, and as whom; or who knows it.
    """

    kind = "redis"

    def __init__(self, server: Server | Sentinels, node: str, prefix: str) -> None:
        self._server = server
        self._link: Link | None = None
        self._expected: deque[Callable[[Any], object]] = deque()
        self._queues = Queues()
        self._was_held_up = False
        super().__init__(server.where, node, prefix, wire.MAX_PAYLOAD)
        self._inbox = wire.inbox(prefix, self.token)
        self._members = wire.members(prefix)

    def another(self) -> RedisBus:
        """See :class:`Spine`."""
        return RedisBus(self._server, self.node, self.prefix)

    # The connection

    def attempt(self) -> None:
        """See :class:`Looped`."""
        try:
            self._link = Link(self._server.primary(PATIENCE), PATIENCE)
        except (OSError, hiredis.ProtocolError) as error:
            self._failed(error)
            return
        self._was_held_up = False
        self.begin(self._link.sock)
        words = [b"HELLO", b"3"]
        if self._server.user or self._server.password:
            words += [b"AUTH", (self._server.user or "default").encode(), self._server.password.encode()]
        self._command(self._welcomed, *words, b"SETNAME", _printable(self.node))

    def silence(self) -> str:
        """See :class:`Looped`."""
        return "whoever listens there doesn't answer: is it a Redis, was its process stopped?"

    def forget(self) -> None:
        """See :class:`Looped`."""
        self._link = None
        self._expected.clear()

    def flush(self) -> None:
        """See :class:`Looped`."""
        if self._link is None:
            return
        try:
            self.want(write=self._link.flush())
            self.outbox.unsent = self._link.unsent
        except OSError as error:
            self._over(error)

    def read(self) -> None:
        """See :class:`Looped`."""
        link, begin = self._link, self.clock()
        if link is None:
            return
        try:
            for reply in link.receive():
                self._came(reply)
                if self._link is not link:
                    return
        except (EOFError, OSError, hiredis.ProtocolError) as error:
            self._over(error)
        if self.clock() - begin > _HELD_UP:
            self._was_held_up = True

    def _over(self, error: Exception) -> None:
        """The connection is. The server may have cut this end as too slow."""
        if self._was_held_up:
            self.note_dropped()
        if isinstance(error, hiredis.ProtocolError):
            self._is_foreign(error)
        elif self.is_welcome or isinstance(error, EOFError):
            self.lose("its server has closed the connection")
        else:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        why, is_refused = explained(error, _MEANINGS, self.prefix)
        self.rest(FAR)
        (self.give_up if is_refused else self.lose)(why)

    def _is_foreign(self, said: object) -> None:
        self._failed(hiredis.ProtocolError(f"protocol error: {said}"))

    def _welcomed(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._failed(reply)
            return
        if not isinstance(reply, dict) or reply.get(b"proto") != 3:  # RESP 3 is what was asked for
            self._is_foreign("no answer to HELLO")
            return
        if not self._is_fit(reply):
            return
        self.welcome()
        self.software: str = f"{_text(reply, b'server')} {_text(reply, b'version')}"
        self._subscribe(self._inbox, is_needed=True)
        self._subscribe(self._members, is_needed=True)
        self._command(self._told_members, b"PUBSUB", b"CHANNELS", f"{self.prefix}.*@*".encode("ascii"))
        self.linked(wire.MAX_PAYLOAD)

    def _is_fit(self, reply: Any) -> bool:
        if isinstance(reply, dict) and _text(reply, b"role") == "replica":
            (self.lose if self._server.moves else self.give_up)(_REPLICA)
        elif isinstance(reply, dict) and _text(reply, b"mode") == "cluster":
            self.give_up(_CLUSTER)
        elif isinstance(reply, dict) and _text(reply, b"mode") == "sentinel":
            self.give_up(_SENTINEL)
        else:
            return True
        return False

    def send_probe(self) -> None:
        """See :class:`Spine`."""
        super().send_probe()
        self._command(self._is_fit, b"HELLO")

    # What comes

    def _came(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if self._is_message(reply):
                self._message(reply[1], reply[2])
                return
            if reply[:1] not in _CONFIRMED:
                return
        if self._expected:
            self._expected.popleft()(reply)
        else:
            self._is_foreign("more answers than questions")

    def _is_message(self, reply: list[Any]) -> bool:
        return reply[:1] == [b"message"] and list(map(type, reply)) == [bytes, bytes, bytes]

    def _message(self, channel: bytes, data: bytes) -> None:
        if channel == self._inbox:
            answer = wire.read_answer(data)
            if answer is not None:
                self.ended(answer[0], Outcome.ANSWERED, answer[1])
            return
        if channel == self._members:
            self._member(data)
            return
        subject, _, member = channel.partition(b"@")
        route = (subject, bool(member))
        kind = data[0] if data else -1
        if kind == wire.PUBLISH:
            self.hear(route, data[1:], None)
        elif kind == wire.REQUEST and (asked := wire.read_request(data)) is not None:
            token, number, payload = asked
            self.hear(route, payload, partial(self.answer, (token, number)))

    def _member(self, data: bytes) -> None:
        kind = data[0] if data else -1
        if kind == wire.JOIN:
            self._queues.join(data[1:])
        elif kind == wire.LEAVE:
            self._queues.leave(data[1:])

    def _told_members(self, reply: Any) -> None:
        if isinstance(reply, list):
            self._queues.learn(reply)
        elif isinstance(reply, hiredis.ReplyError):
            self._failed(reply)
        else:
            self._is_foreign("no list of channels")

    # What goes

    def _command(self, replied: Callable[[Any], object], *words: bytes) -> None:
        if self._link is not None:
            self._link.command(*words)
            self._expected.append(replied)

    def _subscribe(self, channel: bytes, *, is_needed: bool = False) -> None:
        self._command(partial(self._subscribed, channel, is_needed), b"SUBSCRIBE", channel)

    def _subscribed(self, channel: bytes, is_needed: bool, reply: Any) -> None:
        if not isinstance(reply, hiredis.ReplyError):
            return
        if is_needed:
            self._failed(reply)
        else:
            log.warning("the bus %s: subscribing to %s: %s", self.where, channel.decode(), reply)

    def send_subscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        if route[1]:
            channel = self._channel(route)
            self._subscribe(channel)
            self._command(_nothing, b"PUBLISH", self._members, bytes((wire.JOIN,)) + channel)
        else:
            self._subscribe(route[0], is_needed=self.token in route[0].decode())

    def send_unsubscribe(self, route: Route) -> None:
        """See :class:`Spine`."""
        channel = self._channel(route)
        if route[1]:
            self._command(_nothing, b"PUBLISH", self._members, bytes((wire.LEAVE,)) + channel)
        self._command(_nothing, b"UNSUBSCRIBE", channel)

    def _channel(self, route: Route) -> bytes:
        return b"%s@%s" % (route[0], self.token.encode("ascii")) if route[1] else route[0]

    def send_publish(self, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        self._begin(_Trip(subject, wire.publish(payload), None))

    def send_request(self, number: int, subject: bytes, payload: bytes) -> None:
        """See :class:`Spine`."""
        self._begin(_Trip(subject, wire.request(bytes.fromhex(self.token), number, payload), number))

    def send_answer(self, token: Any, payload: bytes) -> None:
        """See :class:`Spine`."""
        asker, number = token
        self._command(_nothing, b"PUBLISH", wire.inbox(self.prefix, asker), wire.answer(number, payload))

    def _begin(self, trip: _Trip) -> None:
        """Publish it; to one of a queue at once, if it is known that there is one."""
        trip.waits += 1
        self._command(partial(self._heard_by, trip), b"PUBLISH", trip.subject, trip.data)
        if trip.subject in self._queues:
            self._to_member(trip)

    def _to_member(self, trip: _Trip) -> None:
        channel = self._queues.pick(trip.subject)
        if channel is not None:
            trip.is_queued = True
            trip.waits += 1
            self._command(partial(self._taken_by, trip, channel), b"PUBLISH", channel, trip.data)

    def _heard_by(self, trip: _Trip, reply: Any) -> None:
        """So many hear the subject. By now all members are known that were there when it was published."""
        self._count(trip, reply)
        if not trip.is_queued and trip.subject in self._queues:
            self._to_member(trip)
        self._end(trip)

    def _taken_by(self, trip: _Trip, channel: bytes, reply: Any) -> None:
        if not self._count(trip, reply):
            self._queues.leave(channel)
            self._to_member(trip)
        self._end(trip)

    def _count(self, trip: _Trip, reply: Any) -> bool:
        """Whether anybody has heard it."""
        trip.waits -= 1
        if isinstance(reply, hiredis.ReplyError):
            log.warning("the bus %s: publishing to %s: %s", self.where, trip.subject.decode(), reply)
            return False
        is_heard = isinstance(reply, int) and reply > 0
        trip.is_heard |= is_heard
        return is_heard

    def _end(self, trip: _Trip) -> None:
        if not trip.waits and not trip.is_heard and trip.number is not None:
            self.ended(trip.number, Outcome.NOBODY)


class _Trip:
    """A message on its way."""

    __slots__ = ("data", "is_heard", "is_queued", "number", "subject", "waits")

    def __init__(self, subject: bytes, data: bytes, number: int | None) -> None:
        self.subject = subject
        self.data = data
        self.number = number  # of a request
        self.waits = 0  # for so many replies
        self.is_queued = False  # one of the queue was picked
        self.is_heard = False


def _nothing(_reply: Any) -> None:
    pass


def _printable(name: str) -> bytes:
    """What a Redis takes as the name of a connection: without spaces."""
    return "".join(letter if "!" <= letter <= "~" else "-" for letter in name).encode("ascii")


def _text(reply: dict[Any, Any], key: bytes) -> str:
    value = reply.get(key, b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
