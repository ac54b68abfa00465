"""What a blocking client does about streams: ``stream()``, for :class:`pysock.Client`."""

from __future__ import annotations

from collections.abc import Callable

from pysock.base import kinds
from pysock.base.deadlines import checked_timeout, deadline_of
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import SERVERS_LIMIT, checked
from pysock.calls.introduced import Introduced
from pysock.calls.selfcall import refuse_own_loop
from pysock.calls.stream import Stream
from pysock.replies.current import shortened

if TYPE_CHECKING:
    from typing import Any
    from weakref import ref

    from pysock.calls.heartbeat import Heartbeat
    from pysock.engine.link import Link
    from pysock.server import Server


class Streaming(Introduced):
    """The part of a blocking client that begins streams; the calls and the link are the client's."""

    _link: Link
    _heart: Heartbeat
    _window: int
    _timeout: float | None
    _inherits: bool
    _beside: ref[Server] | None

    def _call(self, timeout: float | None, call: Callable[..., Any], *arguments: Any) -> Any:
        raise NotImplementedError

    def _within(self, call: Callable[..., Any], *arguments: Any) -> Any:
        raise NotImplementedError

    def stream(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> Stream:
        """Send a request to a service that answers in pieces, and iterate over them as they come.

        Use it in a ``with`` statement where you may leave early: the server is told then. A slow reader holds up its
        own stream only. Of a service that answers at once its reply is the one piece.

        :param timeout: seconds for all of it, which the server is told; ``None``: for each piece, the client's.
        :raises RemoteError: the server answered with an error; maybe behind some pieces.
        :raises RequestTimeout: nothing more came in time.
        :raises OutcomeUnknown: the connection ended behind some pieces.
        :raises FrameTooLarge: the payload is over the server's :attr:`max_payload`.
        """
        number, data = self._services.number(service), checked(payload, self._max_payload, SERVERS_LIMIT)
        if self._beside is not None:
            refuse_own_loop(self._beside)
        return self._stream(number, data, timeout, timeout)

    def _stream(self, number: int, data: kinds.Buffer, whole: float | None, timeout: float | None) -> Stream:
        """One that may last so long in the whole."""
        seconds = None if whole is None else checked_timeout(whole)
        if self._inherits:
            seconds = shortened(seconds)
        stream = Stream(self, number, deadline_of(seconds), self._timeout if timeout is None else None)
        self._call(timeout, stream.send, data)
        return stream
