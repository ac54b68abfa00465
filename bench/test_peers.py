"""pysock's client and server against others, call by call, each with its own client in Python.

python -m pytest bench/test_peers.py --benchmark-only
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.clients import Client
from bench.peers import WITH_PYTHON_CLIENTS, Peer
from bench.pyload import connector

SMALL = b"x" * 64

Connect = Callable[..., Client]


@pytest.fixture(params=WITH_PYTHON_CLIENTS, ids=lambda peer: peer.id.removeprefix("py-"))
def peer(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_request(benchmark: Any, connect: Connect, peer: Peer, transport: str) -> None:
    benchmark.group = f"peers, S1 one request, {transport}, 64 bytes"
    assert bytes(memoryview(benchmark(connect(peer, transport).request, SMALL))) == SMALL


def test_request_many(benchmark: Any, connect: Connect, peer: Peer) -> None:
    benchmark.group = "peers, S3 1,000 requests of 64 bytes, as many in flight as it can have"
    assert len(benchmark(connect(peer).request_many, [SMALL] * 1000)) == 1000


def test_large(benchmark: Any, connect: Connect, peer: Peer) -> None:
    if peer.id == "py-floor":
        pytest.skip("it sends while the frame still arrives, which a client that doesn't read meanwhile can't take")
    benchmark.group = "peers, S4 one request, unix, 1 MiB"
    large = b"x" * 1024 * 1024
    assert bytes(memoryview(benchmark(connect(peer).request, large))) == large


def test_short_connections(
    benchmark: Any, address_of: Callable[[Peer, str], str], monkeypatch: pytest.MonkeyPatch, peer: Peer
) -> None:
    benchmark.group = "peers, S7 connect, request, close"
    address, connect = address_of(peer, "unix"), connector(peer.client)
    for name, value in peer.environment:
        monkeypatch.setenv(name, value)

    def visit() -> Any:
        client = connect(address)
        try:
            return client.request(SMALL)
        finally:
            client.close()

    assert bytes(memoryview(benchmark(visit))) == SMALL
