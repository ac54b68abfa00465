"""The system calls of a master socket and of data sockets used by hand: one call each, blocking."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pysock.base.aliases import Buffer, SocketAddress
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.engine.pure.transport import no_delay
from pysock.engine.ready import wait_until_ready

if TYPE_CHECKING:
    from typing import Any, TypeVar

    Result = TypeVar("Result")


@contextmanager
def _borrowed(fd: int, family: int = socket.AF_UNIX) -> Iterator[socket.socket]:
    """A socket object for one call on a descriptor that isn't its own.

    The family matters to no call but bind; if it weren't given, Python would ask the kernel for it each time.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        if sock.gettimeout() is not None:  # somebody called socket.setdefaulttimeout()
            sock.setblocking(True)
        yield sock
    finally:
        sock.detach()


def _waited(fd: int, event: int, call: Callable[..., Result], *arguments: Any) -> Result:
    """Make a system call; again when the descriptor is ready, where whoever made the socket has set O_NONBLOCK or a
    timeout (SO_RCVTIMEO) on it.
    """
    while True:
        with suppress(BlockingIOError):
            return call(*arguments)
        wait_until_ready(fd, event)


class PureSockets:
    """See :class:`pysock.engine.sockets.Sockets`."""

    def socket(self, family: int) -> int:
        """A stream socket, closed on exec."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        if sock.gettimeout() is not None:
            sock.setblocking(True)
        return sock.detach()

    def bind(self, fd: int, address: SocketAddress) -> None:
        """Bind; TCP sockets get ``SO_REUSEADDR`` first."""
        family, where = address
        with _borrowed(fd, family) as sock:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)

    def listen(self, fd: int, backlog: int) -> None:
        """Make it a master socket."""
        with _borrowed(fd) as sock:
            sock.listen(backlog)

    def accept(self, fd: int) -> int:
        """A blocking data socket; ``TCP_NODELAY`` set over TCP."""
        with _borrowed(fd) as sock:
            client, peer = _waited(fd, select.POLLIN, sock.accept)
        client.setblocking(True)
        no_sigpipe(client)
        if isinstance(peer, tuple):
            no_delay(client)
        return client.detach()

    def recv(self, fd: int, max_bytes: int) -> bytes:
        """At most that many bytes; ``b""`` at the end."""
        with _borrowed(fd) as sock:
            return _waited(fd, select.POLLIN, sock.recv, max_bytes)

    def send(self, fd: int, data: Buffer) -> None:
        """All of it; no SIGPIPE."""
        with _borrowed(fd) as sock:
            view = memoryview(data)
            while view:
                view = view[_waited(fd, select.POLLOUT, sock.send, view, NO_SIGNAL) :]

    def close(self, fd: int) -> None:
        """Close it."""
        os.close(fd)

    def unlink(self, path: str) -> None:
        """Remove a socket file."""
        os.unlink(path)
