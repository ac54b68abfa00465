"""A client that vanishes, at each point of the conversation: nothing of it is left, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest
import wire
from support import wait_for
from wire import Good, Services, cir, frame, replied, srm

from pysock import Limits

CIR_BYTES = cir(name=b"it")
LARGE = 5_000_000


def upto(size, data=b""):
    """The CIR, then so many bytes of this."""
    return CIR_BYTES + data[:size]


#: Where it stops: what it has sent by then.
POINTS = {
    "before the CIR": b"",
    "in the header of the CIR": CIR_BYTES[:7],
    "between header and payload of the CIR": CIR_BYTES[:12],
    "in the payload of the CIR": CIR_BYTES[:-1],
    "after the CIR": CIR_BYTES,
    "in a header": upto(5, srm(b"x")),
    "between header and payload": upto(12, srm(b"x")),
    "in a payload": upto(50, srm(b"x" * 100)),
    "in a large payload": upto(100_000, srm(bytes(300_000))),
    "in a payload over the limit": upto(5000, frame(wire.SRM, bytes(5000), length=2**32 - 1)),
    "after a request": upto(99, srm(b"x")),
    "after a request for a batch": upto(99, srm(b"x", service=Services.GATHER)),
    "after a PING": upto(99, wire.ping(b"x")),
    "while a large reply is sent": upto(99, srm(b"%d" % LARGE, service=Services.SIZE)),
    "while many large replies are sent": CIR_BYTES + srm(b"300000", service=Services.SIZE) * 50,
}


def close(peer):
    peer.close()


def reset(peer):
    wire.reset(peer.sock)


def half_close(peer):
    """It sends nothing more, takes what comes, and goes when the server does."""
    peer.sock.shutdown(socket.SHUT_WR)
    peer.rest()
    peer.close()


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=LARGE, output_pause=500_000, output_timeout=60))
    server.asked = Services(server)
    with server:
        yield server


@pytest.mark.parametrize("way", [close, reset, half_close], ids=lambda way: way.__name__)
@pytest.mark.parametrize("sent", POINTS.values(), ids=POINTS)
def test_vanishing(server, sent, way):
    """Descriptor, row and memory are given back; the next client is served."""
    with Good(server) as good:
        before = open_files()
        with wire.dial(server) as peer:
            peer.send(sent)
            wait_for(lambda: server.stats()["accepted"] == 2, "the accept")
            way(peer)
            good.check()
            wire.counted(server, clients=1)
            # The server's thread closes the descriptor, then counts, or the other way round.
            wait_for(lambda: open_files() <= before, "the descriptor")
        assert open_files() == before
        assert list(server.clients) == [server.clients.by_name("good").id]
        assert len(server.clients) == 1
        wire.counted(server, clients=1, violations=0, timeouts=0, over_limit=0, refused=0)
        if server.stats()["established"] == 2:
            server.asked.wait_gone(("it", "closed by peer"))


@pytest.mark.parametrize("sent", [b"", CIR_BYTES[:7], CIR_BYTES, upto(5, srm(b"x")), upto(99, srm(b"x"))])
def test_shutting_both_directions(server, sent):
    """Its descriptor stays open, but nobody is behind it any more."""
    with wire.dial(server) as peer:
        peer.send(sent)
        wait_for(lambda: server.stats()["accepted"] == 1, "the accept")
        peer.sock.shutdown(socket.SHUT_RDWR)
        wire.counted(server)


def test_vanishing_while_its_handler_runs(make_server, address):
    """The reply finds nobody. There is no SIGPIPE, not even where it would kill."""
    server = make_server(address)
    entered, go_on = threading.Event(), threading.Event()

    @server.service
    def wait(client, request):
        entered.set()
        assert go_on.wait(10)
        return bytes(2_000_000)

    server.service("upper")(lambda client, request: request.upper())
    old = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with server, wire.let_in(server) as other:
            peer = wire.let_in(server)
            peer.send(srm(b"x"))
            assert entered.wait(10)
            wire.reset(peer.sock)
            other.send(srm(b"a", service=1))
            go_on.set()
            assert wire.next_frame(other) == replied(b"A")
            wire.counted(server, clients=1, disconnected=1)
    finally:
        signal.signal(signal.SIGPIPE, old)


def test_vanishing_while_another_pushes_to_it(server):
    """Pushes to one who is gone are lost, and nothing else is."""
    with Good(server) as good:
        peer = wire.let_in(server, name=b"it")
        client = server.clients.by_name("it")
        peer.close()
        # Until the server has seen the end, pushes are taken: then they raise.
        with contextlib.suppress(ConnectionError):
            for _ in range(100_000):
                client.send(b"x" * 1000)
        wire.counted(server, clients=1)
        with pytest.raises(ConnectionError):
            client.send(b"x")
        assert server.clients.broadcast(b"all") == 1
        assert wire.next_frame(good.peer) == wire.pushed(b"all")


def test_many_vanish_at_once(server):
    """200 at different points, in the same moment."""
    with Good(server) as good:
        before = open_files()
        peers = []
        for sent in list(POINTS.values()) * 13:
            peers.append(wire.dial(server))
            if len(sent) < 50_000:
                peers[-1].send(sent)
        wait_for(lambda: server.stats()["accepted"] == 1 + len(peers))
        good.check()
        for number, peer in enumerate(peers):
            (close if number % 2 else reset)(peer)
        good.check()
        wire.counted(server, clients=1)
        wait_for(lambda: open_files() <= before)
        assert open_files() == before


def test_a_descriptor_that_is_used_again_in_the_same_turn(make_server, address):
    """A handler closes others that have events waiting, while new clients get their descriptor numbers: no reply goes
    to the wrong one, and no event of the dead reaches the living."""
    server = make_server(address)
    server.service(lambda client, request: request)

    @server.service("close others")
    def close_others(client, request):
        for other in list(server.clients.values()):
            if other.name == "victim":
                other.close()
        return b"done"

    with server, wire.let_in(server, name=b"killer") as killer:
        for turn in range(20):
            victims = [wire.let_in(server, name=b"victim") for _ in range(8)]
            killer.send(srm(b"", turn, service=1))
            for number, victim in enumerate(victims):
                with contextlib.suppress(OSError):
                    victim.send(srm(b"victim %d" % number, number))
            fresh = [wire.let_in(server, name=b"fresh") for _ in range(8)]
            for number, peer in enumerate(fresh):
                peer.send(srm(b"fresh %d" % number, 1000 + number))
            for number, peer in enumerate(fresh):
                assert wire.next_frame(peer) == replied(b"fresh %d" % number, 1000 + number)
            assert wire.next_frame(killer) == replied(b"done", turn)
            for number, victim in enumerate(victims):
                assert wire.rest_of(victim) in ([], [replied(b"victim %d" % number, number)])
            for peer in victims + fresh:
                peer.close()
            wire.counted(server, clients=1)
