"""The pure engine against the contract, with real sockets and without the facade: the rules at their edges.

What both engines have in common is tested elsewhere on both.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import socket
import threading
import time
import weakref

import pytest
from engine_alone import Running, echo, eventually, reply, srm, started, u32

from pysock.causes import Cause
from pysock.engine.contract import Service
from pysock.engine.pure.core import ROW_MAX
from pysock.errors import FrameTooLarge
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.cir import encode_cir
from pysock.wire.format import GOAWAY_SETTLED, ErrorCode, Framing, Kind, Refusal, encode, encode_text


@pytest.fixture
def start(socket_dir):
    yield from started(socket_dir)


# --- the contract's edges ---


def test_hello(start):
    running = start()
    peer = running.peer()
    client_id = peer.let_in(name="me")
    peer.send(srm(b"hello"))
    peer.expect(reply(b"hello"))
    info = running.engine.info(client_id)
    assert (info.name, info.state, info.requests, info.pid) == ("me", ConnectionState.ESTABLISHED, 1, os.getpid())
    assert running.engine.client_ids() == [client_id]
    assert running.engine.client_count() == 1
    assert running.engine.find("me") == client_id
    assert running.engine.find("") is None
    peer.send(encode(Kind.BYE))
    assert peer.to_the_end() == b""
    eventually(lambda: running.gone)
    assert running.gone == [(client_id, DisconnectReason.LEFT)]
    assert running.engine.info(client_id) is None
    stats = running.engine.stats()
    assert (stats.accepted, stats.established, stats.disconnected, stats.requests) == (1, 1, 1, 1)
    assert (stats.clients, stats.pending, stats.errors, sum(stats.causes)) == (0, 0, 0, 0)
    assert stats.bytes_in == len(encode_cir("me")) + 13 + 4 + 12


SERVICES = [Service("", echo), Service("batch", lambda clients, requests: requests, batch=True), Service("none", None)]


def script(rng):
    """What a client may send on an established connection, and what it gets."""
    sent, wanted = b"", b""
    for request_id in range(1, 60):
        payload = rng.randbytes(rng.choice([0, 1, 10, 64, 300]))
        kind = rng.randrange(8)
        if kind < 4:
            sent += srm(payload, 0, request_id)
            wanted += reply(payload, request_id)
        elif kind == 4:
            sent += srm(payload, 0, request_id, flags=1)
        elif kind == 5:
            sent += encode(Kind.PING, payload[:64], request_id=request_id)
            wanted += encode(Kind.PONG, payload[:64], request_id=request_id)
        elif kind == 6:
            sent += srm(payload, 2, request_id)
            wanted += encode_text(Kind.ERROR, ErrorCode.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE, request_id)
        else:
            sent += srm(b"x" * 1001, 0, request_id)
            text = texts.REQUEST_TOO_LARGE % (1001, 1000)
            wanted += encode_text(Kind.ERROR, ErrorCode.PAYLOAD_TOO_LARGE, text, request_id)
    return sent, wanted


@pytest.mark.parametrize("seed", range(6))
def test_the_shortcut_answers_as_the_protocol_does(start, seed):
    rng = random.Random(seed)
    running = start(services=SERVICES, limits={"max_payload": 1000})
    sent, wanted = script(rng)
    peer = running.peer()
    peer.let_in()
    for _ in range(3):
        at = 0
        while at < len(sent):
            size = rng.choice([1, 5, 12, 13, 200, 100_000])
            peer.send(sent[at : at + size])
            at += size
        peer.expect(wanted)


@pytest.mark.parametrize("size", [1, 2, 5, 100_000])
@pytest.mark.parametrize("framing", [Framing.U32, Framing.LINE])
def test_plain_messages_in_pieces(start, framing, size):
    running = start(framing=framing)
    messages = [b"", b"a", b"bb" * 40, b"c"]
    data = u32(*messages) if framing is Framing.U32 else b"".join(message + b"\n" for message in messages)
    peer = running.peer()
    for at in range(0, len(data), size):
        peer.send(data[at : at + size])
    peer.expect(data)


def test_a_large_frame(start):
    running = start(framing=Framing.U32)
    data = u32(os.urandom(3_000_000), b"after")
    peer = running.peer()
    sender = threading.Thread(target=peer.send, args=[data])
    sender.start()
    peer.expect(data)
    sender.join()


@pytest.mark.parametrize("framing", [Framing.PYSOCK, Framing.U32])
def test_a_push_of_a_handler_goes_where_it_was_made(start, framing):
    def handler(client, request):
        assert running.engine.push(client, b"push " + request)
        return request

    running = start(framing=framing, handler=handler)
    peer = running.peer()
    if framing is Framing.PYSOCK:
        peer.let_in()
        peer.send(srm(b"1"), srm(b"2"))
        peer.expect(encode(Kind.PUSH, b"push 1"), reply(b"1"), encode(Kind.PUSH, b"push 2"), reply(b"2"))
    else:
        peer.send(u32(b"1", b"2"))
        peer.expect(u32(b"push 1", b"1", b"push 2", b"2"))
        peer.send(u32(b"3"))
        peer.expect(u32(b"push 3", b"3"))
    assert running.engine.stats().pushes >= 2


def test_pushes_from_another_thread(start):
    running = start()
    first, second = running.peer(), running.peer()
    ids = [first.let_in(max_payload=10), second.let_in()]
    assert running.engine.push(ids[0], bytearray(b"one"))
    first.expect(encode(Kind.PUSH, b"one"))
    assert running.engine.broadcast(memoryview(b"all")) == 2
    first.expect(encode(Kind.PUSH, b"all"))
    second.expect(encode(Kind.PUSH, b"all"))
    assert running.engine.broadcast(b"x" * 11) == 1
    with pytest.raises(FrameTooLarge):
        running.engine.push(ids[0], b"x" * 11)
    assert not running.engine.push(12345, b"")
    assert not running.engine.disconnect(12345)
    assert running.engine.disconnect(ids[0])
    assert first.to_the_end() == b""
    eventually(lambda: running.gone == [(ids[0], DisconnectReason.CLOSED_BY_SERVER)])


def test_what_the_connect_hook_pushes_follows_the_answer(start):
    def connect(client_id):
        assert running.engine.push(client_id, b"hello")
        return None if running.engine.info(client_id).name == "good" else "a bad name"

    running = start(connect=connect)
    good, bad = running.peer(), running.peer()
    good.send(encode(Kind.PING), encode_cir("good"))
    good.expect(encode(Kind.PONG))
    assert [good.frame().kind, good.frame().kind] == [Kind.CIR_ACCEPTED, Kind.PUSH]
    bad.send(encode_cir("bad"), srm())
    assert bad.to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.NOT_ALLOWED, "a bad name")
    assert running.engine.stats().refused == 1


def test_a_connect_hook_that_closes_its_client(start):
    running = start(connect=lambda client_id: running.engine.disconnect(client_id) and None)
    peer = running.peer()
    peer.send(encode_cir())
    assert peer.to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.NOT_ALLOWED, texts.NOT_ALLOWED)


def test_the_other_framings_ask_at_the_accept(start):
    running = start(framing=Framing.LINE, connect=lambda client_id: running.engine.push(client_id, b"hi") and None)
    running.peer().expect(b"hi\n")
    running = start(framing=Framing.LINE, connect=lambda client_id: "no")
    assert running.peer().to_the_end() == b""


def test_a_handler_closes_its_own_client(start):
    running = start(handler=lambda client, request: running.engine.disconnect(client) and request)
    peer = running.peer()
    peer.let_in()
    peer.send(srm(b"1"), srm(b"2"))
    assert peer.to_the_end() == reply(b"1")


def test_a_slot_is_used_again_under_another_id(start):
    running = start()
    ids = []
    for _ in range(3):
        peer = running.peer()
        ids.append(peer.let_in())
        peer.sock.close()
        eventually(lambda: len(running.gone) == len(ids))
    assert ids == [1 << 32, 2 << 32, 3 << 32]
    assert not running.engine.push(ids[0], b"late")
    assert not running.engine.attach(ids[0])


def test_only_attached_clients_are_told_of(start):
    running = start(watch_disconnects=False)
    first, second, third = running.peer(), running.peer(), running.peer()
    first.let_in()
    attached = second.let_in()
    assert running.engine.attach(attached)
    served = third.let_in()
    third.send(srm())
    third.expect(reply())
    for peer in (first, second, third):
        peer.sock.close()
    eventually(lambda: running.engine.client_count() == 0)
    eventually(lambda: len(running.gone) == 2)
    assert {client_id for client_id, _ in running.gone} == {attached, served}


# --- what handlers return ---


@pytest.mark.parametrize("made", [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a?b?")[::2]])
def test_anything_bytes_like(start, made):
    running = start(handler=lambda client, request: made)
    peer = running.peer()
    peer.let_in()
    peer.send(srm())
    peer.expect(reply(b"ab"))


def test_a_handler_that_uses_one_buffer_for_all_replies(start):
    shared = bytearray(1)

    def handler(client, request):
        shared[:] = request
        return shared

    running = start(handler=handler, framing=Framing.U32)
    peer = running.peer()
    peer.send(u32(b"1", b"2", b"3"))
    peer.expect(u32(b"1", b"2", b"3"))


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        ("text", 1, "the handler returned str, not a bytes-like object: encode it, for example with text.encode()"),
        (5, 1, "the handler returned int, not a bytes-like object"),
        (ValueError("no"), 1, "the handler returned ValueError, not a bytes-like object"),
        (b"x" * 101, 3, texts.REPLY_TOO_LARGE % (101, 100)),
    ],
)
def test_anything_else_is_a_failure(start, made, code, text, pieces):
    running = start(handler=lambda client, request: made)
    peer = running.peer()
    peer.let_in(max_payload=100)
    if pieces == 2:
        peer.send(srm()[:5])
        time.sleep(0.05)
    peer.send(srm()[5:] if pieces == 2 else srm())
    peer.expect(encode_text(Kind.ERROR, code, text, 9))
    peer.send(srm(flags=1), encode(Kind.PING))
    peer.expect(encode(Kind.PONG))
    assert running.engine.stats().errors == 2


@pytest.mark.parametrize("framing", [Framing.U32, Framing.LINE])
def test_a_failure_ends_a_connection_that_cannot_tell_of_it(start, framing):
    def handler(client, request):
        return request if request != b"bad" else 1 // 0

    running = start(handler=handler, framing=framing)
    for requests in ([b"bad"], [b"a", b"bad", b"b"]):
        peer = running.peer()
        peer.send(u32(*requests) if framing is Framing.U32 else b"\n".join(requests) + b"\n")
        good = requests[: requests.index(b"bad")]
        assert peer.to_the_end() == (u32(*good) if framing is Framing.U32 else b"".join(x + b"\n" for x in good))
    eventually(lambda: running.reasons() == ["closed by server"] * 2)
    assert [type(error) for error in running.failures] == [ZeroDivisionError] * 2


def test_none_is_nothing_sent_where_there_are_no_frames(start):
    running = start(handler=lambda client, request: None if request == b"quiet" else request, framing=Framing.LINE)
    peer = running.peer()
    peer.send(b"quiet\nloud\n")
    peer.expect(b"loud\n")


def test_no_service_is_logged_once(start):
    running = start(services=[], framing=Framing.RAW)
    for _ in range(2):
        peer = running.peer()
        peer.send(b"hello")
        assert peer.to_the_end() == b""
    assert [level for level, _ in running.logged] == [logging.ERROR]
    assert running.failures == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_is_no_exception_ends_the_loop(start, kind):
    def handler(client, request):
        raise kind

    running = start(handler=handler)
    peer = running.peer()
    peer.let_in()
    peer.send(srm())
    assert peer.to_the_end() == b""
    running.thread.join(10)
    assert type(running.raised) is kind
    assert running.drained == 1
    assert running.reasons() == ["server stopping"]
    assert running.engine.client_ids() == []


@pytest.mark.parametrize("way", ["whole", "pieces", "batch", "u32", "line"])
def test_a_failure_leaves_nothing_to_the_garbage_collector(start, way):
    class OddError(Exception):
        pass

    def handler(client, request):
        raise OddError

    seen = []

    def fail_all(clients, requests):
        raise OddError

    running = start(
        services=[Service("", fail_all if way == "batch" else handler, batch=way == "batch")],
        framing={"u32": Framing.U32, "line": Framing.LINE}.get(way, Framing.PYSOCK),
        callbacks={
            "failed": lambda client_id, service, request_id, began, error: (
                seen.append(weakref.ref(error)),
                (1, b"odd", True),
            )[1]
        },
    )
    gc.collect()
    gc.disable()
    try:
        peer = running.peer()
        if way in {"u32", "line"}:
            peer.send(u32(b"x") if way == "u32" else b"x\n")
            assert peer.to_the_end() == b""
        else:
            peer.let_in()
            peer.send(srm()[:5])
            if way == "pieces":
                time.sleep(0.05)
            peer.send(srm()[5:])
            peer.expect(encode_text(Kind.ERROR, 1, "odd", 9))
        eventually(lambda: seen[0]() is None)
    finally:
        gc.enable()


# --- batches ---


def batch(handler, **options):
    return [Service("", handler, batch=True, **options)]


def test_a_batch_takes_all_that_is_ready(start):
    calls = []

    def handler(clients, requests):
        calls.append(len(requests))
        return [request.upper() for request in requests]

    running = start(services=batch(handler, max_batch=4))
    peer = running.peer()
    peer.let_in()
    peer.send(*[srm(b"a", request_id=i) for i in range(10)])
    peer.expect(*[reply(b"A", i) for i in range(10)])
    assert calls == [4, 4, 2]


def test_a_batch_waits_for_more(start):
    calls = []
    running = start(services=batch(lambda clients, requests: calls.append(len(requests)) or requests, max_wait=0.2))
    first, second = running.peer(), running.peer()
    first.let_in()
    second.let_in()
    began = time.monotonic()
    first.send(srm(b"1"))
    time.sleep(0.05)
    second.send(srm(b"2"))
    first.expect(reply(b"1"))
    second.expect(reply(b"2"))
    assert calls == [2]
    assert 0.15 < time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([b"1"], "the batch handler returned 1 replies for 2 requests"),
        (b"12", "the batch handler returned bytes, not a sequence with one reply per request"),
        (None, "the batch handler returned NoneType, not a sequence with one reply per request"),
    ],
)
def test_a_batch_that_is_not_one_reply_for_each(start, made, text):
    running = start(services=batch(lambda clients, requests: made))
    peer = running.peer()
    peer.let_in()
    peer.send(srm(request_id=1), srm(request_id=2))
    peer.expect(encode_text(Kind.ERROR, 1, text, 1), encode_text(Kind.ERROR, 1, text, 2))


@pytest.mark.parametrize("framing", [Framing.PYSOCK, Framing.U32])
def test_an_exception_in_a_batch_fails_one_request(start, framing):
    running = start(services=batch(lambda clients, requests: [b"1", ValueError("two"), b"3"]), framing=framing)
    peer = running.peer()
    if framing is Framing.PYSOCK:
        peer.let_in()
        peer.send(srm(request_id=1), srm(request_id=2), srm(request_id=3))
        peer.expect(reply(b"1", 1), encode_text(Kind.ERROR, 1, "two", 2), reply(b"3", 3))
    else:
        peer.send(u32(b"a", b"b", b"c"))
        assert peer.to_the_end() == u32(b"1")


@pytest.mark.parametrize("framing", [Framing.PYSOCK, Framing.U32])
def test_too_many_in_flight_wait_in_the_kernel(start, framing):
    running = start(services=batch(lambda clients, requests: requests), framing=framing, limits={"max_in_flight": 3})
    peer = running.peer()
    if framing is Framing.PYSOCK:
        peer.let_in()
        peer.send(*[srm(request_id=i) for i in range(50)])
        peer.expect(*[reply(request_id=i) for i in range(50)])
    else:
        peer.send(u32(*[b"%d" % i for i in range(50)]))
        peer.expect(u32(*[b"%d" % i for i in range(50)]))


@pytest.mark.parametrize("way", ["pysock", "no reply", "u32", "line"])
def test_who_asks_for_much_at_once_holds_nobody_up(start, way):
    """A row of requests of one client, then the next client's turn."""
    entered, go_on, served = threading.Event(), threading.Event(), []

    def handler(client, request):
        served.append(request)
        if request == b"hold":
            entered.set()
            assert go_on.wait(10)
        return b""

    framing = Framing[way.upper()] if way in {"u32", "line"} else Framing.PYSOCK
    running = start(handler=handler, framing=framing)
    encoders = {"pysock": srm, "u32": u32, "line": lambda request: request + b"\n"}
    encode_one = encoders.get(way) or (lambda request: encode(Kind.SRM, request, request_id=1, flags=p.FLAG_NO_REPLY))
    holder, greedy, modest = running.peer(), running.peer(), running.peer()
    if framing is Framing.PYSOCK:
        for peer in (holder, greedy, modest):
            peer.let_in()
    eventually(lambda: running.engine.client_count() == 3)
    holder.send(encode_one(b"hold"))
    assert entered.wait(10)
    greedy.send(*[encode_one(b"much") for _ in range(3000)])
    modest.send(encode_one(b"modest"))
    go_on.set()
    eventually(lambda: len(served) == 3002)
    assert 1 <= served.index(b"modest") <= 1 + ROW_MAX < 1000
    assert running.engine.stats().requests == 3002


