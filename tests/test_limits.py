"""Every limit of ``Limits``: the client concerned gets what is due, everybody else notices nothing."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
import wire
from support import wait_for
from wire import Good, Services, cir, failed, frame, goaway, parse, ping, ponged, refused, replied, say, srm

from pysock import Limits
from pysock import protocol as p

LATE = refused(wire.CIR_LATE, p.TEXT_CIR_TOO_LATE)
CROWD = refused(wire.CIR_LATE, p.TEXT_CIR_CROWD)
SLOW = failed(wire.TOO_LATE, p.TEXT_FRAME_TOO_SLOW, 0)


@pytest.fixture
def serve(make_server, address):
    def start(framing="native", **limits):
        server = make_server(address, framing=framing, limits=Limits(**limits))
        if framing == "native":
            server.asked = Services(server)
        server.start()
        return server

    return start


def until_closed(peer):
    """What it still says, and how many seconds that took."""
    started = time.monotonic()
    answers = peer.rest()
    return answers, time.monotonic() - started


# How many


def test_max_clients(serve):
    """One more is refused; who is in is served on; who leaves makes room."""
    server = serve(max_clients=3)
    full = [refused(wire.FULL, p.TEXT_SERVER_FULL)]
    with Good(server) as good, wire.let_in(server) as second, wire.dial(server) as third:
        wire.counted(server, clients=2, pending=1)
        for _ in range(5):
            assert parse(say(server, cir(), end=False)) == full
            good.check()
        third.send(cir())
        assert wire.next_frame(third).kind == wire.CIR_ACCEPTED
        second.close()
        wire.counted(server, clients=2)
        with wire.let_in(server):
            assert parse(say(server, cir(), end=False)) == full
        wire.counted(server, clients=2, refused=6, over_limit=0)


def test_max_pending_cir(serve):
    """The one that has waited longest is dropped, and told so; the storm of good ones passes."""
    server = serve(max_pending_cir=3, cir_timeout=60)
    with Good(server) as good, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(wire.dial(server)) for _ in range(3)]
        wire.counted(server, clients=1, pending=3)
        for oldest in silent:
            with wire.let_in(server):
                assert wire.rest_of(oldest) == [CROWD]
                good.check()
            stack.enter_context(wire.dial(server))
            wire.counted(server, clients=1, pending=3)
        wire.counted(server, clients=1, pending=3, over_limit=3, refused=3, violations=0)


def test_who_makes_way_makes_room(serve):
    """The place of the one that was dropped is given to the one it was dropped for, also in a full server."""
    server = serve(max_clients=3, max_pending_cir=2, cir_timeout=60)
    with Good(server), wire.dial(server) as oldest, wire.dial(server):
        wire.counted(server, clients=1, pending=2)
        with wire.let_in(server):
            assert wire.rest_of(oldest) == [CROWD]
            wire.counted(server, clients=2, pending=1)


# How long


def test_cir_timeout(serve, cut):
    """From accept to an accepted CIR, whatever comes between: refusal 6."""
    server = serve(cir_timeout=0.15)
    with Good(server) as good, wire.dial(server) as silent, wire.dial(server) as slow:
        wire.send_cut(server, slow.sock, ping(b"p") + cir()[:-1], cut)
        answers, seconds = until_closed(slow)
        assert parse(answers) == [ponged(b"p"), LATE]
        assert seconds < 1
        assert wire.rest_of(silent) == [LATE]
        good.check()
        wire.counted(server, clients=1, timeouts=2, refused=2, violations=0)


def test_pings_do_not_prolong_the_cir_timeout(serve):
    """Who asks for health again and again must come in at last, or go."""
    server = serve(cir_timeout=0.2)
    started = time.monotonic()
    with wire.dial(server) as peer:
        while time.monotonic() < started + 5:
            try:
                peer.send(ping(b"p"))
            except OSError:
                break
            if wire.next_frame(peer) == LATE:
                break
            time.sleep(0.01)
    assert 0.15 < time.monotonic() - started < 1
    wire.counted(server, timeouts=1)


@pytest.mark.parametrize("where", [5, 12, 50])
def test_frame_timeout(serve, where):
    """The deadline of a whole frame, in its header and in its payload: ERROR 8, then closed."""
    server = serve(frame_timeout=0.15)
    with Good(server) as good, wire.let_in(server, name=b"slow") as peer:
        peer.send(srm(b"a", 1) + srm(b"x" * 100, 2)[:where])
        answers, seconds = until_closed(peer)
        assert parse(answers) == [replied(b"A", 1), SLOW]
        assert 0.1 < seconds < 1
        good.check()
        wire.counted(server, clients=1, timeouts=1, violations=0)
        server.asked.wait_gone(("slow", "timed out"))
    assert server.asked.called_for("slow") == [("upper", b"a")]


def test_frame_timeout_of_a_skipped_payload(serve):
    """A payload that is thrown away must come in time as well."""
    server = serve(frame_timeout=0.15, max_payload=10)
    with wire.let_in(server) as peer:
        peer.send(frame(wire.SRM, b"x" * 50, id=1, length=100))
        assert wire.rest_of(peer) == [failed(wire.TOO_LARGE, p.TEXT_REQUEST_TOO_LARGE % (100, 10), 1), SLOW]


def test_the_frame_timeout_is_no_inactivity_timer(serve):
    """A byte now and then doesn't prolong it."""
    server = serve(frame_timeout=0.25)
    started = time.monotonic()
    with wire.let_in(server) as peer:
        peer.send(frame(wire.SRM, length=10_000)[:12])
        while not wire.is_gone(peer.sock):
            assert time.monotonic() < started + 5
            try:
                peer.send(b"x")
            except OSError:
                break
            time.sleep(0.01)
        assert 0.2 < time.monotonic() - started < 1.2
        assert wire.rest_of(peer) == [SLOW]


