"""Requests that workers serve: a span lasts from when the request came until its answer, and the handler is within."""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.deferral import Ended
from pysock.errors import Cancelled
from pysock.pools.threads import Threads
from pysock.replies.current import HELD
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any

    from pysock.data import DataSocket
    from pysock.engine.rows import Current
    from pysock.otel.call import Call
    from pysock.pools.pool import Pool


def trace_pool(pool: Pool, begin: Callable[[DataSocket, int], Call]) -> None:
    """From now on each of its requests is a call; where the handler runs in this process, what it does is within."""
    plain: Any = pool._job
    if plain.__name__ == "TracedJob":
        return

    class TracedJob(plain):  # type: ignore[misc]  # of whichever kind this pool's are
        __slots__ = ("call",)

        def __init__(self, pool: Pool, client: DataSocket, request: bytes, row: Current) -> None:
            super().__init__(pool, client, request, row)
            self.call = begin(client, row.request_id)

        def answer(self, reply: Any) -> None:
            self.call.end(reply if isinstance(reply, Exception) else None)
            super().answer(reply)

        def tell(self, why: Ended) -> bool:
            begun = super().tell(why)
            if not begun:
                self.call.end(Cancelled(texts.CANCELLED))
            return bool(begun)

    pool._job = TracedJob
    if isinstance(pool, Threads):
        pool._handler = _within(pool._handler)


def _within(handler: Callable[[DataSocket, bytes], Any]) -> Callable[[DataSocket, bytes], Any]:
    def traced(client: DataSocket, request: bytes) -> Any:
        job: Any = HELD.get()
        job.call.enter()
        try:
            return handler(client, request)
        finally:
            job.call.leave()

    return traced
