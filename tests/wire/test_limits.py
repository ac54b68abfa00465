"""Every limit of ``Limits``: the client concerned gets what is due, everybody else notices nothing."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import re
import resource
import socket
import struct
import sys
import termios
import time

import pytest
import wire
from support import PATIENCE, RawPeer, wait_for
from wire import Good, Services, cir, failed, frame, goaway, parse, ping, ponged, refused, replied, say, srm

import pysock
from pysock import ConnectionState, Limits
from pysock.causes import COUNTERS, Cause
from pysock.wire import texts
from pysock.wire.format import HEADER

LATE = refused(wire.CIR_LATE, texts.CIR_TOO_LATE)
CROWD = refused(wire.CIR_LATE, texts.CIR_CROWD)
FULL = refused(wire.FULL, texts.SERVER_FULL)
PEER_FULL = refused(wire.FULL, texts.PEER_FULL)
SLOW = failed(wire.TOO_LATE, texts.FRAME_TOO_SLOW, 0)


@pytest.fixture
def serve(make_server, address):
    def start(framing="pysock", **limits):
        server = make_server(address, framing=framing, limits=Limits(**limits))
        if framing == "pysock":
            server.asked = Services(server)
        server.start()
        return server

    return start


def until_closed(peer):
    """What it still says, and how many seconds that took."""
    started = time.monotonic()
    answers = peer.rest()
    return answers, time.monotonic() - started


# What they may be


@pytest.mark.parametrize(
    ("limit", "error", "words"),
    [
        ({"max_clients": 0}, ValueError, "Limits.max_clients must be more than 0 and at most 16000000, not 0"),
        ({"max_payload": 2**31}, ValueError, "Limits.max_payload must be more than 0 and at most 2147483647"),
        ({"max_payload": 1e6}, TypeError, "Limits.max_payload takes a number, not 1000000.0"),
        ({"backlog": True}, TypeError, "Limits.backlog takes a number, not True"),
        ({"max_clients": None}, TypeError, "Limits.max_clients takes a number, not None"),
        ({"frame_timeout": -1}, ValueError, "Limits.frame_timeout must be more than 0"),
        ({"cir_timeout": math.nan}, ValueError, "Limits.cir_timeout must be more than 0"),
        ({"idle_timeout": 31 * 24 * 3600}, ValueError, "Limits.idle_timeout must be more than 0 and at most 2592000"),
        ({"output_drop": 1000}, ValueError, "Limits.output_drop must not be less than output_pause"),
        ({"push_hard": 1000}, ValueError, "Limits.push_hard must not be less than push_soft"),
        (
            {"push_soft_seconds": 31 * 24 * 3600},
            ValueError,
            "Limits.push_soft_seconds must be more than 0",
        ),
    ],
    ids=str,
)
def test_a_limit_out_of_range(limit, error, words):
    with pytest.raises(error, match=re.escape(words)):
        Limits(**limit)


def test_the_longest_deadlines(serve):
    """Nobody is dropped by them."""
    longest = 30 * 24 * 3600
    timeouts = ("cir_timeout", "frame_timeout", "output_timeout", "idle_timeout", "push_soft_seconds")
    server = serve(**dict.fromkeys(timeouts, longest))
    with Good(server) as good:
        good.check()
        wire.counted(server, clients=1, timeouts=0)


# How many


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_max_clients(serve):
    """One more is refused; who is in is served on; who leaves makes room."""
    server = serve(max_clients=3)
    with Good(server) as good, wire.let_in(server) as second, wire.let_in(server):
        wire.counted(server, clients=3)
        for _ in range(5):
            assert parse(say(server, cir(), end=False)) == [FULL]
            good.check()
        second.close()
        wire.counted(server, clients=2)
        with wire.let_in(server):
            assert parse(say(server, cir(), end=False)) == [FULL]
        wire.counted(server, clients=2, refused=6, refused_full=6, over_limit=0)


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_silent_ones_do_not_fill_a_small_server(serve):
    """Who has said nothing for a tenth of a second makes way where the server is full, the longest waiting first; who
    was let in never does, however silent."""
    server = serve(max_clients=3, cir_timeout=60)
    with Good(server) as good, wire.dial(server) as oldest, wire.dial(server) as other:
        wire.counted(server, clients=1, pending=2)
        time.sleep(0.11)
        with wire.let_in(server):
            assert wire.rest_of(oldest) == [CROWD]
            wire.counted(server, clients=2, pending=1, refused=1, refused_crowd=1, over_limit=1)
            with wire.let_in(server):
                assert wire.rest_of(other) == [CROWD]
                time.sleep(0.11)
                assert parse(say(server, cir(), end=False)) == [FULL]
                good.check()
                wire.counted(server, clients=3, refused=3, refused_crowd=2, refused_full=1)


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_newcomer_is_not_taken_for_silent(serve):
    """Where the server is full of those who came just now, the next is refused."""
    server = serve(max_clients=2, cir_timeout=60)
    for _ in range(20):
        started = time.monotonic()
        with Good(server), wire.dial(server) as newcomer:
            wire.counted(server, clients=1, pending=1)
            answers = parse(say(server, cir(), end=False))
            if time.monotonic() - started > 0.1:
                continue  # this machine is too busy to say
            assert answers == [FULL]
            newcomer.send(cir())
            assert wire.next_frame(newcomer).kind == wire.CIR_ACCEPTED
            break
        wire.counted(server)


@pytest.fixture
def fill(make_server, socket_dir):
    """``fill(peer)``: PING until nothing of the next answer would fit into the kernel."""
    server = make_server(f"unix:{socket_dir}/roomy")
    server.service(lambda client, request: request)
    most = -1
    with server, wire.dial(server) as probe, wire.let_in(server) as other:
        while came(probe, most + 1):
            most += 1
            probe.send(ping(b""))
            for _ in range(2):  # the second comes in a later turn than the PING
                other.send(srm())
                wire.next_frame(other)

    def fill(peer):
        end = time.monotonic() + PATIENCE
        for number in range(1, most + 1):
            peer.send(ping(b""))
            while not came(peer, number):  # without a sleep: the CIR's deadline runs
                assert time.monotonic() < end

    return fill


def came(peer, answers):
    """Whether so many answers to PINGs have come; they aren't read."""
    size = int.from_bytes(fcntl.ioctl(peer.sock, termios.FIONREAD, bytes(4)), sys.byteorder)
    return size == answers * HEADER.size