def test_pings_are_no_way_round_it(start):
    """What isn't a request counts as well."""
    entered, go_on, rest = threading.Event(), threading.Event(), []

    def handler(client, request):
        if request == b"hold":
            entered.set()
            assert go_on.wait(10)
        else:
            rest.append(running.engine.stats().bytes_out)
        return b""

    running = start(handler=handler)
    holder, greedy, modest = running.peer(), running.peer(), running.peer()
    for peer in (holder, greedy, modest):
        peer.let_in()
    before = running.engine.stats().bytes_out
    holder.send(srm(b"hold"))
    assert entered.wait(10)
    greedy.send(encode(Kind.PING) * 3000)
    modest.send(srm(b"modest"))
    go_on.set()
    eventually(lambda: rest)
    assert rest[0] - before <= 12 * (1 + ROW_MAX) < 12_000
    greedy.expect(encode(Kind.PONG) * 3000)


def test_a_batch_is_answered_after_the_end_of_file(start):
    running = start(services=batch(lambda clients, requests: requests, max_wait=0.05))
    peer = running.peer()
    peer.let_in()
    peer.send(srm(), srm()[:-1])
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.to_the_end() == reply()
    eventually(lambda: running.reasons() == ["closed by peer"])


# --- limits and deadlines ---


def test_a_client_that_does_not_read_is_not_read(start):
    running = start(limits={"output_pause": 100_000})
    peer = running.peer()
    client_id = peer.let_in()
    count, payload = 200, b"x" * 10_000
    sender = threading.Thread(target=lambda: [peer.send(srm(payload, request_id=i)) for i in range(count)])
    sender.start()
    eventually(lambda: running.engine.info(client_id).queued > 100_000)
    served = running.engine.info(client_id).requests
    time.sleep(0.1)
    assert running.engine.info(client_id).requests == served < count
    for i in range(count):
        peer.expect(reply(payload, i))
    sender.join()


