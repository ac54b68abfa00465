"""How bytes come from one client and go to it. Nothing else in the server touches what a client sends or gets.

A listener names the row by which its connections are read and written. There are two kinds: the bytes of a stream
socket as they are, and TLS, of which each listener has a row of its own, for it has a certificate of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.base.aliases import Buffer

_LARGE_BLOCK: Final = 1024 * 1024
#: Bytes that are thrown away before a socket is closed.
_DISCARDED: Final = 64 * 1024


class Transport(NamedTuple):
    """A row. No function of it waits: what can't be done now raises what a non-blocking socket would."""

    #: Of a socket, what the functions below take: the socket itself, or what is around it.
    channel: Callable[[socket.socket], Any]
    #: Of this, the function that takes a number and returns that many bytes at most; none where nothing more comes.
    receive: Callable[[Any], Callable[[int], bytes]]
    #: Of this, the function that sends bytes, as far as there is room, and returns how many. Its second argument is
    #: always ``NO_SIGNAL``, so that a socket's own can be it: nothing stands between a short reply and the kernel.
    send: Callable[[Any], Callable[[Buffer, int], int]]
    #: Send several pieces of bytes, one after the other.
    send_pieces: Callable[[Any, Sequence[Buffer]], int]
    #: To somebody who is turned away, without a connection: a frame that refuses, or what the transport has for its
    #: code. What isn't taken at once is lost.
    last_words: Callable[[socket.socket, bytes], None]
    #: Which connections go through it, by framing, where they begin with a handshake of their own.
    kinds: Mapping[Any, type[Any]] | None = None


def discard_input(sock: socket.socket) -> None:
    """Throw away what came and wasn't read.

    Closing a socket with unread bytes resets it, and the reset may overtake our last words (RFC 2525, 2.17).
    """
    with suppress(OSError, MemoryError):
        sock.recv(_DISCARDED)


def _send_pieces(sock: socket.socket, pieces: Sequence[Buffer]) -> int:
    return sock.sendmsg(pieces, (), NO_SIGNAL)


def tell_at_once(sock: socket.socket, frame: bytes) -> None:
    """Send it as far as there is room."""
    sock.setblocking(False)
    no_sigpipe(sock)
    sock.send(frame, NO_SIGNAL)


def _itself(sock: socket.socket) -> socket.socket:
    return sock


PLAIN: Final = Transport(_itself, attrgetter("recv"), attrgetter("send"), _send_pieces, tell_at_once)


def keep_heap() -> None:
    """Keep glibc from giving the top of the heap back to the kernel after each large message.

    Its threshold for that is twice the largest block that it has ever freed (mallopt(3), M_MMAP_THRESHOLD). Without
    this each message of 100 KiB costs some 25 page faults. Elsewhere it does nothing.
    """
    block = bytearray(_LARGE_BLOCK)
    del block


def no_delay(sock: socket.socket) -> None:
    """Don't let small replies wait for the acknowledgement of earlier ones (Nagle)."""
    with suppress(OSError):  # macOS: EINVAL where the peer is gone already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