def test_one_that_takes_no_refusal_keeps_nobody_out(make_server, unix_address, fill):
    """It was refused, and doesn't read that: its place is free when its CIR's time is up, whatever it takes then."""
    server = make_server(unix_address, limits=Limits(max_clients=1, cir_timeout=1.0))
    server.asked = Services(server)
    with server, wire.dial(server) as bad:
        fill(bad)
        bad.send(frame(0x55))
        wire.counted(server, pending=1, violations=1)
        started = time.monotonic()
        wire.counted(server)
        assert time.monotonic() - started < 2
        with Good(server) as good:
            good.check()
        wire.counted(server, violations=1, refused=1, refused_late=0, timeouts=0)


def test_one_that_takes_no_refusal_makes_way(make_server, unix_address, fill):
    """Sooner, if somebody else wants to come in."""
    server = make_server(unix_address, limits=Limits(max_clients=2, cir_timeout=60))
    server.asked = Services(server)
    with server, Good(server) as good, wire.dial(server) as bad:
        fill(bad)
        bad.send(frame(0x55))
        wire.counted(server, clients=1, pending=1, violations=1)
        time.sleep(0.11)
        with wire.let_in(server):
            good.check()
            wire.counted(server, clients=2, violations=1, refused=1, refused_crowd=0)


def test_what_nobody_reads_before_the_cir_is_bounded(make_server, unix_address):
    """Answers to PINGs that aren't taken: the next PINGs aren't read, long before ``output_pause``."""
    server = make_server(unix_address, limits=Limits(output_pause=64 << 20, output_drop=64 << 20, cir_timeout=60))
    server.asked = Services(server)
    with server, wire.dial(server) as bad, Good(server) as good:
        bad.sock.settimeout(0.2)
        sent, pings = 0, ping(b"p" * 64) * 800
        with contextlib.suppress(TimeoutError):
            while sent < 8 << 20:
                sent += bad.sock.send(pings)
        assert sent < 2 << 20  # what the kernel keeps in both directions, and one read
        good.check()


def test_max_clients_per_uid(make_server, unix_address):
    """One user's connections, also those whose CIR is awaited; who leaves makes room."""
    server = make_server(unix_address, limits=Limits(max_clients_per_uid=2, max_clients=10))
    server.asked = Services(server)
    with server, Good(server) as good, wire.dial(server) as silent:
        wire.counted(server, clients=1, pending=1)
        for _ in range(3):
            assert parse(say(server, cir(), end=False)) == [PEER_FULL]
            good.check()
        silent.close()
        wire.counted(server, clients=1)
        with wire.let_in(server):
            assert parse(say(server, cir(), end=False)) == [PEER_FULL]
        wire.counted(server, clients=1, refused=4, refused_peer=4, refused_full=0, over_limit=0)