@pytest.mark.parametrize("framing", [Framing.PYSOCK, Framing.U32])
def test_pipelined_requests_wait_for_their_large_replies(start, framing):
    running = start(framing=framing, handler=lambda c, r: r * 20_000, limits={"output_pause": 50_000})
    peer = running.peer()
    if framing is Framing.PYSOCK:
        client_id = peer.let_in()
        peer.send(*[srm(b"%d" % (i % 10), request_id=i) for i in range(300)])
    else:
        eventually(running.engine.client_ids)
        [client_id] = running.engine.client_ids()
        peer.send(u32(*[b"%d" % (i % 10) for i in range(300)]))
    eventually(lambda: running.engine.info(client_id).queued > 50_000)
    time.sleep(0.05)
    assert running.engine.info(client_id).requests < 100
    assert running.engine.info(client_id).queued < 200_000
    for i in range(300):
        body = b"%d" % (i % 10) * 20_000
        peer.expect(reply(body, i) if framing is Framing.PYSOCK else u32(body))


def test_a_queue_that_grows_too_long_is_dropped(start):
    running = start(limits={"output_pause": 10_000, "output_drop": 500_000})
    peer = running.peer()
    client_id = peer.let_in()
    for _ in range(200):
        running.engine.push(client_id, b"x" * 10_000)
    eventually(lambda: running.reasons() == ["over a limit"])
    assert running.engine.stats().over_limit == 1
    assert not running.engine.push(client_id, b"x")


