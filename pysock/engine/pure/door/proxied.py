"""A connection that a proxy has made begins with a header that says for whom.

Until that is whole, the connection is ACCEPTED, and the events of its descriptor come here: nobody else reads from it.
So whoever needs no header doesn't know of this. No byte behind it is taken: what isn't known to be of it is only looked
at (MSG_PEEK). Nothing is believed before all of it is there. ``csrc/conn/proxied.c`` does the same.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.causes import Cause
from pysock.engine.proxies import VIA_UNIX
from pysock.engine.pure.connection import Connection
from pysock.engine.pure.core import READ_MAX
from pysock.engine.pure.door.access import network_of
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.output import SHORT_OF_MEMORY
from pysock.engine.pure.poll import READ
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire.endings import End
from pysock.wire.proxy.reading import HeaderError, read

if TYPE_CHECKING:
    from pysock.wire.proxy.reading import Found


class Via(NamedTuple):
    """Through whom a client came."""

    address: str  # of the proxy, as a row has it
    header: bytes  # what is kept of it


class Header:
    """What has come of one, until it is whole.

    :param versions: those that may come, bits.
    """

    __slots__ = ("_connection", "_data", "_next", "_secured", "_size", "_versions")

    _next: Callable[[int], None]  # what is called with its events when the header is whole

    def __init__(self, connection: Connection, versions: int) -> None:
        self._connection = connection
        self._versions = versions
        self._secured = connection.listener.transport.kinds is not None  # TLS follows
        self._data = bytearray()
        self._size = 0  # how long it is; 0: that isn't known yet

    def wait(self) -> None:
        """From now on, and no longer than for a CIR."""
        connection, core = self._connection, self._connection.core
        if self._secured:
            connection.start()
        else:
            Connection.start(connection)  # and no subclass's: what the framing begins with comes later
        if connection.protocol.state is ConnectionState.ACCEPTED:
            self._next = core.on_event[connection.fd]
            core.on_event[connection.fd] = self.on_event
            core.cirs.start_now(connection, core.now)

    def go_on(self, data: bytes) -> None:
        """So much of it has come already, elsewhere."""
        self._data += data
        self._next = self._connection.core.on_event[self._connection.fd]
        self._connection.core.on_event[self._connection.fd] = self.on_event

    @property
    def data(self) -> bytes:
        """What has come of it."""
        return bytes(self._data)

    def no_memory(self) -> None:
        """There is none for it."""
        self._connection.no_memory()

    def on_event(self, _bits: int) -> None:
        """Something is there to read, or the end."""
        try:
            found = self._read()
        except OSError as error:
            self._failed(error)
        except HeaderError as error:
            dismiss(self._connection, End.HEADER, str(error))
        else:
            if found is not None:
                self._introduce(found)

    def _read(self) -> Found | None:
        """What it says, if all of it is there."""
        data, sock = self._data, self._connection.sock
        if not self._size:
            seen = sock.recv(READ_MAX - len(data), socket.MSG_PEEK)
            found = read(bytes(data) + seen, self._versions)
            if seen and found.size:
                self._size = found.size
            self._take(sock.recv(found.size - len(data) if found.whole else len(seen)) if seen else b"")
        else:
            self._take(sock.recv(self._size - len(data)))
        return read(bytes(data), self._versions) if data and len(data) == self._size else None

    def _take(self, piece: bytes) -> None:
        connection = self._connection
        if not piece:
            self._failed(None)
        self._data += piece
        connection.bytes_in += len(piece)
        connection.heard = connection.core.now

    def _failed(self, error: OSError | None) -> None:
        """Nothing more comes, or nothing now."""
        connection = self._connection
        if isinstance(error, (BlockingIOError, InterruptedError)):
            return
        if error is not None and error.errno in SHORT_OF_MEMORY:
            connection.no_memory()
            return
        if self._data:  # else it only wanted to see whether somebody is there, as proxies do
            connection.core.note(Cause.HEADER)
        connection.lost(DisconnectReason.CLOSED_BY_PEER)

    def _introduce(self, found: Found) -> None:
        connection, core = self._connection, self._connection.core
        if not found.is_local:
            via = connection.address or VIA_UNIX
            core.table.vias[connection.client_id] = Via(via, bytes(self._data[: found.kept]))
            connection.credentials = (-1, -1, -1)  # what was known is the proxy's
        if found.source is not None:
            connection.address = found.origin
            if not self._is_counted(found.source[0]):
                dismiss(connection, End.ORIGIN)
                return
        core.on_event[connection.fd] = self._next
        if not self._secured:
            connection.arrive()
        if connection.may_read():
            self._next(READ)  # mostly there is more: it came with the header

    def _is_counted(self, family: int) -> bool:
        """Whether one more of this address may come; it counts from now on."""
        connection, core = self._connection, self._connection.core
        most = core.limits.max_clients_per_ip
        if most is None or family == socket.AF_UNIX:
            return True
        origin = network_of(connection.address.rpartition(":")[0].strip("[]"))
        if core.origins.taken(origin) >= most:
            return False
        core.origins.take(origin)
        connection.origin = origin
        return True
