"""Features on the wire: what both ends agree on, deadlines of requests, CANCEL, and who is gone."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
import wire
from support import wait_for
from wire import (
    Services,
    cancel,
    cir,
    failed,
    features,
    frame,
    next_frame,
    not_started,
    parse,
    replied,
    say,
    srm,
    timed,
)

from pysock import Limits
from pysock.wire import texts

BOTH = features(3)
HOUR = 3_600_000_000
CAP = 100_000


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=CAP))
    server.asked = Services(server)
    with server:
        yield server


@pytest.fixture
def slow(make_server, address):
    """A server whose batch is called when four requests wait, or when it stops; and what it was called with."""
    server = make_server(address, limits=Limits(max_payload=CAP))
    server.asked = []
    server.gone = []
    server.on_disconnect(lambda client, reason: server.gone.append(reason.value))

    @server.service
    def upper(client, request):
        return request.upper()

    @server.batch_service("gather", max_batch=4, max_wait=100)
    def gather(clients, requests):
        server.asked.append(requests)
        return [request[::-1] for request in requests]

    with server:
        yield server


GATHER = 1


def agreed(server, *fields):
    (answer,) = parse(say(server, cir(*fields)))
    assert answer.kind == wire.CIR_ACCEPTED
    return [value for tag, value in wire.fields_of(answer.payload) if tag == wire.FEATURES]


def in_flight(server):
    """Of its one client."""
    (client_id,) = server.clients
    return server._running.engine.info(client_id).in_flight


def in_pieces(server, data, cut, *, field=BOTH):
    """What is answered to these requests of a client that waits for all of it: such a one doesn't half-close."""
    with wire.let_in(server, field) as peer:
        wire.send_cut(server, peer.sock, data + wire.BYE_FRAME, cut)
        return wire.rest_of(peer)


# What both speak


@pytest.mark.parametrize(
    ("asked", "got"),
    [(1, 1), (2, 2), (3, 3), (5, 1), (6, 6), (7, 7), (8, 8), (12, 8), (16, 16), (32, 32), (2**32 - 1, 63)],
)
def test_the_server_answers_with_what_both_speak(server, asked, got):
    """Bits that nobody knows yet are ignored, and streams are only for who speaks of cancelling."""
    assert agreed(server, features(asked)) == [struct.pack("!I", got)]


@pytest.mark.parametrize("fields", [(), (features(0),), (features(wire.RESERVED),)], ids=["none", "zero", "reserved"])
def test_where_there_is_nothing_there_is_no_field(server, fields):
    assert agreed(server, *fields) == []
    (plain,), (answer,) = parse(say(server, cir())), parse(say(server, cir(*fields)))
    assert answer.payload[11:] == plain.payload[11:]


@pytest.mark.parametrize(
    "fields", [(features(3), features(3)), (wire.field(wire.FEATURES, b"\0\3"),), (wire.field(wire.FEATURES, b""),)]
)
def test_a_broken_field(server, fields):
    assert parse(say(server, cir(*fields), end=False)) == [wire.refused(wire.REFUSED_MALFORMED, texts.BROKEN_FIELD)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (cancel(0), texts.UNKNOWN_KIND),
        (timed(b"x", 0, left=HOUR), texts.BAD_FLAGS),
        (frame(wire.SRM, flags=2), texts.BAD_FLAGS),
        (wire.credit(0, 1), texts.UNKNOWN_KIND),
        (frame(wire.SRM, flags=wire.TAKES_STREAM), texts.BAD_FLAGS),
    ],
    ids=["cancel", "deadline", "empty", "credit", "stream"],
)
@pytest.mark.parametrize("bits", [None, 0, wire.RESERVED, "the other"])
def test_what_was_not_agreed_is_a_violation(server, data, text, bits):
    """As it was before there were features."""
    other = wire.SPEAKS_DEADLINE if text == texts.UNKNOWN_KIND else wire.SPEAKS_CANCEL
    fields = [] if bits is None else [features(other if bits == "the other" else bits)]
    _, *answers = parse(say(server, cir(*fields) + srm(b"a") + data + srm(b"b"), end=False))
    assert answers == [replied(b"A"), failed(wire.MALFORMED, text, 0)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame(wire.CANCEL, b"x"), texts.LONG_CANCEL),
        (frame(wire.CANCEL, flags=1), texts.BAD_FLAGS),
        (frame(wire.SRM, b"abc", flags=wire.DEADLINE), texts.SHORT_DEADLINE),
        (frame(wire.SRM, flags=wire.DEADLINE | wire.NO_REPLY), texts.SHORT_DEADLINE),
        (srm(b"long enough", 0, flags=0x04), texts.BAD_FLAGS),
        (frame(wire.PING, b"1234", flags=wire.DEADLINE), texts.BAD_FLAGS),
        (frame(wire.BYE, flags=wire.DEADLINE), texts.BAD_FLAGS),
    ],
)
def test_broken_frames_of_who_speaks_all(server, cut, data, text):
    assert in_pieces(server, srm(b"a") + data, cut) == [replied(b"A"), failed(wire.MALFORMED, text, 0)]


