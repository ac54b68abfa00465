"""Who is late is told so, and who is gone is buried: the ends of connections that the loop brings about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from pysock.base.forking import guard
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure import look
from pysock.engine.pure.poll import is_foreign
from pysock.states import DISCONNECT_REASONS, ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire.endings import ENDINGS, End, How, Row, last_words

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.output import Output

_NUMBER: Final = {reason: number for number, reason in enumerate(DISCONNECT_REASONS)}


def dismiss(connection: Connection, end: End, text: str = "", request_id: int = 0) -> None:
    """End it in this way, as the table has it.

    :param text: of its last words, where the table has none; and the id of an ERROR that they are.
    """
    row, core, admitted = ENDINGS[end], connection.core, connection.established
    refused = row.before is not None and not admitted
    speaks = connection.protocol.state < ConnectionState.DRAINING
    if row.how is How.CUT:
        connection.cut(end)
        return
    if refused and not speaks:
        connection.lost(row.reason)  # it was refused before, and hasn't taken that: it hears nothing new
        return
    if row.cause is not None:
        core.note(row.cause)
    core.counts.refused += refused
    core.counts.errors += row.is_error and admitted
    if speaks:
        frame = last_words(end, admitted, text, request_id) if connection.listener.framing.has_texts else b""
        if frame:
            connection.put(frame)
        connection.end(_event(row, connection.protocol.state), row.reason)
    if row.how is How.NOW:
        connection.flush()
        connection.settle()
        connection.lost(row.reason)


def _event(row: Row, state: ConnectionState) -> ConnectionEvent:
    if row.event is not None:
        return row.event
    challenged = state is ConnectionState.CHALLENGED
    return ConnectionEvent.PROOF_REFUSED if challenged else ConnectionEvent.CIR_REFUSED


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
    with suppress(MemoryError):
        look.credentials_of(connection)  # while its socket is there to be asked
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
        with suppress(MemoryError):  # it isn't worth more
            look.keep(connection)
        _count_gone(connection)
        connection.client = None


def look_at_numbers(core: Core) -> None:
    """The server stops, and reads everybody once more: but not what has got a client's number meanwhile."""
    for connection in list(core.table.rows.values()):
        if connection.interest:
            _look_at_number(connection)


def _look_at_number(connection: Connection) -> None:
    poller = connection.core.poller
    try:
        poller.change(connection.fd, connection.interest, connection.interest)
    except OSError as error:
        if is_foreign(poller, connection.sock, error):
            connection.sock.detach()
            connection.lost(DisconnectReason.CLOSED_BY_SERVER)


def _count_gone(connection: Connection) -> None:
    core, reason = connection.core, connection.reason
    counts = core.counts
    counts.disconnected += connection.established
    if core.metering is not None and connection.established and reason is not None:
        core.metering.left[_NUMBER[reason]] += 1
    counts.timeouts += reason is DisconnectReason.TIMED_OUT
    counts.over_limit += reason is DisconnectReason.OVER_A_LIMIT
    with core.table.lock:
        counts.requests += connection.requests
        counts.bytes_in += connection.bytes_in
        counts.bytes_out += connection.bytes_out
        core.table.remove(connection.client_id)


def spare_others(connection: Output, action: Callable[[], None]) -> None:
    """As for an event: where there is no memory, it costs this client its connection."""
    try:
        action()
    except MemoryError:
        connection.no_memory()


def no_memory_for(handle: Callable[[int], None]) -> None:
    """It costs the client its connection whose bytes there is no room for, and nobody else anything."""
    no_memory = getattr(getattr(handle, "__self__", None), "no_memory", None)
    if no_memory is not None:  # a listener, or the pipe, has none
        no_memory()
