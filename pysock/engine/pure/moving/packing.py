"""What a row says of a connection, and a connection that is as a row says."""

from __future__ import annotations

import socket
from contextlib import suppress

from pysock.access.peers import peer_of
from pysock.address import join_host_port
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import no_sigpipe
from pysock.engine.proxies import VIA_UNIX
from pysock.engine.pure.door.access import network_of
from pysock.engine.pure.door.kinds import kind_of
from pysock.engine.pure.door.proxied import Header, Via
from pysock.engine.pure.output import ASLEEP
from pysock.handover.rows import (
    ACCEPTED,
    CHALLENGED,
    ESTABLISHED,
    FRAME,
    IPV4,
    IPV6,
    OUTPUT,
    UNIX,
    Address,
    Counters,
    Proxied,
    Row,
)
from pysock.states import ConnectionEvent
from pysock.wire.features import FEATURES, Feature
from pysock.wire.format import FLAG_DEADLINE
from pysock.wire.proxy.reading import taken_apart
from pysock.wire.rules import FrameProtocol

if TYPE_CHECKING:
    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener

_U32 = 2**32 - 1
_FAMILIES = {IPV4: socket.AF_INET, IPV6: socket.AF_INET6}


def row_of(connection: Connection) -> Row:
    """What is to be known of one that is held."""
    core, protocol = connection.core, connection.protocol
    header = getattr(core.on_event.get(connection.fd), "__self__", None)
    awaits_header = isinstance(header, Header)
    data, skip = (header.data, 0) if isinstance(header, Header) else connection.unread()
    origin, proxied = _whence(connection)
    return Row(
        client_id=connection.client_id,
        state=int(protocol.state),
        max_reply=protocol.reply_limit,
        listener=connection.listener.index,
        features=protocol.features,
        name=protocol.name,
        software=protocol.software,
        expected=protocol.expected if isinstance(protocol, FrameProtocol) and protocol.state == CHALLENGED else b"",
        origin=origin,
        proxied=proxied,
        counters=Counters(
            round(connection.connected_at * 1e9),
            connection.requests,
            connection.bytes_in,
            connection.bytes_out,
            connection.frames_in,
            connection.frames_out,
        ),
        deadlines=tuple((kind, _milliseconds(left)) for kind, left in sorted(core.still[connection].items())),
        input=data,
        skip=skip,
        output=b"".join(connection.out),
        stream_window=protocol.stream_window or 0,
        gap=connection.lost_pushes,
        heard=_milliseconds(core.now - connection.heard),
        gave_up=connection.gave_up,
        awaits_header=awaits_header,
        waited=_milliseconds(core.now - _read_at(protocol)) if data and isinstance(protocol, FrameProtocol) else 0,
        dropped=connection.dropped,
    )


def _milliseconds(seconds: float) -> int:
    return min(max(0, round(seconds * 1e3)), _U32)


def _read_at(protocol: FrameProtocol) -> float:
    """When what waits was read, or what is received was begun. Only deadlines of requests count from it."""
    header = protocol.cutter.header
    return protocol.began if header is not None and header.flags & FLAG_DEADLINE else protocol.read_at


def _whence(connection: Connection) -> tuple[Address | None, Proxied | None]:
    via = connection.core.table.vias.get(connection.client_id)
    if via is None:
        return None, None
    has_path = connection.address.startswith(VIA_UNIX)
    told = connection.address not in {"", via.address} and not has_path
    proxy = Address(UNIX) if via.address == VIA_UNIX else _address_of(via.address)
    return _address_of(connection.address) if told else None, Proxied(proxy, via.header, has_path)


def _address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    host = host.strip("[]").partition("%")[0]
    family = IPV6 if ":" in host else IPV4
    return Address(family, socket.inet_pton(_FAMILIES[family], host), int(port))


def _written(address: Address) -> str:
    if address.family == UNIX:
        return VIA_UNIX
    return join_host_port(socket.inet_ntop(_FAMILIES[address.family], address.host), address.port)


# --- the other way ---------------------------------------------------------------------------------------------------


