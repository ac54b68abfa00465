"""DataSocket: the handle of one connected client.

This file owns what a program sees of a client. There are two kinds, with the same attributes:

- that of a server, in clients.py: the engine owns the connection, and the object only its number.
- :class:`HandSocket` comes from ``MasterSocket.accept()``: it owns its descriptor, blocks, and moves plain bytes.
"""

from __future__ import annotations

import io
import socket
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

from pysock.access.peers import peer_of
from pysock.access.process import program_of
from pysock.address import Address, join_host_port
from pysock.base.borrowed import borrowed
from pysock.base.forking import close_quietly, guard, own
from pysock.base.identity import file_of, is_still
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import server_log as log
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.engine.proxies import VIA_UNIX
from pysock.engine.rows import ClientInfo
from pysock.engine.sockets import Sockets
from pysock.errors import ConnectionLost, ParameterError
from pysock.states import ConnectionEvent, ConnectionState, next_connection_state

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.base import kinds
    from pysock.tls.info import TLSInfo
    from pysock.wire.proxy.facts import ProxyHeader

#: By hand there is no frame and so no limit of ours; this is what the kernel moves in one call at most.
_HAND_BYTES_MAX: Final = 0x7FFFF000

#: The row of a client that no engine knows.
NO_ROW: Final = ClientInfo(
    client_id=0, fd=-1, state=ConnectionState.CLOSED, name="", software="", master=0, address="", pid=-1, uid=-1,
    gid=-1, connected_at=0.0, idle_since=0.0, requests=0, bytes_in=0, bytes_out=0, frames_in=0, frames_out=0,
    in_flight=0, queued=0,
)  # fmt: skip


