"""How bytes come from one client and go to it. Nothing else in the server touches what a client sends or gets.

A listener names the row by which its connections are read and written. There is one so far, the bytes of a stream
socket as they are; TLS would be a second one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe

if TYPE_CHECKING:
    from typing import Final

    from pysock.base.aliases import Buffer

_LARGE_BLOCK: Final = 1024 * 1024
#: Bytes that are thrown away before a socket is closed.
_DISCARDED: Final = 64 * 1024


class Transport(NamedTuple):
    """A row. No function of it waits: what can't be done now raises what a non-blocking socket would."""

    #: Of a socket, the function that takes a number and returns that many bytes at most; none where nothing more comes.
    receive: Callable[[socket.socket], Callable[[int], bytes]]
    #: Of a socket, the function that sends bytes, as far as there is room, and returns how many. Its second argument is
    #: always ``NO_SIGNAL``, so that a socket's own can be it: nothing stands between a short reply and the kernel.
    send: Callable[[socket.socket], Callable[[Buffer, int], int]]
    #: Send several pieces of bytes, one after the other.
    send_pieces: Callable[[socket.socket, Sequence[Buffer]], int]
    #: To somebody who is turned away, without a connection; what isn't taken at once is lost.
    last_words: Callable[[socket.socket, bytes], None]


def discard_input(sock: socket.socket) -> None:
    """Throw away what came and wasn't read.

    Closing a socket with unread bytes resets it, and the reset may overtake our last words (RFC 2525, 2.17).
    """
    with suppress(OSError, MemoryError):
        sock.recv(_DISCARDED)


def _send_pieces(sock: socket.socket, pieces: Sequence[Buffer]) -> int:
    return sock.sendmsg(pieces, (), NO_SIGNAL)


def _last_words(sock: socket.socket, frame: bytes) -> None:
    sock.setblocking(False)
    no_sigpipe(sock)
    sock.send(frame, NO_SIGNAL)


PLAIN: Final = Transport(attrgetter("recv"), attrgetter("send"), _send_pieces, _last_words)


def keep_heap() -> None:
    """Keep glibc from giving the top of the heap back to the kernel after each large message.

    Its threshold for that is twice the largest block that it has ever freed (mallopt(3), M_MMAP_THRESHOLD). Without
    this each message of 100 KiB costs some 25 page faults. Elsewhere it does nothing.
    """
    block = bytearray(_LARGE_BLOCK)
    del block