def test_the_frame_timeout_begins_anew_with_each_frame(serve):
    """A stream of whole frames that never ends at the end of a read is no slow frame."""
    server = serve(frame_timeout=0.3)
    one = srm(b"x", 1)
    with wire.let_in(server) as peer:
        started = time.monotonic()
        peer.send(one[:6])
        while time.monotonic() < started + 0.8:
            peer.send(one[6:] + one[:6])
            assert wire.next_frame(peer) == replied(b"X", 1)
            time.sleep(0.02)
        peer.send(one[6:])
        assert wire.next_frame(peer) == replied(b"X", 1)


@pytest.mark.parametrize("framing", ["u32", "line"])
def test_frame_timeout_of_the_other_framings(make_server, address, framing):
    """The same, without a word; what was whole is answered."""
    server = make_server(address, framing=framing, limits=Limits(frame_timeout=0.15))
    server.service(lambda client, request: request.upper())
    whole, part = (b"\0\0\0\1a", b"\0\0\0\5b") if framing == "u32" else (b"a\n", b"b")
    with server, wire.dial(server) as peer:
        peer.send(whole + part)
        answers, seconds = until_closed(peer)
        assert answers == whole.upper()
        assert 0.1 < seconds < 1
        wire.counted(server, timeouts=1)


def test_idle_timeout(serve):
    """Who says nothing for so long hears GOAWAY and is closed; whoever says something isn't."""
    server = serve(idle_timeout=0.3)
    started = time.monotonic()
    with wire.let_in(server, name=b"idle") as idle, Good(server) as busy:
        while time.monotonic() < started + 0.6:
            busy.check()
            time.sleep(0.02)
        assert wire.rest_of(idle) == [goaway(p.TEXT_IDLE)]
        wire.counted(server, clients=1, timeouts=1)
        server.asked.wait_gone(("idle", "timed out"))


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_idle_timeout_of_the_other_framings(make_server, address, framing):
    """The same, without a word."""
    server = make_server(address, framing=framing, limits=Limits(idle_timeout=0.1))
    with server, wire.dial(server) as peer:
        assert peer.rest() == b""
        wire.counted(server, timeouts=1)


