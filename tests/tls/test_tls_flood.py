"""Many handshakes at once, beside clients that are let in."""

from __future__ import annotations

import contextlib
import select
import ssl
import threading

import wire
from certificates import certificates
from support import PATIENCE, plug
from wire import srm

CROWD = 5


def hello():
    """What a client says first."""
    context, out = ssl.create_default_context(cafile=certificates().ca), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def test_a_turn_makes_one_step_when_those_who_are_let_in_are_served(make_server, driver):
    """In each turn there is a request, which came later than all of the crowd: it is served first, and finds one more
    of the crowd answered."""
    server = make_server("tls://127.0.0.1:0", tls=certificates().served)
    answered, holds, goes_on = [], threading.Event(), threading.Event()

    def hold():
        holds.set()
        goes_on.wait(PATIENCE)

    @server.service
    def look(client, request):
        answered.append(len(select.select(crowd, [], [], 0)[0]))
        if len(answered) <= CROWD:
            peers[len(answered) % 2].sock.sendall(srm(b"", len(answered) + 1))
        return b""

    with server, wire.let_in(server) as one, wire.let_in(server) as two, contextlib.ExitStack() as stack:
        peers = one, two
        crowd = [stack.enter_context(plug(f"tcp://127.0.0.1:{server.addresses[0].port}")) for _ in range(CROWD)]
        wire.counted(server, clients=2, pending=CROWD)
        server.call_soon(hold)
        assert holds.wait(PATIENCE)
        for sock in crowd:
            sock.sendall(hello())
        one.sock.sendall(srm())
        goes_on.set()
        wire.counted(server, clients=2, pending=CROWD, requests=CROWD + 1)
    assert answered == list(range(CROWD + 1))
