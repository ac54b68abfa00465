"""HealthAgent: what HAProxy's agent-check asks for: a line of text on a port of its own, which a thread answers.

This file owns that thread and its connections. It never waits for the loop, and the loop never for it: a program that
asks without end, or says nothing, costs the server nothing. What may be said is in HAProxy's manual, at "agent-check".
"""

from __future__ import annotations

import math
import os
import selectors
import socket
import threading
from contextlib import ExitStack, suppress

from pysock.address import AddressLike, as_address
from pysock.base.clock import monotonic
from pysock.base.forking import close_quietly, own
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.unique import Unique
from pysock.errors import ParameterError, PysockError
from pysock.master import MasterSocket
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import Address
    from pysock.server import Server

#: How many connections it has at a time: of more the oldest is closed.
_MOST: Final = 16
#: How long one has to take its line and to close, in seconds.
_PATIENCE: Final = 2.0
#: After an accept that failed for want of something, in seconds.
_PAUSE: Final = 0.1


def line_of(server: Server) -> str:
    """What is said of a server now.

    ``ready up 75%``: new clients are welcome, and three quarters of its places are free. ``drain``: who is connected is
    served, and no new ones are wanted, for it is lame or stops. ``down``: it doesn't serve.
    """
    state = server.state
    if state is not ServerState.SERVING:
        return "drain" if state is ServerState.DRAINING else "down"
    if server.is_lame:
        return "drain"
    most = server.limits.max_clients
    # "ready" each time: only an agent can take back its own "drain", and HAProxy may have been started meanwhile.
    return f"ready up {math.ceil(100 * max(0, most - len(server.clients)) / most)}%"


class HealthAgent(Unique):
    """Tells HAProxy's ``agent-check`` how a server is: whether it takes new clients, and how large a part of its
    ``max_clients`` is free. Usable in a ``with`` statement.

    :param server: which one; it need not have been started.
    :param address: where to listen, TCP: ``"127.0.0.1:9101"``. Whoever connects there is told, and can't do anything.
    :raises ValueError: the address is wrong, or none of TCP.
    """

    _instead = "make a new HealthAgent"

    def __init__(self, server: Server, address: AddressLike) -> None:
        where = as_address(address)
        if where.transport != "tcp":
            raise ParameterError("address", f"must be one of TCP, as HAProxy asks by TCP only, not {where}")
        self._server = server
        self._master = MasterSocket(where)
        self._listener: socket.socket | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._answers: _Answers | None = None
        self._thread: threading.Thread | None = None
        own(self)

    @property
    def address(self) -> Address:
        """Where it listens; once started with the port that the kernel chose."""
        return self._master.address

    def start(self) -> None:
        """Listen, and answer in a thread from now on.

        :raises OSError: the address can't be used.
        :raises PysockError: it was started before.
        """
        if self._thread is not None or self._master.state is not ServerState.NEW:
            raise PysockError("this agent was started before: make a new one")
        with ExitStack() as undo:
            undo.callback(self._close)
            self._master.create()
            self._master.bind()
            self._master.listen()
            self._listener = socket.socket(fileno=os.dup(self._master.fd))
            self._listener.setblocking(False)
            self._wake = socket.socketpair()
            self._answers = _Answers(self._server, self._listener, self._wake[0])
            self._thread = threading.Thread(target=self._run, name="pysock-agent", daemon=True)
            self._thread.start()
            undo.pop_all()
        log.info("HAProxy's agent-check is answered at %s", self.address)

    def stop(self) -> None:
        """Close all, and end the thread. Called again it does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None and self._wake is not None:
            with suppress(OSError):
                self._wake[1].send(b"\0", NO_SIGNAL)
            thread.join()
        self._close()

    def __enter__(self) -> HealthAgent:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: in a child there is no thread, and the port is the parent's."""
        self._thread = None
        socks = filter(None, (self._listener, *(self._wake or ()), *(self._answers.forget() if self._answers else ())))
        for sock in socks:
            close_quietly(sock.detach())
        self._listener, self._wake, self._answers = None, None, None

    def _close(self) -> None:
        if self._answers is not None:
            self._answers.close()
        for sock in filter(None, (self._listener, *(self._wake or ()))):
            sock.close()
        self._listener, self._wake, self._answers = None, None, None
        self._master.close()

    def _run(self) -> None:
        assert self._answers is not None
        try:
            self._answers.run()
        except Exception:
            log.exception("the health agent at %s ended", self.address)


class _Answers(Unique):
    """The thread's own: who is connected, oldest first, and until when."""

    def __init__(self, server: Server, listener: socket.socket, wake: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._wake = wake
        self._until: dict[socket.socket, float] = {}
        self._again_at: float | None = None  # when it accepts again; None: it does
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def run(self) -> None:
        """Answer until it is woken."""
        while self._turn():
            pass

    def close(self) -> None:
        """When it doesn't run any more."""
        for sock in tuple(self._until):
            self._end(sock)
        self._selector.close()

    def forget(self) -> list[socket.socket]:
        """In a forked child: nobody is told anything. What is left to close."""
        self._selector.close()  # the copy of its descriptor; what it watches is the parent's
        return list(self._until)

    def _turn(self) -> bool:
        ends = [*tuple(self._until.values())[:1], *([] if self._again_at is None else [self._again_at])]
        events = self._selector.select(max(0.0, min(ends) - monotonic()) if ends else None)
        ready = [key.fileobj for key, _ in events]
        if self._wake in ready:
            return False
        for sock in ready:
            if sock is self._listener:
                self._accept()
            elif isinstance(sock, socket.socket) and sock in self._until:
                self._read(sock)
        now = monotonic()
        for sock in [sock for sock, end in self._until.items() if end <= now]:
            self._end(sock)
        if self._again_at is not None and self._again_at <= now:
            self._again_at = None
            self._selector.register(self._listener, selectors.EVENT_READ)
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
        if len(self._until) >= _MOST:
            self._end(next(iter(self._until)))
        self._until[sock] = monotonic() + _PATIENCE
        try:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
            self._say(sock)
        except OSError:  # it has gone
            self._end(sock)

    def _say(self, sock: socket.socket) -> None:
        """One line, which fits into any socket's buffer; then it is the other's turn to close."""
        no_sigpipe(sock)
        sock.send(f"{line_of(self._server)}\n".encode(), NO_SIGNAL)
        sock.shutdown(socket.SHUT_WR)

    def _read(self, sock: socket.socket) -> None:
        """What it says is of no interest (``agent-send``); closing before it was read would take our line with it."""
        try:
            data = sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # also ETIMEDOUT and EHOSTUNREACH, which are no ConnectionError
            data = b""
        if not data:
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        self._until.pop(sock, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()
