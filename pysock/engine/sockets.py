"""Sockets used by hand: what an engine has of system calls. Part of the engine contract."""

from __future__ import annotations

from pysock.base.aliases import Buffer, SocketAddress
from pysock.base.lean import Protocol


class Sockets(Protocol):
    """The system calls of a master socket and of data sockets used by hand; one call each, blocking."""

    def socket(self, family: int) -> int:
        """A stream socket, closed on exec."""

    def bind(self, fd: int, address: SocketAddress) -> None:
        """Bind; TCP sockets get ``SO_REUSEADDR`` first."""

    def listen(self, fd: int, backlog: int) -> None:
        """Let connections come in; the kernel caps ``backlog`` by ``somaxconn``."""

    def accept(self, fd: int) -> int:
        """A blocking data socket; ``TCP_NODELAY`` set over TCP."""

    def recv(self, fd: int, max_bytes: int) -> bytes:
        """At most that many bytes; ``b""`` at the end."""

    def send(self, fd: int, data: Buffer) -> None:
        """All of it; no SIGPIPE."""

    def close(self, fd: int) -> None:
        """Close it, and never try again: whatever is reported, the number is free (close(2))."""

    def unlink(self, path: str) -> None:
        """Remove a socket file."""
