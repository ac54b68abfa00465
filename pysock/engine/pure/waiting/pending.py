"""Requests that have no answer yet: how many of one client, and how many bytes; when it isn't read for them; and which
of them get an answer.

Who lets requests wait tells it by ``add``, and keeps each as ``Unanswered``; who has an answer asks ``done`` whether it
may be given. A connection that is ending isn't closed while one of its requests waits.

Where both ends speak of it a client may cancel a request: it is answered at once, and its id is free. But it counts
until whoever lets it wait has done with it, so that asking and cancelling can't pile up work.

Where no id tells which request a reply is for, the order does: answers are given in the order of the requests, and
after one that stays without an answer none may come.
"""

from __future__ import annotations

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.features import Feature
from pysock.wire.format import ErrorCode
from pysock.wire.rules import FrameProtocol

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    from pysock.engine.pure.connection import Connection

    #: Connection, request id, wants a reply, payload, deadline (0: none). A plain tuple: it is cheap.
    Unanswered: TypeAlias = tuple[Connection, int, bool, bytes, float]

#: Bytes of the requests of one client that wait, at which it isn't read.
_BYTES_MAX: Final = 64 * 1024 * 1024

_CANCEL: Final = int(Feature.CANCEL)


def add(connection: Connection, requests: int, size: int) -> None:
    """So many more of its requests wait, of so many bytes together."""
    connection.in_flight += requests
    connection.in_flight_bytes += size
    if connection.in_flight >= _most(connection) or connection.in_flight_bytes >= _BYTES_MAX:
        connection.full = True


def _most(connection: Connection) -> int:
    """One that may cancel is read while it has as many in flight as it was told: else its CANCELs would not be."""
    return connection.core.limits.max_in_flight + speaks_of_cancelling(connection)


def done(connection: Connection, size: int) -> bool:
    """One of this size waits no more; whether its answer may be given."""
    connection.in_flight -= 1
    connection.in_flight_bytes -= size
    half = connection.core.limits.max_in_flight // 2
    if connection.full and connection.in_flight <= half and connection.in_flight_bytes <= _BYTES_MAX // 2:
        connection.full = False
    connection.core.dirty[connection] = None  # to be read again, or closed
    return not connection.gave_up and connection.protocol.state is not ConnectionState.CLOSED


def give_up(connection: Connection) -> None:
    """One stays without an answer, where only the order tells them apart."""
    connection.gave_up = True


def room(connection: Connection) -> int:
    """How many more may wait; if there is none it isn't read."""
    if connection.deferred and not connection.listener.framing.has_ids:
        return 0  # nothing would tell the answer from the next one
    least = int(connection.core.drains)  # the last of the input is looked at, however many wait
    return least if connection.full else max(least, _most(connection) - connection.in_flight)


# --- requests that may be cancelled, and have deadlines ---


def hold_id(waiting: Unanswered) -> None:
    """Its client may cancel it from now on, if it speaks of that."""
    held = ids_held(waiting[0], waiting[2])
    if held is not None:
        held[waiting[1]] = waiting


def free_id(waiting: Unanswered) -> bool:
    """Its id is free; whether it waited until now, or was cancelled."""
    if _is_cancelled(waiting):
        return False
    held = ids_held(waiting[0], waiting[2])
    if held is not None:
        del held[waiting[1]]
    return True


def may_start(waiting: Unanswered) -> bool:
    """Whether its handler may be called. If not it waits no more, and its client knows why."""
    connection, request_id, wants_reply, request, deadline = waiting
    state = connection.protocol.state
    if state is ConnectionState.CLOSED:
        return False
    abandoned = wants_reply and _is_gone(connection)
    if not abandoned and not _is_cancelled(waiting) and not is_late(deadline):
        return True
    waited = free_id(waiting)
    if done(connection, len(request)) and waited and not abandoned:
        connection.core.counts.errors += 1
        not_started(connection, request_id, wants_reply, ErrorCode.DEADLINE_PASSED, texts.TOO_LATE)
    return False


def why_unwanted(waiting: Unanswered) -> ErrorCode | None:
    """Why ``may_start`` has said no, as far as that can be told; ``None``: its client has gone."""
    connection, _, wants_reply, _, deadline = waiting
    if connection.protocol.state is ConnectionState.CLOSED or (wants_reply and _is_gone(connection)):
        return None
    return ErrorCode.DEADLINE_PASSED if is_late(deadline) else ErrorCode.CANCELLED


def ids_held(connection: Connection, wants_reply: bool) -> dict[int, object] | None:
    """The ids that its client may cancel; ``None``: not that of this request."""
    protocol = connection.protocol
    if not wants_reply or not protocol.features & _CANCEL:
        return None
    assert isinstance(protocol, FrameProtocol)
    return protocol.in_flight


def _is_cancelled(waiting: Unanswered) -> bool:
    held = ids_held(waiting[0], waiting[2])
    return held is not None and held.get(waiting[1]) is not waiting


def _is_gone(connection: Connection) -> bool:
    """It has closed its sending side, and is one that does so only when it is gone."""
    left = connection.protocol.state is ConnectionState.DRAINING
    return left and connection.reason is DisconnectReason.CLOSED_BY_PEER and speaks_of_cancelling(connection)


def speaks_of_cancelling(connection: Connection) -> bool:
    """It may cancel requests, and closes its sending side only when it is gone."""
    return bool(connection.protocol.features & _CANCEL)


def is_late(deadline: float) -> bool:
    """Nobody waits any longer; never with a deadline of 0."""
    return bool(deadline) and monotonic() >= deadline


def not_started(connection: Connection, request_id: int, wants_reply: bool, code: ErrorCode, text: str) -> None:
    """Answer a request whose handler isn't started, and which is counted."""
    protocol = connection.protocol
    assert isinstance(protocol, FrameProtocol)
    if wants_reply and protocol.state is not ConnectionState.CLOSED:
        connection.put(protocol.not_started(request_id, code, text))


def cancel(connection: Connection, request_id: int) -> None:
    """Its client waits for this request no more. One that isn't in flight has been answered meanwhile."""
    protocol = connection.protocol
    assert isinstance(protocol, FrameProtocol)
    waiting = protocol.in_flight.get(request_id)
    if type(waiting) is tuple:
        del protocol.in_flight[request_id]
        connection.core.counts.errors += 1
        not_started(connection, request_id, True, ErrorCode.CANCELLED, texts.CANCELLED)
    elif waiting is not None:  # its worker is told first
        connection.core.deferrals.cancel(waiting)
