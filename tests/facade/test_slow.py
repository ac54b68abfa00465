"""Clients that don't read what is pushed to them: they go by the policy, and nobody else notices."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

import pytest
import wire
from support import wait_for

from pysock import Limits

PIECE = bytes(range(256)) * 200  # 51,200 bytes: the kernel keeps some of them
NEVER = {"push_soft_seconds": 60.0, "output_timeout": 60.0}


@pytest.fixture
def crowd(make_server, unix_address):
    """Makes a server with such limits and peers of these names; and notes who goes, and why."""
    with ExitStack() as stack:

        def start(*names, address=unix_address, framing="pysock", **limits):
            server = make_server(address, framing=framing, limits=Limits(**limits))
            gone = []
            server.on_disconnect(lambda client, reason: gone.append((client.name, str(reason))))
            stack.enter_context(server)
            peers = [stack.enter_context(wire.let_in(server, name=name.encode())) for name in names]
            wait_for(lambda: len(server.clients) == len(names))
            return server, peers, gone

        yield start


def waiting(server, client):
    return server._running.engine.info(client.id).queued


def push(server, client, payload):
    """And wait until the loop has queued it."""
    before = server.stats()["pushes"]
    client.send(payload)
    wait_for(lambda: server.stats()["pushes"] > before)


def fill(server, name, most):
    """Push to who doesn't read until so many pieces wait for it, which is little against what the kernel keeps."""
    client, still = server.clients.by_name(name), 0
    while still < 2:  # what was queued just now isn't tried yet
        if waiting(server, client) < most * len(PIECE):
            push(server, client, PIECE)
        time.sleep(0.002)
        still = still + 1 if waiting(server, client) >= most * len(PIECE) else 0
    return client


def test_who_reads_nothing_goes_at_the_hard_limit(crowd, address):
    server, (reads, *_), gone = crowd(
        "reads", "sleeps", address=address, push_soft=200_000, push_hard=1_000_000, **NEVER
    )
    sent = 0
    while not gone:
        assert server.clients.broadcast(PIECE) >= 1
        assert wire.next_frame(reads) == wire.pushed(PIECE)
        sent += 1
        assert sent < 1000
    assert gone == [("sleeps", "over a limit")]
    assert len(PIECE) * sent > 1_000_000
    wire.counted(server, clients=1, pushes_full=1, outputs_full=0, over_limit=1)
    server.clients.broadcast(b"on")
    assert wire.next_frame(reads) == wire.pushed(b"on")


def test_who_is_over_the_soft_limit_for_too_long_goes(crowd):
    """Though nothing more is pushed to it."""
    server, _, gone = crowd("sleeps", push_soft=100_000, push_soft_seconds=0.2, push_hard=10**7, output_timeout=60)
    began = time.monotonic()
    fill(server, "sleeps", 4)
    wait_for(lambda: gone)
    assert time.monotonic() - began > 0.19
    assert gone == [("sleeps", "over a limit")]
    wire.counted(server, clients=0, pushes_full=1, over_limit=1)


def test_who_comes_back_under_the_soft_limit_in_time_stays(crowd):
    server, (peer,), gone = crowd("wakes", push_soft=100_000, push_soft_seconds=0.3, push_hard=10**7)
    got = 0
    for _ in range(2):  # twice as long as it may be slow at a time
        fill(server, "wakes", 4)
        time.sleep(0.2)
        while got < server.stats()["pushes"]:
            assert wire.next_frame(peer) == wire.pushed(PIECE)
            got += 1
    time.sleep(0.2)
    assert not gone
    wire.counted(server, clients=1, pushes_full=0)


def test_one_push_may_always_wait(crowd):
    """However large it is: only a second one is too much."""
    server, (peer,), gone = crowd("peer", push_soft=1, push_hard=1, **NEVER)
    client, large = server.clients.by_name("peer"), bytes(3_000_000)
    for _ in range(2):
        client.send(large)
        assert wire.next_frame(peer) == wire.pushed(large)
    assert not gone


def test_small_pushes_count_for_more_than_their_bytes(crowd):
    """Each that waits costs memory: 10,000 of them with 1 byte are over a limit of 500,000."""
    server, _, gone = crowd("sleeps", push_soft=100_000, push_hard=500_000, **NEVER)
    client = fill(server, "sleeps", 1)
    with contextlib.suppress(ConnectionError):
        for _ in range(10_000):
            client.send(b"x")
    wait_for(lambda: gone)
    wire.counted(server, pushes_full=1)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_in_the_other_framings(make_server, unix_address, framing):
    server = make_server(unix_address, framing=framing, limits=Limits(push_soft=1000, push_hard=200_000, **NEVER))
    with server, wire.dial(server):
        wait_for(lambda: server.clients)
        piece = b"x" * 50_000
        while server.clients:
            server.clients.broadcast(piece)
            assert server.stats()["pushes"] < 1000
        wire.counted(server, pushes_full=1)