def dial_from(server, host):
    """A connection from this address of this machine."""
    target = server.addresses[0]
    family, where = target.resolve(listening=False)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.bind((host, 0))
    sock.connect(("127.0.0.1", where[1]) if family == socket.AF_INET else where)
    return RawPeer(sock)


def test_max_clients_per_ip(make_server):
    """One address's connections; another's are its own."""
    server = make_server("tcp://127.0.0.1:0", limits=Limits(max_clients_per_ip=2, max_clients=10))
    with server, dial_from(server, "127.0.0.1"), dial_from(server, "127.0.0.1") as second:
        wire.counted(server, pending=2)
        with dial_from(server, "127.0.0.1") as third:
            assert wire.rest_of(third) == [PEER_FULL]
        with dial_from(server, "127.0.0.2") as other:
            other.send(cir())
            assert wire.next_frame(other).kind == wire.CIR_ACCEPTED
        second.close()
        wire.counted(server, pending=1)
        with dial_from(server, "127.0.0.1") as again:
            again.send(cir())
            assert wire.next_frame(again).kind == wire.CIR_ACCEPTED
        wire.counted(server, pending=1, refused=1, refused_peer=1)


def test_max_clients_per_ip_of_ipv6(make_server):
    """All of ``::/64`` is one; IPv4 addresses that are mapped into IPv6 count one by one."""
    server = make_server("tcp://[::]:0", limits=Limits(max_clients_per_ip=1, max_clients=10), insecure=True)
    try:
        server.start()
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = server.addresses[0].port
    with contextlib.ExitStack() as stack:

        def dial(family, host):
            sock = stack.enter_context(socket.socket(family))
            sock.settimeout(PATIENCE)
            sock.bind((host, 0))
            sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            peer = RawPeer(sock)
            peer.send(cir())
            return wire.next_frame(peer)

        for host in ("127.0.0.1", "127.0.0.2"):
            assert dial(socket.AF_INET, host).kind == wire.CIR_ACCEPTED
            assert dial(socket.AF_INET, host) == PEER_FULL
        assert dial(socket.AF_INET6, "::1").kind == wire.CIR_ACCEPTED
        assert dial(socket.AF_INET6, "::1") == PEER_FULL
        wire.counted(server, clients=3, refused_peer=3)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_a_full_server_of_the_other_framings(make_server, unix_address, framing):
    """Closed without a word."""
    server = make_server(unix_address, framing=framing, limits=Limits(max_clients=2, max_clients_per_uid=1))
    server.service(lambda client, request: request)
    with server, wire.dial(server) as first:
        wire.counted(server, clients=1)
        assert say(server, b"", end=False) == b""
        wire.counted(server, clients=1, refused=1, refused_peer=1)
        first.close()
        wire.counted(server)


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
    server = serve(cir_timeout=0.4)
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
        assert wire.rest_of(peer) == [failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (100, 10), 1), SLOW]


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


@pytest.mark.parametrize("part", [5, 12, 50])
def test_frame_timeout_of_a_frame_that_was_begun_while_the_client_was_not_read(serve, part):
    """It has its time from when the client is read again."""
    server = serve(frame_timeout=0.2, output_pause=10_000)
    with Good(server) as good, wire.let_in(server) as peer:
        peer.send(srm(b"6000000", 1, service=Services.SIZE) + srm(b"x" * 100, 2)[:part])
        wait_for(lambda: any(server._running.engine.info(client).queued for client in server.clients))
        good.check()
        time.sleep(0.25)
        began = time.monotonic()
        assert wire.next_frame(peer) == replied(b"s" * 6_000_000, 1)
        answers, seconds = until_closed(peer)
        assert parse(answers) == [SLOW]
        assert seconds < 1.5
        assert time.monotonic() - began > 0.2  # of what the kernel has taken some is read long after


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
    server = serve(idle_timeout=0.5)
    started = time.monotonic()
    with wire.let_in(server, name=b"idle") as idle, Good(server) as busy:
        while time.monotonic() < started + 0.8:
            busy.check()
            time.sleep(0.02)
        assert wire.rest_of(idle) == [goaway(texts.IDLE)]
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


