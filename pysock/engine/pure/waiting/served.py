"""Requests that are told of when they are over: those that took long, and while somebody looks on a few of all.

``csrc/python/served.c`` has the same rules, but for one: here each handler is timed from the beginning on, if anybody
may want to know, so that it is always known which request was slow.
"""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.engine.pure.reply import Failure, may_be_for_later
from pysock.engine.rows import Served

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.waiting.deferred import Deferred

    Handler = Callable[[Any, Any], Any]

#: At most so many a turn; of others it is said: what isn't told of is counted.
_SLOW_MAX: Final = 64
_NEVER: Final = float("inf")


class Work(NamedTuple):
    """A request, and when it was worked for: the first fields of :class:`Served`."""

    client_id: int
    service: int
    came: float
    began: float
    ended: float
    size: int


class _Sample:
    """Each so manieth, the first of them at once; 0: none."""

    __slots__ = ("_every", "_until")

    def __init__(self, every: int = 0) -> None:
        self._every = every
        self._until = 0

    def is_next(self) -> bool:
        if not self._every:
            return False
        self._until -= 1
        if self._until > 0:
            return False
        self._until = self._every
        return True


class Serving(Unique):
    """What one engine tells of."""

    def __init__(self, core: Core, tell: Callable[[Served, int], None]) -> None:
        self._core = core
        self._tell = tell
        self._slow = self._least = _NEVER
        self._most = 0
        self._next, self._later = _Sample(), _Sample()  # of requests, and of answers that come later
        self._turn = 0.0  # of which so many have been told of
        self._told = [0, 0]
        self._skipped = 0

    def want(self, seconds: float | None, every: int, most: int) -> None:
        """As :meth:`pysock.engine.contract.Engine.notice`."""
        self._slow = _NEVER if seconds is None else seconds
        self._least = 0.0 if every else self._slow
        self._most = most
        self._next, self._later = _Sample(every), _Sample(every)

    def wants(self, seconds: float) -> bool:
        """Whether what took so long is to be told of."""
        return seconds >= self._least

    def noticed(self, service: int, handler: Handler) -> Handler:
        """The handler, which is timed."""

        def call(client: Any, request: Any) -> Any:
            began, came, failed, reply, sampled = monotonic(), self._core.now, True, None, self._next.is_next()
            try:
                reply = handler(client, request)
                failed = False
            finally:
                ended = monotonic()
                slow = ended - began >= self._slow
                if (sampled or slow) and not (reply.__class__ is not bytes and may_be_for_later(reply)):
                    self._report(
                        Work(client.id, service, came, began, ended, len(request)), reply, failed, None, sampled
                    )
            return reply

        return call

    def answered(self, record: Deferred, reply: Any, failed: bool, kept: Any) -> None:
        """One that was put off is answered."""
        ended = monotonic()
        if ended - record.began >= self._least:
            client_id, began = record.connection.client_id, record.began
            self.tell(Work(client_id, record.service, began, began, ended, record.size), reply, failed, kept)

    def tell(self, work: Work, reply: Any, failed: bool, kept: Any = None) -> None:
        """Of this request, whose answer came later, if it was slow or it is its turn."""
        sampled = self._later.is_next()
        if sampled or work.ended - work.began >= self._slow:
            self._report(work, reply, failed, kept, sampled)

    def _report(self, work: Work, reply: Any, failed: bool, kept: Any, sampled: bool) -> None:
        if not self._has_room(work.ended - work.began >= self._slow):
            self._skipped += 1
            return
        skipped, self._skipped = self._skipped, 0
        reply_size = 0 if failed or reply is None or type(reply) is Failure else memoryview(reply).nbytes
        self._tell(Served(*work, reply_size, failed, 1, kept, sampled), skipped)

    def _has_room(self, is_slow: bool) -> bool:
        if self._turn != self._core.now:
            self._turn, self._told = self._core.now, [0, 0]
        self._told[is_slow] += 1
        return self._told[is_slow] <= (_SLOW_MAX if is_slow else self._most)
