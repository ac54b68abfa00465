"""pysock, by the kind of its handler: in the program's uvloop loop, or in workers."""

from __future__ import annotations

import asyncio

import pysock
from bench.servers.common import arguments, echo

given = arguments(kind=["def", "async", "waits", "threads", "processes"])
server = pysock.Server(given.address, framing="u32", backend="native")


def plain(_client: pysock.DataSocket, request: bytes) -> bytes:
    return request


async def never_waits(_client: pysock.DataSocket, request: bytes) -> bytes:
    return request


async def waits(_client: pysock.DataSocket, request: bytes) -> bytes:
    await asyncio.sleep(0)
    return request


async def attached() -> None:
    async with server:
        await server.wait_closed()


if __name__ == "__main__":
    if given.kind == "threads":
        server.service(threads=1)(plain)
        server.serve_forever()
    elif given.kind == "processes":
        server.service(processes=2)(echo)
        server.serve_forever()
    else:
        import uvloop

        server.service({"def": plain, "async": never_waits, "waits": waits}[given.kind])
        uvloop.run(attached())