def test_output_without_progress(start):
    running = start(limits={"output_timeout": 0.15})
    peer = running.peer()
    client_id = peer.let_in()
    running.engine.push(client_id, b"x" * 5_000_000)
    eventually(lambda: running.reasons() == ["timed out"])


def test_a_cir_that_does_not_come(start):
    running = start(limits={"cir_timeout": 0.1})
    peer = running.peer()
    peer.send(encode_cir()[:-1])
    assert peer.to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.CIR_TOO_LATE, texts.CIR_TOO_LATE)
    eventually(lambda: running.engine.stats().timeouts == 1)
    assert running.gone == []


def test_a_frame_has_its_time_as_a_whole(start):
    running = start(limits={"frame_timeout": 0.2})
    peer = running.peer()
    peer.let_in()
    began = time.monotonic()
    with pytest.raises(BrokenPipeError):  # noqa: PT012
        for byte in srm(b"x" * 1000):
            peer.send(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - began < 2
    assert peer.to_the_end() == encode_text(Kind.ERROR, ErrorCode.DEADLINE_PASSED, texts.FRAME_TOO_SLOW)
    eventually(lambda: running.reasons() == ["timed out"])


def test_whole_frames_start_the_time_anew(start):
    running = start(limits={"frame_timeout": 0.3})
    peer = running.peer()
    peer.let_in()
    data = srm()
    peer.send(data[:6])
    for _ in range(12):
        time.sleep(0.05)
        peer.send(data[6:], data[:6])
        peer.expect(reply())
    peer.send(data[6:])
    peer.expect(reply())
    time.sleep(0.4)
    peer.send(data)
    peer.expect(reply())


def test_idling(start):
    running = start(limits={"idle_timeout": 0.5})
    peer = running.peer()
    peer.let_in()
    for _ in range(4):
        time.sleep(0.15)
        peer.send(srm())
        peer.expect(reply())
    assert peer.to_the_end() == encode_text(Kind.GOAWAY, 0, texts.IDLE)
    eventually(lambda: running.reasons() == ["timed out"])


def test_full(start):
    running = start(limits={"max_clients": 2})
    first, second, third = running.peer(), running.peer(), running.peer()
    first.let_in()
    second.let_in()
    assert third.to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, texts.SERVER_FULL)
    first.sock.close()
    eventually(lambda: running.gone)
    running.peer().let_in()
    assert running.engine.stats().refused == 1


