"""Servers that drop pushes where too many wait: which, what clients are told, and that nothing else is touched."""

from __future__ import annotations

import random
import socket
import struct
import time
from contextlib import ExitStack

import pytest
import wire
from support import wait_for

from pysock import Limits

LIMITS = {"push_soft": 100_000, "push_hard": 400_000, "push_soft_seconds": 60.0, "output_timeout": 60.0}
SIZE = 40_000
POLICIES = ("drop-new", "drop-old")


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


@pytest.fixture
def crowd(make_server, unix_address):
    """Makes a server with such a policy, and peers that speak of gaps or not."""
    with ExitStack() as stack:

        def start(slow, *speak, **limits):
            server = make_server(unix_address, slow=slow, limits=Limits(**{**LIMITS, **limits}))
            server.service(lambda client, request: request)

            @server.service("push")
            def push(client, request):
                client.send(request * 1000)
                return request * 1500

            stack.enter_context(server)
            peers = [stack.enter_context(wire.let_in(server, wire.features(bits))) for bits in speak]
            wait_for(lambda: len(server.clients) == len(speak))
            return server, peers

        yield start


def numbered(number, size=SIZE):
    return struct.pack("!I", number) * (size // 4)


def flood(server, count, first=0):
    """Broadcast so many, each when the loop has had the one before: what waits in one turn counts as not taken."""
    for number in range(first, first + count):
        before = server.stats()["pushes"]
        assert server.clients.broadcast(numbered(number)) or not server.clients
        wait_for(lambda before=before: server.stats()["pushes"] > before or not server.clients)


def gap_of(frame):
    """Whether it is a push, how many it tells of, and its own bytes."""
    assert frame.kind == wire.PUSH, frame
    if frame.flags == wire.GAP:
        (lost,) = struct.unpack_from("!I", frame.payload)
        assert lost
        return lost, frame.payload[4:]
    assert frame.flags == 0
    return 0, frame.payload


def read_until(peer, last, size=SIZE, expected=0):
    """The numbers of the pushes that come, up to the last one; each says how many are missing before it."""
    got = []
    while not got or got[-1] != last:
        lost, payload = gap_of(wire.next_frame(peer))
        (number,) = struct.unpack_from("!I", payload)
        assert payload == numbered(number, size)
        assert number == expected + lost
        expected = number + 1
        got.append(number)
    return got


def dropped(server):
    wait_for(lambda: server.stats()["pushes_dropped"])
    return server.stats()["pushes_dropped"]


def test_what_is_dropped_and_told(crowd, policy):
    """Of a client that sleeps, the new ones or the old ones; all that is sent either comes or is told of."""
    server, (sleeps, reads) = crowd(policy, wire.SPEAKS_GAP, wire.SPEAKS_GAP)
    for number in range(40):
        flood(server, 1, number)
        assert wire.next_frame(reads) == wire.pushed(numbered(number))
    lost = dropped(server)
    assert 20 < lost < 40
    if policy == "drop-new":  # what waited comes, and the next push tells of what came after it
        got = [struct.unpack_from("!I", wire.next_frame(sleeps).payload)[0] for _ in range(40 - lost)]
        assert got == list(range(40 - lost))
        flood(server, 1, 40)
        assert wire.next_frame(sleeps) == wire.pushed(numbered(40), lost)
    else:
        got = read_until(sleeps, 39)
        assert len(got) == 40 - lost
        assert got[-5:] == list(range(35, 40))
    wire.counted(server, pushes_dropped=lost, pushes_full=0, clients=2)
    assert sorted(server._running.engine.info(client).pushes_dropped for client in server.clients) == [0, lost]


def test_again_and_again(crowd, policy):
    """A client that is slow several times, by chance."""
    server, (peer,) = crowd(policy, wire.SPEAKS_GAP)
    chance, sent, expected, lost = random.Random(f"again {policy}"), 0, 0, 0
    for _ in range(12):
        count = chance.randrange(1, 30)
        flood(server, count, sent)
        sent += count
        for _ in range(chance.randrange(4)):
            told, payload = gap_of(wire.next_frame(peer))
            (number,) = struct.unpack_from("!I", payload)
            assert number == expected + told
            expected, lost = number + 1, lost + told
        if policy == "drop-old" and chance.random() < 0.3:
            got = read_until(peer, sent - 1, expected=expected)
            lost += sent - expected - len(got)
            expected = sent
    if policy == "drop-old":
        got = read_until(peer, sent - 1, expected=expected) if expected < sent else []
        assert lost + sent - expected - len(got) == dropped(server)
    wire.counted(server, clients=1, pushes=sent)


def test_replies_are_never_dropped(crowd, policy):
    """And each push leaves where it was made: before the reply of its handler, behind that of the request before it.

    The kernel takes some at a time, so that what it has begun to take is cut anywhere.
    """
    server, (peer,) = crowd(policy, wire.SPEAKS_GAP, push_hard=100_000, push_soft=50_000)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)

    count = 100
    peer.send(b"".join(wire.srm(struct.pack("!I", number), number + 1, service=1) for number in range(count)))
    wait_for(lambda: server.stats()["requests"] == count)
    last_push, replies, told = -1, 0, 0
    while replies < count:
        frame = wire.next_frame(peer)
        if frame.kind == wire.REPLY:
            assert frame == wire.replied(struct.pack("!I", replies) * 1500, replies + 1)
            assert last_push <= replies
            replies += 1
        else:
            lost, payload = gap_of(frame)
            (number,) = struct.unpack_from("!I", payload)
            assert payload == numbered(number, 4000)
            assert number == last_push + 1 + lost
            assert number == replies  # in front of its reply
            last_push, told = number, told + lost
    assert told > 0 or policy == "drop-new"
    assert dropped(server) >= told


