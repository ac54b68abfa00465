"""What a server that is measured counts: each request once, by its service and outcome, and how long it took."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import suppress

import pytest
import wire
from wire import NO_REPLY, cir, next_frame, srm

import pysock
from pysock import aio
from pysock.metrics import Page

OK, GONE = "OK", "GONE"


@pytest.fixture
def measured(make_server, unix_address):
    """``measured(name=handler)``: a server with these services that runs; and a client of it."""
    clients = []

    def make(**handlers):
        server = make_server(unix_address, metrics=True)
        for name, handler in handlers.items():
            server.service(name)(handler)
        server.start()
        clients.append(pysock.connect(unix_address))
        return server, clients[-1]

    yield make
    for client in clients:
        client.close()


def read(server):
    """At the end, when all is told of."""
    server.stop(0)
    return server.metrics.read()


def echo(client, request):
    return request


def test_each_request_is_counted_once_by_service_and_outcome(measured):
    def fails(client, request):
        raise ValueError("no")

    server, client = measured(echo=echo, fails=fails, wrong=lambda c, r: 5)
    for _ in range(20):
        client.request(b"x", "echo")
    client.request_many([b"y"] * 300, "echo")
    for name in ("fails", "wrong"):
        for _ in range(3):
            with pytest.raises(pysock.RemoteError):
                client.request(b"", name)
    snapshot = read(server)
    assert snapshot.requests == {
        ("echo", OK): 320,
        ("fails", "HANDLER_FAILED"): 3,
        ("wrong", "HANDLER_FAILED"): 3,
    }
    assert {name: each.count for name, each in snapshot.histograms.items()} == {"echo": 320, "fails": 3, "wrong": 3}
    assert snapshot.counters["requests"] == 326
    assert snapshot.counters["errors"] == 6


def test_what_no_handler_gets_is_counted_too(make_server, unix_address):
    """A number without a service, a request that is too large, one that is too late."""
    server = make_server(unix_address, metrics=True, limits=pysock.Limits(max_payload=1024))
    server.service("echo")(echo)
    server.start()
    with wire.dial(server) as peer:
        peer.send(cir() + srm(b"x", 1, service=77) + srm(bytes(2000), 2, service=1) + srm(b"x", 3))
        for _ in range(4):
            next_frame(peer)
    assert read(server).requests == {
        ("(unknown)", "NO_SUCH_SERVICE"): 1,
        ("", "NO_SUCH_SERVICE"): 1,
        ("echo", "PAYLOAD_TOO_LARGE"): 1,
    }


def test_a_reply_that_is_too_large_is_no_success(measured, unix_address):
    server, _ = measured(large=lambda client, request: bytes(5000), echo=echo)
    with pysock.connect(unix_address, max_payload=1000) as client:
        client.request(b"x", "echo")
        with pytest.raises(pysock.PysockError):
            client.request(b"", "large")
    snapshot = read(server)
    assert snapshot.requests == {("echo", OK): 1, ("large", "PAYLOAD_TOO_LARGE"): 1}


def test_how_long_requests_take(measured):
    """One that stands out is told from the others that came with it, and isn't spread over them."""

    def nap(client, request):
        if request == b"nap":
            time.sleep(0.05)
        return request

    server, client = measured(nap=nap)
    client.request_many([b"nap" if number == 45 else b"" for number in range(64)], "nap")
    took = read(server).histograms["nap"]
    assert took.count == 64
    assert 0.05 <= took.sum < 0.5
    assert took.count - took.up_to(0.04) == 1
    assert took.quantile(0.5) < 0.01 < took.quantile(1.0)


def test_what_is_answered_later_counts_from_when_it_came(make_server, unix_address):
    async def waits(client, request):
        await asyncio.sleep(0.02)
        if request:
            raise pysock.PysockError("no")
        return b""

    server = make_server(unix_address, metrics=True)
    server.service("waits")(waits)
    server.service("thread", threads=2)(lambda client, request: time.sleep(0.02) or b"")
    server.service("stream", kind="stream")(lambda client, request: iter([b"1", b"2"]))
    server.start()
    with pysock.connect(unix_address) as client:
        for name in ("waits", "thread"):
            client.request_many([b""] * 5, name)
        with pytest.raises(pysock.RemoteError):
            client.request(b"x", "waits")
        assert [*client.stream(b"", "stream")] == [b"1", b"2"]
    snapshot = read(server)
    assert snapshot.requests == {
        ("waits", OK): 5,
        ("waits", "HANDLER_FAILED"): 1,
        ("thread", OK): 5,
        ("stream", OK): 1,
    }
    assert snapshot.histograms["waits"].up_to(0.015) == 0
    assert snapshot.histograms["thread"].up_to(0.015) == 0


def test_batches(make_server, unix_address):
    server = make_server(unix_address, metrics=True)
    server.batch_service("batch")(
        lambda clients, requests: [ValueError() if each == b"9" else each for each in requests]
    )
    server.start()
    with pysock.connect(unix_address) as client:
        client.request_many([str(number).encode() for number in range(9)], "batch")
        with pytest.raises(pysock.RemoteError):
            client.request(b"9", "batch")
    snapshot = read(server)
    assert snapshot.requests == {("batch", OK): 9, ("batch", "HANDLER_FAILED"): 1}
    assert snapshot.histograms["batch"].count == 10


