"""Who is late is told so, and who is gone is buried: the ends of connections that the loop brings about."""

from __future__ import annotations

from contextlib import suppress

from pysock.base.forking import guard
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.causes import Cause
from pysock.states import DISCONNECT_REASONS, ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire.format import TEXT_FRAME_TOO_SLOW, TEXT_IDLE, ErrorCode, Kind, Refusal, encode_text

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.pure.connection import Connection

_NUMBER: Final = {reason: number for number, reason in enumerate(DISCONNECT_REASONS)}


def _last_words(connection: Connection, frame: bytes, event: ConnectionEvent, reason: DisconnectReason) -> None:
    """Say this if it can be said without waiting, and close."""
    if connection.protocol.state < ConnectionState.DRAINING:
        if frame:
            connection.put(frame)
        connection.end(event, reason)
    connection.flush()
    connection.settle()
    connection.lost(reason)


def turn_out(connection: Connection, cause: Cause, text: str, reason: DisconnectReason) -> None:
    """It has waited for too long to be let in, where that takes a CIR: refuse it, and close it. One that was refused
    before, and hasn't taken that, hears nothing new.
    """
    if connection.protocol.state is ConnectionState.DRAINING:
        connection.lost(reason)
        return
    challenged = connection.protocol.state is ConnectionState.CHALLENGED
    event = ConnectionEvent.PROOF_REFUSED if challenged else ConnectionEvent.CIR_REFUSED
    connection.core.note(cause)
    connection.core.counts.refused += 1
    _last_words(connection, encode_text(Kind.CIR_REFUSED, Refusal.CIR_TOO_LATE, text), event, reason)


def frame_too_late(connection: Connection) -> None:
    """The rest of a frame hasn't come in time."""
    connection.core.note(Cause.FRAME_LATE)
    says = connection.listener.framing.has_texts
    error = encode_text(Kind.ERROR, ErrorCode.DEADLINE_PASSED, TEXT_FRAME_TOO_SLOW) if says else b""
    _last_words(connection, error, ConnectionEvent.DRAIN, DisconnectReason.TIMED_OUT)


def idle_too_long(connection: Connection) -> None:
    """Nothing has come for too long."""
    connection.core.note(Cause.IDLE)
    says = connection.listener.framing.has_texts and connection.established
    goodbye = encode_text(Kind.GOAWAY, 0, TEXT_IDLE) if says else b""
    _last_words(connection, goodbye, ConnectionEvent.DRAIN, DisconnectReason.TIMED_OUT)


def bury(connection: Connection) -> None:
    """The end of the turn in which it was closed: tell, and free the row."""
    core = connection.core
    connection.buried = True
    connection.out.clear()
    connection.queued = 0
    fd, connection.fd = connection.fd, -1
    core.on_event.pop(fd, None)
    if not core.are_open():
        connection.sock.detach()
    with guard, suppress(OSError):  # never again, whatever it says: Linux has freed the number (close(2))
        connection.sock.close()
    core.descriptor_freed()
    try:
        with core.table.lock:
            told, connection.attached = connection.attached and connection.established, False
        if told:
            assert connection.reason is not None
            with suppress(MemoryError):  # nobody else pays for it
                core.callbacks.disconnect(connection.client_id, _NUMBER[connection.reason])
    finally:
        _count_gone(connection)
        connection.client = None


def _count_gone(connection: Connection) -> None:
    core, reason = connection.core, connection.reason
    counts = core.counts
    counts.disconnected += connection.established
    counts.timeouts += reason is DisconnectReason.TIMED_OUT
    counts.over_limit += reason is DisconnectReason.OVER_A_LIMIT
    with core.table.lock:
        counts.requests += connection.requests
        counts.bytes_in += connection.bytes_in
        counts.bytes_out += connection.bytes_out
        core.table.remove(connection.client_id)