def test_who_does_not_speak_of_gaps_goes(crowd, policy):
    server, (_, new) = crowd(policy, 0, wire.SPEAKS_GAP)
    flood(server, 1)
    while server.stats()["clients"] == 2:
        server.clients.broadcast(numbered(1))
    wire.counted(server, clients=1, pushes_full=1, over_limit=1)
    assert gap_of(wire.next_frame(new)) == (0, numbered(0))


def test_who_has_been_slow_for_too_long_gets_nothing_new_or_nothing_old(crowd, policy):
    """It is over the soft limit, and far from the hard one; once it is under the soft one all is as before."""
    server, (peer,) = crowd(policy, wire.SPEAKS_GAP, push_hard=2_000_000, push_soft_seconds=0.1)
    flood(server, 15)
    assert not server.stats()["pushes_dropped"]
    time.sleep(0.15)
    flood(server, 1, 15)
    assert dropped(server) >= 1
    wire.counted(server, clients=1)
    if policy == "drop-old":
        assert len(read_until(peer, 15)) == 16 - server.stats()["pushes_dropped"]
        expected = 16
    else:
        for number in range(15):
            assert wire.next_frame(peer) == wire.pushed(numbered(number))
        expected = 15
    lost = server.stats()["pushes_dropped"]
    flood(server, 5, 16)
    assert read_until(peer, 20, expected=expected) == [16, 17, 18, 19, 20]
    wire.counted(server, clients=1, pushes_dropped=lost)


def test_replies_that_fill_the_queue_leave_no_room_for_pushes(crowd, policy):
    """The client isn't closed for what is pushed to it."""
    server, (peer,) = crowd(policy, wire.SPEAKS_GAP, output_drop=1_500_000)
    peer.send(wire.srm(bytes(700_000), 1) + wire.srm(bytes(700_000), 2))
    wait_for(lambda: server.stats()["requests"] == 2)
    flood(server, 60)
    lost = dropped(server)
    assert wire.next_frame(peer) == wire.replied(bytes(700_000), 1)
    assert wire.next_frame(peer) == wire.replied(bytes(700_000), 2)
    wire.counted(server, clients=1, outputs_full=0, pushes_full=0)
    got = 0
    for _ in range(60 - lost):
        told, _ = gap_of(wire.next_frame(peer))
        got += told + 1
    flood(server, 1, 60)
    told, _ = gap_of(wire.next_frame(peer))
    assert got + told == 60


def test_who_takes_nothing_at_all_goes(crowd, policy):
    """Whatever the policy: for output_timeout nothing has moved."""
    server, _ = crowd(policy, wire.SPEAKS_GAP, output_timeout=0.1)
    flood(server, 40)
    wait_for(lambda: not server.clients)
    wire.counted(server, outputs_stalled=1, pushes_full=0)


def test_an_empty_push_may_tell(crowd):
    server, (peer,) = crowd("drop-new", wire.SPEAKS_GAP)
    flood(server, 40)
    lost = dropped(server)
    for number in range(40 - lost):
        assert wire.next_frame(peer) == wire.pushed(numbered(number))
    server.clients.broadcast(b"")
    assert wire.next_frame(peer) == wire.pushed(b"", lost)
    server.clients.broadcast(b"")
    assert wire.next_frame(peer) == wire.pushed(b"")


def test_the_next_handler_that_pushes_tells(make_server, unix_address):
    """Though its push leaves with the replies, and not from the queue."""
    server = make_server(unix_address, slow="drop-new", limits=Limits(**LIMITS))

    @server.service
    def push(client, request):
        client.send(request)
        return request

    with server, wire.let_in(server, wire.features(wire.SPEAKS_GAP)) as peer:
        wait_for(lambda: server.clients)
        flood(server, 40)
        lost = dropped(server)
        for number in range(40 - lost):
            assert wire.next_frame(peer) == wire.pushed(numbered(number))
        peer.send(wire.srm(b"a", 1) + wire.srm(b"b", 2))
        assert wire.next_frame(peer) == wire.pushed(b"a", lost)
        for answer in (wire.replied(b"a", 1), wire.pushed(b"b"), wire.replied(b"b", 2)):
            assert wire.next_frame(peer) == answer
