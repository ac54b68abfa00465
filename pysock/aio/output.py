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
from pysock.engine.outlet import FULL, SMALL, Outlet

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    from pysock.tls.channel import ClientChannel

    Way: TypeAlias = socket.socket | ClientChannel

#: Pieces of one sendmsg(2).
PIECES: Final = 64


class Output:
    """The way out of one connection.

    :param way: the socket, or a TLS channel around it.
    :param lost: is called with the error when the server takes nothing more.
    :param outlet: makes the one that gathers small requests; what it calls is missing still.
    """

    #: The requests that were dropped before the kernel had taken them whole; ``None``: it isn't known.
    unsent: set[int] | None = None

    __slots__ = ("_flushing", "_lent", "_loop", "_lost", "_pieces", "_watched", "_way", "drained", "outlet", "size")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        way: Way,
        lost: Callable[[OSError], None],
        outlet: Callable[..., Outlet],
    ) -> None:
        self._loop = loop
        self._way = way
        self._lost = lost
        self._pieces: deque[Buffer] = deque()
        self.size: int = 0
        self._lent = 0  # pieces that aren't bytes: they lie elsewhere
        self._flushing = False
        self._watched = False
        self.outlet: Outlet = outlet(gathered=self._gathered)
        #: Who waits until little is left.
        self.drained: list[asyncio.Future[None]] = []

    def put(self, head: bytes, payload: Buffer, idle: bool) -> None:
        """Send a frame, or queue it.

        :param idle: nothing is in flight: it is sent at once, if nothing is queued either.
        """
        self._take()
        if len(payload) <= SMALL:
            self._add(head + payload)
        else:
            self._add(head)
            self._add(payload)
        self._gathered(self.size >= FULL or (idle and not self._flushing))

    def _gathered(self, at_once: bool) -> None:
        if self._watched:
            return
        if at_once:
            self.flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._pass)

    def _take(self) -> None:
        gathered = self.outlet.take()
        if gathered:
            self._add(gathered)

    def _add(self, piece: Buffer) -> None:
        self._pieces.append(piece)
        self._lent += type(piece) is not bytes
        self.size += len(piece)

    def _pass(self) -> None:
        self._flushing = False
        if not self._watched:
            self.flush()

    def flush(self) -> None:
        """Send what the kernel takes; watch for room for the rest."""
        self._take()
        pieces = self._pieces
        try:
            if len(pieces) > 1 and self.size <= FULL:
                whole = b"".join(pieces)
                pieces.clear()
                pieces.append(whole)
                self._lent = 0
            while pieces:
                few = [pieces[at] for at in range(min(PIECES, len(pieces)))]
                self._sent(self._way.sendmsg(few, (), NO_SIGNAL) if len(few) > 1 else self._way.send(few[0], NO_SIGNAL))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.drop()
            self._lost(error)
            return
        self._watch(bool(pieces))
        if self.size < FULL:
            self._tell()

    def _sent(self, count: int) -> None:
        pieces = self._pieces
        self.size -= count
        while count:
            first = pieces.popleft()
            self._lent -= type(first) is not bytes
            if count < len(first):
                pieces.appendleft(memoryview(first)[count:])
                self._lent += 1
                return
            count -= len(first)

    def own(self) -> None:
        """Copy what lies elsewhere: a caller goes away, and may write to it. From behind, where it was put last."""
        pieces = self._pieces
        at = len(pieces)
        while self._lent:
            at -= 1
            if type(pieces[at]) is not bytes:
                pieces[at] = bytes(pieces[at])
                self._lent -= 1

    def drop(self) -> None:
        """Forget everything; nothing is watched any more."""
        self.outlet.take()
        self._pieces.clear()
        self._lent = 0
        self.size = 0
        self._watch(False)
        self._tell()

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watched:
            return
        self._watched = wanted
        if wanted:
            self._loop.add_writer(self._way.fileno(), self.flush)
        elif not self._loop.is_closed():
            self._loop.remove_writer(self._way.fileno())

    def _tell(self) -> None:
        waiting, self.drained = self.drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