def test_a_cancel_before_the_cir(server):
    answers = parse(say(server, cancel(1), end=False))
    assert answers == [wire.refused(wire.REFUSED_MALFORMED, texts.UNKNOWN_KIND)]


# Deadlines


def test_a_request_with_a_deadline(server, cut):
    """The handler gets it without those bytes, however they come."""
    data = (
        timed(b"ab", 1, left=HOUR) + srm(b"c", 2) + timed(b"", 3, left=HOUR) + timed(b"1000", 4, left=HOUR, service=1)
    )
    assert in_pieces(server, data, cut) == [
        replied(b"AB", 1),
        replied(b"C", 2),
        replied(b"", 3),
        replied(b"s" * 1000, 4),
    ]


@pytest.mark.parametrize("size", [16_380, 16_384, 16_385, 65_532, 65_536, CAP])
@pytest.mark.parametrize("cut", ["whole", "random"])
def test_large_requests_with_deadlines(server, cut, size):
    """And others between them: what is guessed of the next one may be wrong."""
    payload = bytes(range(97, 117)) * (size // 20 + 1)
    sent, wanted = b"", []
    for number in range(1, 8):
        part = payload[number : number + size]
        sent += srm(part, number) if number in {4, 5} else timed(part, number, left=HOUR)
        wanted.append(replied(part.upper(), number))
    with wire.let_in(server, BOTH) as peer:
        sender = threading.Thread(target=wire.send_cut, args=(server, peer.sock, sent, cut))
        sender.start()
        assert [next_frame(peer) for _ in wanted] == wanted
        sender.join(10)


def test_large_requests_one_after_the_other(server):
    """Each is read where the handler gets it, as the one before said."""
    with wire.let_in(server, BOTH) as peer:
        for number, is_timed in enumerate([True, True, False, True, False, False, True, True], 1):
            payload = bytes([97 + number]) * 50_000
            peer.send(timed(payload, number, left=HOUR) if is_timed else srm(payload, number))
            assert next_frame(peer) == replied(payload.upper(), number)


@pytest.mark.parametrize(
    ("small", "count"),
    [
        (cancel(9), 0),
        (3 * cancel(9), 0),
        (6000 * cancel(9), 0),
        (srm(b"x", 9), 1),
        (srm(b"", 9), 1),
        (wire.ping(id=9), 1),
    ],
    ids=["a CANCEL", "three", "many", "an SRM", "an empty one", "a PING"],
)
def test_small_frames_behind_a_large_one(server, small, count):
    """What was guessed of the next one is wrong, and headers lie across the borders of where it was read to."""
    with wire.let_in(server, BOTH) as peer:
        for end in range(1, 17):
            peer.send(timed(b"a" * CAP, 1, left=HOUR))
            assert next_frame(peer) == replied(b"A" * CAP, 1)
            peer.send(small + timed(b"b" * end, 2, left=HOUR) + srm(b"c", 3))
            got = [next_frame(peer) for _ in range(count + 2)]
            assert got[-2:] == [replied(b"B" * end, 2), replied(b"C", 3)]


def test_the_limit_counts_without_the_deadline(server, cut):
    data = timed(b"a" * CAP, 1, left=HOUR) + timed(b"b" * (CAP + 1), 2, left=HOUR) + srm(b"c", 3)
    if cut == "bytes":
        data = timed(b"b" * (CAP + 1), 2, left=HOUR)[:12]
    with wire.let_in(server, BOTH) as peer:
        sender = threading.Thread(target=wire.send_cut, args=(server, peer.sock, data, cut))
        sender.start()
        if cut != "bytes":
            assert next_frame(peer) == replied(b"A" * CAP, 1)
        assert next_frame(peer) == failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (CAP + 1, CAP), 2)
        if cut != "bytes":
            assert next_frame(peer) == replied(b"C", 3)
        sender.join(10)


