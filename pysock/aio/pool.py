"""Pool: several connections to one server, for any number of tasks; a call takes the one with the fewest in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pysock.address import AddressLike
from pysock.aio.connecting import connect
from pysock.aio.stream import LaterStream, first_of
from pysock.base import kinds
from pysock.base.lean import TYPE_CHECKING
from pysock.healing.members import Members, closed_pool

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.aio.client import AsyncClient
    from pysock.aio.stream import AsyncStream

    Result = TypeVar("Result")


class Pool(Members["AsyncClient"]):
    """At most ``size`` connections, each made when all that there are have calls in them: ``async with`` it.

    With ``balance="p2c"`` they are as those of :class:`pysock.Pool`.

    :param address: as of :func:`pysock.aio.connect`, also several.
    :param size: connections at most.
    :param options: the others of :func:`pysock.aio.connect`. By default the clients connect again: ``reconnect=True``.
    :raises ValueError: the size is no number from 1 on.
    """

    def __init__(
        self, address: AddressLike | Sequence[AddressLike], size: int, name: str | None = None, **options: Any
    ) -> None:
        super().__init__(address, size, name, options)
        self._came = asyncio.Event()  # one that was being made is there, or failed
        connect(address, name, **self._options)  # what is wrong is told here

    async def request(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> bytes:
        """As :meth:`AsyncClient.request`, on one of the connections."""
        return await self._call(lambda client: client.request(payload, service, timeout, **how))

    def stream(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> AsyncStream:
        """As :meth:`AsyncClient.stream`, on one of the connections; the request is sent when the first piece is asked
        for.
        """
        taken: list[AsyncClient] = []

        async def begin() -> tuple[AsyncStream, bytes | None]:
            client = await self._taken()
            taken.append(client)
            return await first_of(client.stream(payload, service, timeout, **how))

        return LaterStream(begin, lambda: self._left(*taken))

    async def request_many(
        self, payloads: Iterable[kinds.Buffer], service: str | None = None, timeout: float | None = None, **how: bool
    ) -> list[Any]:
        """As :meth:`AsyncClient.request_many`, on one of the connections."""
        return await self._call(lambda client: client.request_many(payloads, service, timeout, **how))

    async def notify(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None) -> None:
        """As :meth:`AsyncClient.notify`, on one of the connections."""
        await self._call(lambda client: client.notify(payload, service, timeout))

    async def _call(self, call: Callable[[AsyncClient], Awaitable[Result]]) -> Result:
        client = await self._taken()
        try:
            return await call(client)
        finally:
            self._left(client)

    def _left(self, *clients: AsyncClient) -> None:
        """A call in it has ended."""
        for client in clients:
            if client in self._calls:
                self._calls[client] -= 1

    async def _taken(self) -> AsyncClient:
        if self._closed:
            raise closed_pool()
        best, full = self._best()
        while best is None and full:  # they all are being made
            self._came.clear()
            await self._came.wait()
            best, full = self._best()
        if best is not None and (full or not self._calls[best]):
            self._calls[best] += 1
            return best
        self._coming += 1
        try:
            client = await connect(self._address, self._name, **self._options)
        finally:
            self._coming -= 1
            self._came.set()
        return await self._added(client)

    async def _added(self, client: AsyncClient) -> AsyncClient:
        if self._closed:
            await client.aclose()
            raise closed_pool()
        self._calls[client] = 1
        return client

    async def aclose(self) -> None:
        """Close all of them."""
        self._closed = True
        clients = list(self._calls)
        self._calls.clear()
        for client in clients:
            await client.aclose()

    async def __aenter__(self) -> Pool:
        try:
            if not self._calls:
                self._calls[await self._taken()] = 0
            while len(self._calls) < self._first_ones():
                self._calls[await connect(self._address, self._name, **self._options)] = 0
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