def test_a_crowd_of_silent_ones_cannot_keep_the_door_shut(start):
    running = start(limits={"max_pending_cir": 3})
    silent = [running.peer() for _ in range(4)]
    assert silent[0].to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.CIR_TOO_LATE, texts.CIR_CROWD)
    running.peer().let_in()
    silent[3].let_in()
    eventually(lambda: running.engine.stats().over_limit == 2)


@pytest.mark.parametrize("framing", [Framing.U32, Framing.LINE])
def test_a_message_over_the_limit(start, framing):
    running = start(framing=framing, limits={"max_payload": 10})
    peer = running.peer()
    good = u32(b"ok") if framing is Framing.U32 else b"ok\n"
    peer.send(good * 2, u32(b"x" * 11) if framing is Framing.U32 else b"x" * 11)
    assert peer.to_the_end() == good * 2
    eventually(lambda: running.reasons() == ["over a limit"])


def test_a_violation(start):
    running = start()
    peer = running.peer()
    peer.let_in()
    peer.send(srm(), encode(0x66, request_id=4), srm())
    wanted = reply() + encode_text(Kind.ERROR, ErrorCode.MALFORMED, texts.UNKNOWN_KIND, 4)
    assert peer.to_the_end() == wanted
    eventually(lambda: running.reasons() == ["protocol violation"])
    assert running.engine.stats().causes[Cause.VIOLATION] == 1


