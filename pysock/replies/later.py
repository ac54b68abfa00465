"""``pysock.later()``: a handler that answers when it can, from whatever thread; and what else it may return for that.

This file owns what a handler may return in place of a reply: a :class:`Reply`, or a ``concurrent.futures.Future``.
"""

from __future__ import annotations

import sys

from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.engine.deferral import Deferred, Ended, Kept, ReplyDropped
from pysock.errors import PysockError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

    from pysock.base.aliases import Buffer


class Reply(Unique):
    """The answer to one request, which comes later; made by :func:`pysock.later`.

    A handler returns it, and hands it to whoever will answer::

        @server.service("slow")
        def slow(client, request):
            reply = pysock.later()
            jobs.put((bytes(request), reply))
            return reply

    Whoever has the work done calls :meth:`send` or :meth:`fail`, once, from any thread. If it is forgotten instead, its
    client gets an ERROR, so that nobody waits for ever.
    """

    __slots__ = ("__weakref__", "_deferred")

    def __init__(self) -> None:
        self._deferred = _Later()

    def send(self, reply: Buffer | None = b"") -> bool:
        """Answer with these bytes. Whether somebody waits for them, as far as is known in this thread: a client may
        have gone, or cancelled its request, a moment ago.

        :raises PysockError: it has been answered already.
        :raises TypeError: it isn't bytes-like.
        """
        return self._deferred.answer(None if reply is None else bytes(checked(reply, sys.maxsize, "")))

    def fail(self, exception: Exception) -> bool:
        """The request has failed: the client gets an ERROR, as if the handler had raised this. As :meth:`send`.

        :raises TypeError: it isn't an exception.
        """
        if not isinstance(exception, Exception):
            raise TypeError(f"a request fails by an Exception, not by {exception!r}")
        return self._deferred.answer(exception)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more: the client has cancelled it or left, its deadline has passed, or the
        server ends. It is to be answered all the same, when the work on it has ended.
        """
        return self._deferred.why is not None

    def __del__(self) -> None:
        deferred: Deferred | None = getattr(self, "_deferred", None)
        if deferred is not None and not deferred.is_answered and not sys.is_finalizing():
            deferred.answer(ReplyDropped())


def later() -> Reply:
    """A reply that comes later: a handler returns it, and somebody calls its ``send`` or ``fail``.

    See :class:`Reply`. In place of it a handler may return a :class:`concurrent.futures.Future`.
    """
    return Reply()


class _Later(Deferred):
    """What the engine keeps of a :class:`Reply`: not that itself, or nobody would see that it was dropped."""

    __slots__ = ()


class _OfFuture(Deferred):
    """A ``concurrent.futures.Future``, of an executor say."""

    __slots__ = ("_future",)

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self._future = future
        future.add_done_callback(self._done)

    def ended(self, why: Ended) -> bool:
        """Take it out of the executor's queue if it still waits there."""
        del why
        return not self._future.cancel()

    def _done(self, future: Future[Any]) -> None:
        if self.is_answered or (future.cancelled() and self.why is not None):
            return
        try:
            error = future.exception()
        except Exception as cancelled:
            error = cancelled
        if error is not None and not isinstance(error, Exception):
            error = PysockError(f"the work on it ended by {type(error).__name__}")
        self.answer(future.result() if error is None else error)


def deferred_of(result: Any) -> Kept | None:
    """What the engine is to keep for what a handler has returned; ``None``: that isn't for later."""
    if isinstance(result, Kept):
        return result
    if isinstance(result, Reply):
        return result._deferred
    futures = sys.modules.get("concurrent.futures")  # where nobody has imported it there is none
    if futures is not None and isinstance(result, futures.Future):
        return _OfFuture(result)
    return None
