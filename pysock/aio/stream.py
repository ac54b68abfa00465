"""The reply of one request in pieces, for an asyncio client: the next one is awaited."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.calls.later import Later
from pysock.calls.pieces import Joining, Pieces
from pysock.errors import ConnectionLost, OutcomeUnknown, PysockError, RemoteError, RequestTimeout

if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

    from pysock.aio.client import AsyncClient
    from pysock.aio.connection import Connection
    from pysock.base.aliases import Buffer

_LATE: Final = "the server sent no more of the stream in time"


class _Awaited(Pieces):
    """They wake the task that waits for them."""

    __slots__ = ("waker",)

    def __init__(self, window: int, streams: bool) -> None:
        super().__init__(window, streams)
        self.waker: asyncio.Future[None] | None = None

    def put(self, piece: bytes) -> None:
        super().put(piece)
        self._wake()

    def set_result(self, piece: bytes) -> None:
        super().set_result(piece)
        self._wake()

    def set_exception(self, error: Exception) -> None:
        super().set_exception(error)
        self._wake()

    def _wake(self) -> None:
        if self.waker is not None and not self.waker.done():
            self.waker.set_result(None)


class AsyncStream(Unique):
    """The pieces of one reply, as they come: ``async for`` them, in one task. Made by ``client.stream()``.

    The request is sent when it is entered by ``async with``, or the first piece is asked for. Who leaves early closes
    it, best by ``async with``: the server is told, and ends what makes the pieces.
    """

    _instead = "ask for another one by stream()"

    def __init__(
        self, client: AsyncClient, number: int, payload: Buffer, seconds: float | None, patience: float | None
    ) -> None:
        self._client = client
        self._connection = client._connection
        self._number = number
        self._payload: Buffer | None = payload  # until it is sent
        self._seconds = seconds
        self._patience = patience
        self._pieces: Any = _Awaited(client._stream_window, number in client._services.streaming)
        self._request_id = 0
        self._timer: asyncio.TimerHandle | None = None  # of the whole
        self._gave = False
        self._sent_at = 0.0

    def _open(self) -> None:
        payload, self._payload = self._payload, None
        if payload is None:
            return
        self._client._check()
        self._sent_at = time.time()
        connection = self._connection
        self._request_id = connection.submit_stream(self._pieces, self._number, payload, self._seconds)
        self._timer = self._call_late(self._seconds)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        """The next piece; the exceptions are those of :class:`pysock.calls.stream.Stream`."""
        piece = await self._next()
        self._gave = True
        return piece

    async def _next(self) -> bytes:
        self._open()
        pieces = self._pieces
        self._give_credit()
        while (piece := pieces.take()) is None:
            if pieces.is_over:
                self._finish()
            await self._wait()
        return piece  # type: ignore[no-any-return]  # bytes

    def _give_credit(self) -> None:
        """For what was taken before: whoever asks for more has done with it."""
        pieces, connection = self._pieces, self._connection
        credit = pieces.credit()
        if credit:
            connection.give_credit(self._request_id, credit)
            pieces.credited()

    async def _wait(self) -> None:
        pieces, loop = self._pieces, self._connection.loop
        if pieces.waker is not None:
            raise PysockError("another task waits for the next piece of this stream already")
        future = pieces.waker = loop.create_future()
        timer = self._call_late(self._patience)
        try:
            await future
        finally:
            pieces.waker = None
            if timer is not None:
                timer.cancel()

    def _call_late(self, seconds: float | None) -> asyncio.TimerHandle | None:
        """It ends after so long; the loop doesn't keep this object meanwhile."""
        connection = self._connection
        if seconds is None:
            return None
        return connection.loop.call_later(seconds, _late, connection, self._request_id, self._pieces)

    def _finish(self) -> NoReturn:
        """There are no more pieces."""
        self._stop_timer()
        error = self._pieces.take_error()
        if error is None:
            raise StopAsyncIteration
        if isinstance(error, RemoteError):
            raise self._client._services.telling(error)
        if not isinstance(error, ConnectionLost) or not self._gave:
            raise error
        unknown = OutcomeUnknown(f"the connection ended in the middle of a stream: {error}")
        unknown.request_id, unknown.client_id, unknown.sent_at = self._request_id, self._client.id, self._sent_at
        raise unknown from error

    async def join(self, most: int) -> bytes:
        """All of it at once.

        :param most: so many bytes of it are kept at most.
        """
        joining = Joining(most)
        async with self:
            with suppress(StopAsyncIteration):
                while True:
                    joining.put(await self._next())
        return joining.whole()

    # Its end

    def close(self) -> None:
        """Leave it: the server is told that nobody wants more, and what comes still is dropped."""
        self._payload = None
        self._stop_timer()
        self._connection.leave_stream(self._request_id)
        self._pieces.drop()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def aclose(self) -> None:
        """As :meth:`close`; it doesn't wait."""
        self.close()

    async def __aenter__(self) -> AsyncStream:
        self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        pieces: Pieces | None = getattr(self, "_pieces", None)
        if pieces is None or pieces.is_over or self._payload is not None:
            return
        connection = self._connection
        if asyncio._get_running_loop() is connection.loop:
            self.close()
        else:
            with suppress(RuntimeError):  # it is closed
                connection.loop.call_soon_threadsafe(connection.leave_stream, self._request_id)

    def __repr__(self) -> str:
        return f"<AsyncStream of request {self._request_id} {'over' if self._pieces.is_over else 'open'}>"


def _late(connection: Connection, request_id: int, pieces: Pieces) -> None:
    connection.leave_stream(request_id)
    pieces.set_exception(RequestTimeout(_LATE))


class LaterStream(Later, AsyncStream):
    """One that begins with its first piece."""

    async def __anext__(self) -> bytes:
        return await self._next()

    async def _next(self) -> bytes:
        begin, self._begin = self._begin, None
        try:
            if begin is not None:
                self._inner, first = await begin()
                if first is not None:
                    return first  # type: ignore[no-any-return]  # bytes
            if self._inner is None:
                raise StopAsyncIteration
            return await self._inner.__anext__()  # type: ignore[no-any-return]  # bytes
        except asyncio.CancelledError:
            if self._inner is None:  # it had begun, and nobody has it
                self.close()
            raise
        except Exception:
            self.close()
            raise

    async def __aenter__(self) -> LaterStream:
        return self


async def first_of(stream: AsyncStream) -> tuple[AsyncStream, bytes | None]:
    """It, and its first piece; ``None``: it has none."""
    try:
        return stream, await stream.__anext__()
    except StopAsyncIteration:
        return stream, None
