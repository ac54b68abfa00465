"""A thread's waiting for sockets, and for other threads: what drivers have that do their I/O by themselves."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress

from pysock.base.forking import own_socket
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Turns(Unique):
    """A selector, and a pair of sockets by which it is woken."""

    def __init__(self) -> None:
        self._selector = selectors.PollSelector()  # it has no descriptor, of which forked children would have copies
        self._woken, self._waker = socket.socketpair()
        for one in (self._woken, self._waker):
            own_socket(one)
            one.setblocking(False)
        no_sigpipe(self._waker)
        self._selector.register(self._woken, READ)

    def wake(self) -> None:
        """Any thread: :meth:`wait` returns soon."""
        with suppress(OSError):  # full of wake-ups, or closed
            self._waker.send(b"\0", NO_SIGNAL)

    def add(self, sock: socket.socket) -> None:
        """From now on wait for what comes here, too."""
        self._selector.register(sock, READ)

    def want(self, sock: socket.socket, events: int) -> None:
        """Wait for these things of a socket."""
        self._selector.modify(sock, events)

    def remove(self, sock: socket.socket) -> None:
        """Before it is closed."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def wait(self, timeout: float | None) -> list[tuple[object, int]]:
        """What is ready: sockets, and for what."""
        ready: list[tuple[object, int]] = []
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._woken:
                with suppress(OSError):
                    self._woken.recv(4096)
            else:
                ready.append((key.fileobj, events))
        return ready

    def close(self) -> None:
        """Nobody waits, and nobody wakes, any more."""
        self._selector.close()
        self._woken.close()
        self._waker.close()
