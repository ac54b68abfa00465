"""A task that waits for the answer of a client, in the loop that the server is attached to or in any other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import get_ident

from pysock.asking.asks import LATE
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import RequestTimeout

if TYPE_CHECKING:
    from pysock.asking.asking import Asking
    from pysock.asking.asks import Asks
    from pysock.base.aliases import Buffer
    from pysock.clients import ServedSocket
    from pysock.engine.contract import Engine


async def awaited(asking: Asking, client: ServedSocket, name: bytes, payload: Buffer, seconds: float | None) -> bytes:
    """Ask, and wait without blocking. A task that is cancelled takes the question back."""
    asks, engine = asking.begin(client)
    waiter = Awaiting(asks, engine)
    waiter.number = asks.ask(engine, name, payload, waiter)
    timer = None if seconds is None else waiter.loop.call_later(seconds, waiter.expire)
    try:
        return await waiter.future
    except (asyncio.CancelledError, GeneratorExit):
        asks.give_up(engine, waiter.number)
        raise
    finally:
        if timer is not None:
            timer.cancel()


class Awaiting(Unique):
    """Its future."""

    __slots__ = ("_asks", "_engine", "_thread", "future", "loop", "number")

    def __init__(self, asks: Asks, engine: Engine) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[bytes] = self.loop.create_future()
        self.number: int = 0
        self._thread = get_ident()
        self._asks = asks
        self._engine = engine

    def expire(self) -> None:
        """Its time is over."""
        if not self.future.done():
            self._asks.give_up(self._engine, self.number)
            self.future.set_exception(RequestTimeout(LATE))

    def answer(self, payload: bytes) -> None:
        """It is this."""
        if self._thread == get_ident():
            if not self.future.done():
                self.future.set_result(payload)
        else:
            self._elsewhere(payload, None)

    def fail(self, error: Exception) -> None:
        """There is none."""
        if self._thread == get_ident():
            self._set(b"", error)
        else:
            self._elsewhere(b"", error)

    def _elsewhere(self, payload: bytes, error: Exception | None) -> None:
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._set, payload, error)

    def _set(self, payload: bytes, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(payload)
        else:
            self.future.set_exception(error)
