"""asyncio or uvloop, ``Protocol``: the lowest layer with bytes."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from bench.servers.common import JOIN_MAX, Frames, Handler
from bench.servers.loops import serve


class Echo(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self.frames = Frames(handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        replies = self.frames.feed(data)
        if not replies:
            return
        if len(replies[-1]) > JOIN_MAX:
            self.transport.writelines(replies)
        else:
            self.transport.write(b"".join(replies))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Crier(asyncio.Protocol):
    """What one client says, all get."""

    everybody: ClassVar[set[asyncio.Transport]] = set()

    def __init__(self, handler: Handler) -> None:
        self.frames = Frames(handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.everybody.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.everybody.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        replies = self.frames.feed(data)
        if replies:
            message = b"".join(replies)
            for transport in self.everybody:
                transport.write(message)


serve(Echo, Crier)
