"""Async handlers that wait, and what comes meanwhile: order, places, ids, cancels; in both kinds of loops."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import socket
import threading
import time

import pytest
import wire
from programs import run as run_command
from programs import tool
from support import wait_for
from wire import cancel, failed, features, next_frame, replied, srm

from pysock import Limits, aio, connect
from pysock.wire import texts

BOTH = features(3)
FRAMINGS = ["u32", "line", "raw"]


def in_flight(server):
    engine = server._running.engine
    return sum(engine.info(number).in_flight for number in server.clients)


def message(framing, payload):
    match framing:
        case "u32":
            return len(payload).to_bytes(4, "big") + payload
        case "line":
            return payload + b"\n"
        case _:
            return payload


# --- without ids ---


async def echo_sometime(client, request):
    for _ in range(random.randrange(3)):
        await asyncio.sleep(random.random() / 2000)
    return request


@pytest.mark.parametrize("framing", FRAMINGS)
def test_without_ids_replies_keep_the_order(serve, framing):
    """Byte for byte, however they come; also of a client that has closed its sending side."""
    server = serve(echo_sometime, framing=framing)
    chance = random.Random(framing)
    sent = b"".join(message(framing, b"%d " % n * chance.randrange(1, 9)) for n in range(300))
    with wire.dial(server) as peer:
        sender = threading.Thread(target=wire.send_cut, args=(server, peer.sock, sent, "random"))
        sender.start()
        assert peer.read(len(sent) // 2) == sent[: len(sent) // 2]
        sender.join(10)
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.rest() == sent[len(sent) // 2 :]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_without_ids_a_failure_closes_behind_earlier_replies(serve, framing, caplog):
    begun = queue.Queue()
    go_on = threading.Event()

    async def handler(client, request):
        begun.put(request)
        await asyncio.to_thread(go_on.wait, 10)
        await asyncio.sleep(0)
        if b"fail" in request:
            raise ZeroDivisionError
        return request

    server = serve(handler, framing=framing)
    with wire.dial(server) as peer:
        peer.send(message(framing, b"first"))
        assert b"first" in begun.get(timeout=5)
        peer.send(message(framing, b"fail"))
        peer.send(message(framing, b"never"))
        go_on.set()
        assert peer.rest() == message(framing, b"first")
    assert b"fail" in begun.get(timeout=5)
    assert begun.empty()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("framing", ["line", "raw"])
def test_socat_gets_all(serve, framing):
    """It closes its sending side as soon as its input ends."""
    socat = tool("socat")
    server = serve(echo_sometime, framing=framing)
    sent = b"".join(b"line %d\n" % n for n in range(500))
    done = run_command(socat, "-t5", "-", f"UNIX-CONNECT:{server.addresses[0].path}", stdin=sent)
    assert (done.returncode, done.stdout, done.stderr) == (0, sent, b"")


# --- places ---


def test_so_many_may_be_in_flight(serve):
    """The next one isn't read. A CANCEL of who speaks of that always is, and makes no room before the work ends."""
    begun, go_on = queue.Queue(), threading.Event()

    async def stubborn(client, request):
        begun.put(int(request))
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return request

    server = serve(stubborn)
    most = server.limits.max_in_flight
    assert most == 1024
    with wire.let_in(server, BOTH) as peer:
        peer.send(b"".join(srm(b"%d" % number, number) for number in range(1, most + 1)))
        assert [begun.get(timeout=10) for _ in range(most)] == list(range(1, most + 1))
        peer.send(cancel(most) + cancel(1))
        assert {next_frame(peer), next_frame(peer)} == {failed(9, texts.CANCELLED, number) for number in (1, most)}
        peer.send(srm(b"2001", 2001) + srm(b"2002", 2002) + wire.ping())
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.sock.recv(1)  # not even the PING: it isn't read
        assert in_flight(server) <= most + 1
        assert begun.qsize() <= 1
        peer.sock.settimeout(10)
        go_on.set()
        frames = [next_frame(peer) for _ in range(most + 1)]
        assert {frame.id for frame in frames} == {*range(2, most), 2001, 2002, wire.ponged().id}
        wait_for(lambda: in_flight(server) == 0)