def check(row: Row, core: Core, listeners: list[Listener], ids: set[int]) -> None:
    """See whether such a client may come.

    :param ids: of those that come with it, before it.
    :raises ValueError: it mayn't.
    """
    if row.listener >= len(listeners):
        raise ValueError(f"it came through listener {row.listener}, and there are {len(listeners)}")
    framed = listeners[row.listener].framing.has_cir
    for good, problem in (
        (row.client_id not in ids and core.table.may_add(row.client_id), f"the id {row.client_id:#x} isn't free"),
        (not row.features & ~FEATURES, f"the features {row.features:#x} aren't all known"),
        (framed or row.state != CHALLENGED, "nobody is challenged in this framing"),
        (framed or not (row.features or row.skip or row.gap), "this framing has no frames"),
        (row.state != CHALLENGED or core.callbacks.challenge, "it is challenged, and there is no key"),
        (not row.awaits_header or listeners[row.listener].proxies, "it has a proxy's header, and none may come"),
    ):
        if not good:
            raise ValueError(problem)


def make(core: Core, sock: socket.socket, listener: Listener, row: Row, now: float) -> Connection:
    """Make such a connection, asleep.

    :raises OSError: the socket isn't one that can be used.
    """
    sock.setblocking(False)
    own = _own_address(sock) if listener.tcp else ""
    core.table.coming = row.client_id
    connection = kind_of(listener)(core, sock, listener, own)
    _set_whence(connection, row, own)
    _set_protocol(connection, row)
    _set_counted(connection, row, now)
    connection.out = [row.output] if row.output else []
    connection.queued = len(row.output)
    connection.lost_pushes, connection.dropped, connection.gave_up = row.gap, row.dropped, row.gave_up
    core.still[connection] = {kind: left / 1e3 for kind, left in row.deadlines}
    connection.moving, connection.starved = ASLEEP, True
    connection.timed = any(kind == FRAME for kind, _ in row.deadlines)
    connection.stalled = any(kind == OUTPUT for kind, _ in row.deadlines)
    _let_rest(connection)
    if row.awaits_header:
        assert listener.proxies is not None
        Header(connection, listener.proxies.versions).go_on(row.input)
    else:
        connection.come(row.input, row.skip, now - row.waited / 1e3)
    connection.choked = row.state == ESTABLISHED and connection.queued > connection.pause_at
    return connection


def _let_rest(connection: Connection) -> None:
    """As when one is accepted, and let in; but nothing of it is waited for, and nobody is told."""
    core, counts = connection.core, connection.core.counts
    no_sigpipe(connection.sock)
    idles = core.limits.idle_timeout is not None
    core.on_event[connection.fd] = connection._on_event_idle if idles else connection.on_event
    if connection.protocol.state != ESTABLISHED:
        counts.pending += 1
        return
    connection.established, connection.pause_at = True, core.limits.output_pause
    counts.clients += 1
    core.table.let_in(connection.client_id, connection, connection.protocol.name)


def _own_address(sock: socket.socket) -> str:
    with suppress(OSError):  # it is gone already, which will be seen
        return join_host_port(*sock.getpeername()[:2])
    return "?:0"


def _set_whence(connection: Connection, row: Row, own: str) -> None:
    core, listener, via = connection.core, connection.listener, row.proxied
    if via is not None:
        core.table.vias[connection.client_id] = Via(_written(via.proxy), via.header)
        if row.origin is not None:
            connection.address = _written(row.origin)
        elif via.has_path:
            connection.address = taken_apart(via.header).origin
    if via is not None or listener.tcp:
        connection.credentials = (-1, -1, -1)
    host = _written(row.origin) if row.origin is not None else own if via is None else ""
    if host and host != "?:0":
        if core.limits.max_clients_per_ip is not None and not row.awaits_header:
            connection.origin = network_of(host.rpartition(":")[0].strip("[]"))
    elif via is None and core.limits.max_clients_per_uid is not None and listener.proxies is None:
        connection.credentials = peer_of(connection.sock)
        connection.origin = connection.credentials[1]
    if connection.origin is not None:
        core.origins.take(connection.origin)


def _set_protocol(connection: Connection, row: Row) -> None:
    protocol = connection.protocol
    if row.state != ACCEPTED:
        challenged = row.state == CHALLENGED
        protocol.take(ConnectionEvent.CIR_CHALLENGED if challenged else ConnectionEvent.CIR_ACCEPTED)
    protocol.name = row.name
    if isinstance(protocol, FrameProtocol):
        protocol.software, protocol.features, protocol.expected = row.software, row.features, row.expected
        protocol.reply_limit = min(protocol.reply_limit, row.max_reply)
        protocol.stream_window = row.stream_window if row.features & Feature.STREAM else None


def _set_counted(connection: Connection, row: Row, now: float) -> None:
    connected_at, *counted = row.counters
    connection.connected_at = connected_at / 1e9
    connection.requests, connection.bytes_in, connection.bytes_out = counted[:3]
    connection.frames_in, connection.frames_out = counted[3:]
    connection.heard = now - row.heard / 1e3
