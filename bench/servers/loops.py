"""Running a protocol, or a function of a reader and a writer, on asyncio's own loop or on uvloop's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.servers.common import BACKLOG, Arguments, Handler, arguments

#: How much a reader takes before it stops reading: a large frame should not stop it.
LIMIT = 1024 * 1024

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Handler], Awaitable[None]]


async def _serve_protocol(protocol: Callable[[Handler], Any], given: Arguments) -> None:
    loop, handler = asyncio.get_running_loop(), given.handler
    if given.is_unix:
        server = await loop.create_unix_server(lambda: protocol(handler), given.where, backlog=BACKLOG)
    else:
        server = await loop.create_server(lambda: protocol(handler), *given.where, backlog=BACKLOG, ssl=given.context)
    await server.serve_forever()


async def _serve_streams(talk: Talk, given: Arguments) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer, given.handler)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    if given.is_unix:
        server = await asyncio.start_unix_server(client, given.where, backlog=BACKLOG, limit=LIMIT)
    else:
        server = await asyncio.start_server(client, *given.where, backlog=BACKLOG, limit=LIMIT)
    await server.serve_forever()


def _run(main: Awaitable[None], loop: str) -> None:
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - only where it is asked for

        uvloop.run(main)
    else:
        asyncio.run(main)  # type: ignore[arg-type]


def serve(protocol: Callable[[Handler], Any], crier: Callable[[Handler], Any] | None = None) -> None:
    """``crier``: what broadcasts are by."""
    given = arguments(loop=["asyncio", "uvloop"])
    _run(_serve_protocol(crier if crier and given.broadcast else protocol, given), given.loop)


def serve_streams(talk: Talk) -> None:
    run_streams(talk, arguments(loop=["asyncio", "uvloop"]))


def run_streams(talk: Talk, given: Arguments) -> None:
    _run(_serve_streams(talk, given), given.loop)
