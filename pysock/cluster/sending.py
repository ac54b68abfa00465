"""What this node's program sends: to one client, wherever it is; to a group or to all; to whoever has a service.

What is for a client of this node goes straight to its table. For another node's it is one message to that node, and
one back; nothing is ever sent again by itself, so it arrives once or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pysock.base.deadlines import FOREVER
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.cluster import results
from pysock.cluster.bus.contract import Outcome
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind, Tag, number, text
from pysock.errors import BusDown, ConnectionLost, FrameTooLarge, NodeGone, RemoteError, RequestTimeout
from pysock.wire.error_text import remote_error
from pysock.wire.format import ErrorCode, encode_field

if TYPE_CHECKING:
    from typing import Final

    from pysock.base.aliases import Buffer
    from pysock.clients import ClientTable
    from pysock.cluster.bus.contract import Bus
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.subjects import Subjects
    from pysock.cluster.view import ClusterClient
    from pysock.cluster.waiting import Waiter

#: What a message of ours has around its payload, at most.
OVERHEAD: Final = 4096
_MILLISECONDS_MAX: Final = 2**32 - 1

#: What a push or an end comes to, as a waiter is told.
TRUE: Final = b"\1"
FALSE: Final = b""


class Spread(NamedTuple):
    """What came of a message to many.

    :ivar local: how many clients of this node got it.
    :ivar published: whether it went to the other nodes; ``False``: the bus is down, and theirs surely don't get it.
    """

    local: int
    published: bool


class Sending(Unique):
    """Of one node."""

    def __init__(self, directory: Directory, bus: Bus, subjects: Subjects, clients: ClientTable) -> None:
        self._directory = directory
        self._bus = bus
        self._subjects = subjects
        self._clients = clients
        self._connection = 0  # to the bus, the how manieth

    def connected(self) -> None:
        """The bus is there, again: what is said from now on overtakes what the connection before may still bring."""
        self._connection = (self._connection + 1) & 0xFFFFFFFF

    def largest(self) -> int:
        """How many bytes a payload may have that goes over the bus."""
        return self._bus.max_payload - OVERHEAD

    def _message(self, kind: MessageKind, fields: Iterable[bytes], payload: Buffer) -> bytes:
        if len(payload) > self.largest():
            raise FrameTooLarge(
                f"a payload of {len(payload)} bytes is over what the cluster's bus takes, {self.largest()} bytes: send"
                " it in parts"
            )
        own = self._directory
        return messages.encode(kind, own.epoch, own.clock, fields, bytes(payload))

    def _in_order(self, kind: MessageKind, field: bytes, payload: Buffer) -> bytes:
        return self._message(kind, [field, number(Tag.CONNECTION, self._connection)], payload)

    def _request(
        self, row: ClusterClient, message: bytes, seconds: float, waiter: Waiter, made: Callable[[bytes | None], bytes]
    ) -> None:
        if self._directory.nodes.get(row.epoch) is None:
            raise NodeGone(f"node {row.node!r} has gone, with its clients")
        ended = partial(_ended, waiter, made, f"node {row.node!r}")
        self._bus.request(self._subjects.node(row.epoch), message, seconds, ended)

    # To one client

    def push(self, row: ClusterClient | None, payload: Buffer) -> bool:
        """Send it, and wait for nothing."""
        if row is None:
            return False
        if row.epoch == self._directory.epoch:
            return self._clients.push(row.id, payload)
        message = self._in_order(MessageKind.PUSH, number(Tag.CLIENT, row.id), payload)
        self._bus.publish(self._subjects.node(row.epoch), message)
        return True

    def push_surely(self, row: ClusterClient | None, payload: Buffer, seconds: float, waiter: Waiter) -> None:
        """Send it; the waiter is told whether it is in the client's queue."""
        if row is None or row.epoch == self._directory.epoch:
            waiter.set_result(TRUE if self.push(row, payload) else FALSE)
            return
        message = self._in_order(MessageKind.PUSH, number(Tag.CLIENT, row.id), payload)
        self._request(row, message, seconds, waiter, _whether)

    def close(self, row: ClusterClient | None, seconds: float, waiter: Waiter) -> None:
        """Have its connection closed in order; the waiter is told whether it was there."""
        if row is None or row.epoch == self._directory.epoch:
            client = None if row is None else self._clients.get(row.id)
            if client is not None:
                client.close()
            waiter.set_result(FALSE if client is None else TRUE)
            return
        message = self._message(MessageKind.CLOSE, [number(Tag.CLIENT, row.id)], b"")
        self._request(row, message, seconds, waiter, _whether)

    def ask(self, row: ClusterClient, service: bytes, payload: Buffer, seconds: float | None, waiter: Waiter) -> None:
        """Ask a client of another node; the waiter is told what it answers."""
        fields = [number(Tag.CLIENT, row.id), encode_field(Tag.SERVICE, service)]
        if seconds is not None:
            fields.append(number(Tag.TIMEOUT, max(1, min(_MILLISECONDS_MAX, int(seconds * 1000)))))
        message = self._message(MessageKind.ASK, fields, payload)
        waits = FOREVER if seconds is None else seconds
        self._request(row, message, waits, _Patient(waiter), partial(_answer, row))

    # To whoever has a service

    def call(self, service: str, payload: Buffer, seconds: float | None, waiter: Waiter) -> None:
        """Have one of the nodes that have it do it."""
        fields = [text(Tag.CALLER, self._directory.info.name)]
        message = self._message(MessageKind.CALL, fields, payload)
        ended = partial(_called, service, _Patient(waiter))
        self._bus.request(self._subjects.service(service), message, FOREVER if seconds is None else seconds, ended)

    # To many

    def to_group(self, name: str, payload: Buffer) -> Spread:
        """To all members, on all nodes."""
        message = self._in_order(MessageKind.GROUP, text(Tag.GROUP, name), payload)
        published = self._published(self._subjects.group(name), message)
        return Spread(self._clients.broadcast(payload, where={"group": name}), published)

    def to_all(self, payload: Buffer) -> Spread:
        """To all clients of all nodes."""
        published = self._published(self._subjects.broadcast, self._in_order(MessageKind.BROADCAST, b"", payload))
        return Spread(self._clients.broadcast(payload), published)

    def _published(self, subject: str, message: bytes) -> bool:
        try:
            self._bus.publish(subject, message)
        except BusDown:
            return False
        return True