@pytest.mark.slow
def test_a_flood_of_cancels(serve, backend):
    """Ten thousand requests and more that are taken back at once: a bounded number runs, memory is bounded, and others
    are served as if there were none.
    """
    running = [0, 0]

    async def handler(client, request):
        running[0] += 1
        running[1] = max(running)
        try:
            await asyncio.sleep(30 if request else 0)
        finally:
            running[0] -= 1
        return request

    def flood():
        with wire.let_in(server, BOTH) as peer:
            for turn in range(rounds):
                numbers = range(turn * 500 + 1, turn * 500 + 501)
                peer.send(b"".join(srm(b"x", number) + cancel(number) for number in numbers))
                assert {next_frame(peer) for _ in numbers} == {failed(9, texts.CANCELLED, n) for n in numbers}
                if turn == rounds // 4:
                    sizes.append(resident())
        over.set()

    server = serve(handler)
    rounds, sizes, waits, over = 40 if backend == "native" else 20, [], [], threading.Event()
    flooding = threading.Thread(target=flood)
    with connect(server.addresses[0]) as other:
        flooding.start()
        while not over.is_set() and flooding.is_alive():
            begin = time.monotonic()
            assert other.request(b"") == b""
            waits.append(time.monotonic() - begin)
        flooding.join(10)
        assert over.is_set()
        wait_for(lambda: running[0] == 0)
    assert running[1] <= server.limits.max_in_flight + 2
    assert resident() - sizes[0] < 20_000_000
    assert sorted(waits)[len(waits) * 99 // 100] < 5


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_many_wait_for_the_same_from_their_first_step_on(serve):
    """For a connection that the first of them makes, say."""
    shared = []

    async def make():
        await asyncio.sleep(0.01)
        return b"made"

    async def handler(client, request):
        if not shared:
            shared.append(asyncio.ensure_future(make()))
        return await shared[0]

    with connect(serve(handler).addresses[0]) as client:
        assert client.request_many([b"x"] * 100) == [b"made"] * 100


# --- ids ---


def test_an_id_twice_in_flight(serve, cut):
    """It is told so and closed, whatever the first of them does; after its answer an id is free."""
    begun, go_on = queue.Queue(), threading.Event()

    async def handler(client, request):
        if request == b"wait":
            begun.put(request)
            await asyncio.to_thread(go_on.wait, 10)
        return request

    server = serve(handler)
    with wire.let_in(server, BOTH) as peer, wire.let_in(server, BOTH) as other:
        for _ in range(3):
            peer.send(srm(b"a", 5))
            assert next_frame(peer) == replied(b"a", 5)
        peer.send(srm(b"wait", 5))
        begun.get(timeout=5)
        wire.send_cut(server, peer.sock, srm(b"b", 5), cut)
        assert next_frame(peer) == failed(wire.MALFORMED, texts.ID_IN_FLIGHT, 5)
        other.send(srm(b"served", 5))
        assert next_frame(other) == replied(b"served", 5)
        go_on.set()
        assert wire.rest_of(peer) == [replied(b"wait", 5)]
    wire.counted(server, violations=1)


# --- the reply is on its way ---


@pytest.mark.parametrize("waits", [False, True])
def test_a_reply_that_is_being_sent_is_not_cancelled(serve, waits):
    """It comes whole, and nothing more."""
    answer = bytes(range(256)) * 20_000  # more than the kernel keeps for the client

    async def handler(client, request):
        if waits:
            await asyncio.sleep(0.001)
        return answer

    server = serve(handler)
    with wire.let_in(server, BOTH) as peer:
        peer.send(srm(b"a", 1))
        assert peer.read(12)[4] == wire.REPLY
        peer.send(cancel(1) + wire.ping())
        assert peer.read(len(answer)) == answer
        assert next_frame(peer) == wire.ponged()
    wire.counted(server, errors=0)


# --- the first step ---


def test_it_may_do_anything_in_its_first_step(serve, backend):
    """It pushes to all, closes others, asks itself, and ends the server, all before it waits for anything."""
    inner = []

    async def handler(client, request):
        match request:
            case b"connect":
                inner.append(await aio.connect(server.addresses[0], "inner", backend=backend))
            case b"broadcast":
                return b"%d" % server.clients.broadcast(b"news")
            case b"itself":
                return await inner[0].request(b"broadcast") + await inner[0].request(b"again")
            case b"all":
                asked = inner[0].request(b"again")
                server.clients.broadcast(b"more news")
                for other in server.clients.values():
                    if other.name == "other":
                        other.close()
                return await asked
            case b"end":
                await inner[0].aclose()
                server.stop()
        return request

    server = serve(handler)
    other = connect(server.addresses[0], "other")
    with connect(server.addresses[0], "client") as client:
        assert client.request(b"connect") == b"connect"
        assert client.request(b"broadcast") == b"3"
        assert client.request(b"itself") == b"3again"
        assert client.request(b"all") == b"again"
        wait_for(lambda: server.stats()["clients"] == 2)
        pushes = client.pushes(timeout=5)
        assert [next(pushes) for _ in range(3)] == [b"news", b"news", b"more news"]
        assert client.request(b"end") == b"end"
    other.close()
    wait_for(lambda: server.state.name == "CLOSED")


def test_a_limit_of_one(serve):
    """One after the other, though there are ids."""
    server = serve(echo_sometime, limits=Limits(max_in_flight=1))
    with connect(server.addresses[0]) as client:
        payloads = [b"%d" % number for number in range(200)]
        assert client.request_many(payloads) == payloads
