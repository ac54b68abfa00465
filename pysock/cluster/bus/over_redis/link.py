"""One connection to a Redis, which never blocks: commands go out, replies and messages come in, by RESP 3.

In it messages of channels are of a type of their own, so one connection is enough for publishing and hearing, and what
was subscribed first is in force before what is published next. The library hiredis reads and writes it.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque

import hiredis

from pysock.base.forking import own_socket
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

_READ_SIZE: Final = 256 * 1024
#: Commands are gathered into sends of about so many bytes.
_GATHERED: Final = 64 * 1024
_NOT_YET: Final = object()
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Server(NamedTuple):
    """Where a Redis is, and as whom to use it."""

    host: str
    port: int
    user: str
    password: str
    is_tls: bool

    @property
    def where(self) -> str:
        """Without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.is_tls}://{host}:{self.port}"

    @property
    def moves(self) -> bool:
        """It is always this one."""
        return False

    def primary(self, patience: float) -> Server:
        """The one to connect to."""
        del patience
        return self


class Link:
    """A connection.

    :param server: to whom; this waits for the connection, and for the handshake of TLS.
    :param patience: seconds for each.
    :raises OSError: there is none.
    """

    def __init__(self, server: Server, patience: float) -> None:
        self.sock: socket.socket = _connected(server, patience)
        self._is_tls = server.is_tls
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._commands: list[bytes] = []
        self._buffer: deque[bytes | memoryview] = deque()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel hasn't taken."""
        return sum(map(len, self._buffer))

    def command(self, *words: bytes) -> None:
        """Say this at the next :meth:`flush`."""
        self._commands.append(hiredis.pack_command(words))  # type: ignore[arg-type]  # it takes any number of them

    def flush(self) -> bool:
        """Send as much as the kernel takes; whether something is left.

        :raises OSError: the connection is over.
        """
        self._gather()
        try:
            while self._buffer:
                first = self._buffer[0]
                sent = self.sock.send(first) if self._is_tls else self.sock.send(first, NO_SIGNAL)
                if sent == len(first):
                    self._buffer.popleft()
                else:
                    self._buffer[0] = memoryview(first)[sent:]
        except _LATER:
            return True
        return False

    def receive(self) -> Iterator[Any]:
        """What has come.

        :raises EOFError: the other end has closed it.
        :raises OSError: the connection is over.
        :raises hiredis.ProtocolError: this is no RESP.
        """
        self._fill()
        while (reply := self._reader.gets()) is not _NOT_YET:
            yield reply

    def _fill(self) -> None:
        try:
            while True:
                data = self.sock.recv(_READ_SIZE)
                if not data:
                    raise EOFError
                self._reader.feed(data)
                if not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
                    return
        except _LATER:
            return

    def _gather(self) -> None:
        gathered: list[bytes] = []
        size = 0
        for command in self._commands:
            gathered.append(command)
            size += len(command)
            if size >= _GATHERED:
                self._buffer.append(b"".join(gathered))
                gathered, size = [], 0
        self._commands.clear()
        if gathered:
            self._buffer.append(b"".join(gathered))


def _connected(server: Server, patience: float) -> socket.socket:
    sock = socket.create_connection((server.host, server.port), patience)
    try:
        own_socket(sock)
        no_sigpipe(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.is_tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=server.host)
            own_socket(sock)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
