"""asyncio or uvloop, streams: ``readexactly`` and ``write``."""

from __future__ import annotations

import asyncio

from bench.servers.common import U32, Handler, pack
from bench.servers.loops import serve_streams


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    while True:
        (size,) = U32.unpack(await reader.readexactly(4))
        reply = handler(await reader.readexactly(size))
        writer.write(pack(len(reply)) + reply)
        await writer.drain()


serve_streams(talk)