class _Patient:
    """A waiter that had so long to wait that no answer in time is a timeout, and nothing strange."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter

    def set_result(self, payload: bytes) -> None:
        """The answer."""
        self.waiter.set_result(payload)

    def set_exception(self, error: Exception) -> None:
        """There is none."""
        self.waiter.set_exception(error)

    def late(self) -> None:
        """Nor was there one in time."""
        self.waiter.set_exception(RequestTimeout("no answer in time: what was asked for may have been done"))


def _whether(body: bytes | None) -> bytes:
    return FALSE if body is None else TRUE


def _answer(row: ClusterClient, body: bytes | None) -> bytes:
    if body is None:
        raise ConnectionLost(f"client {row.address} isn't connected any more, and can't be asked")
    return body


def _ended(waiter: Waiter, made: Callable[[bytes | None], bytes], whom: str, outcome: Outcome, payload: bytes) -> None:
    """A request to a node has ended; in the bus's thread."""
    if outcome is Outcome.NOBODY:
        waiter.set_exception(NodeGone(f"{whom} has gone, with its clients"))
    elif outcome is Outcome.LATE and isinstance(waiter, _Patient):
        waiter.late()
    elif outcome is not Outcome.ANSWERED:
        waiter.set_exception(results.unanswered(outcome, whom))
    else:
        _tell(waiter, made, payload)


def _called(service: str, waiter: Waiter, outcome: Outcome, payload: bytes) -> None:
    if outcome is Outcome.NOBODY:
        nobody = f"no node of the cluster has a service {service!r}"
        error = remote_error(ErrorCode.NO_SUCH_SERVICE, 0, nobody.encode("utf-8", "replace"))
        error.started = False
        waiter.set_exception(error)
    else:
        _ended(waiter, partial(_body, service), f"the node that runs {service!r}", outcome, payload)


def _body(service: str, body: bytes | None) -> bytes:
    if body is None:
        raise RemoteError(f"the node that runs {service!r} has answered something else", ErrorCode.MALFORMED)
    return body


def _tell(waiter: Waiter, made: Callable[[bytes | None], bytes], payload: bytes) -> None:
    try:
        result = made(results.read(payload))
    except Exception as error:
        waiter.set_exception(error)
    else:
        waiter.set_result(result)
