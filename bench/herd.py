"""Connections beside the measured ones: a herd that is idle, and clients that don't read."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import Final

from bench.servers.common import endpoint, pack

PAYLOAD: Final = b"x" * 64
PATIENCE: Final = 30.0

#: A full socket that stays full so long belongs to a server that has stopped reading, in seconds.
FULL: Final = 0.05


def plug(address: str) -> socket.socket:
    """A client that is connected, and no more."""
    is_unix, where = endpoint(address)
    sock = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
    sock.settimeout(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    # A Unix socket whose queue is full isn't waited for (unix(7), EAGAIN).
    while (failed := sock.connect_ex(where)) == errno.EAGAIN and time.monotonic() < deadline:
        time.sleep(0.001)
    if failed:
        raise OSError(failed, os.strerror(failed))
    return sock


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the server hung up on a client of the herd")
        data += piece
    return data


def _introduce(sock: socket.socket) -> None:
    """The CIR, and the answer to it."""
    from pysock.wire.cir import encode_cir  # noqa: PLC0415 - only for pysock's own framing
    from pysock.wire.format import HEADER  # noqa: PLC0415 - only for pysock's own framing

    sock.sendall(encode_cir())
    _read(sock, HEADER.unpack(_read(sock, HEADER.size))[0])


def _talk_pysock(sock: socket.socket) -> None:
    from pysock.wire.format import HEADER, Kind, encode  # noqa: PLC0415

    _introduce(sock)
    sock.sendall(encode(Kind.SRM, PAYLOAD, request_id=1))
    _read(sock, HEADER.size + len(PAYLOAD))


def _talk_u32(sock: socket.socket) -> None:
    sock.sendall(pack(len(PAYLOAD)) + PAYLOAD)
    _read(sock, 4 + len(PAYLOAD))


class Herd:
    """So many connections that have each made one request and will never make another."""

    def __init__(self, address: str, count: int, framing: str) -> None:
        talk = _talk_pysock if framing == "pysock" else _talk_u32
        started = time.perf_counter()
        self.socks = []
        for _ in range(count):
            self.socks.append(plug(address))
            talk(self.socks[-1])
        self.seconds = time.perf_counter() - started

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


class Stuck:
    """One connection with framing u32 that sends requests for as long as the server takes them, and reads nothing."""

    def __init__(self, address: str) -> None:
        self.sock = plug(address)
        self.sock.setblocking(False)
        frames = (pack(len(PAYLOAD)) + PAYLOAD) * 1000
        rest = memoryview(frames)
        deadline = time.monotonic() + 1.0
        room = select.poll()  # select() has no descriptors from 1024 on
        room.register(self.sock, select.POLLOUT)
        while time.monotonic() < deadline and room.poll(1000 * FULL):
            rest = rest[self.sock.send(rest) :] or memoryview(frames)

    def close(self) -> None:
        self.sock.close()
