"""A task that waits for the answer of a client, in the loop that the server is attached to or in any other."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pysock.asking.asks import LATE
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import RequestTimeout

if TYPE_CHECKING:
    from typing import Final

    from pysock.asking.asking import Asking
    from pysock.asking.asks import Asks
    from pysock.base.aliases import Buffer
    from pysock.clients import ServedSocket

#: What is asked within so many seconds, and this fraction of its timeout, has one timer.
_SHARED: Final = 0.001
_PARTS: Final = 16


async def awaited(
    asking: Asking,
    loop: asyncio.AbstractEventLoop,
    client: ServedSocket,
    name: bytes,
    payload: Buffer,
    seconds: float | None,
) -> bytes:
    """Ask, and wait without blocking, in a task of this loop. One that is cancelled takes the question back."""
    asks, engine = asking.begin(client)
    future: asyncio.Future[bytes] = loop.create_future()
    number = asks.ask(engine, name, payload, future if asking.is_owner() else Elsewhere(future, loop))
    timer = None if seconds is None else _timer_of(asking, loop, seconds)
    if timer is not None:
        timer.waiting[future] = asks, number
    try:
        return await future
    except (asyncio.CancelledError, GeneratorExit):
        asks.give_up(engine, number)
        raise
    finally:
        if timer is not None:
            timer.leave(future)


def _timer_of(asking: Asking, loop: asyncio.AbstractEventLoop, seconds: float) -> Timer:
    """One that goes off in so many seconds, or a moment later: the last one, if that will do."""
    timer = asking.timer
    if timer is None or not timer.is_for(loop, seconds):
        timer = asking.timer = Timer(asking, loop, seconds)
    return timer


class Timer(Unique):
    """Those that are asked in the same moment, and have as long to answer.

    :ivar waiting: who waits, and for what.
    """

    __slots__ = ("_asking", "_handle", "_loop", "_seconds", "_until", "waiting")

    def __init__(self, asking: Asking, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        span = min(_SHARED, seconds / _PARTS)
        self._asking = asking
        self._loop = loop
        self._seconds = seconds
        self._until = loop.time() + span
        self._handle = loop.call_later(seconds + span, self._ring)
        self.waiting: dict[asyncio.Future[bytes], tuple[Asks, int]] = {}

    def is_for(self, loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
        """Whether one more may have it, from now on."""
        return self._seconds == seconds and self._loop is loop and loop.time() <= self._until

    def leave(self, future: asyncio.Future[bytes]) -> None:
        """It doesn't wait any more."""
        waiting = self.waiting
        waiting.pop(future, None)
        if not waiting and self._loop.time() > self._until:
            self._handle.cancel()

    def _ring(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for future, (asks, number) in waiting.items():
            if not future.done():
                asks.give_up(self._asking.engine, number)
                future.set_exception(RequestTimeout(LATE))


class Elsewhere(Unique):
    """The future of a loop in another thread than the server's, as one that any thread may settle."""

    __slots__ = ("_future", "_loop")

    def __init__(self, future: asyncio.Future[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._future = future
        self._loop = loop

    def done(self) -> bool:
        """That is looked at there."""
        return False

    def set_result(self, payload: bytes) -> None:
        """The answer."""
        self._settle(payload, None)

    def set_exception(self, error: Exception) -> None:
        """There is none."""
        self._settle(b"", error)

    def _settle(self, payload: bytes, error: Exception | None) -> None:
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set, payload, error)

    def _set(self, payload: bytes, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(payload)
        else:
            self._future.set_exception(error)