def test_who_doesnt_wait_and_who_has_cancelled(make_server, unix_address):
    """A client that goes before its answer, one that cancels, and one that wants none."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def work(client, request):
        begun.release()
        go_on.wait(5)
        return b""

    server = make_server(unix_address, metrics=True)
    server.service("work", threads=3)(work)
    server.service("echo")(echo)
    server.start()
    with pysock.connect(unix_address) as stays:
        with wire.dial(server) as goes:
            goes.send(cir() + srm(b"", 1, service=1))
            begun.acquire(timeout=5)
        with suppress(pysock.RemoteError, TimeoutError):
            stays.request(b"", "work", timeout=0.1)
        begun.acquire(timeout=5)
        with wire.dial(server) as other:
            other.send(cir() + srm(b"", 1, service=2, flags=NO_REPLY) + srm(b"", 2, service=2))
            next_frame(other)
            next_frame(other)
        go_on.set()
    requests = read(server).requests
    assert requests["work", GONE] == 1
    assert sum(number for (name, _), number in requests.items() if name == "work") == 2
    assert requests["echo", OK] == 2


def test_framings_without_names(make_server, unix_address):
    server = make_server(unix_address, metrics=True, framing="line")
    server.service(echo)
    server.start()
    with wire.dial(server) as peer:
        peer.send(b"a\nb\nc\n")
        assert peer.sock.recv(6, socket.MSG_WAITALL) == b"a\nb\nc\n"
    assert read(server).requests == {("", OK): 3}


def test_who_comes_and_goes(make_server, unix_address):
    server = make_server(unix_address, "tcp://127.0.0.1:0", metrics=True)
    server.service(echo)
    server.start()
    for address in server.addresses:
        with pysock.connect(address) as client:
            client.request(b"")
    with wire.dial(server) as rude:
        rude.send(cir() + b"\xff" * 12)
        rude.rest()
    counters = read(server).counters
    assert (counters["came_unix"], counters["came_tcp"], counters["came_tls"]) == (2, 1, 0)
    assert (counters["left_left"], counters["left_protocol_violation"]) == (2, 1)
    assert counters["disconnected"] == counters["established"] == 3
    assert counters["clients"] == 0
    assert counters["violations"] == 1


def test_its_page_is_read_while_it_runs(measured):
    """What it says is at most a second old, and a bit: the stamp shows that it lives."""
    server, client = measured(echo=echo)
    client.request(b"", "echo")
    page = Page.open(server.metrics.path)
    deadline = time.monotonic() + 5
    while not (snapshot := page.read()).requests and time.monotonic() < deadline:
        time.sleep(0.01)
    page.close()
    assert snapshot.requests == {("echo", OK): 1}
    assert snapshot.pid == os.getpid()
    assert snapshot.backend == server.backend
    assert snapshot.called == "echo"
    assert snapshot.counters["clients"] == 1
    assert snapshot.age() < 2
    assert not snapshot.is_hung(2)


def test_a_loop_that_hangs_is_seen(measured):
    """And which handler it is in, though nobody else is served."""
    hang, hangs = threading.Event(), threading.Event()

    def waits(client, request):
        hangs.set()
        hang.wait(10)
        return request

    server, client = measured(waits=waits)
    thread = threading.Thread(target=client.request, args=(b"", "waits"))
    thread.start()
    hangs.wait(5)
    time.sleep(0.15)
    snapshot = server.metrics.read()
    hang.set()
    thread.join()
    assert snapshot.in_turn
    assert snapshot.called == "waits"
    assert snapshot.is_hung(0.1)
    assert not snapshot.is_hung()
    assert not read(server).in_turn


def test_time_in_turns_is_told(measured):
    server, client = measured(nap=lambda client, request: time.sleep(0.03) or b"")
    for _ in range(3):
        client.request(b"", "nap")
    assert 0.09 <= read(server).counters["busy_ns"] / 1e9 < 3


def test_a_server_in_a_loop_of_the_programs_is_measured(make_server, unix_address):
    async def main():
        server = make_server(unix_address, metrics=True)
        server.service("echo")(echo)
        async with server, await aio.connect(unix_address) as client:
            await client.request(b"x", "echo")
        return server.metrics.read()

    snapshot = asyncio.run(main())
    assert snapshot.requests == {("echo", OK): 1}
    assert snapshot.counters["established"] == 1


def test_a_fork_in_a_handler_counts_nothing_twice(measured):
    """The memory is shared with the child, whose copy of the request ends as well."""
    children = []

    def forks(client, request):
        child = os.fork()
        if child == 0:
            return b"child"
        children.append(child)
        return b"parent"

    server, client = measured(forks=forks)
    with suppress(pysock.PysockError, OSError):
        assert client.request(b"", "forks") == b"parent"
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert read(server).requests == {("forks", OK): 1}
