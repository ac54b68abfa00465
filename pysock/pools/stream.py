"""Threads whose handlers answer by streams.

The loop tells how much may be sent, and the thread waits for that where it has sent so much. It closes its generator
itself: that runs there, and nobody else could.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import is_bytes_like
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.pools.jobs import Job
from pysock.pools.threads import Threads
from pysock.replies.current import HELD
from pysock.wire.features import STREAM_COST

if TYPE_CHECKING:
    from typing import Any

    from pysock.data import DataSocket
    from pysock.engine.rows import Current
    from pysock.pools.pool import Pool


class Flow(Unique):
    """What may be sent of one stream."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0  # as the loop saw it last; 0: nothing, until it says more
        self._limit = 0  # bytes in all
        self._sent = 0  # of these
        self._is_off = False

    def allow(self, left: int, limit: int) -> None:
        """As :attr:`pysock.engine.contract.Callbacks.flow`."""
        with self._changed:
            self._left, self._limit = left, limit
            self._changed.notify()

    def end(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._is_off = True
            self._changed.notify()

    def wait(self) -> bool:
        """Wait until a piece may be sent; ``False``: nobody waits for one."""
        with self._changed:
            while not self._is_off and (self._left <= 0 or self._sent >= self._limit):
                self._changed.wait()
            return not self._is_off

    def count(self, size: int) -> None:
        """A piece of so many bytes is on its way: only the worker's thread counts, and waits."""
        self._sent += size + STREAM_COST


class StreamJob(Job):
    """A request that is answered by a stream."""

    __slots__ = ("_flow",)

    def __init__(self, pool: Pool, client: DataSocket, request: bytes, row: Current) -> None:
        super().__init__(pool, client, request, row)
        self._flow = Flow()

    # In the loop's thread

    def flow(self, left: int, limit: int) -> None:
        """So much may be sent now."""
        self._flow.allow(left, limit)

    def tell(self, why: Ended) -> bool:
        """Nobody waits for its answer any more."""
        begun = super().tell(why)
        self._flow.end()
        return begun

    # In the worker's

    def wants_more(self) -> bool:
        """Wait until a piece may be sent; ``False``: there is to be none."""
        return self._flow.wait() or (self.why == Ended.GONE and self.pool.finishes)

    def send(self, piece: Any) -> None:
        """Send a piece, if somebody waits for it."""
        if self.why is None:
            self._flow.count(memoryview(piece).nbytes if is_bytes_like(piece) else 0)
            self._engine.send_more(self._handle, piece)


class Streams(Threads):
    """Those of one service; see :class:`pysock.pools.pool.Pool`."""

    _job = StreamJob

    def __init__(
        self,
        name: str,
        handler: Callable[[DataSocket, bytes], Any],
        size: int,
        most: int | None,
        finishes: bool = False,
    ) -> None:
        super().__init__(name, lambda client, request: _last_of(handler(client, request)), size, most, finishes)


def _last_of(pieces: Any) -> Any:
    """Send the pieces of the stream, as they may be sent; what its generator returns at last."""
    if not isinstance(pieces, Iterable) or isinstance(pieces, str) or is_bytes_like(pieces):
        return pieces  # the whole reply, or what is none
    job, iterator = HELD.get(), iter(pieces)
    assert isinstance(job, StreamJob)
    try:
        while job.wants_more():
            job.send(next(iterator))
    except StopIteration as stop:
        return stop.value
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
    return None
