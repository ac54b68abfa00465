"""A server for ``pysock serve``: it sends back what it is sent, at once and from tasks."""

from __future__ import annotations

import asyncio

import pysock

server = pysock.Server("unix:echoing.sock")


@server.service
def echo(client: pysock.DataSocket, request: bytes) -> bytes:
    return b"echo " + request


@server.service("async")
async def later(client: pysock.DataSocket, request: bytes) -> bytes:
    await asyncio.sleep(0.001)
    return b"echo " + request
