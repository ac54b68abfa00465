"""A driver that waits for its one socket by itself: its thread, its attempts to connect, the pauses between them."""

from __future__ import annotations

import random
import threading

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.bus.spine import Spine
from pysock.cluster.bus.turns import READ, WRITE, Turns

if TYPE_CHECKING:
    import socket
    from typing import Final

#: Seconds for connect(), and for the other end's first word.
PATIENCE: Final = 2.0
#: Seconds to wait before the next attempt: at random, from some up to a span that doubles; where the bus may be in a
#: moment, and where something is wrong.
NEAR: Final = (0.02, 0.2)
FAR: Final = (0.1, 5.0)


class Looped(Spine):
    """See :class:`Spine`. A driver calls :meth:`begin` when it is connected, and :meth:`welcome` when the other end
    has said its first word.
    """

    def __init__(self, where: str, node: str, prefix: str, max_payload: int) -> None:
        self._turns: Turns | None = None
        self._owner = 0
        self._wants = READ
        self._welcome_due = 0.0
        self.sock: socket.socket | None = None
        self.is_welcome: bool = False
        self.failures: int = 0
        self.spans: tuple[float, float] = NEAR
        super().__init__(where, node, prefix, max_payload)

    def open(self) -> None:
        """See :class:`Spine`."""
        self._turns = Turns()

    def release(self) -> None:
        """See :class:`Spine`."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.close()

    def wake(self) -> None:
        """See :class:`Spine`. The thread itself looks before it waits."""
        turns = self._turns
        if turns is not None and threading.get_ident() != self._owner:
            turns.wake()

    # The thread

    def run(self) -> None:
        """See :class:`Spine`."""
        self._owner = threading.get_ident()
        try:
            while not self.is_closing:
                self.attempt()
                while not self.is_closing and self.sock is not None:
                    self._once(None)
                until = self.clock() + self._pause()
                while not self.is_closing and self.clock() < until:
                    self._once(until)
        finally:
            self.drop()
            self.done()

    def _pause(self) -> float:
        first, longest = self.spans
        self.failures += 1
        span = min(longest, first * 2 ** min(self.failures, 20))
        return random.uniform(0.1 * span, span)  # noqa: S311  # no secret

    def _once(self, until: float | None) -> None:
        """One turn: of a connection, or until the next attempt."""
        wait = self.turn()
        if self.sock is not None:
            self.flush()
        if self.sock is not None and not self.is_welcome:
            until = self._welcome_due
        elif self.sock is None and until is None:
            return  # it was lost just now
        if until is not None:
            left = max(0.0, until - self.clock())
            wait = left if wait is None else min(wait, left)
        assert self._turns is not None
        for sock, events in self._turns.wait(wait):
            if sock is self.sock and events & READ:
                self.read()
        if self.sock is not None and not self.is_welcome and self.clock() >= self._welcome_due:
            self.lose(self.silence())

    def begin(self, sock: socket.socket) -> None:
        """It is connected, and doesn't block; the other end's first word is due."""
        assert self._turns is not None
        self.sock, self.is_welcome, self._wants = sock, False, READ
        self._welcome_due = self.clock() + PATIENCE
        self._turns.add(sock)

    def welcome(self) -> None:
        """The other end has said its first word."""
        self.is_welcome, self.failures, self.spans = True, 0, NEAR

    def rest(self, spans: tuple[float, float]) -> None:
        """The next attempt is made in such a span, when this connection is over."""
        self.spans = spans

    def want(self, *, write: bool) -> None:
        """Whether something waits until the kernel takes more."""
        wants = READ | WRITE if write else READ
        if wants != self._wants and self.sock is not None:
            assert self._turns is not None
            self._wants = wants
            self._turns.want(self.sock, wants)

    def lose(self, why: str) -> None:
        """See :class:`Spine`."""
        self.drop()
        self.unlinked(why)

    def give_up(self, why: str) -> None:
        """Lose it, and the next one, too, until somebody mends something."""
        self.spans = FAR
        self.drop()
        self.unlinked(why, refused=True)

    def drop(self) -> None:
        """Close the connection, if there is one, and forget what was to be sent."""
        sock, self.sock = self.sock, None
        self.is_welcome = False
        self.forget()
        if sock is not None:
            assert self._turns is not None
            self._turns.remove(sock)
            sock.close()

    # What a driver is: its own

    def attempt(self) -> None:
        """Connect, and call :meth:`begin`; or :meth:`lose`. It may take as long as ``PATIENCE``."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send as much as the kernel takes."""
        raise NotImplementedError

    def read(self) -> None:
        """Something has come."""
        raise NotImplementedError

    def silence(self) -> str:
        """What it means that the other end hasn't said its first word."""
        raise NotImplementedError

    def forget(self) -> None:
        """The connection is over: what was half read, or is to be sent."""
        raise NotImplementedError

    def done(self) -> None:
        """The thread ends."""