class Peer(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel saw it when it connected."""

    pid: int
    uid: int
    gid: int


class DataSocket(Unique, ABC):
    """One connected client. The same client is always the same object; one that is gone keeps its last figures.

    :ivar id: the client id, 64 bits, not used again.
    :ivar data: yours: whatever you want to remember about this client. ``None`` at first.
    """

    __slots__ = ("__weakref__", "data", "id")

    def __init__(self, client_id: int) -> None:
        self.id: int = client_id
        self.data: Any = None

    @abstractmethod
    def _row(self) -> ClientInfo:
        """What is known now; the last that was known if the client is gone."""

    @abstractmethod
    def _reached(self, row: ClientInfo) -> str:
        """The address of the master socket that the client came through."""

    @abstractmethod
    def send(self, payload: kinds.Buffer) -> None:
        """Send bytes that the client didn't ask for: a PUSH, or one message of the server's framing.

        It doesn't wait: the engine queues what the kernel doesn't take, up to ``Limits.push_hard`` bytes.
        By hand it waits until the kernel has taken all.

        :param payload: any bytes-like object.
        :raises ConnectionLost: the client is gone.
        :raises FrameTooLarge: the payload is over ``Limits.max_payload``, or over what the client takes.
        :raises OSError: ``ENOBUFS``: the server's loop is held up, by a handler for example, and 64 MiB of what other
            threads sent wait for it. Nothing of this is sent; try again later.
        :raises TypeError: the payload isn't bytes-like.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection in order: what was accepted is answered and sent first. Called again it does nothing."""

    def join(self, group: str) -> None:
        """Put the client into the group of this name, until it leaves or its connection ends; any thread may.

        Then ``server.clients.group(name)`` reaches it. If it is in it already, nothing happens.

        :raises ConnectionLost: the client is gone.
        :raises io.UnsupportedOperation: it was accepted by hand, and belongs to no server.
        """
        raise io.UnsupportedOperation(f"join({group!r}): servers have groups, and this client was accepted by hand")

    def leave(self, group: str) -> None:
        """Take the client out of the group of this name; if it isn't in it, nothing happens."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the client is in, in the order in which it joined them; once it is gone, the last ones."""
        return ()

    def request(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = 10.0) -> Any:
        """Ask the client, one that was connected with ``services=``, and return its answer.

        In a task: ``await client.request(...)``, for what it returns there is a coroutine. In any other thread, that of
        a service with ``threads=`` for example, it blocks, and returns ``bytes``. In a handler that runs in the loop's
        own thread it is an error: that thread has to read the answer.

        :param service: the name of one of the client's services; ``None`` is the unnamed one.
        :param timeout: seconds; ``None`` waits for ever. In a handler not longer than its client waits for that.
        :raises RemoteError: the client answered with an error; with code 2 if it has no such service.
        :raises RequestTimeout: no answer in time; the client is told that nobody waits.
        :raises ConnectionLost: the client is gone, or the server stops.
        :raises Overloaded: ``Limits.max_asks`` wait for their answer already.
        :raises FrameTooLarge: the payload is over ``Limits.max_payload``, or over what the client takes.
        :raises OSError: ``ENOBUFS``: as with :meth:`send`.
        :raises io.UnsupportedOperation: it answers no requests.
        :raises PysockError: this thread runs the server's loop.
        """
        raise io.UnsupportedOperation("request(): there is no framing, for this client was accepted by hand")

    def recv(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes from the client, at most ``max_bytes``; ``b""`` when it has sent its last.

        :raises io.UnsupportedOperation: the data socket belongs to a server, whose loop does the reading.
        """
        raise io.UnsupportedOperation("recv(): the server's loop reads this data socket and gives requests to services")

    @property
    def fd(self) -> int:
        """The number of the descriptor; -1 when closed."""
        return self._row().fd

    @property
    def name(self) -> str:
        """The name the client gave itself in its CIR; it proves nothing. Empty if it gave none."""
        return self._row().name

    @property
    def software(self) -> str:
        """What the client says that it is, ``"pysock/0.1"``. Empty if it says nothing."""
        return self._row().software

    @property
    def exe(self) -> str | None:
        """The path of the program at the other end of a Unix socket, looked up when it is asked for. ``None`` over TCP,
        of a process that has ended or is another user's, and where the system isn't Linux.
        """
        row = self._row()
        return program_of(row.pid, row.connected_at)

    @property
    def address(self) -> str:
        """Over TCP the client's ``host:port``. A client on a Unix socket has no address: the server's then. Of one that
        came through a proxy (``?proxy=``), what the proxy says.
        """
        row = self._row()
        return row.address or self._reached(row)

    @property
    def via(self) -> str | None:
        """The address of the proxy that the client came through: its ``host:port``, or the server's socket file.
        ``None``: it came through none.
        """
        row = self._row()
        return (self._reached(row) if row.via == VIA_UNIX else row.via) if row.via else None

    @property
    def proxy(self) -> ProxyHeader | None:
        """What the proxy that the client came through says of it: TLS, certificate, and more. ``None``: it came through
        none.
        """
        header = self._row().header
        if not header:
            return None
        from pysock.wire.proxy.facts import header_of  # noqa: PLC0415  # few are asked

        return header_of(header)

    @property
    def peer(self) -> Peer | None:
        """The client's process, user and group. ``None`` over TCP, behind a proxy, where the system doesn't tell."""
        row = self._row()
        return None if row.uid == -1 else Peer(row.pid, row.uid, row.gid)

    @property
    def tls(self) -> TLSInfo | None:
        """What came of the TLS handshake, and who the client is by its certificate. ``None`` where there is no TLS."""
        return None

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""
        return ConnectionState(self._row().state)

    @property
    def connected_at(self) -> float:
        """When the connection was accepted, in seconds since the epoch."""
        return self._row().connected_at

    @property
    def idle_since(self) -> float:
        """When bytes of the client were last read, in seconds since the epoch."""
        return self._row().idle_since

    @property
    def requests(self) -> int:
        """How many requests the client has sent."""
        return self._row().requests

    @property
    def bytes_in(self) -> int:
        """How many bytes came from the client, headers included."""
        return self._row().bytes_in

    @property
    def bytes_out(self) -> int:
        """How many bytes went to the client, headers included."""
        return self._row().bytes_out

    def __repr__(self) -> str:
        row = self._row()
        name = f" {row.name!r}" if row.name else ""
        where = row.address or self._reached(row)
        return f"<DataSocket {shown(self.id)}{name} {ConnectionState(row.state).name} fd={row.fd} {where}>"


class HandSocket(DataSocket):
    """A client accepted by hand: it blocks and has no framing. Usable in a ``with`` statement.

    One that is thrown away open closes itself, with a ``ResourceWarning``. In a forked child it is closed too: to leave
    a client to a child, let it inherit ``os.dup(data.fd)``, made before the fork.
    """

    __slots__ = ("_ended", "_info", "_master", "_open_file", "_sockets")

    def __init__(self, client_id: int, fd: int, sockets: Sockets, master: Address) -> None:
        super().__init__(client_id)
        self._sockets = sockets
        self._master = master.bare()
        self._ended = "this data socket is closed"
        self._open_file = file_of(fd)  # what the number stands for, as long as it is ours
        address, peer = _who(fd)
        self._info = NO_ROW._replace(
            client_id=client_id, fd=fd, address=address, pid=peer.pid, uid=peer.uid, gid=peer.gid,
            state=ConnectionState.ACCEPTED, connected_at=(now := time.time()), idle_since=now,
        )  # fmt: skip
        # Without framing there is no CIR frame: the kernel's connect() was the request, and accept() its acceptance.
        self._advance(ConnectionEvent.CIR_ACCEPTED)
        own(self)

    def _row(self) -> ClientInfo:
        return self._info

    def _reached(self, row: ClientInfo) -> str:
        return self._master

    def _advance(self, event: ConnectionEvent) -> None:
        self._info = self._info._replace(state=next_connection_state(self.state, event))

    def recv(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes from the client, at most ``max_bytes``; ``b""`` when it has sent its last.

        :raises ConnectionLost: this data socket is closed.
        :raises OSError: what ``recv()`` says, e.g. ``ConnectionResetError``.
        """
        if max_bytes <= 0:
            raise ParameterError("max_bytes", f"must be more than 0, not {max_bytes}")
        data = self._sockets.recv(self._open_fd(), max_bytes)
        log.debug("recvfrom(%d) -> %d bytes", self.fd, len(data))
        if data:
            info = self._info
            requests, bytes_in = info.requests + 1, info.bytes_in + len(data)
            self._info = info._replace(requests=requests, bytes_in=bytes_in, idle_since=time.time())
        else:
            self._advance(ConnectionEvent.END_OF_FILE)
        return data

    def send(self, payload: kinds.Buffer) -> None:
        """Send bytes as they are, and wait until the kernel has taken them all.

        :raises ConnectionLost: this data socket is closed.
        :raises OSError: what ``send()`` says, e.g. ``BrokenPipeError``.
        :raises TypeError: the payload isn't bytes-like.
        """
        data = checked(payload, _HAND_BYTES_MAX, "the kernel's limit")
        self._sockets.send(self._open_fd(), data)
        log.debug("sendto(%d) <- %d bytes", self.fd, len(data))
        self._info = self._info._replace(bytes_out=self._info.bytes_out + len(data))

    def close(self) -> None:
        """Close the descriptor. Called again it does nothing."""
        fd = self.fd
        if fd < 0:
            return
        self._advance(ConnectionEvent.DRAIN)
        self._advance(ConnectionEvent.FLUSHED)
        try:
            log.debug("close(%d): the data socket", fd)
        finally:
            with guard:
                self._info = self._info._replace(fd=-1)
                if is_still(fd, self._open_file):
                    self._sockets.close(fd)

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, the connection is the parent's."""
        if self.fd >= 0:
            self._ended = f"this data socket {why}"
            if is_still(self.fd, self._open_file):
                close_quietly(self.fd)
            self._info = self._info._replace(fd=-1, state=ConnectionState.CLOSED)

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        info: ClientInfo | None = getattr(self, "_info", None)
        if info is not None and info.fd >= 0:
            try:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # where warnings are errors
                self.close()

    def _open_fd(self) -> int:
        if self.fd < 0:
            raise ConnectionLost(self._ended)
        return self.fd

    def __enter__(self) -> HandSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _who(fd: int) -> tuple[str, Peer]:
    """The address of the other end over TCP, or its process over a Unix socket."""
    try:
        with borrowed(fd) as handle:
            if handle.family != socket.AF_UNIX:
                host, port = handle.getpeername()[:2]
                return join_host_port(host, port), Peer(-1, -1, -1)
            return "", Peer(*peer_of(handle))
    except OSError:  # over TCP: reset already
        return "", Peer(-1, -1, -1)
