"""Requests that are told of when they are over: those that took long, and while somebody looks on a few of all.

``csrc/python/served.c`` has the same rules, but for one: here each handler is timed from the beginning on, if anybody
may want to know, so that it is always known which request was slow.
"""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.pure.reply import Failure, may_be_for_later
from pysock.engine.rows import Served

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.waiting.deferred import Deferred

    Handler = Callable[[Any, Any], Any]

#: At most so many a turn, of slow ones and of others: what isn't told of is counted.
_SLOW_MAX: Final = 64
_OTHERS_MAX: Final = 8
_NEVER: Final = float("inf")


class Serving(Unique):
    """What one engine tells of."""

    def __init__(self, core: Core, tell: Callable[[Served, int], None]) -> None:
        self._core = core
        self._tell = tell
        self._slow = self._least = _NEVER
        self._turn = 0.0  # of which so many have been told of
        self._told = [0, 0]
        self._skipped = 0

    def want(self, seconds: float | None, everything: bool) -> None:
        """As :meth:`pysock.engine.contract.Engine.notice`."""
        self._slow = _NEVER if seconds is None else seconds
        self._least = 0.0 if everything else self._slow

    def wants(self, seconds: float) -> bool:
        """Whether what took so long is to be told of."""
        return seconds >= self._least

    def noticed(self, service: int, handler: Handler) -> Handler:
        """The handler, which is timed."""

        def call(client: Any, request: Any) -> Any:
            began, came, failed, reply = monotonic(), self._core.now, True, None
            try:
                reply = handler(client, request)
                failed = False
            finally:
                ended = monotonic()
                if ended - began >= self._least and not (reply.__class__ is not bytes and may_be_for_later(reply)):
                    self.tell(client.id, service, came, began, ended, len(request), reply, failed)
            return reply

        return call

    def answered(self, record: Deferred, reply: Any, failed: bool, kept: Any) -> None:
        """One that was put off is answered."""
        ended = monotonic()
        if ended - record.began >= self._least:
            client_id = record.connection.client_id
            self.tell(client_id, record.service, record.began, record.began, ended, record.size, reply, failed, kept)

    def tell(
        self,
        client_id: int,
        service: int,
        came: float,
        began: float,
        ended: float,
        size: int,
        reply: Any,
        failed: bool,
        kept: Any = None,
    ) -> None:
        """Of this request."""
        if not self._has_room(ended - began >= self._slow):
            self._skipped += 1
            return
        skipped, self._skipped = self._skipped, 0
        reply_size = 0 if failed or reply is None or type(reply) is Failure else memoryview(reply).nbytes
        self._tell(Served(client_id, service, came, began, ended, size, reply_size, failed, 1, kept), skipped)

    def _has_room(self, is_slow: bool) -> bool:
        if self._turn != self._core.now:
            self._turn, self._told = self._core.now, [0, 0]
        self._told[is_slow] += 1
        return self._told[is_slow] <= (_SLOW_MAX if is_slow else _OTHERS_MAX)
