"""The master sockets' side of the turn: connections are taken from them, and nothing else ever happens on them.

Where accept() fails for want of descriptors or memory the master sockets are left alone for a moment: they would stay
readable, and a level-triggered wait would spin. A descriptor that we free ourselves ends the pause at once.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pysock.engine._pure_connection import Connection
from pysock.engine._pure_core import READ_MAX
from pysock.engine._pure_output import NO_SIGNAL
from pysock.engine._pure_poll import READ
from pysock.protocol import TEXT_CIR_CROWD, TEXT_SERVER_FULL, Kind, Refusal, encode_text
from pysock.states import ConnectionEvent, DisconnectReason

if TYPE_CHECKING:
    from pysock.engine._pure_core import Core

#: Accepts of one master socket a turn.
_ACCEPTS_MAX: Final = 16
_PAUSE: Final = 0.1
_LOG_EVERY: Final = 1.0

#: accept(2), "Error handling": Linux passes pending network errors of the new socket on as an error of accept(). They
#: concern that connection alone, as EPERM does, a firewall's word.
_NEXT: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EINTR", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET", "ENOPROTOOPT",
        "EOPNOTSUPP", "EPERM", "EPROTO",
    )
    if hasattr(errno, name)
)  # fmt: skip
_DONE: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK))


class _Master:
    """One master socket. Its descriptor is the caller's, who closes it."""

    def __init__(self, fd: int, index: int) -> None:
        self.fd = fd
        self.index = index
        # Python finds out about family and type by itself.
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(False)
        self.tcp = self.sock.family != socket.AF_UNIX
        self.interest = 0


class Masters:
    """The master sockets of one engine."""

    def __init__(self, core: Core, make: Callable[[Core, socket.socket, int, str], Connection]) -> None:
        self._core = core
        self._make = make
        self._fds: list[int] = []
        self._masters: list[_Master] = []
        self.resume_at: float | None = None  # the end of a pause
        self._logged_at = -_LOG_EVERY
        self._open = False
        core.descriptor_freed = self.resume

    def add(self, fd: int) -> None:
        """Accept from this one, too."""
        os.fstat(fd)
        self._fds.append(fd)

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        for index, fd in enumerate(self._fds):
            master = _Master(fd, index)
            self._masters.append(master)
            self._core.on_event[fd] = lambda _bits, master=master: self._accept(master)  # type: ignore[misc]
        self._watch(READ)

    def stop(self) -> None:
        """Accept no more. Called again it does nothing."""
        self._open = False
        self.resume_at = None
        self._watch(0)
        for master in self._masters:
            self._core.on_event.pop(master.fd, None)
            master.sock.detach()
        self._masters = []

    def resume_if_due(self) -> None:
        """End a pause that has been long enough."""
        if self.resume_at is not None and self.resume_at <= self._core.now:
            self.resume()

    def resume(self) -> None:
        """End a pause."""
        if self.resume_at is not None:
            self.resume_at = None
            self._watch(READ)

    def _watch(self, interest: int) -> None:
        for master in self._masters:
            if master.interest != interest:
                old, master.interest = master.interest, interest
                with suppress(OSError):  # somebody has closed it
                    self._core.poller.change(master.fd, old, interest)

    def _accept(self, master: _Master) -> None:
        for _ in range(_ACCEPTS_MAX):
            if not self._open or self.resume_at is not None:
                return
            try:
                sock, peer = master.sock.accept()
            except OSError as error:
                if error.errno in _NEXT:
                    continue
                if error.errno not in _DONE:
                    self._pause(error)
                return
            self._admit(master, sock, peer)

    def _pause(self, error: OSError) -> None:
        core = self._core
        core.counts.accept_failures += 1
        self.resume_at = core.now + _PAUSE
        self._watch(0)
        if core.now >= self._logged_at + _LOG_EVERY:
            self._logged_at = core.now
            core.callbacks.log(
                logging.WARNING, f"accept() failed ({error.strerror}); accepting pauses until a descriptor is free"
            )

    def _admit(self, master: _Master, sock: socket.socket, peer: Any) -> None:
        core = self._core
        core.counts.accepted += 1
        sock.setblocking(False)
        if core.native:
            self._make_way()
        if core.counts.clients + core.counts.pending >= core.limits.max_clients:
            self._turn_away(sock)
            return
        if master.tcp:
            no_delay(sock)
        connection = self._make(core, sock, master.index, address_text(peer) if master.tcp else "")
        connection.start()

    def _make_way(self) -> None:
        """A crowd of silent clients must not keep the door shut: the one that has waited longest goes."""
        core = self._core
        oldest = core.cirs.first()
        if oldest is not None and len(core.cirs) >= core.limits.max_pending_cir:
            core.counts.refused += 1
            refusal = encode_text(Kind.CIR_REFUSED, Refusal.CIR_TOO_LATE, TEXT_CIR_CROWD)
            oldest.last_words(refusal, ConnectionEvent.CIR_REFUSED, DisconnectReason.OVER_A_LIMIT)

    def _turn_away(self, sock: socket.socket) -> None:
        """No room for it: say so where the framing can, and close."""
        self._core.counts.refused += 1
        with sock, suppress(OSError):
            if self._core.native:
                sock.send(encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, TEXT_SERVER_FULL), NO_SIGNAL)
                sock.recv(READ_MAX)  # closing with unread bytes would reset it (RFC 2525, 2.17)


def no_delay(sock: socket.socket) -> None:
    """Don't let small replies wait for the acknowledgement of earlier ones (Nagle)."""
    with suppress(OSError):  # macOS: EINVAL where the peer is gone already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def address_text(peer: Any) -> str:
    """``host:port`` of a TCP peer; the host in brackets if it is IPv6."""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