# --- the end ---


def test_what_has_come_is_answered_at_the_end(start):
    entered, go_on = threading.Event(), threading.Event()

    def handler(client, request):
        if request == b"slow":
            entered.set()
            assert go_on.wait(10)
        return request

    running = start(handler=handler)
    waiting, peer, other = running.peer(), running.peer(), running.peer()
    waiting.send(encode(Kind.PING))
    waiting.expect(encode(Kind.PONG))
    other.let_in()
    peer.let_in()
    peer.send(srm(b"slow", request_id=1))
    assert entered.wait(10)
    running.engine.stop(5)
    other.send(srm(request_id=2), srm(request_id=3, flags=1), encode(Kind.PING))
    go_on.set()
    assert peer.to_the_end() == reply(b"slow", 1) + encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)
    # It may have been read before the stop was seen; then it was answered.
    error = encode_text(Kind.ERROR, ErrorCode.SHUTTING_DOWN, texts.SHUTTING_DOWN, 2)
    goaway = encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)
    pong, draining = encode(Kind.PONG), encode(Kind.PONG, code=ErrorCode.SHUTTING_DOWN)
    served = reply(request_id=2)
    assert other.to_the_end() in {goaway + error + draining, served + pong + goaway, served + draining + goaway}
    assert waiting.to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.SHUTTING_DOWN, texts.SHUTTING_DOWN)
    running.thread.join(10)
    assert running.reasons() == ["server stopping"] * 2
    assert running.drained == 1