def test_who_has_too_many_in_flight_is_read_again_at_half_the_limit(make_server, address):
    """Not at each answer: there is something to do for it when its turn comes."""
    server = make_server(address, limits=Limits(max_in_flight=4))
    waiting = []

    @server.service("slow")
    def slow(client, request):
        waiting.append(pysock.later())
        return waiting[-1]

    server.service("upper")(lambda client, request: request.upper())
    with server, wire.let_in(server) as peer, wire.let_in(server) as other:
        peer.send(b"".join(srm(b"", number, service=1) for number in range(10)))
        wait_for(lambda: len(waiting) == 4)
        waiting[0].send(b"0")
        assert wire.next_frame(peer) == replied(b"0", 0)
        for number in range(3):  # so many turns later
            other.send(srm(b"b", number, service=2))
            assert wire.next_frame(other) == replied(b"B", number)
        assert len(waiting) == 4
        waiting[1].send(b"1")
        wait_for(lambda: len(waiting) == 6)
        for number, reply in enumerate(waiting[:6]):  # more come meanwhile
            if number > 1:
                reply.send(b"%d" % number)
        wait_for(lambda: len(waiting) == 10)
        for reply in waiting[6:]:
            reply.send(b"")


def test_max_in_flight_of_one_client_is_nothing_to_another(make_server, address):
    """While one waits, others are served."""
    server = make_server(address, limits=Limits(max_in_flight=2))
    server.service("upper")(lambda client, request: request.upper())
    server.batch_service("slow", max_wait=0.3)(lambda clients, requests: requests)
    with server, wire.let_in(server) as waiting, wire.let_in(server) as other:
        waiting.send(b"".join(srm(b"%d" % number, number, service=2) for number in range(3)) + srm(b"a", 9, service=1))
        wait_for(lambda: server.stats()["requests"] == 2)
        (info,) = [row for row in map(server._running.engine.info, server.clients) if row.requests]
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
        (info,) = [row for row in map(server._running.engine.info, server.clients) if row.queued]
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


def test_a_push_of_a_handler_that_is_too_much(make_server, address):
    """Who pushes it learns from that very call that the client is gone."""
    server = make_server(address, limits=Limits(output_pause=10_000, output_drop=200_000))
    ended = []

    @server.service
    def flood(client, request):
        client.send(bytes(150_000))  # more than the kernel keeps, and less than may wait
        with pytest.raises(ConnectionError):
            client.send(bytes(150_000))
        ended.append(client.state)

    with server, wire.let_in(server) as peer:
        peer.send(srm())
        wait_for(lambda: ended)
    assert ended == [ConnectionState.CLOSED]


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
    assert parse(say(server, cir(wire.field(99, bytes(13)))))[0].kind == wire.CIR_ACCEPTED
    assert parse(say(server, cir(wire.field(99, bytes(14))))) == [refused(wire.REFUSED_MALFORMED, texts.LONG_CIR)]


def test_a_large_cir_where_it_is_allowed(serve):
    """Even one larger than a read."""
    server = serve(max_cir_bytes=500_000)
    fields = [wire.field(99, bytes(60_000)) for _ in range(7)]
    answer, reply = parse(say(server, cir(*fields, name=b"me") + srm(b"a")))
    assert (answer.kind, reply) == (wire.CIR_ACCEPTED, replied(b"A"))
    assert server.asked.called_for("me") == [("upper", b"a")]


def test_a_large_cir_is_no_model_for_what_follows(make_server, address):
    """A request as large as the CIR, and too large: it is refused once."""
    server = make_server(address, limits=Limits(max_cir_bytes=100_000, max_payload=1000))
    server.service(lambda client, request: request)
    hello = cir(wire.field(99, bytes(40_000)))
    with server, wire.dial(server) as peer:
        peer.send(hello[:20_000])
        wait_for(lambda: server.stats()["bytes_in"] == 20_000)
        peer.send(hello[20_000:])
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        peer.send(srm(bytes(len(hello) - HEADER.size), 1) + srm(b"a", 2))
        assert wire.next_frame(peer).id == 1
        assert wire.next_frame(peer) == replied(b"a", 2)
        assert server.stats()["too_large"] == 1


def test_what_is_announced_takes_no_room(make_server, unix_address):
    """Also where the last frame of each client was as large, and came."""
    server = make_server(unix_address)
    server.service(lambda client, request: b"")
    size, clients = 1 << 20, 64
    with server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(wire.let_in(server)) for _ in range(clients)]
        for peer in peers:
            peer.send(srm(bytes(size)))
            assert wire.next_frame(peer) == replied(b"")
        before, came = address_space(), server.stats()["bytes_in"]
        for peer in peers:
            peer.send(srm(bytes(size))[:13])
        wait_for(lambda: server.stats()["bytes_in"] == came + 13 * clients)
        assert address_space() - before < clients * size // 2


