"""asyncio or uvloop, streams: the handler runs in an executor, of one client one request at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from bench.servers.common import U32, Handler, arguments, pack
from bench.servers.loops import run_streams

given = arguments(loop=["asyncio", "uvloop"], executor=["threads", "processes"])
executor: Executor = ThreadPoolExecutor(1) if given.executor == "threads" else ProcessPoolExecutor(2)


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    loop = asyncio.get_running_loop()
    while True:
        (size,) = U32.unpack(await reader.readexactly(4))
        reply = await loop.run_in_executor(executor, handler, await reader.readexactly(size))
        writer.write(pack(len(reply)) + reply)
        await writer.drain()


run_streams(talk, given)