def test_what_was_kept_is_answered_at_the_end(start):
    running = start(limits={"output_pause": 50_000}, handler=lambda c, r: r * 20_000)
    peer = running.peer()
    client_id = peer.let_in()
    peer.send(*[srm(b"x", request_id=i) for i in range(100)])
    eventually(lambda: running.engine.info(client_id).queued > 50_000)
    running.engine.stop(10)
    for i in range(100):
        peer.expect(reply(b"x" * 20_000, i))
    assert peer.to_the_end() == encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)


def test_pending_batches_are_answered_at_the_end(start):
    running = start(services=batch(lambda clients, requests: requests, max_wait=60))
    peer = running.peer()
    client_id = peer.let_in()
    peer.send(srm())
    eventually(lambda: running.engine.info(client_id).in_flight == 1)
    running.stop()
    assert peer.to_the_end() == reply() + encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)


def test_grace_ends(start):
    running = start()
    peer = running.peer()
    client_id = peer.let_in()
    running.engine.push(client_id, b"x" * 5_000_000)
    eventually(lambda: running.engine.info(client_id).queued)
    running.engine.stop(60)
    time.sleep(0.05)
    assert running.thread.is_alive()
    began = time.monotonic()
    running.stop(0.1)
    assert time.monotonic() - began < 2
    assert running.reasons() == ["server stopping"]


def test_an_engine_that_is_closed(start):
    running = start()
    client_id = running.peer().let_in()
    running.stop()
    running.engine.close()
    engine = running.engine
    assert (engine.client_ids(), engine.client_count(), engine.info(client_id), engine.find("x")) == ([], 0, None, None)
    assert (engine.push(client_id, b""), engine.attach(client_id), engine.disconnect(client_id)) == (False,) * 3
    assert engine.broadcast(b"") == 0
    assert engine.stats().clients == 0
    engine.stop(1)


def test_stopped_before_it_ran(socket_dir):
    running = Running(f"{socket_dir}/s")
    running.engine.stop(5)
    running.engine.run()
    assert running.drained == 1
    running.engine.close()
