"""What an asyncio client has to send: at once where nothing waits, else once a pass of the loop.

This file owns the pieces that the kernel hasn't taken yet.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: Pieces of one sendmsg(2), and bytes from which on they don't wait for the end of the pass.
PIECES: Final = 64
AT_ONCE: Final = 64 * 1024
#: Payloads up to this are copied behind their header.
SMALL: Final = 16 * 1024


class Output:
    """The way out of one connection.

    :param lost: is called with the error when the server takes nothing more.
    """

    __slots__ = ("_flushing", "_loop", "_lost", "_pieces", "_sock", "_watched", "drained", "size")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, lost: Callable[[OSError], None]) -> None:
        self._loop = loop
        self._sock = sock
        self._lost = lost
        self._pieces: deque[Buffer] = deque()
        self.size: int = 0
        self._flushing = False
        self._watched = False
        #: Who waits until little is left.
        self.drained: list[asyncio.Future[None]] = []

    def put(self, head: bytes, payload: Buffer, idle: bool) -> None:
        """Send a frame, or queue it.

        :param idle: nothing is in flight: it is sent at once, if nothing is queued either.
        """
        size = len(payload)
        if size <= SMALL:
            self._pieces.append(head + payload)
        else:
            self._pieces += (head, payload)
        self.size += len(head) + size
        if self._watched or (self._flushing and self.size < AT_ONCE):
            return
        if (idle and not self._flushing) or self.size >= AT_ONCE:
            self.flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._flushing = False
        if not self._watched:
            self.flush()

    def flush(self) -> None:
        """Send what the kernel takes; watch for room for the rest."""
        pieces = self._pieces
        try:
            if len(pieces) > 1 and self.size <= AT_ONCE:
                whole = b"".join(pieces)
                pieces.clear()
                pieces.append(whole)
            while pieces:
                few = [pieces[at] for at in range(min(PIECES, len(pieces)))]
                self._sent(
                    self._sock.sendmsg(few, (), NO_SIGNAL) if len(few) > 1 else self._sock.send(few[0], NO_SIGNAL)
                )
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.drop()
            self._lost(error)
            return
        self._watch(bool(pieces))
        if self.size < AT_ONCE:
            self._tell()

    def _sent(self, count: int) -> None:
        pieces = self._pieces
        self.size -= count
        while count:
            first = pieces[0]
            if count < len(first):
                pieces[0] = memoryview(first)[count:]
                return
            count -= len(first)
            pieces.popleft()

    def own(self) -> None:
        """Copy what lies elsewhere: a caller goes away, and may write to it."""
        if self._pieces:
            self._pieces = deque(piece if type(piece) is bytes else bytes(piece) for piece in self._pieces)

    def drop(self) -> None:
        """Forget everything; nothing is watched any more."""
        self._pieces.clear()
        self.size = 0
        self._watch(False)
        self._tell()

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watched:
            return
        self._watched = wanted
        if wanted:
            self._loop.add_writer(self._sock.fileno(), self.flush)
        elif not self._loop.is_closed():
            self._loop.remove_writer(self._sock.fileno())

    def _tell(self) -> None:
        waiting, self.drained = self.drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
