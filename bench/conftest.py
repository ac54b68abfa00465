"""Fixtures of the suites for pytest-benchmark: servers in processes of their own, on a core of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bench.clients import Client
from bench.drive import Server
from bench.machine import Cores, missing_here, raise_descriptor_limit
from bench.peers import Peer
from bench.pyload import connector
from bench.run import serving
from bench.scenarios import Load


@pytest.fixture(scope="session", autouse=True)
def cores() -> Iterator[Cores]:
    """This process has one, the servers have the other."""
    if reason := missing_here():
        pytest.skip(reason)
    before, chosen = os.sched_getaffinity(0), Cores.choose()
    raise_descriptor_limit()
    os.sched_setaffinity(0, {chosen.client})
    yield chosen
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def address_of(cores: Cores) -> Iterator[Callable[[Peer, str], str]]:
    """``address_of(peer, transport)``: its server, which listens there until the session ends."""
    with ExitStack() as stack:
        known: dict[tuple[Peer, str], str] = {}

        def address_of(peer: Peer, transport: str) -> str:
            if reason := peer.missing():
                pytest.skip(reason)
            if (peer, transport) not in known:
                load = Load(transport=transport, connections=1)
                address, pid, log = stack.enter_context(serving(peer, load, cores.server))
                Server(address, pid, log).await_listening()
                known[peer, transport] = address
            return known[peer, transport]

        yield address_of


@pytest.fixture
def connect(
    address_of: Callable[[Peer, str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Peer, str], Client]]:
    """``connect(peer, transport)``: a client of the kind that belongs to it."""
    with ExitStack() as stack:

        def connect(peer: Peer, transport: str = "unix") -> Client:
            address = address_of(peer, transport)
            for name, value in peer.environment:
                monkeypatch.setenv(name, value)
            client = connector(peer.client)(address)
            stack.callback(client.close)
            return client

        yield connect
