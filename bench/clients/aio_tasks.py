"""A program on uvloop, with as many tasks as there are requests in flight, all on one connection.

Once with pysock's own client, once with one that is written by hand on asyncio's streams: a task that reads, a dict of
futures by request id. Each task asks, waits for the answer, and asks again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

import pysock.aio
from bench.servers.common import endpoint
from pysock.wire.cir import encode_cir
from pysock.wire.format import HEADER, Kind

Ask = Callable[[bytes], Awaitable[bytes]]


class Tasks:
    """A connection in a loop of its own. ``opened`` makes it: how to ask, and how to close."""

    def __init__(self, opened: Callable[[str], Awaitable[tuple[Ask, Callable[[], Any]]]], address: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._ask, self._close = self._loop.run_until_complete(_awaited(opened(address)))

    def request(self, payload: bytes) -> bytes:
        return self._loop.run_until_complete(_awaited(self._ask(payload)))

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        return self._loop.run_until_complete(_all(self._ask, payloads))

    def converse(self, payloads: Sequence[bytes], seconds: float) -> list[int]:
        """A task for each payload, for so long; the latency of each request in ns."""
        return self._loop.run_until_complete(_converse(self._ask, payloads, seconds))

    def close(self) -> None:
        self._loop.call_soon(self._close)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


async def _all(ask: Ask, payloads: Sequence[bytes]) -> list[bytes]:
    return await asyncio.gather(*map(ask, payloads))


async def _converse(ask: Ask, payloads: Sequence[bytes], seconds: float) -> list[int]:
    clock, latencies = time.perf_counter_ns, []
    end = clock() + int(seconds * 1e9)

    async def one(payload: bytes) -> None:
        now = clock()
        while now < end:
            await ask(payload)
            before, now = now, clock()
            latencies.append(now - before)

    await asyncio.gather(*map(one, payloads))
    return latencies


class Streams:
    """The client that is written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def begin(self) -> None:
        self._writer.write(encode_cir())
        size, *_ = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        await self._reader.readexactly(size)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            size, _, _, _, number = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            payload = await self._reader.readexactly(size) if size else b""
            self._waiting.pop(number).set_result(payload)

    async def ask(self, payload: bytes) -> bytes:
        number = next(self._ids)
        future = self._waiting[number] = self._loop.create_future()
        self._writer.write(HEADER.pack(len(payload), Kind.SRM, 0, 0, number) + payload)
        return await future

    def close(self) -> None:
        self._task.cancel()
        self._writer.close()


async def _open_streams(address: str) -> tuple[Ask, Callable[[], Any]]:
    is_unix, where = endpoint(address)
    made = asyncio.open_unix_connection(where) if is_unix else asyncio.open_connection(*where)
    client = Streams(*await made)
    await client.begin()
    return client.ask, client.close


async def _open_pysock(address: str) -> tuple[Ask, Callable[[], Any]]:
    client = await pysock.aio.connect(address)
    return client.request, client.close


def connect(address: str) -> Tasks:
    return Tasks(_open_pysock, address)


def connect_streams(address: str) -> Tasks:
    return Tasks(_open_streams, address)