def test_a_deadline_that_has_passed(server, cut):
    """The handler isn't started, and the client is told so; one that wants no reply is told nothing."""
    data = timed(b"ab", 7, left=0) + timed(b"n", 8, left=0, flags=wire.NO_REPLY) + srm(b"c", 9)
    answers = in_pieces(server, data, cut, field=features(wire.SPEAKS_DEADLINE))
    assert answers == [not_started(wire.TOO_LATE, texts.TOO_LATE, 7), replied(b"C", 9)]
    assert [request for _, _, request in server.asked.calls] == [b"c"]
    wire.counted(server, requests=3, errors=2, violations=0)


def test_it_counts_from_the_moment_the_header_is_read(make_server, address):
    """What comes in one piece with a slow request has waited for it; and a payload may be slow to come."""
    server = make_server(address)

    @server.service
    def sleep(client, request):
        time.sleep(float(request))
        return request

    with server, wire.let_in(server, BOTH) as peer:
        peer.send(srm(b"0.2", 1) + timed(b"0", 2, left=100_000) + timed(b"0", 3, left=HOUR))
        assert next_frame(peer) == replied(b"0.2", 1)
        assert next_frame(peer) == not_started(wire.TOO_LATE, texts.TOO_LATE, 2)
        assert next_frame(peer) == replied(b"0", 3)
        whole = timed(b"0", 4, left=100_000)
        peer.send(whole[:14])
        time.sleep(0.2)
        peer.send(whole[14:])
        assert next_frame(peer) == not_started(wire.TOO_LATE, texts.TOO_LATE, 4)


def test_deadlines_are_looked_at_when_the_batch_runs(slow):
    with wire.let_in(slow, BOTH) as peer:
        peer.send(timed(b"ab", 1, left=50_000, service=GATHER) + timed(b"cd", 2, left=HOUR, service=GATHER))
        peer.send(timed(b"ef", 3, left=50_000, service=GATHER, flags=wire.NO_REPLY))
        time.sleep(0.1)
        peer.send(srm(b"gh", 4, service=GATHER))
        answers = {next_frame(peer) for _ in range(3)}
        assert answers == {not_started(wire.TOO_LATE, texts.TOO_LATE, 1), replied(b"dc", 2), replied(b"hg", 4)}
        assert slow.asked == [[b"cd", b"gh"]]


# CANCEL


def test_a_request_that_waits_is_cancelled(slow):
    """At once, though its batch isn't due for long; and it stays out of it."""
    with wire.let_in(slow, BOTH) as peer:
        peer.send(srm(b"ab", 1, service=GATHER) + srm(b"cd", 2, service=GATHER) + cancel(1))
        assert next_frame(peer) == not_started(wire.CANCELLED, texts.CANCELLED, 1)
        peer.send(cancel(1) + wire.ping(id=9))
        assert next_frame(peer) == wire.ponged(id=9)
        peer.send(srm(b"ef", 1, service=GATHER) + srm(b"gh", 3, service=GATHER))
        assert [next_frame(peer) for _ in range(3)] == [replied(b"dc", 2), replied(b"fe", 1), replied(b"hg", 3)]
        assert slow.asked == [[b"cd", b"ef", b"gh"]]
        assert in_flight(slow) == 0
    wire.counted(slow, requests=4, errors=1, violations=0)


def test_all_of_a_batch_are_cancelled(slow):
    """Then the handler isn't called."""
    with wire.let_in(slow, BOTH) as peer:
        for number in range(1, 5):
            peer.send(srm(b"ab", number, service=GATHER) + cancel(number))
            assert next_frame(peer) == not_started(wire.CANCELLED, texts.CANCELLED, number)
        peer.send(srm(b"x"))
        assert next_frame(peer) == replied(b"X")
        assert slow.asked == []
        wait_for(lambda: in_flight(slow) == 0, "the batch")