def address_space():
    """Bytes of data that this process has asked for, touched or not."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()


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


# Counters and the log


def violate(server):
    assert parse(say(server, frame(0x55)))[0].kind == wire.CIR_REFUSED


def be_one_too_many(server):
    with Good(server):
        assert parse(say(server, cir(), end=False))[0].kind == wire.CIR_REFUSED


def be_crowded_out(server):
    with wire.dial(server) as silent, wire.let_in(server):
        assert wire.rest_of(silent) == [CROWD]


def be_silent(server):
    with wire.dial(server) as peer:
        heard = wire.rest_of(peer)
        assert heard == [LATE] or (not heard and server.addresses[0].transport == "tls")  # in the handshake still


def ask_for_too_much(server):
    with wire.let_in(server) as peer:
        peer.send(frame(wire.SRM, length=101, id=1))
        assert wire.next_frame(peer).code == wire.TOO_LARGE


def be_slow(server):
    with wire.let_in(server) as peer:
        peer.send(srm(b"a")[:5])
        assert wire.rest_of(peer) == [SLOW]


def take_nothing(server):
    with wire.let_in(server) as peer:
        peer.send(srm(b"9000000", service=Services.SIZE))
        wait_for(lambda: not server.stats()["clients"])


def listen_to_nothing(server):
    with wire.let_in(server):
        while server.clients:
            server.clients.broadcast(bytes(100_000))


def be_idle(server):
    with wire.let_in(server) as peer:
        assert wire.rest_of(peer) == [goaway(texts.IDLE)]


CAUSES = {
    Cause.FULL: (be_one_too_many, {"max_clients": 1}, "the server is full"),
    Cause.CROWD: (be_crowded_out, {"max_pending_cir": 1}, "too many others wait"),
    Cause.LATE: (be_silent, {"cir_timeout": 0.02}, "came too late (Limits.cir_timeout)"),
    Cause.VIOLATION: (violate, {}, "the protocol was violated"),
    Cause.TOO_LARGE: (ask_for_too_much, {"max_payload": 100}, "a request was too large"),
    Cause.FRAME_LATE: (be_slow, {"frame_timeout": 0.02}, "the rest of a frame came too late"),
    Cause.OUTPUT_FULL: (take_nothing, {"output_pause": 1000, "output_drop": 2000}, "too many unread replies"),
    Cause.OUTPUT_STALLED: (take_nothing, {"output_timeout": 0.02}, "weren't read for too long"),
    Cause.PUSHES_FULL: (listen_to_nothing, {"push_soft": 1, "push_hard": 1}, "too many unread pushes"),
    Cause.IDLE: (be_idle, {"idle_timeout": 0.2}, "nothing came for too long"),
}


#: Over TLS who is one too many hears of it in another way.
AS_CASES = [
    pytest.param(cause, id=cause.name, marks=[pytest.mark.not_over_tls(wire.AT_THE_DOOR)] * (cause is Cause.FULL))
    for cause in CAUSES
]


@pytest.mark.parametrize("cause", AS_CASES)
def test_every_cause_has_a_counter_and_a_line(serve, caplog, cause):
    """Counted one by one, and no other with it; logged at most once a second, with how often it has been since."""
    caplog.set_level(logging.INFO, "pysock.server")
    act, limits, words = CAUSES[cause]
    server = serve(**limits)
    started, times = time.monotonic(), 4
    for _ in range(times):
        act(server)
    took = time.monotonic() - started
    wire.counted(server, **{name: times if name == COUNTERS[cause] else 0 for name in COUNTERS})
    lines = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert 1 <= len(lines) <= 1 + took
    assert sum(int((re.findall(r"; (\d+) times$", line) or ["1"])[0]) for line in lines) <= times


@pytest.mark.parametrize("stops", [False, True], ids=["goes on", "stops"])
def test_the_line_says_how_often(serve, caplog, stops):
    """Those that had none of their own are in one a second later, or at the end, also if nothing more happens."""
    server = serve()
    for _ in range(5):
        violate(server)
    if stops:
        server.stop()
    wait_for(lambda: len(caplog.records) > 1)
    first, last = (record.getMessage() for record in caplog.records)
    assert first == "dropped: the protocol was violated"
    assert last == "dropped: the protocol was violated; 4 times"


def test_a_request_that_is_too_large_in_the_other_framings(make_server, address, caplog):
    """Counted, too."""
    server = make_server(address, framing="u32", limits=Limits(max_payload=10))
    server.service(lambda client, request: request)
    with server:
        assert say(server, struct.pack("!I", 11)) == b""
        wire.counted(server, too_large=1, over_limit=1)
    assert any("a request was too large" in record.getMessage() for record in caplog.records)
