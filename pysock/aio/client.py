"""AsyncClient: the client of asyncio programs. This file owns what a program sees of it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress

from pysock.address import Address
from pysock.aio.connection import Connection
from pysock.aio.stream import AsyncStream
from pysock.base import kinds
from pysock.base.clock import monotonic
from pysock.base.deadlines import checked_timeout, deadline_of, time_left
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import SERVERS_LIMIT, checked, checked_all
from pysock.calls.introduced import Introduced
from pysock.calls.ping import TEXT_OTHER_BYTES, Pong
from pysock.engine.link import nothing_sent
from pysock.engine.outlet import FULL
from pysock.errors import ConnectionLost, ProtocolError, PysockError, RemoteError, RequestTimeout
from pysock.replies.current import shortened
from pysock.wire import tracing
from pysock.wire.cir import Welcome
from pysock.wire.format import LARGEST_PING, Kind, encode

if TYPE_CHECKING:
    from typing import Any, Final

#: How long the goodbye may take, in seconds.
_GOODBYE: Final = 1.0
_running: Final = asyncio._get_running_loop
_CLOSED: Final = "this client is closed: connect() again"


class AsyncClient(Introduced):
    """One connection to a server, for any number of tasks of one loop. Made by :func:`pysock.aio.connect`.

    All timeouts are in seconds. ``timeout=None`` means the one given to ``connect()``, ``math.inf`` waits for ever. A
    task that is cancelled cancels its request; the connection stays as usable as it was. Each call may raise
    :class:`~pysock.errors.ConnectionLost` and :class:`~pysock.errors.ProtocolError`; the client is closed then.
    """

    _instead = "connect() once more"

    def __init__(
        self,
        connection: Connection,
        welcome: Welcome,
        address: Address,
        name: str,
        timeout: float | None,
        inherits: bool,
        most: int,
    ) -> None:
        self._connection = connection
        self._most = most
        self._mail = connection.mail
        self._submit = connection.submit_ordinary
        self._loop = connection.loop
        self._timeout = timeout
        self._inherits = inherits
        self._introduced(welcome)
        self._name = name
        self._address = address

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, from whichever side."""
        return self._connection.error is not None

    # Requests

    async def request(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> bytes:
        """Send a request and wait for the reply; the exceptions are those of :meth:`pysock.Client.request`."""
        number = 0 if service is None else self._services.number(service)
        if number in self._services.streaming:
            seconds = self._timeout if timeout is None else timeout
            return await self._stream(number, payload, seconds, timeout).join(self._most)
        connection = self._connection
        if connection.error is not None or connection.mail.goodbye is not None or _running() is not self._loop:
            self._refuse()
        future = self._loop.create_future()
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._inherits:
            seconds = shortened(seconds)
        request_id = 0 if tracing.inject is not None else self._submit(future, number, payload, seconds)
        if not request_id:
            request_id = connection.submit(future, number, checked(payload, self._max_payload, SERVERS_LIMIT), seconds)
        try:
            return await future  # type: ignore[no-any-return]
        except RemoteError as error:
            raise self._services.telling(error) from None
        except (asyncio.CancelledError, GeneratorExit):
            connection.give_up(request_id)
            raise

    def stream(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> AsyncStream:
        """Ask a service that answers in pieces: ``async for`` them as they come, within ``async with`` where you may
        leave early. The parameters and exceptions are those of :meth:`pysock.Client.stream`.
        """
        return self._stream(self._services.number(service), payload, timeout, timeout)

    def _stream(self, number: int, payload: kinds.Buffer, whole: float | None, timeout: float | None) -> AsyncStream:
        """One that may last so long in the whole."""
        data = checked(payload, self._max_payload, SERVERS_LIMIT)
        seconds = None if whole is None else checked_timeout(whole)
        if self._inherits:
            seconds = shortened(seconds)
        return AsyncStream(self, number, data, seconds, self._timeout if timeout is None else None)

    async def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        *,
        return_exceptions: bool = False,
        idempotent: bool = False,
        wait: bool = True,
    ) -> list[Any]:
        """Send many requests without waiting in between; return the replies in the order of the requests.

        :param timeout: for all of them together.
        :param return_exceptions: put a :class:`~pysock.errors.RemoteError` in the list in place of the reply.
        :param idempotent: they may be run twice: see :meth:`request`, also for ``wait``.
        """
        number = self._services.number(service)
        data = checked_all(list(payloads), self._max_payload)
        self._check()
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._inherits:
            seconds = shortened(seconds)
        futures = [self._loop.create_future() for _ in data]
        submit = self._connection.submit
        ids = [submit(one, number, payload, seconds) for one, payload in zip(futures, data, strict=True)]
        try:
            replies = [await self._result(future) for future in futures]
        finally:
            for request_id, future in zip(ids, futures, strict=True):
                if not future.done():
                    self._connection.give_up(request_id)
                    future.cancel()
                elif not future.cancelled():
                    future.exception()  # seen, whatever it is
        if not return_exceptions and (errors := [one for one in replies if isinstance(one, RemoteError)]):
            raise errors[0]
        return replies

    async def _result(self, future: asyncio.Future[bytes]) -> bytes | RemoteError:
        try:
            return await future
        except RemoteError as error:
            return self._services.telling(error)

    async def notify(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, *, wait: bool = True
    ) -> None:
        """Send a request that isn't answered. Waits only where the server takes nothing.

        :raises RequestTimeout: it took nothing for so long. What was sent goes on its way regardless.
        """
        number, data = self._services.number(service), checked(payload, self._max_payload, SERVERS_LIMIT)
        self._check()
        left = self._deadline(timeout)
        connection = self._connection
        request_id = connection.notify(number, data if type(data) is bytes else bytes(data))
        if connection.output.size >= FULL:
            await self._drained(time_left(left))
        if connection.error is not None:
            raise connection.fated(ConnectionLost(connection.mail.farewell() or str(connection.error)), request_id)

    async def ping(self, payload: kinds.Buffer = b"", timeout: float | None = None, *, wait: bool = True) -> Pong:
        """Ask for a sign of life; return the seconds there and back, a number whose ``state`` is the server's.

        :param payload: at most 64 bytes, which the server sends back.
        """
        data = checked(payload, LARGEST_PING, "a ping's limit")
        self._check()
        started = monotonic()
        future = self._loop.create_future()
        request_id = self._connection.ping(future, data, self._deadline(timeout))
        try:
            code, answer = await future
        except (asyncio.CancelledError, GeneratorExit):
            self._connection.waiting.pop(request_id, None)
            raise
        if answer != data:
            error = ProtocolError(TEXT_OTHER_BYTES)
            self._connection.end(error)
            raise error
        return Pong(monotonic() - started, code)

    # Pushes

    async def pushes(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Yield what the server sends unasked, as it comes: ``async for payload in client.pushes()``.

        :param timeout: seconds after which it ends; ``None`` is never, here.
        :raises ConnectionLost: the connection ended without a goodbye, or because one side heard nothing for too long.
            After the server's goodbye, and after :meth:`close`, it just ends; :attr:`ended` tells which.
        """
        deadline = deadline_of(None if timeout is None else checked_timeout(timeout))
        connection = self._connection
        while True:
            while (payload := connection.mail.take(self._gap)) is not None:
                yield payload
            if connection.error is not None:
                if connection.mail.timed_out or (connection.mail.goodbye is None and str(connection.error) != _CLOSED):
                    raise ConnectionLost(connection.mail.farewell() or str(connection.error))
                return
            if time_left(deadline) == 0:
                return
            await self._heard(time_left(deadline))

    async def _heard(self, seconds: float | None) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._connection.listeners.append(future)
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            with suppress(ValueError):
                self._connection.listeners.remove(future)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pushes()

    # The end

    def close(self) -> None:
        """Say goodbye, as far as the kernel takes it now, and close. Called again it does nothing."""
        connection = self._connection
        if connection.error is None:
            connection.output.put(encode(Kind.BYE), b"", idle=True)
            connection.output.flush()
            connection.mail.over("left")
            connection.end(ConnectionLost(_CLOSED))

    async def aclose(self) -> None:
        """As :meth:`close`; what is queued is sent first, for a second at most."""
        if self._connection.error is None and self._connection.output.size:
            self._connection.output.flush()
            if self._connection.output.size >= FULL:
                with suppress(RequestTimeout):
                    await self._drained(_GOODBYE)
        self.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        connection: Connection | None = getattr(self, "_connection", None)
        if connection is None or connection.error is not None:
            return
        try:
            warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # where warnings are errors
            error = ConnectionLost(_CLOSED)
            if self._loop.is_closed() or self._is_ours():
                connection.end(error)
            else:
                with suppress(RuntimeError):  # it may be closed by now
                    self._loop.call_soon_threadsafe(connection.end, error)

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<AsyncClient {shown(self._id)}{name} {'closed' if self.closed else 'connected'} {self._address}>"

    # Common to all calls

    def _deadline(self, timeout: float | None) -> float | None:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._inherits:
            seconds = shortened(seconds)
        return None if seconds is None else monotonic() + seconds

    def _is_ours(self) -> bool:
        return _running() is self._loop

    def _check(self) -> None:
        if self.closed or self._connection.mail.goodbye is not None or not self._is_ours():
            self._refuse()

    def _refuse(self) -> None:
        if not self._is_ours():
            raise PysockError("this client belongs to another loop: each loop needs a client of its own")
        self._raise_end()
        raise nothing_sent(self._connection.mail.farewell() or _CLOSED)

    def _raise_end(self) -> None:
        error = self._connection.error
        if error is not None:
            raise nothing_sent(self._connection.mail.farewell() or str(error))

    async def _drained(self, seconds: float | None) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._connection.output.drained.append(future)
        await asyncio.wait((future,), timeout=seconds)
        if not future.done():
            raise RequestTimeout("the server took too little in time")