def test_cancelling_what_is_not_there(server, cut):
    """It has crossed the answer, or was never asked: nothing comes of it."""
    data = cancel(1) + srm(b"a", 1) + cancel(1) + cancel(2**32 - 1) + srm(b"b", 1)
    assert in_pieces(server, data, cut) == [replied(b"A"), replied(b"B")]
    wire.counted(server, errors=0, violations=0)


def test_what_wants_no_reply_is_not_cancelled(slow):
    """Nobody waits for it, and its id is nobody's."""
    with wire.let_in(slow, BOTH) as peer:
        peer.send(2 * srm(b"ab", 1, service=GATHER, flags=wire.NO_REPLY) + cancel(1) + srm(b"cd", 1, service=GATHER))
        peer.send(srm(b"ef", 2, service=GATHER))
        assert [next_frame(peer), next_frame(peer)] == [replied(b"dc", 1), replied(b"fe", 2)]
        assert slow.asked == [[b"ab", b"ab", b"cd", b"ef"]]


def test_another_clients_request_is_not_cancelled(slow):
    with wire.let_in(slow, BOTH) as peer, wire.let_in(slow, BOTH) as other:
        peer.send(srm(b"ab", 1, service=GATHER))
        wire.counted(slow, clients=2, requests=1)
        other.send(cancel(1) + srm(b"cd", 1, service=GATHER) + wire.ping())
        assert next_frame(other) == wire.ponged()
        peer.send(srm(b"ef", 2, service=GATHER) + srm(b"gh", 3, service=GATHER))
        assert next_frame(other) == replied(b"dc", 1)
        assert [next_frame(peer) for _ in range(3)] == [replied(b"ba", 1), replied(b"fe", 2), replied(b"hg", 3)]


@pytest.mark.parametrize("service", [0, GATHER], ids=["another service", "the same"])
def test_an_id_twice_in_flight(slow, cut, service):
    """Whatever is asked: the answer couldn't be told from the other's. What waits is answered before the end."""
    data = srm(b"ab", 5, service=GATHER) + srm(b"ok", 6) + srm(b"cd", 5, service=service)
    with wire.let_in(slow, BOTH) as peer:
        wire.send_cut(slow, peer.sock, data, cut)
        assert [next_frame(peer), next_frame(peer)] == [
            replied(b"OK", 6),
            failed(wire.MALFORMED, texts.ID_IN_FLIGHT, 5),
        ]
        with wire.let_in(slow) as other:
            other.send(b"".join(srm(b"x", number, service=GATHER) for number in (1, 2, 3)))
            assert wire.rest_of(peer) == [replied(b"ba", 5)]
    wire.counted(slow, violations=1)


@pytest.mark.parametrize("field", [(), (features(wire.SPEAKS_DEADLINE),)])
def test_an_id_twice_in_flight_of_who_does_not_cancel(slow, field):
    """As it was before there were features."""
    with wire.let_in(slow, *field) as peer:
        peer.send(4 * srm(b"ab", 5, service=GATHER))
        assert [next_frame(peer) for _ in range(4)] == 4 * [replied(b"ba", 5)]


def test_cancelling_and_asking_again_does_not_pile_up(make_server, address):
    """What is cancelled counts until its batch has run: such a client isn't read any more."""
    server = make_server(address, limits=Limits(max_in_flight=10))
    server.batch_service("gather", max_batch=10_000, max_wait=100)(lambda clients, requests: requests)
    server.service(lambda client, request: request)
    with server, wire.let_in(server, BOTH) as peer:
        peer.send(b"".join(srm(b"x", number, service=1) + cancel(number) for number in range(1, 100)) + wire.ping())
        for number in range(1, 11):
            assert next_frame(peer) == not_started(wire.CANCELLED, texts.CANCELLED, number)
        peer.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.sock.recv(1)
        assert server.stats()["requests"] == 11
        assert in_flight(server) == 11


