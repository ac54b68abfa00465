"""A TLS session on a socket that doesn't block: it is used as the socket itself would be.

Whoever sends is told that the last byte isn't taken as long as some of what it became waits here. So the bytes that
wait are always the caller's, who asks for writability as with a plain socket; and so each may be sent but once.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL
from pysock.base.unique import Unique
from pysock.errors import TLSError

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.tls.info import TLSInfo
    from pysock.tls.session import Session

#: What is encrypted at a time, in bytes: the kernel may take no more for now.
_SLICE: Final = 64 * 1024
#: What is read of a handshake at a time; and at least of what follows: a record may be that long.
_HANDSHAKE: Final = 16 * 1024
#: What the other end's kernel says where it is gone without a word.
ENDED_IN_HANDSHAKE: Final = "the connection ended in the TLS handshake"


class Channel(Unique):
    """See the head of this file.

    :ivar truncated: the other end's bytes ended without its word (close_notify): somebody may have cut them short.
    :ivar known: what came of the handshake, once its owner has asked.
    :ivar failed: the session has, and there is nothing to say any more.
    """

    __slots__ = ("_owed", "_raw", "_sock", "failed", "known", "session", "truncated")

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self._sock = sock
        self.session: Session = session
        self._raw: Buffer = b""  # of what was encrypted, what the kernel hasn't taken
        self._owed = False  # a byte is in it of which the caller doesn't know yet
        self.truncated: bool = False
        self.failed: bool = False
        self.known: TLSInfo | None = None

    def move(self, sock: socket.socket) -> None:
        """To another object for the same socket."""
        self._sock = sock

    @property
    def has_raw(self) -> bool:
        """Something is to be sent of which no caller knows."""
        return not self._owed and (bool(self._raw) or self.session.has_output)

    @property
    def pending(self) -> bool:
        """There may be something to receive, though the socket has nothing."""
        return self.session.pending and not self.failed

    def info(self) -> TLSInfo:
        """What came of the handshake."""
        return self.session.info()

    def shake(self, *, reads: bool = True) -> bool:
        """Go on with the handshake, with what the socket has; whether it is done.

        :raises BlockingIOError: the socket has nothing.
        :raises ConnectionResetError: the connection has ended.
        :raises TLSError: it failed; the other end is told.
        """
        if reads:
            data = self._sock.recv(_HANDSHAKE)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, ENDED_IN_HANDSHAKE)
            self.session.feed(data)
        try:
            return self.session.handshake()
        except TLSError:
            self._fail()
            raise
        finally:
            self.flush()

    def receive(self, most: int) -> bytes:
        """As ``recv()``: at most so many bytes, ``b""`` at the end.

        :raises BlockingIOError: there are none.
        :raises TLSError: what came can't be made sense of; the other end is told.
        """
        session = self.session
        found = self._read(most) if session.pending else b""
        if not found and not session.ended:
            data = self._sock.recv(max(most, _HANDSHAKE))
            if not data:
                self.truncated = True
                return b""
            session.feed(data)
            found = self._read(most)
        if found:
            session.pending = session.pending or session.ended  # its end is told next
        elif not session.ended:
            raise BlockingIOError(errno.EAGAIN, "no whole record has come")
        return found

    def _read(self, most: int) -> bytes:
        try:
            found = self.session.read(most)
        except TLSError:
            self._fail()
            raise
        if self.session.has_output and not self._owed:  # else the caller's last byte would go without its knowledge
            self.flush()
        return found

    def send(self, data: Buffer, _flags: int = 0) -> int:
        """As ``send()``: how many were taken; see the head of this file.

        :raises BlockingIOError: none can be.
        :raises TLSError: the session has failed.
        """
        if (self._raw or self.session.has_output) and not self.flush():
            raise BlockingIOError(errno.EAGAIN, "the kernel takes nothing")
        if self._owed:
            self._owed = False
            return 1
        size = len(data)
        if size > _SLICE:
            data, size = memoryview(data)[:_SLICE], _SLICE
        self.session.write(data)
        if self.flush():
            return size
        self._owed = True
        return size - 1

    def send_pieces(self, pieces: Sequence[Buffer]) -> int:
        """The same of several, one behind the other."""
        sent = 0
        for data in _slices(pieces):
            try:
                step = self.send(data)
            except BlockingIOError:
                if sent:
                    break
                raise
            sent += step
            if step < len(data):
                break
        return sent

    def flush(self) -> bool:
        """Send what is ready; whether the kernel has taken it all.

        :raises OSError: it never will.
        """
        raw: Buffer = self.session.take()
        if self._raw:
            raw = bytes(self._raw) + bytes(raw)
        while raw:
            try:
                sent = self._sock.send(raw, NO_SIGNAL)
            except (BlockingIOError, InterruptedError):  # it is what is looped for
                self._raw = raw
                return False
            except OSError:
                self._raw = raw
                raise
            raw = memoryview(raw)[sent:]
        self._raw = b""
        return True

    def goodbye(self) -> None:
        """Say that nothing more is sent, as far as there is room; the socket is closed next."""
        if self.session.secured and not self.failed:
            self.failed = True
            with suppress(OSError):
                self.session.close()
                self.flush()

    def _fail(self) -> None:
        self.failed = True
        with suppress(OSError):
            self.flush()


def _slices(pieces: Sequence[Buffer]) -> Iterator[Buffer]:
    """The same bytes in pieces of a slice at most: small ones are put together, of large ones nothing is copied."""
    small: list[Buffer] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _SLICE and small:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) < _SLICE:
            small.append(piece)
            size += len(piece)
            continue
        view = memoryview(piece)
        for at in range(0, len(view), _SLICE):
            yield view[at : at + _SLICE]
    if small:
        yield b"".join(small)


class ClientChannel(Channel):
    """One whose owner looks at the socket alone, to know whether there is something to receive."""

    __slots__ = ()

    def receive(self, most: int) -> bytes:
        """As above, but all that there is, which may be more."""
        found = super().receive(most)
        while self.session.pending and not self.session.ended:
            found += self._read(most)
        return found

    def sendmsg(self, pieces: Sequence[Buffer], _ancillary: Sequence[Any] = (), _flags: int = 0) -> int:
        """As ``sendmsg()``, of pieces one behind the other."""
        return self.send_pieces(pieces)

    def fileno(self) -> int:
        """The number of the socket."""
        return self._sock.fileno()


class SharedChannel(ClientChannel):
    """One that several threads use: a session can do one thing at a time."""

    __slots__ = ("_lock",)

    def __init__(self, sock: socket.socket, session: Session) -> None:
        super().__init__(sock, session)
        self._lock = threading.Lock()

    def receive(self, most: int) -> bytes:
        """As above."""
        with self._lock:
            return super().receive(most)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """As above."""
        with self._lock:
            return super().send(data, flags)

    def goodbye(self) -> None:
        """As above; where another thread is within, the end of the connection says it."""
        if self._lock.acquire(blocking=False):
            try:
                super().goodbye()
            finally:
                self._lock.release()
