"""A loop that is held up by a handler: nobody else pays for that with the connection."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time

import pytest
import wire
from support import PATIENCE, plug, wait_for
from wire import cir, srm

from pysock import Limits

#: Longer than the deadlines that are tested here.
LONG = 0.5
SHORT = 0.3


class Slow:
    """Services that hold the loop up; ``busy`` is set while one does."""

    def __init__(self, server):
        self.server = server
        self.busy = threading.Event()
        server.service(lambda client, request: request)
        server.service("nap")(self.nap)
        server.service("large")(self.large)

    def nap(self, client, request):
        self.busy.set()
        time.sleep(float(request))
        self.busy.clear()
        return b"awake"

    def large(self, client, request):
        self.nap(client, request)
        return bytes(8 << 20)

    @contextlib.contextmanager
    def held_up(self, *seconds):
        """The loop is in a handler, and in another one in its next turn, and so on; then it has answered them all."""
        with contextlib.ExitStack() as stack:
            for each in seconds:
                sock = stack.enter_context(wire.let_in(self.server))
                sock.send(srm(b"%f" % each, service=1))
                assert self.busy.wait(PATIENCE)
                stack.callback(wire.next_frame, sock)
            yield


@pytest.fixture
def slow(make_server, address):
    def start(**limits):
        server = make_server(address, limits=Limits(**limits))
        slow = Slow(server)
        server.start()
        return slow

    return start


def counts(server, *names):
    stats = server.stats()
    return [stats[name] for name in names]


def test_a_large_reply_after_a_long_handler(slow):
    """The time for taking it begins when it can be taken."""
    made = slow(output_timeout=SHORT)
    with wire.let_in(made.server) as sock, wire.let_in(made.server) as other:
        sock.send(srm(b"%f" % LONG, service=2))
        assert made.busy.wait(PATIENCE)
        other.send(srm())  # the next turn comes at once
        assert wire.next_frame(other)
        assert len(wire.next_frame(sock).payload) == 8 << 20
    assert counts(made.server, "outputs_stalled", "timeouts") == [0, 0]


def test_who_comes_while_the_loop_is_held_up(slow):
    """The CIR's deadline doesn't pass while nobody looks."""
    made = slow(cir_timeout=SHORT)
    with made.held_up(0.2, LONG):
        sock = wire.dial(made.server)
    with sock:
        sock.send(cir())
        assert wire.next_frame(sock).kind == wire.CIR_ACCEPTED
    assert counts(made.server, "refused_late") == [0]


def test_a_frame_that_is_held_up(slow):
    """Nor does that of a frame."""
    made = slow(frame_timeout=SHORT)
    frame = srm(b"x" * 1000)
    with wire.let_in(made.server) as sock:
        with made.held_up(0.2, LONG):
            sock.send(frame[:500])
        sock.send(frame[500:])
        assert wire.next_frame(sock).payload == b"x" * 1000
    assert counts(made.server, "frames_late") == [0]


def test_a_large_frame_that_needs_many_looks(slow):
    """More than fits into the kernel at once, and a handler before each look: that takes longer than its deadline."""
    made = slow(frame_timeout=SHORT / 2)
    enough = threading.Event()

    def keep_busy():
        with wire.let_in(made.server) as sock:
            while not enough.is_set():
                sock.send(srm(b"0.1", service=1))
                wire.next_frame(sock)

    beside = threading.Thread(target=keep_busy)
    beside.start()
    try:
        with wire.let_in(made.server) as sock:
            assert made.busy.wait(PATIENCE)
            sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
            sock.send(srm(b"x" * (1 << 20)))
            assert wire.next_frame(sock).payload == b"x" * (1 << 20)
    finally:
        enough.set()
        beside.join()
    assert counts(made.server, "frames_late") == [0]


def test_a_frame_behind_many_requests(slow):
    """More requests in one read than are served in a row: they take longer than the deadline of what comes behind."""
    made = slow(frame_timeout=SHORT)
    count, frame = 200, srm(b"x" * 100)
    with wire.let_in(made.server) as sock:
        sock.send(srm(b"0.003", service=1) * count + frame[:50])
        for _ in range(count):
            assert wire.next_frame(sock).payload == b"awake"
        time.sleep(0.02)  # a turn in which there is nothing new of it
        sock.send(frame[50:])
        assert wire.next_frame(sock).payload == b"x" * 100
    assert counts(made.server, "frames_late") == [0]


def test_many_are_ready_at_once(make_server, unix_address):
    """More than the loop hears of in one turn: those it hears of in the next have spoken in time."""
    clients = 1100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * clients:
        pytest.skip(f"this process may have {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * clients), hard))
    server = make_server(unix_address, framing="u32", limits=Limits(idle_timeout=0.6))
    server.service(lambda client, request: time.sleep(float(request or 0)) or b"")
    message = struct.pack("!I", 0)
    with server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(plug(server.addresses[0])) for _ in range(clients)]
        wait_for(lambda: len(server.clients) == clients)
        for sock in socks:
            sock.send(message)
        for sock in socks:
            assert sock.recv(4) == message
        socks[0].send(struct.pack("!I", 3) + b"0.7")
        time.sleep(0.05)
        for sock in socks[1:]:
            sock.send(message)
        for sock in socks:
            assert sock.recv(4) == message
        assert server.stats()["idle"] == 0


def test_a_stop_is_in_time(make_server, unix_address):
    """The grace counts from the call, whatever a handler does in the drain."""
    server = make_server(unix_address)
    server.batch_service(max_wait=60)(lambda clients, requests: time.sleep(LONG) or [bytes(8 << 20)])
    server.start()
    with wire.let_in(server) as reader:
        reader.send(srm())  # nobody takes that reply
        wire.counted(server, clients=1, requests=1)
        began = time.monotonic()
        server.stop(grace=LONG + 0.1)
        assert time.monotonic() - began < 2 * LONG


def test_goes_at_once(make_server, unix_address):
    """Who is closed by what a disconnect hook does is told of as gone at once, not when something else happens."""
    server = make_server(unix_address, framing="line", limits=Limits(output_pause=1 << 16, output_drop=1 << 18))
    server.service(lambda client, request: request)
    gone = []

    @server.on_disconnect
    def went(client, reason):
        gone.append(reason)
        if len(gone) == 1:
            server.clients.broadcast(b"x" * (1 << 19))

    with server, plug(server.addresses[0]) as first, plug(server.addresses[0]) as second:
        for sock in first, second:
            sock.send(b"hello\n")
            assert sock.recv(6) == b"hello\n"
        first.close()
        wait_for(lambda: len(gone) == 2)
