"""asyncio or uvloop, ``BufferedProtocol``: the kernel writes into a buffer of the protocol's own."""

from __future__ import annotations

import asyncio

from bench.servers.common import JOIN_MAX, Handler, pack, unpack_from
from bench.servers.loops import serve

ROOM = 64 * 1024


class Echo(asyncio.BufferedProtocol):
    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.have = 0
        self.make_room(ROOM)

    def make_room(self, size: int) -> None:
        self.room = bytearray(size)
        self.view = memoryview(self.room)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view[self.have :]

    def buffer_updated(self, nbytes: int) -> None:
        self.have += nbytes
        at, end, view, handler = 0, self.have, self.view, self.handler
        replies: list[bytes] = []
        while end - at >= 4:
            (size,) = unpack_from(view, at)
            stop = at + 4 + size
            if stop > end:
                break
            reply = handler(bytes(view[at + 4 : stop]))
            replies.append(pack(len(reply)))
            replies.append(reply)
            at = stop
        self.keep(at, end)
        if replies:
            self.answer(replies)

    def keep(self, at: int, end: int) -> None:
        """What is left of a frame moves to the front, of a larger buffer if it needs one."""
        self.have = end - at
        if not self.have:
            return
        rest = self.view[at:end]
        size = 4 + unpack_from(rest)[0] if self.have >= 4 else 0
        if size > len(self.room):
            self.make_room(size)
        if at or size > end:
            self.view[: self.have] = bytes(rest) if at else rest

    def answer(self, replies: list[bytes]) -> None:
        if len(replies[-1]) > JOIN_MAX:
            self.transport.writelines(replies)
        else:
            self.transport.write(b"".join(replies))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


serve(Echo)
