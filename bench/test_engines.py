"""The native engine against the pure one: the same server, handler and client.

python -m pytest bench/test_engines.py --benchmark-only
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

import pysock
from bench.peers import PEERS, Peer
from bench.servers.common import endpoint, pack

SMALL = b"x" * 64


@pytest.fixture(params=["native", "pure"])
def engine(request: pytest.FixtureRequest) -> str:
    """Of the server."""
    return str(request.param)


def server(engine: str, *more: str) -> Peer:
    """Echo; framing pysock unless said otherwise."""
    peer = PEERS["pysock"] if engine == "native" else PEERS["pysock-pure"]
    framing = () if "--framing" in more else ("--framing", "pysock")
    # Not the load generator makes the load: so the pure engine needs no extension.
    return replace(peer, client="pysock_client", arguments=(*peer.arguments, *framing, *more))


@pytest.fixture
def client(engine: str, address_of: Callable[[Peer, str], str]) -> Iterator[Callable[..., pysock.Client]]:
    """``client(transport, *options)``: the same client for both, on the engine that is the default here."""
    with ExitStack() as stack:

        def connect(transport: str = "unix", *options: str) -> pysock.Client:
            return stack.enter_context(pysock.connect(address_of(server(engine, *options), transport)))

        yield connect


@pytest.fixture
def plugs(engine: str, address_of: Callable[[Peer, str], str]) -> Iterator[Callable[[int], list[socket.socket]]]:
    """``plugs(count)``: plain sockets, framing u32."""
    with ExitStack() as stack:

        def connect(count: int) -> list[socket.socket]:
            _, where = endpoint(address_of(server(engine, "--framing", "u32"), "unix"))
            socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
            for sock in socks:
                sock.connect(where)
            return socks

        yield connect


def read(sock: socket.socket, room: bytearray) -> None:
    view, have = memoryview(room), 0
    while have < len(room):
        count = sock.recv_into(view[have:])
        assert count, "the server hung up"
        have += count


@pytest.mark.parametrize("size", [64, 1024, 16 * 1024])
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_request(benchmark: Any, client: Callable[..., pysock.Client], transport: str, size: int) -> None:
    benchmark.group = f"engines, S1 one request, {transport}, {size} bytes"
    assert len(benchmark(client(transport).request, b"x" * size)) == size


def test_request_many(benchmark: Any, client: Callable[..., pysock.Client]) -> None:
    benchmark.group = "engines, S3 request_many, 1,000 of 64 bytes"
    assert benchmark(client().request_many, [SMALL] * 1000) == [SMALL] * 1000


def test_batch_service(benchmark: Any, client: Callable[..., pysock.Client]) -> None:
    benchmark.group = "engines, S3 request_many to a batch service, 1,000 of 64 bytes"
    assert benchmark(client("unix", "--batch").request_many, [SMALL] * 1000) == [SMALL] * 1000


def test_many_clients(benchmark: Any, plugs: Callable[[int], list[socket.socket]]) -> None:
    benchmark.group = "engines, S2 one request from each of 32 connections, plain bytes"
    frame, socks = pack(len(SMALL)) + SMALL, plugs(32)
    room = bytearray(len(frame))

    def ask() -> None:
        for sock in socks:
            sock.send(frame)
        for sock in socks:
            read(sock, room)

    benchmark(ask)
    assert room == frame


def test_pipelined_bytes(benchmark: Any, plugs: Callable[[int], list[socket.socket]]) -> None:
    benchmark.group = "engines, S3 256 requests of 64 bytes in one write, plain bytes"
    frames, (sock,) = (pack(len(SMALL)) + SMALL) * 256, plugs(1)
    room = bytearray(len(frames))

    def ask() -> None:
        sock.sendall(frames)
        read(sock, room)

    benchmark(ask)
    assert room == frames


@pytest.mark.parametrize("size", [100 * 1024, 1024 * 1024])
def test_large(benchmark: Any, client: Callable[..., pysock.Client], size: int) -> None:
    benchmark.group = f"engines, S4 one request, unix, {size // 1024} KiB"
    assert len(benchmark(client().request, b"x" * size)) == size


def test_short_connections(benchmark: Any, engine: str, address_of: Callable[[Peer, str], str]) -> None:
    benchmark.group = "engines, S7 connect, CIR, request, close"
    address = address_of(server(engine), "unix")

    def visit() -> bytes:
        with pysock.connect(address) as client:
            return client.request(SMALL)

    assert benchmark(visit) == SMALL
