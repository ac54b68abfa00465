"""Pushes to many: held once, in the order in which they were made, and nobody harmed by those who don't read."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import wire
from support import wait_for

MIB = 2**20


@pytest.fixture
def crowd(make_server, address):
    """``crowd(count, **options)``: a server, and so many clients of it that read only what a test reads."""
    with ExitStack() as stack:

        def gather(count, **options):
            server = make_server(address, **options)
            server.service(lambda client, request: request)
            stack.enter_context(server)
            peers = [stack.enter_context(wire.let_in(server, name=b"c%d" % number)) for number in range(count)]
            wait_for(lambda: len(server.clients) == count)
            return server, peers

        yield gather


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it asks Linux")
@pytest.mark.parametrize("inside", [True, False])
def test_a_broadcast_is_held_once(crowd, inside):
    """For 40 clients that read nothing, and then for those who read it."""
    server, peers = crowd(40)
    payload = os.urandom(4 * MIB)
    started, before = threading.Event(), resident()
    if inside:
        server._running.engine.call_later(lambda: (server.clients.broadcast(payload), started.set()))
        assert started.wait(10)
    else:
        server.clients.broadcast(payload)
    wait_for(lambda: all(server._running.engine.info(client).queued for client in server.clients))
    assert resident() - before < 24 * MIB  # and not 160
    for peer in peers[::7]:
        assert wire.next_frame(peer) == wire.pushed(payload)


def test_what_a_handler_pushes_comes_before_its_reply(make_server, address):
    """And in the order in which it was pushed, whether to this client alone or to all, small or large."""
    server = make_server(address)
    sizes = (3, 100_000, 1, 30_000, 0, 20_000, 300_000, 2)

    @server.service
    def push(client, request):
        for size in sizes:
            client.send(request * size)
            server.clients.broadcast(request.upper() * size)
        return b"done"

    with server, wire.let_in(server) as one, wire.let_in(server) as other:
        one.send(wire.srm(b"a", 1) + wire.srm(b"b", 2))
        for number, letter in enumerate((b"a", b"b"), 1):
            for size in sizes:
                assert wire.next_frame(one) == wire.pushed(letter * size)
                assert wire.next_frame(one) == wire.pushed(letter.upper() * size)
                assert wire.next_frame(other) == wire.pushed(letter.upper() * size)
            assert wire.next_frame(one) == wire.replied(b"done", number)
