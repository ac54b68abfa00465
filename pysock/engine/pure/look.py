"""Looking at one engine from outside its loop: the rows of the client table, and the counters. Any thread may."""

from __future__ import annotations

from array import array
from itertools import islice
from time import time

from pysock.access.peers import peer_of
from pysock.base.aliases import Ids
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, cast
from pysock.engine.rows import ClientInfo, EngineStats, Gone
from pysock.states import DISCONNECT_REASONS, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.tls.info import TLSInfo

_NUMBER: Final = {reason: number for number, reason in enumerate(DISCONNECT_REASONS)}


def find(core: Core, client_id: int) -> Connection | None:
    """The connection of this id, unless it is closed."""
    connection = core.table.rows.get(client_id)
    return None if connection is None or connection.protocol.state is ConnectionState.CLOSED else connection


def attach(core: Core, client_id: int) -> bool:
    """Ask for ``Callbacks.disconnect`` when this client goes."""
    with core.table.lock:
        connection = find(core, client_id)
        if connection is None:
            return False
        connection.attached = True
        return True


def info(core: Core, client_id: int) -> ClientInfo | None:
    """The row of a connected client; also of one whose end is being told."""
    connection = core.table.rows.get(client_id)
    if connection is None or (connection.protocol.state is ConnectionState.CLOSED and not connection.buried):
        return None
    via = core.table.vias.get(client_id)
    return row(connection) if via is None else row(connection)._replace(header=via.header)


def row(connection: Connection) -> ClientInfo:
    """Its row, as it is."""
    pid, uid, gid = credentials_of(connection)
    via = connection.core.table.vias.get(connection.client_id)
    return ClientInfo(
        client_id=connection.client_id,
        fd=connection.fd,
        state=int(connection.protocol.state),
        name=connection.protocol.name,
        software=connection.protocol.software,
        master=connection.listener.index,
        address=connection.address,
        pid=pid,
        uid=uid,
        gid=gid,
        connected_at=connection.connected_at,
        idle_since=time() - max(0.0, monotonic() - connection.heard),
        requests=connection.requests,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        frames_in=connection.requests + connection.frames_in,
        frames_out=connection.frames_out,
        in_flight=connection.in_flight,
        queued=connection.queued,
        pushes_dropped=connection.dropped,
        via="" if via is None else via.address,
    )


def rows(core: Core, among: Ids | None) -> list[ClientInfo]:
    """The rows of these clients, or of all, oldest first."""
    with core.table.lock:
        clients = list(core.table.clients.values())
    wanted = None if among is None else frozenset(array("Q", among))
    return [row(client) for client in clients if wanted is None or client.client_id in wanted]


def gone(core: Core, most: int = 1000) -> list[Gone]:
    """The last clients that went, at most so many; who went last is last."""
    with core.table.lock:
        first = max(0, len(core.table.gone) - most)
        return [
            Gone(one.row or row(cast("Connection", one.connection)), _NUMBER[one.reason], one.at)
            for one in islice(core.table.gone, first, None)
        ]


def keep(connection: Connection) -> None:
    """It loses its row: what was said of it last is said of it from now on."""
    leaver = connection.leaver
    if leaver is not None:
        with connection.core.table.lock:
            leaver.row = row(connection)
            leaver.connection = None


def select(core: Core, uid: int | None, name: str | None, among: Ids | None, but: int) -> Ids:
    """The ids of those clients that are meant."""
    matches = None if name is None else _matcher(name)
    with core.table.lock:
        clients = dict(core.table.clients)
    if among is not None:
        clients = {number: clients[number] for number in array("Q", among) if number in clients}
    found = [
        number
        for number, client in clients.items()
        if number != but
        and (matches is None or matches(client.protocol.name))
        and (uid is None or credentials_of(client)[1] == uid)
    ]
    return array("Q", found).tobytes()


def _matcher(name: str) -> Callable[[str], object]:
    from pysock.base.patterns import matcher  # noqa: PLC0415  # it brings re, which servers seldom need, and clients never

    return matcher(name)


def credentials_of(connection: Connection) -> tuple[int, int, int]:
    """Process, user and group at its other end; -1 for what isn't known."""
    if connection.credentials is None:
        connection.credentials = (-1, -1, -1) if connection.address else peer_of(connection.sock)
    return connection.credentials


def tls(core: Core, client_id: int) -> TLSInfo | None:
    """What came of the handshake of a client."""
    connection = core.table.rows.get(client_id)
    return None if connection is None else connection.tls()


def stats(core: Core) -> EngineStats:
    """The counters."""
    table, counts = core.table, core.counts
    with table.lock:
        rows = list(table.rows.values())
        plain = (getattr(counts, name) for name in counts.__slots__)
        stats = EngineStats._make([*plain, tuple(core.causes.counts)])
        return stats._replace(
            requests=stats.requests + sum(row.requests for row in rows),
            bytes_in=stats.bytes_in + sum(row.bytes_in for row in rows),
            bytes_out=stats.bytes_out + sum(row.bytes_out for row in rows),
        )
