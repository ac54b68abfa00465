"""What one server asks its clients: ``client.request()`` on the server's side, in whatever thread or task it is called.

This file owns the question how to wait: a task of an asyncio loop awaits the answer, any other thread blocks. The
loop's own thread can't, for it is the one that reads what clients answer.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections.abc import Callable
from threading import get_ident

from pysock.asking.asks import LATE, Asks
from pysock.base.deadlines import checked_timeout
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.errors import PysockError, RequestTimeout
from pysock.replies.current import shortened
from pysock.wire.service_name import encoded_name

if TYPE_CHECKING:
    import asyncio
    from typing import Any, Final

    from pysock.asking.awaited import Timer
    from pysock.base.aliases import Buffer
    from pysock.clients import ServedSocket
    from pysock.engine.contract import Engine
    from pysock.limits import Limits


class Asking(Unique):
    """Of one server.

    :param find: the object of the client with this id, if there is one.
    """

    def __init__(self, find: Callable[[int], ServedSocket | None]) -> None:
        self._find = find
        self._lock = allocate_lock()
        self.engine: Engine
        #: The last one that tasks wait with.
        self.timer: Timer | None = None
        self._most = self._largest = 0
        self._owner: Callable[[], int | None] = lambda: None
        self._over = ""  # why nobody is asked any more
        self._awaited: Callable[..., Any] | None = None

    def serve(self, engine: Engine) -> None:
        """From now on this one serves."""
        self.engine = engine

    def bound(self, limits: Limits, owner: Callable[[], int | None]) -> None:
        """What is the server's own.

        :param owner: the thread that runs the loop.
        """
        self._most, self._largest = limits.max_asks, limits.max_payload
        self._owner = owner

    def is_owner(self) -> bool:
        """Whether this thread runs the loop."""
        return self._owner() == get_ident()

    def ask(self, client: ServedSocket, payload: Any, service: str | None, timeout: float | None) -> Any:
        """As :meth:`pysock.DataSocket.request`."""
        name, data = _name_of(service), checked(payload, self._largest, "Limits.max_payload")
        seconds = shortened(None if timeout is None else checked_timeout(timeout))
        loop = loop_of_task()
        if loop is not None:
            awaited = self._awaited or self._brought()
            return awaited(self, loop, client, name, data, seconds)
        if self.is_owner():
            raise PysockError(
                "request() in the thread of the server's loop would wait for an answer that this thread has to read:"
                " ask in an async handler, in a service with threads=, or in another thread"
            )
        return self._blocking(client, name, data, seconds)

    def _brought(self) -> Callable[..., Any]:
        from pysock.asking.awaited import awaited  # noqa: PLC0415  # it brings asyncio

        self._awaited = awaited
        return awaited

    def _blocking(self, client: ServedSocket, name: bytes, payload: Buffer, seconds: float | None) -> bytes:
        waiter = Waiting()
        asks, engine = self.begin(client)
        number = asks.ask(engine, name, payload, waiter)
        try:
            return waiter.wait(seconds)
        except BaseException:
            asks.give_up(engine, number)
            raise

    def begin(self, client: ServedSocket) -> tuple[Asks, Engine]:
        """What a client is asked by.

        :raises ConnectionLost: it is gone.
        """
        engine = self.engine  # it has a client, so it serves
        engine.ask  # noqa: B018  # in a forked child this raises, before a lock is taken that somebody else may have
        asks = client.asks
        if asks is None:
            with self._lock:
                asks = client.asks = client.asks or Asks(client.id, self._most)
        if client.is_gone:
            asks.end(f"client {shown(client.id)} isn't connected any more, and can't be asked")
        elif self._over:
            asks.end(self._over)
        return asks, engine

    def answered(self, client_id: int, number: int, code: int, payload: bytes) -> bool:
        """As :attr:`pysock.engine.contract.Callbacks.answered`."""
        client = self._find(client_id)
        return client is not None and client.asks is not None and client.asks.answered(number, code, payload)

    def end(self, clients: list[ServedSocket], why: str) -> None:
        """Nothing that clients answer is read any more."""
        self._over = self._over or why
        for client in clients:
            if client.asks is not None:
                client.asks.end(why)


class Waiting(Unique):
    """A thread that waits."""

    __slots__ = ("_error", "_lock", "_payload")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self._payload = b""
        self._error: Exception | None = None

    def done(self) -> bool:
        """It waits until it is told, or goes away."""
        return False

    def set_result(self, payload: bytes) -> None:
        """The answer."""
        self._payload = payload
        self._lock.release()

    def set_exception(self, error: Exception) -> None:
        """There is none."""
        self._error = error
        self._lock.release()

    def wait(self, seconds: float | None) -> bytes:
        """Block until it is there."""
        if not self._lock.acquire(timeout=-1 if seconds is None else min(seconds, _LONGEST)):
            raise RequestTimeout(LATE)
        if self._error is not None:
            raise self._error
        return self._payload


#: Of a lock's wait, in seconds.
_LONGEST: Final = 2.0**31


def loop_of_task() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop of the task that this is; ``None``: it is none. Nor is it where nobody has imported asyncio."""
    module = sys.modules.get("asyncio")
    running = getattr(module, "_get_running_loop", None)
    loop: asyncio.AbstractEventLoop | None = None if running is None else running()
    return loop if loop is not None and module.current_task(loop) is not None else None  # type: ignore[union-attr]


def _name_of(service: str | None) -> bytes:
    """The name of a service, its length in front."""
    if service is None:
        return b"\0"
    name = encoded_name(service, "service")
    return bytes((len(name),)) + name
