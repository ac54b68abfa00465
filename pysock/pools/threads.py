"""Workers that are threads: the handler runs in the worker's own thread, and its ways to the clients are open."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.engine.guards import type_name
from pysock.errors import RemoteError
from pysock.pools.jobs import Job
from pysock.pools.pool import Pool
from pysock.replies.current import HELD
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any

    from pysock.data import DataSocket


class Threads(Pool):
    """Those of one service; see :class:`pysock.pools.pool.Pool`."""

    def __init__(
        self,
        name: str,
        handler: Callable[[DataSocket, bytes], Any],
        size: int,
        most: int | None,
        finishes: bool = False,
    ) -> None:
        super().__init__(name, size, most, finishes)
        self._handler = handler
        self._base = Context()

    def start(self) -> None:
        """Each handler's context is a copy of that in which the server is started."""
        self._base = copy_context()
        for _ in range(self.size):
            self._start_thread(self._work)

    def _work(self) -> None:
        while (job := self.jobs.take()) is not None:
            self.answer(job, self._run(job))
            del job  # it may be large, and the next one may be long in coming

    def _run(self, job: Job) -> Any:
        """What the handler returned, or an ``Exception``; in a context of its own."""
        try:
            context = self._base.copy()
            context.run(HELD.set, job)
            reply = context.run(self._handler, job.client, job.request)
        except Exception as error:
            return error
        except BaseException as error:
            # SystemExit, say: it would end this thread, and is none of the server's.
            log.error("service %r: its handler raised in a thread of the pool", self.name, exc_info=error)
            return RemoteError(type_name(error))
        return reply if not isinstance(reply, BaseException) else _not_bytes(reply)


def _not_bytes(reply: object) -> TypeError:
    """What is said of an exception that was returned, and not raised."""
    return TypeError(texts.NOT_BYTES % (type_name(reply), ""))