def test_what_the_server_sends_is_no_sign_of_life(serve):
    """Pushes to a client don't make it less idle."""
    server = serve(idle_timeout=0.2)
    started = time.monotonic()
    with wire.let_in(server):
        while server.stats()["clients"]:
            assert time.monotonic() < started + 1.5
            server.clients.broadcast(b"x")
            time.sleep(0.01)


def test_taking_replies_is_no_sign_of_life(serve):
    """Nor does it help to read what was asked for long ago."""
    server = serve(idle_timeout=0.3)
    with wire.let_in(server) as peer:
        started = time.monotonic()
        peer.send(srm(b"9000000", service=Services.SIZE))
        with contextlib.suppress(ConnectionError):
            while peer.sock.recv(20_000):
                assert time.monotonic() < started + 1.5
                time.sleep(0.005)
                if not server.stats()["clients"]:
                    break
        wire.counted(server, timeouts=1)


# How much


def test_max_in_flight(make_server, address):
    """So many requests of one client wait for their batch; then it isn't read, until half of them are answered."""
    server = make_server(address, limits=Limits(max_in_flight=8))
    sizes = []

    @server.batch_service
    def gather(clients, requests):
        sizes.append(len(requests))
        return requests

    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"%d" % number, number) for number in range(100)))
        assert [wire.next_frame(peer) for _ in range(100)] == [replied(b"%d" % number, number) for number in range(100)]
        assert max(sizes) == 8
        wire.counted(server, clients=1, requests=100, errors=0)


def test_max_in_flight_of_one_client_is_nothing_to_another(make_server, address):
    """While one waits, others are served."""
    server = make_server(address, limits=Limits(max_in_flight=2))
    server.service("upper")(lambda client, request: request.upper())
    server.batch_service("slow", max_wait=0.3)(lambda clients, requests: requests)
    with server, wire.let_in(server) as waiting, wire.let_in(server) as other:
        waiting.send(b"".join(srm(b"%d" % number, number, service=2) for number in range(3)) + srm(b"a", 9, service=1))
        wait_for(lambda: server.stats()["requests"] == 2)
        (info,) = [row for row in map(server._engine.info, server.clients) if row.requests]
        assert info.in_flight == 2
        started = time.monotonic()
        other.send(srm(b"b", 1, service=1))
        assert wire.next_frame(other) == replied(b"B", 1)
        assert time.monotonic() - started < 0.25
        got = [wire.next_frame(waiting) for _ in range(4)]
        assert sorted(got) == sorted([replied(b"0", 0), replied(b"1", 1), replied(b"2", 2), replied(b"A", 9)])


def test_output_pause(make_server, address):
    """A client that doesn't take its replies isn't read: its requests wait in the kernel, not in our memory."""
    server = make_server(address, limits=Limits(output_pause=100_000, output_timeout=60))
    server.asked = Services(server)
    number = 400
    with server, Good(server) as good, wire.let_in(server) as peer:
        peer.sock.setblocking(False)
        data = b"".join(srm(b"50000", each, service=Services.SIZE) for each in range(number))
        peer.send(data)
        peer.sock.settimeout(10)
        stalled = wait_until_still(server, "requests")
        assert stalled < number
        (info,) = [row for row in map(server._engine.info, server.clients) if row.queued]
        assert 100_000 < info.queued < 100_000 + 64 * 1024 + 2 * 50_012 + 256 * 1024
        good.check()
        for each in range(number):
            assert wire.next_frame(peer) == replied(b"s" * 50_000, each)


def wait_until_still(server, name):
    """Wait until a counter has stood still for a while."""
    last, since = -1, time.monotonic()
    while time.monotonic() < since + 0.15:
        now = server.stats()[name]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.01)
    return last


def test_output_drop(make_server, address):
    """Who doesn't take what is pushed to it is dropped, with what waits for it; others get theirs."""
    server = make_server(address, limits=Limits(output_pause=50_000, output_drop=200_000, output_timeout=60))
    server.asked = Services(server)
    with server, Good(server) as good, wire.let_in(server, name=b"full"):
        client = server.clients.by_name("full")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not server.stats()["over_limit"]:
                client.send(bytes(20_000))
                sent += 1
                assert sent < 3000
        wire.counted(server, clients=1, over_limit=1, timeouts=0)
        server.asked.wait_gone(("full", "over a limit"))
        good.check()


