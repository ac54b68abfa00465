"""A handler that answers by a stream, in a task of its own: an async generator, as a rule.

Each of its pieces goes to the engine, which says how many bytes may follow. Where none may, the handler isn't asked for
more until the engine says so: it waits in its ``yield``. It is closed in its task, whatever ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import is_bytes_like
from pysock.engine.deferral import Ended
from pysock.tasks.call import Call
from pysock.tasks.reply import Reply
from pysock.tasks.starter import Starter

if TYPE_CHECKING:
    from typing import Any

    from pysock.tasks.tasks import Tasks


class Streamer(Starter):
    """Called with a client and a request it returns the promise of the stream's end."""

    __slots__ = ()

    def __call__(self, client: Any, request: Any) -> Any:
        """Begin a task, whose first step is the loop's next one."""
        if self._tasks.loop is None:
            raise self._tasks.over()
        return Stream(self._tasks, self, partial(self.function, client, request))


class Stream(Reply):
    """One that goes on."""

    __slots__ = ("_left", "_waiter")

    def __init__(self, tasks: Tasks, origin: Streamer, source: Callable[[], Any]) -> None:
        self._left = 0  # bytes that may be sent now, as it was told last
        self._waiter: asyncio.Future[None] | None = None
        call = Call(self._run(source))
        task = tasks.base.copy().run(partial(asyncio.Task, call, loop=tasks.loop))
        super().__init__(tasks, task, origin)
        call.deferred = self
        tasks.running.add(self)

    # In the task

    async def _run(self, source: Callable[[], Any]) -> Any:
        """What the handler returns at last."""
        pieces = source()
        if hasattr(type(pieces), "__await__"):
            pieces = await pieces
        if isinstance(pieces, Iterable) and not isinstance(pieces, str) and not is_bytes_like(pieces):
            pieces = _one_by_one(pieces)
        if not isinstance(pieces, AsyncIterator):
            return pieces  # the whole reply, or what is none
        try:
            await self._send(pieces)
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()
        return None

    async def _send(self, pieces: AsyncIterator[Any]) -> None:
        await self._allowed()
        assert self._engine is not None
        send_more, handle = self._engine.send_more, self.handle
        async for piece in pieces:
            if (more := send_more(handle, piece)) > 0:
                continue
            if self._goes_on_alone():
                await asyncio.sleep(0)
            elif more < 0:
                return  # nobody waits, as this task will be told in a moment
            self._left = 0
            await self._allowed()

    async def _allowed(self) -> None:
        """Wait until something may be sent."""
        while self._left <= 0 and not self._goes_on_alone():
            self._waiter = self.task.get_loop().create_future()
            await self._waiter

    def _goes_on_alone(self) -> bool:
        """To its end, though its client has left."""
        return self.why == Ended.GONE and self.origin.stays

    # In a turn of the engine's

    def flow(self, left: int, limit: int) -> None:
        """So much may be sent now."""
        del limit
        self._left = left
        if left > 0:
            self._wake()

    def ended(self, why: Ended) -> bool:
        """Nobody waits for it any more."""
        if self._goes_on_alone():
            self._wake()
        return super().ended(why)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _one_by_one(pieces: Iterable[Any]) -> AsyncIterator[Any]:
    """As an async generator; what is made of may be closed."""
    try:
        for piece in pieces:
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
