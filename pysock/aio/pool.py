"""Pool: several connections to one server, for any number of tasks; a call takes the one with the fewest in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pysock.address import AddressLike
from pysock.aio.connecting import connect
from pysock.base import kinds
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost
from pysock.healing.size import checked_size

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.aio.client import AsyncClient

    Result = TypeVar("Result")


class Pool(Unique):
    """At most ``size`` connections, each made when all that there are have calls in them: ``async with`` it.

    :param address: as of :func:`pysock.aio.connect`, also several.
    :param size: connections at most.
    :param options: the others of :func:`pysock.aio.connect`. By default the clients connect again: ``reconnect=True``.
    :raises ValueError: the size is no number from 1 on.
    """

    _instead = "make a Pool of its own"

    def __init__(
        self, address: AddressLike | Sequence[AddressLike], size: int, name: str | None = None, **options: Any
    ) -> None:
        self._size = checked_size(size)
        self._address = address
        self._name = name
        self._options = {"reconnect": True, **options}
        self._calls: dict[AsyncClient, int] = {}  # that are in each
        self._coming = 0  # connections that are being made
        self._came = asyncio.Event()  # one that was being made is there, or failed
        self._closed = False
        connect(address, name, **self._options)  # what is wrong is told here

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._calls)

    async def request(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> bytes:
        """As :meth:`AsyncClient.request`, on one of the connections."""
        return await self._call(lambda client: client.request(payload, service, timeout, **how))

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
            if client in self._calls:
                self._calls[client] -= 1

    async def _taken(self) -> AsyncClient:
        if self._closed:
            raise ConnectionLost("this pool is closed: make a new one")
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
            raise ConnectionLost("this pool is closed: make a new one")
        self._calls[client] = 1
        return client

    def _best(self) -> tuple[AsyncClient | None, bool]:
        """The one with the fewest calls, and whether there may be no more."""
        for client in [one for one in self._calls if one.closed]:
            del self._calls[client]
        best = min(self._calls, key=self._calls.__getitem__, default=None)
        return best, len(self._calls) + self._coming >= self._size

    async def aclose(self) -> None:
        """Close all of them."""
        self._closed = True
        clients = list(self._calls)
        self._calls.clear()
        for client in clients:
            await client.aclose()

    async def __aenter__(self) -> Pool:
        if not self._calls:
            self._calls[await self._taken()] = 0
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Pool {len(self._calls)} of {self._size} {'closed' if self._closed else 'open'} {self._address}>"