def test_with_as_many_in_flight_as_it_was_told_a_client_can_cancel(make_server, address):
    server = make_server(address, limits=Limits(max_in_flight=10))
    server.batch_service("gather", max_batch=10_000, max_wait=100)(lambda clients, requests: requests)
    with server, wire.let_in(server, BOTH) as peer:
        peer.send(b"".join(srm(b"x", number, service=1) for number in range(1, 11)))
        wait_for(lambda: in_flight(server) == 10)
        peer.send(cancel(10))
        assert next_frame(peer) == not_started(wire.CANCELLED, texts.CANCELLED, 10)


def test_a_reply_that_is_on_its_way_is_not_cancelled(server):
    """All of it comes, and nothing more."""
    with wire.let_in(server, BOTH) as peer:
        peer.send(srm(b"%d" % CAP, 1, service=Services.SIZE))
        assert peer.read(12)[4] == wire.REPLY
        peer.send(cancel(1) + srm(b"a", 2))
        assert peer.read(CAP) == b"s" * CAP
        assert next_frame(peer) == replied(b"A", 2)


# Who is gone


def test_the_end_of_the_stream_means_that_the_client_is_gone(slow):
    """What waits for an answer isn't started; what doesn't is."""
    with wire.let_in(slow, BOTH) as peer, wire.let_in(slow) as other:
        peer.send(srm(b"ab", 1, service=GATHER) + srm(b"cd", 2, service=GATHER, flags=wire.NO_REPLY))
        wire.counted(slow, clients=2, requests=2)
        peer.sock.shutdown(socket.SHUT_WR)
        other.send(srm(b"ef", 1, service=GATHER) + srm(b"gh", 2, service=GATHER))
        assert [next_frame(other), next_frame(other)] == [replied(b"fe", 1), replied(b"hg", 2)]
        assert peer.rest() == b""
        assert slow.asked == [[b"cd", b"ef", b"gh"]]
        wait_for(lambda: slow.gone == ["closed by peer"], "the disconnect hook")


def test_the_end_of_the_stream_of_who_has_nothing_in_flight(slow):
    with wire.let_in(slow, BOTH) as peer:
        peer.send(srm(b"ab", 1))
        assert next_frame(peer) == replied(b"AB")
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.rest() == b""
        wait_for(lambda: slow.gone == ["closed by peer"], "the disconnect hook")


@pytest.mark.parametrize("field", [(), (features(wire.SPEAKS_DEADLINE),)])
def test_others_may_half_close_and_wait(slow, field):
    """As it was before there were features."""
    with wire.let_in(slow, *field) as peer, wire.let_in(slow) as other:
        peer.send(srm(b"ab", 1, service=GATHER))
        wire.counted(slow, clients=2, requests=1)
        peer.sock.shutdown(socket.SHUT_WR)
        other.send(b"".join(srm(b"x", number, service=GATHER) for number in (1, 2, 3)))
        assert wire.rest_of(peer) == [replied(b"ba", 1)]


def test_a_bye_is_followed_by_what_waits(slow):
    """Who says goodbye is answered still."""
    with wire.let_in(slow, BOTH) as peer, wire.let_in(slow) as other:
        peer.send(srm(b"ab", 1, service=GATHER) + wire.BYE_FRAME)
        wire.counted(slow, clients=2, requests=1)
        other.send(b"".join(srm(b"x", number, service=GATHER) for number in (1, 2, 3)))
        assert wire.rest_of(peer) == [replied(b"ba", 1)]


# The server stops


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
def test_what_comes_after_the_goodbye_was_not_started(make_server, address, monkeypatch, bits):
    """ERROR 5 says so where that was agreed."""
    server = make_server(address)
    busy, go_on, stops = threading.Event(), threading.Event(), threading.Event()

    @server.service
    def wait(client, request):
        busy.set()
        go_on.wait(10)
        return request

    with server, wire.let_in(server, features(bits)) as peer, wire.let_in(server) as other:
        other.send(srm(b"x"))
        assert busy.wait(10)
        stop = server._running.engine.stop
        monkeypatch.setattr(server._running.engine, "stop", lambda grace: (stop(grace), stops.set()))
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert stops.wait(10)  # from here on the loop will find that first
        peer.send(srm(b"a", 3))
        go_on.set()
        answer = not_started if bits else failed
        assert wire.rest_of(peer)[1:] == [answer(wire.SHUTTING_DOWN, texts.SHUTTING_DOWN, 3)]
        stopper.join(10)
