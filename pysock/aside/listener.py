"""Aside: a listener and the one thread that answers there, whatever the server's loop does.

This file owns that thread, its connections, and how long each may take. What is said on them is a talk: a generator,
which yields what it waits for. It never waits for the loop, and the loop never for it: a program that asks without end,
or says nothing, costs the server nothing, for of more than 16 connections the oldest is closed.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from selectors import EVENT_READ, EVENT_WRITE

from pysock.base.clock import monotonic
from pysock.base.forking import close_quietly, own
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import server_log as log
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.master import MasterSocket
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    from pysock.address import Address

#: How many connections one has at a time.
MOST: Final = 16
#: After an accept that failed for want of something, in seconds.
_PAUSE: Final = 0.1


class Wait(NamedTuple):
    """What a talk waits for, and until when: then its connection is closed."""

    event: int  #: of :mod:`selectors`
    until: float  #: on the monotonic clock


if TYPE_CHECKING:
    #: What is said on one connection. When it ends, or the connection does, that is closed.
    Talk: TypeAlias = Callable[[socket.socket], Generator[Wait, None, None]]


def received(sock: socket.socket, until: float) -> Generator[Wait, None, bytes]:
    """What comes next; empty: nothing any more."""
    while True:
        yield Wait(EVENT_READ, until)
        with suppress(BlockingIOError, InterruptedError):
            return sock.recv(16 * 1024)


def sent(sock: socket.socket, data: bytes, until: float) -> Generator[Wait, None, None]:
    """All of it. At once, as far as the system takes it."""
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left, NO_SIGNAL) :]
        except (BlockingIOError, InterruptedError):  # noqa: PERF203  # any of them may be
            yield Wait(EVENT_WRITE, until)


def farewell(sock: socket.socket, until: float) -> Generator[Wait, None, None]:
    """All is said, and it is the other's turn to close: to do so before its last word was read would take ours away."""
    sock.shutdown(socket.SHUT_WR)
    while (yield from received(sock, until)):
        pass


class Aside(Unique):
    """One listener, and its thread.

    :param address: where to listen.
    :param talk: what is said on each connection.
    :param name: of the thread, ``pysock-NAME``, and for messages.
    """

    _instead = "make a new one"

    def __init__(self, address: Address, talk: Talk, name: str) -> None:
        self._master = MasterSocket(address)
        self._talk = talk
        self._name = name
        self._listener: socket.socket | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._talks: _Talks | None = None
        self._thread: threading.Thread | None = None
        own(self)

    @property
    def address(self) -> Address:
        """Where it listens; once started with the port that the kernel chose."""
        return self._master.address

    @property
    def is_open(self) -> bool:
        """Whether it has descriptors."""
        return self._listener is not None

    def start(self) -> None:
        """Listen, and answer in the thread from now on.

        :raises OSError: the address can't be used.
        :raises PysockError: it was started before.
        """
        if self._thread is not None or self._master.state is not ServerState.NEW:
            raise PysockError(f"this {self._name} was started before: make a new one")
        with ExitStack() as undo:
            undo.callback(self._close)
            self._master.remove_stale()
            self._master.create()
            self._master.bind()
            self._master.listen()
            self._listener = socket.socket(fileno=os.dup(self._master.fd))
            self._listener.setblocking(False)
            self._wake = socket.socketpair()
            self._talks = _Talks(self._talk, self._listener, self._wake[0])
            self._thread = threading.Thread(target=self._run, name=f"pysock-{self._name}", daemon=True)
            self._thread.start()
            undo.pop_all()

    def stop(self) -> None:
        """Close all, and end the thread. Called again it does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None and self._wake is not None:
            with suppress(OSError):
                self._wake[1].send(b"\0", NO_SIGNAL)
            thread.join()
        self._close()

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: in a child there is no thread, and the socket is the parent's."""
        self._thread = None
        socks = filter(None, (self._listener, *(self._wake or ()), *(self._talks.forget() if self._talks else ())))
        for sock in socks:
            close_quietly(sock.detach())
        self._listener, self._wake, self._talks = None, None, None

    def _close(self) -> None:
        if self._talks is not None:
            self._talks.close()
        for sock in filter(None, (self._listener, *(self._wake or ()))):
            sock.close()
        self._listener, self._wake, self._talks = None, None, None
        self._master.close()

    def _run(self) -> None:
        assert self._talks is not None
        try:
            self._talks.run()
        except Exception:
            log.exception("the %s at %s ended", self._name, self.address)


class _Going:
    """One talk."""

    __slots__ = ("event", "steps", "until")

    def __init__(self, steps: Generator[Wait, None, None]) -> None:
        self.steps = steps
        self.event = 0
        self.until = 0.0


class _Talks(Unique):
    """The thread's own: who is connected, oldest first."""

    def __init__(self, talk: Talk, listener: socket.socket, wake: socket.socket) -> None:
        self._talk = talk
        self._listener = listener
        self._wake = wake
        self._going: dict[socket.socket, _Going] = {}
        self._again_at: float | None = None  # when it accepts again; None: it does
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, EVENT_READ)
        self._selector.register(self._wake, EVENT_READ)

    def run(self) -> None:
        """Answer until it is woken."""
        while self._turn():
            pass

    def close(self) -> None:
        """When it doesn't run any more."""
        for sock in tuple(self._going):
            self._end(sock)
        self._selector.close()

    def forget(self) -> list[socket.socket]:
        """In a forked child: nobody is told anything. What is left to close."""
        self._selector.close()  # the copy of its descriptor; what it watches is the parent's
        return list(self._going)

    def _turn(self) -> bool:
        ends = [going.until for going in self._going.values()] + ([] if self._again_at is None else [self._again_at])
        events = self._selector.select(max(0.0, min(ends) - monotonic()) if ends else None)
        ready = [key.fileobj for key, _ in events]
        if self._wake in ready:
            return False
        for sock in ready:
            if sock is self._listener:
                self._accept()
            elif isinstance(sock, socket.socket) and sock in self._going:
                self._step(sock)
        now = monotonic()
        for sock in [sock for sock, going in self._going.items() if going.until <= now]:
            self._end(sock)
        if self._again_at is not None and self._again_at <= now:
            self._again_at = None
            self._selector.register(self._listener, EVENT_READ)
        return True

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:  # no descriptors, or no memory
            self._selector.unregister(self._listener)
            self._again_at = monotonic() + _PAUSE
            return
        if len(self._going) >= MOST:
            self._end(next(iter(self._going)))
        self._going[sock] = _Going(self._talk(sock))
        try:
            sock.setblocking(False)
            no_sigpipe(sock)
        except OSError:  # it has gone
            self._end(sock)
        else:
            self._step(sock)

    def _step(self, sock: socket.socket) -> None:
        """As far as it comes; what it fails with is its own end only."""
        going = self._going[sock]
        try:
            event, going.until = next(going.steps)
            if event != going.event:
                (self._selector.modify if going.event else self._selector.register)(sock, event)
                going.event = event
        except (StopIteration, OSError):  # also ETIMEDOUT and EHOSTUNREACH, which are no ConnectionError
            self._end(sock)
        except Exception:
            log.exception("an answer of the thread %s failed", threading.current_thread().name)
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        going = self._going.pop(sock)
        if going.event:
            with suppress(KeyError, ValueError):
                self._selector.unregister(sock)
        sock.close()
