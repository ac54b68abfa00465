"""The heartbeat of an asyncio client: a PING now and then, whatever the program does."""

from __future__ import annotations

import asyncio
import contextvars

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.heartbeat import dead, patience
from pysock.errors import RequestTimeout

if TYPE_CHECKING:
    from pysock.aio.connection import Connection


class Heart:
    """It beats until it is stopped, or ends the connection.

    :param every: seconds between two; ``None``: it doesn't beat.
    """

    __slots__ = ("_connection", "_every", "_timer")

    def __init__(self, connection: Connection, every: float | None) -> None:
        self._connection = connection
        self._every = every
        self._timer: asyncio.TimerHandle | None = None
        if every is not None:
            contextvars.Context().run(self._rest, every)  # in one of its own, as the connection's reader

    def _rest(self, every: float) -> None:
        self._timer = self._connection.loop.call_later(every, self._beat, every)

    def _beat(self, every: float) -> None:
        future = self._connection.loop.create_future()
        future.add_done_callback(self._answered)
        self._connection.ping(future, b"", monotonic() + patience(every))

    def _answered(self, future: asyncio.Future[tuple[int, bytes]]) -> None:
        error = None if future.cancelled() else future.exception()
        if self._every is None or self._connection.error is not None:
            return
        if isinstance(error, RequestTimeout):
            lost = dead(self._every)
            self._connection.mail.over("timed out", str(lost))
            self._connection.end(lost)
        else:
            self._rest(self._every)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
