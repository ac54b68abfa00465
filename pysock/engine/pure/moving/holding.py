"""Clients that stand still: on the old side they are held, packed, and gone or served again; on the new side they sleep
and wake.

``Connection.moving`` says how far one is. One that is held looks to the rest of the engine as if the kernel had no
memory for its output (``starved``) and as if it weren't to be read; so nothing of it is watched, and what is put into
its output stays there.
"""

from __future__ import annotations

from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.forking import guard
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.deferral import Ended
from pysock.engine.pure.ending import spare_others
from pysock.engine.pure.output import ASLEEP, HELD, PACKED, PAUSED
from pysock.engine.pure.plain import PlainConnection
from pysock.engine.pure.transport import PLAIN
from pysock.handover.rows import CIR, FRAME, IDLE, OUTPUT
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.timers import Deadlines


def _kinds(core: Core) -> dict[int, Deadlines[Any]]:
    return {CIR: core.cirs, FRAME: core.frames, OUTPUT: core.outputs, IDLE: core.idles}


# --- the old side ---


def hold(core: Core, but: frozenset[int]) -> list[int]:
    """As :meth:`pysock.engine.moving.Moving.hold`."""
    core.now = monotonic()
    dirty, core.dirty = core.dirty, {}
    for output in dirty:
        spare_others(output, output.flush)
        output.settle()
    held: list[int] = []
    for client_id, connection in list(core.table.rows.items()):
        if connection.moving >= HELD or not _may_move(connection):
            continue
        if client_id in but:
            _serve_again(connection)
        elif connection.in_flight:
            connection.moving = PAUSED
            core.ready.pop(connection, None)
            connection.settle()
        else:
            _hold(connection)
            held.append(client_id)
    return held


def _may_move(connection: Connection) -> bool:
    if connection.protocol.state >= ConnectionState.DRAINING or connection.listener.transport is not PLAIN:
        return False
    return not (isinstance(connection, PlainConnection) and connection.is_too_large())


def _hold(connection: Connection) -> None:
    core = connection.core
    connection.moving = HELD
    core.still[connection] = lefts = {}
    for kind, deadlines in _kinds(core).items():
        left = deadlines.left(connection, core.now)
        if left is not None:
            lefts[kind] = left
            deadlines.stop(connection)
    core.slow.stop(connection)
    if connection.starved:
        core.starved.remove(connection)
    connection.starved = True
    core.ready.pop(connection, None)
    core.dirty.pop(connection, None)
    connection.settle()


def _serve_again(connection: Connection) -> None:
    if connection.moving:
        connection.stay()
        if connection.out:
            connection.core.dirty[connection] = None
        if connection.protocol.state is not ConnectionState.CLOSED:
            connection.settle()


def discard(core: Core, connections: Iterable[Connection]) -> None:
    """They are another's: forget them, and tell nobody."""
    for connection in connections:
        core.still.pop(connection, None)
        with core.table.lock:
            connection.protocol.take(ConnectionEvent.LOST)
            count(connection, 1)
            core.table.move_away(connection.client_id, connection.protocol.name)
        for part in (core.dirty, core.ready):
            part.pop(connection, None)
        core.slow.stop(connection)
        connection.reason, connection.buried, connection.attached = DisconnectReason.CLOSED_BY_SERVER, True, False
        if connection.origin is not None:
            core.origins.leave(connection.origin)
        core.counts.clients -= connection.established
        core.counts.pending -= not connection.established
        core.on_event.pop(connection.fd, None)
        connection.drop_input()
        connection.out.clear()
        connection.fd, connection.client = -1, None
        if not core.are_open():
            connection.sock.detach()
        with guard, suppress(OSError):
            connection.sock.close()
        core.descriptor_freed()


def count(connection: Connection, times: int) -> None:
    """What it has done is counted here without it, so many times: a client takes none of that along."""
    counts = connection.core.counts
    counts.requests += times * connection.requests
    counts.bytes_in += times * connection.bytes_in
    counts.bytes_out += times * connection.bytes_out


def wake(core: Core, states: frozenset[int]) -> list[Connection]:
    """Serve all that are so far from where they were, and return them."""
    core.now = monotonic()
    awake = [connection for connection in core.table.rows.values() if connection.moving in states]
    for kind, deadlines in _kinds(core).items():
        deadlines.go_on({one: core.still[one][kind] for one in awake if kind in core.still.get(one, {})}, core.now)
    for connection in awake:
        core.still.pop(connection, None)
        _serve_again(connection)
    return awake


def thaw(core: Core) -> None:
    """Nobody has moved. Where the server stops meanwhile, those that were packed then are told so now."""
    for connection in wake(core, frozenset((PAUSED, HELD, PACKED))):
        if core.drains:
            see_off(connection)


def see_off(connection: Connection) -> None:
    """Tell it that it is to go, and answer what it has asked for."""
    connection.finish_input()
    if connection.protocol.state < ConnectionState.DRAINING:
        spare_others(connection, connection.last_read)
        connection.core.streams.wind_up(connection)


def stand_aside(core: Core) -> None:
    """The server stops: who may be another's by now is left alone, and the others aren't held any more."""
    wake(core, frozenset((PAUSED, HELD)))
    discard(core, [one for one in core.table.rows.values() if one.moving == ASLEEP])


def set_aside(core: Core) -> None:
    """The loop ends, and nobody is left to take those back."""
    stand_aside(core)
    discard(core, [one for one in core.table.rows.values() if one.moving == PACKED])


def dismiss(core: Core, ids: frozenset[int]) -> None:
    """As :meth:`pysock.engine.moving.Moving.dismiss`."""
    for client_id, connection in list(core.table.rows.items()):
        meant = client_id in ids or connection.listener.transport is not PLAIN
        if not meant or connection.moving >= PACKED or connection.protocol.state >= ConnectionState.DRAINING:
            continue
        core.still.pop(connection, None)
        _serve_again(connection)
        see_off(connection)


def hurry(core: Core) -> None:
    """As :meth:`pysock.engine.moving.Moving.hurry`."""
    for batch in core.batches.values():
        batch.run(everything=True)
    for connection in [one for one in core.table.rows.values() if one.moving == PAUSED and one.deferred]:
        core.deferrals.cut_short(connection)
        core.deferrals.orphan(connection, Ended.STOPPED)
        if connection.listener.framing.has_texts:
            core.dirty[connection] = None
        elif connection.protocol.state < ConnectionState.DRAINING:
            connection.end(ConnectionEvent.DRAIN, DisconnectReason.SERVER_STOPPING)
    core.deferrals.tell()