def test_output_drop_by_a_reply(serve):
    """The same for one reply that is larger than all that may wait."""
    server = serve(output_pause=10_000, output_drop=20_000)
    with Good(server) as good, wire.let_in(server, name=b"full") as peer:
        peer.send(srm(b"9000000", service=Services.SIZE))
        server.asked.wait_gone(("full", "over a limit"))
        wire.counted(server, clients=1, over_limit=1)
        good.check()


def test_one_reply_may_be_larger_than_the_limits_of_the_queue(serve):
    """``output_pause`` is about what comes next; a reply up to ``output_drop`` is sent."""
    server = serve(output_pause=10_000, output_drop=3_000_000)
    with wire.let_in(server) as peer:
        peer.send(srm(b"2000000", 1, service=Services.SIZE) + srm(b"a", 2))
        assert wire.next_frame(peer) == replied(b"s" * 2_000_000, 1)
        assert wire.next_frame(peer) == replied(b"A", 2)


def test_output_timeout(serve):
    """No progress of the output for so long: dropped."""
    server = serve(output_timeout=0.2)
    started = time.monotonic()
    with Good(server) as good, wire.let_in(server, name=b"stuck") as peer:
        peer.send(srm(b"8000000", service=Services.SIZE))
        good.check()
        wire.counted(server, clients=1, timeouts=1)
        assert 0.15 < time.monotonic() - started < 1.5
        server.asked.wait_gone(("stuck", "timed out"))
        good.check()


def test_a_slow_reader_makes_progress(serve):
    """Who takes a little now and then isn't dropped, however long it takes."""
    server = serve(output_timeout=0.3)
    with wire.dial(server) as peer:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        peer.send(cir() + srm(b"3000000", service=Services.SIZE))
        started, size = time.monotonic(), 0
        while time.monotonic() < started + 0.9:
            size += len(peer.sock.recv(60_000))
            time.sleep(0.03)
        size += len(peer.read(3_000_000 + 12 + len(say(server, cir())) - size))
        assert size > 3_000_000
        wire.counted(server, clients=1, timeouts=0)


def test_max_cir_bytes(serve):
    """A CIR has so many bytes of payload at most."""
    server = serve(max_cir_bytes=20)
    assert parse(say(server, cir(wire.field(9, bytes(13)))))[0].kind == wire.CIR_ACCEPTED
    assert parse(say(server, cir(wire.field(9, bytes(14))))) == [refused(wire.REFUSED_MALFORMED, p.TEXT_LONG_CIR)]


def test_a_large_cir_where_it_is_allowed(serve):
    """Even one larger than a read."""
    server = serve(max_cir_bytes=500_000)
    fields = [wire.field(9, bytes(60_000)) for _ in range(7)]
    answer, reply = parse(say(server, cir(*fields, name=b"me") + srm(b"a")))
    assert (answer.kind, reply) == (wire.CIR_ACCEPTED, replied(b"A"))
    assert server.asked.called_for("me") == [("upper", b"a")]


@pytest.mark.parametrize("end", [wire.BYE_FRAME, b""], ids=["with a BYE", "without"])
def test_in_flight_of_a_client_that_leaves(make_server, address, end):
    """What it sent before it left is run, though it isn't read for a while: a hang-up doesn't mean that nothing is left
    to read."""
    server = make_server(address, limits=Limits(max_in_flight=4))
    seen = []

    @server.batch_service(max_wait=0.01, max_batch=4)
    def note(clients, requests):
        seen.extend(requests)
        return requests

    with server:
        with wire.let_in(server) as peer:
            peer.send(b"".join(srm(b"%d" % number, flags=wire.NO_REPLY) for number in range(50)) + end)
        wire.counted(server, disconnected=1)
    assert seen == [b"%d" % number for number in range(50)]
