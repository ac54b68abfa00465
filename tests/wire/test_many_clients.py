"""Thousands of clients at once, each served in order."""

from __future__ import annotations

import contextlib
import os
import resource
import threading

import pytest
import wire
from support import wait_for
from wire import Got, goaway, replied, srm

from pysock import Limits
from pysock.wire import texts

CLIENTS = {"native": 5000, "pure": 2000}


@pytest.fixture
def many_files():
    """As many descriptors as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * max(CLIENTS.values()) + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"at most {hard} descriptors, and it takes {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_many_clients(many_files, make_server, backend, address):
    """All are let in and stay; what each asks, it is answered, in its order; at the end nothing is left of them."""
    count = CLIENTS[backend]
    server = make_server(address, limits=Limits(max_clients=count))
    server.service(lambda client, request: client.name.encode() + b":" + request)
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        peers = []
        for number in range(count):
            peers.append(stack.enter_context(wire.dial(server)))
            peers[-1].send(wire.cir(name=b"%d" % number))
        ids = {wire.next_frame(peer).payload[3:11] for peer in peers}
        assert len(ids) == count == len(server.clients)
        for turn in range(3):
            for number, peer in enumerate(peers):
                peer.send(b"".join(srm(b"%d" % (number * each), each) for each in range(turn, turn + 5)))
            for number, peer in enumerate(peers):
                for each in range(turn, turn + 5):
                    assert wire.next_frame(peer) == replied(b"%d:%d" % (number, number * each), each)
        assert server.clients.broadcast(b"all") == count
        assert all(wire.next_frame(peer) == Got(wire.PUSH, 0, 0, 0, b"all") for peer in peers)
        assert server.stats()["requests"] == 15 * count
        for peer in peers[::2]:
            peer.close()
        wire.counted(server, clients=count - len(peers[::2]), established=count, violations=0, errors=0)
        assert wire.talk(server, srm(b"new", 1)) == [replied(b":new")]
        server.stop()
        assert all(wire.rest_of(peer) == [goaway(texts.SHUTTING_DOWN)] for peer in peers[1::2])
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert server.stats()["disconnected"] == count + 1


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_storm_of_clients(many_files, make_server, backend, address):
    """They come and go, 50 at a time, thousands in all: every one is served, and nothing is left."""
    server = make_server(address)
    server.service(lambda client, request: request[::-1])
    with server:
        before = len(os.listdir("/proc/self/fd"))
        for turn in range(40):
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(wire.dial(server)) for _ in range(50)]
                for number, peer in enumerate(peers):
                    peer.send(wire.cir() + srm(b"%d %d" % (turn, number), number) + wire.BYE_FRAME)
                for number, peer in enumerate(peers):
                    accepted, answer = wire.rest_of(peer)
                    assert accepted.kind == wire.CIR_ACCEPTED
                    assert answer == replied((b"%d %d" % (turn, number))[::-1], number)
        wire.counted(server, established=2000, disconnected=2000, violations=0, refused=0)
        wait_for(lambda: len(os.listdir("/proc/self/fd")) == before)


@pytest.mark.slow
def test_a_burst_of_clients(many_files, make_server, backend, address):
    """1500 connect and send their CIR while a handler holds the loop: none is taken for a silent one."""
    server = make_server(address, limits=Limits(max_clients=2000))
    entered, go_on = threading.Event(), threading.Event()
    server.service(lambda client, request: request)

    @server.service("hold")
    def hold(client, request):
        entered.set()
        assert go_on.wait(10)

    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        holder = stack.enter_context(wire.let_in(server))
        holder.send(srm(service=1))
        assert entered.wait(10)
        peers = []
        for number in range(1500):
            peers.append(stack.enter_context(wire.dial(server)))
            peers[-1].send(wire.cir() + srm(b"%d" % number, number))
        go_on.set()
        for number, peer in enumerate(peers):
            assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
            assert wire.next_frame(peer) == replied(b"%d" % number, number)
        wire.counted(server, clients=1501, refused=0, over_limit=0)
