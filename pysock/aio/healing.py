"""HealingAsyncClient: an asyncio client that connects again. This file owns what a program sees of it.

It is a plain client for each connection, one after the other; ``keeper.py`` has them, and ``healing/verdict.py`` knows
what may be sent again.
"""

from __future__ import annotations

import asyncio
import math
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from pysock.aio.client import AsyncClient
from pysock.aio.keeper import Keeper
from pysock.aio.stream import LaterStream, first_of
from pysock.base import kinds
from pysock.base.clock import monotonic
from pysock.base.deadlines import checked_timeout, deadline_of, time_left
from pysock.base.functions import checked_function
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, OutcomeUnknown, PysockError, RemoteError, RequestTimeout
from pysock.healing.known import Known
from pysock.healing.policy import Bucket
from pysock.healing.verdict import Sending, says_goodbye
from pysock.replies.current import shortened

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.address import Address
    from pysock.aio.stream import AsyncStream
    from pysock.calls.ping import Pong

    Hook = TypeVar("Hook", bound=Callable[..., Any])
    Result = TypeVar("Result")


class HealingAsyncClient(Known, AsyncClient):
    """A client of one server, by one connection after the other. Made by :func:`pysock.aio.connect` with
    ``reconnect=``.
    """

    def __init__(self, keeper: Keeper, name: str, timeout: float | None, inherits: bool) -> None:
        self._keeper = keeper
        self._name = name
        self._timeout = timeout
        self._inherits = inherits
        self._loop = keeper.loop
        self._bucket = Bucket()

    # What is known

    def _life(self) -> Keeper:
        return self._keeper

    @property
    def address(self) -> Address:
        """Where the newest connection leads to."""
        return self._newest().address

    @property
    def dropped_pushes(self) -> int:
        """How many pushes nobody took; not those that came to no connection."""
        return self._keeper.dropped + self._newest().dropped_pushes

    @property
    def missed_pushes(self) -> int:
        """How many pushes servers have dropped because it read too slowly; not those that came to no connection."""
        return self._keeper.missed + self._newest().missed_pushes

    def _newest(self) -> AsyncClient:
        assert self._keeper.newest is not None  # it is made with one
        return self._keeper.newest

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
        """As :meth:`AsyncClient.request`; what wasn't run goes over the next connection.

        :raises OutcomeUnknown: the connection ended, the request may have been run, and may not be run twice.
        """
        # What nothing is wrong with costs little more than on a plain client.
        began, client, sending = monotonic(), self._keeper.current, None
        if client is not None:
            try:
                reply = await client.request(payload, service, timeout)
            except (ConnectionLost, RemoteError) as error:
                sending = Sending(self._bucket, idempotent, began)
                await self._failed(error, client, sending, service, idempotent)
            else:
                if self._bucket.tokens < Bucket.MOST:
                    self._bucket.answered()
                return reply
        end = self._deadline(timeout, began)
        return await self._send(
            end, service, idempotent, wait, lambda client: client.request(payload, service, _left(end)), sending
        )

    def stream(
        self,
        payload: kinds.Buffer,
        service: str | None = None,
        timeout: float | None = None,
        *,
        idempotent: bool = False,
        wait: bool = True,
    ) -> AsyncStream:
        """As :meth:`AsyncClient.stream`; the request is sent when the first piece is asked for. Until that has come it
        is treated as others are; one that gave a piece is never begun again.
        """
        whole = None if timeout is None else checked_timeout(timeout)

        async def begin() -> tuple[AsyncStream, bytes | None]:
            end = self._deadline(timeout)

            async def first(client: AsyncClient) -> tuple[AsyncStream, bytes | None]:
                return await first_of(client.stream(payload, service, None if whole is None else _left(end)))

            return await self._send(end, service, idempotent, wait, first)

        return LaterStream(begin)

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
        """As :meth:`AsyncClient.request_many`; an :class:`OutcomeUnknown` is kept as a :class:`RemoteError` is."""
        end = self._deadline(timeout)

        async def one(payload: kinds.Buffer) -> bytes | Exception:
            try:
                return await self._send(
                    end, service, idempotent, wait, lambda client: client.request(payload, service, _left(end))
                )
            except (RemoteError, OutcomeUnknown) as error:
                return error

        results = await asyncio.gather(*map(one, payloads))
        if not return_exceptions and (errors := [one for one in results if isinstance(one, Exception)]):
            raise errors[0]
        return results

    async def notify(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, *, wait: bool = True
    ) -> None:
        """As :meth:`AsyncClient.notify`. What the kernel has taken counts as sent, and isn't sent again."""
        end = self._deadline(timeout)
        await self._send(end, service, False, wait, lambda client: client.notify(payload, service, _left(end)))

    async def ping(self, payload: kinds.Buffer = b"", timeout: float | None = None, *, wait: bool = True) -> Pong:
        """As :meth:`AsyncClient.ping`."""
        end = self._deadline(timeout)
        return await self._send(end, None, True, wait, lambda client: client.ping(payload, _left(end)))

    async def _send(
        self,
        end: float | None,
        service: str | None,
        idempotent: bool,
        wait: bool,
        call: Callable[[AsyncClient], Awaitable[Result]],
        sending: Sending | None = None,
    ) -> Result:
        if not self._is_ours():
            raise PysockError("this client belongs to another loop: each loop needs a client of its own")
        sending = sending or Sending(self._bucket, idempotent)
        while True:
            client = await self._keeper.usable(end, wait)
            try:
                result = await call(client)
            except (ConnectionLost, RemoteError) as error:
                await self._failed(error, client, sending, service, idempotent)
            else:
                self._bucket.answered()
                return result

    async def _failed(
        self,
        error: ConnectionLost | RemoteError,
        client: AsyncClient,
        sending: Sending,
        service: str | None,
        idempotent: bool,
    ) -> None:
        """Get ready to send it again; else what its caller is told is raised."""
        if says_goodbye(error):
            self._keeper.leave(client, "it takes no more requests")
        sending.idempotent = idempotent or client._services.is_idempotent(service)
        pause = sending.after(error, client.id)
        if pause:
            await asyncio.sleep(pause)

    # Pushes

    async def pushes(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """As :meth:`AsyncClient.pushes`, over one connection after the other. What is pushed while there is none is
        lost.
        """
        deadline = deadline_of(None if timeout is None else checked_timeout(timeout))
        while True:
            try:
                client = await self._keeper.usable(deadline)
            except RequestTimeout:
                return
            except ConnectionLost:
                if self.ended is not None and self.ended.how == "left":
                    return
                raise
            connection = client._connection
            while True:
                while (payload := connection.mail.take(self._gap)) is not None:
                    yield payload
                if connection.error is not None or connection.mail.goodbye is not None:
                    break
                if time_left(deadline) == 0:
                    return
                await client._heard(time_left(deadline))

    def on_reconnect(self, hook: Hook) -> Hook:
        """Register ``hook(client)``, called with each new connection but the first, before waiting calls go on; it may
        be an ``async def``.

        Its own calls go over that connection. If it fails that is logged, and the client connects once more after a
        wait. The decorator returns it unchanged.
        """
        checked_function("hook", hook, "hook(client)", None)
        reference = weakref.ref(self)

        def restore() -> Any:
            client = reference()
            return None if client is None else hook(client)

        self._keeper.restore = restore
        return hook

    # The end

    def close(self) -> None:
        """Say goodbye, as far as the kernel takes it now, and close, for good. Called again it does nothing."""
        current = self._keeper.close()
        if current is not None:
            current.close()

    async def aclose(self) -> None:
        """As :meth:`close`; what is queued is sent first, for a second at most."""
        current = self._keeper.close()
        if current is not None:
            await current.aclose()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        keeper: Keeper | None = getattr(self, "_keeper", None)
        if keeper is None or self.closed:
            return
        try:
            warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # where warnings are errors
            if self._loop.is_closed() or self._is_ours():
                _close(keeper)
            else:
                _soon(self._loop, keeper)

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        newest = self._newest()
        return f"<AsyncClient {shown(newest.id)}{name} {self._keeper.state.name.lower()} {newest.address}>"

    def _deadline(self, timeout: float | None, began: float | None = None) -> float | None:
        """When the time is over for a call that begins now, or began then."""
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if began is not None and seconds is not None:
            seconds = max(0.0, began + seconds - monotonic())
        return deadline_of(shortened(seconds) if self._inherits else seconds)


def _left(end: float | None) -> float:
    left = time_left(end)
    return math.inf if left is None else left


def _close(keeper: Keeper) -> None:
    current = keeper.close()
    if current is not None:
        current._connection.end(ConnectionLost("this client was thrown away"))


def _soon(loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
    try:
        loop.call_soon_threadsafe(_close, keeper)
    except RuntimeError:  # it may be closed by now
        _close(keeper)
