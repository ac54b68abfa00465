"""Workers that are threads: the handler runs in the worker's own thread, and its ways to the clients are open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context, copy_context

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.guards import type_name
from pysock.errors import RemoteError
from pysock.pools.jobs import Job
from pysock.replies.current import HELD
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any

    from pysock.data import DataSocket


class InThread(Unique):
    """A worker of a pool of threads."""

    def __init__(self, name: str, handler: Callable[[DataSocket, bytes], Any]) -> None:
        self._name = name
        self._handler = handler
        self._base = Context()

    def start(self) -> None:
        """What each handler's context is a copy of: that in which the server was started."""
        self._base = copy_context()

    def await_start(self) -> None:
        """A thread can work at once."""

    def answer(self, job: Job) -> Any:
        """Run the handler, in a context of its own."""
        try:
            context = self._base.copy()
            context.run(HELD.set, job)
            reply = context.run(self._handler, job.client, job.request)
        except Exception as error:
            return error
        except BaseException as error:
            # SystemExit, say: it would end this thread, and is none of the server's.
            log.error("service %r: its handler raised in a thread of the pool", self._name, exc_info=error)
            return RemoteError(type_name(error))
        return reply if not isinstance(reply, BaseException) else not_bytes(reply)

    def renew(self, closing: threading.Event) -> None:
        """It is as good as new."""

    def kill(self, job: Job) -> None:
        """A thread can't be ended from outside."""

    def end(self) -> None:
        """It ends by itself, when there is nothing to take."""

    def await_end(self) -> None:
        """The pool waits for its threads."""

    def abandon(self) -> None:
        """There is nothing that a child would have."""


def not_bytes(reply: object) -> TypeError:
    """What is said of an exception that was returned, and not raised."""
    return TypeError(texts.NOT_BYTES % (type_name(reply), ""))
