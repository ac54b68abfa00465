"""Streams on the wire: pieces, credit, what begins one and what ends it, of every kind of handler that streams."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time

import pytest
import wire
from support import PATIENCE, wait_for
from wire import Got, cancel, credit, failed, features, next_frame, not_started, replied, srm

import pysock
from pysock import Limits, RemoteError
from pysock.wire import texts

ALL = features(wire.SPEAKS_DEADLINE | wire.SPEAKS_CANCEL | wire.SPEAKS_STREAM)
WINDOW = 10_000
KINDS = ("def", "async", "threads")
COST = 16


def piece(payload: bytes, id: int = 1) -> Got:  # noqa: A002
    return Got(wire.REPLY, wire.MORE, 0, id, payload)


def ask(payload: bytes = b"", id: int = 1, *, service: int = 0, flags: int = 0) -> bytes:  # noqa: A002
    """A request whose client takes a stream."""
    return srm(payload, id, service=service, flags=wire.TAKES_STREAM | flags)


class Streaming:
    """A server with one stream, of any kind; what it did, and how often it was closed.

    The request says what is yielded: an expression of Python for an iterable. An exception in it is raised, and a
    function called. Service 0 streams, and 1 doesn't.
    """

    def __init__(self, make_server, address, kind, **options):
        limits = {"stream_window": WINDOW, **options.pop("limits", {})}
        self.server = make_server(address, limits=Limits(**limits))
        self.kind = kind
        self.yielded = 0
        self.closed = threading.Semaphore(0)
        self.threads = set()
        self.gone = []
        self.server.on_disconnect(lambda client, reason: self.gone.append(reason.value))
        handler = self._async if kind == "async" else self._plain
        if kind == "threads":
            options["threads"] = 4
        self.server.service(**options)(handler)
        self.server.service("upper")(lambda client, request: request.upper())

    def _plain(self, client, request):
        self.threads.add(threading.get_ident())
        try:
            for one in self._of(request):
                self.yielded += 1
                yield one
            return b"end" if request.endswith(b"#") else None
        finally:
            self.threads.add(threading.get_ident())
            self.closed.release()

    async def _async(self, client, request):
        try:
            for one in self._of(request):
                self.yielded += 1
                yield one
        finally:
            self.closed.release()

    def _of(self, request):
        for one in eval(request or b"()", {"forever": forever, "sleep": slowly, "current": pysock.current}):
            if isinstance(one, Exception):
                raise one
            yield one() if callable(one) else one

    def wait_closed(self):
        assert self.closed.acquire(timeout=PATIENCE), "it wasn't closed"

    def in_flight(self):
        """Of its one client."""
        (client_id,) = self.server.clients
        return self.server._running.engine.info(client_id).in_flight


def forever(size=84):
    while True:
        yield b"p" * size


def slowly(seconds, count):
    for _ in range(count):
        time.sleep(seconds)
        yield b"slow"


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def begin(make_server, address, kind):
    """Start a server that streams; the test gets it, and a client of it that was let in."""
    with contextlib.ExitStack() as stack:

        def start(*fields, **options):
            streaming = Streaming(make_server, address, kind, **options)
            stack.enter_context(streaming.server)
            return streaming, stack.enter_context(wire.let_in(streaming.server, *(fields or (ALL,))))

        yield start


def taken(peer, *, seconds=0.2):
    """All frames that come until nothing has come for so long."""
    peer.sock.settimeout(seconds)
    found = []
    with contextlib.suppress(TimeoutError):
        while (frame := next_frame(peer)) is not None:
            found.append(frame)
    peer.sock.settimeout(PATIENCE)
    return found


def cost(frames):
    assert {(frame.kind, frame.flags) for frame in frames} <= {(wire.REPLY, wire.MORE)}
    return sum(len(frame.payload) + COST for frame in frames)


# What a stream is


@pytest.mark.parametrize("count", [0, 1, 3, 16, 17, 60])
def test_its_pieces_and_its_end(begin, kind, count):
    _, peer = begin()
    peer.send(ask(f"[b'%d' % n for n in range({count})] #".encode(), 7))
    assert [next_frame(peer) for _ in range(count)] == [piece(b"%d" % n, 7) for n in range(count)]
    assert next_frame(peer) == replied(b"" if kind == "async" else b"end", 7)


def test_an_empty_piece_is_one(begin):
    _, peer = begin()
    peer.send(ask(b"[b'', b'a', b'']"))
    assert [next_frame(peer) for _ in range(4)] == [piece(b""), piece(b"a"), piece(b""), replied(b"")]


def test_what_else_is_like_bytes(begin):
    _, peer = begin()
    peer.send(ask(b"[bytearray(b'ab'), memoryview(b'abcd')[::2], __import__('array').array('B', [65])]"))
    assert [next_frame(peer) for _ in range(4)] == [piece(b"ab"), piece(b"ac"), piece(b"A"), replied(b"")]


@pytest.mark.parametrize("size", [4095, 4096, 16_384, 16_385, 100_000])
def test_large_pieces(begin, size):
    """The kernel doesn't take all of it at once."""
    _, peer = begin(limits={"stream_window": 1 << 22})
    peer.send(ask(b"[bytes([65 + n]) * %d for n in range(20)]" % size))
    for number in range(20):
        assert next_frame(peer) == piece(bytes([65 + number]) * size)
    assert next_frame(peer) == replied(b"")


def test_several_of_one_client_at_once(begin, kind):
    """Those that the loop runs take turns."""
    _, peer = begin()
    peer.send(b"".join(ask(b"[b'%d' % n for n in range(50)]", number) for number in range(1, 4)))
    found = [next_frame(peer) for _ in range(153)]
    for number in range(1, 4):
        assert [frame for frame in found if frame.id == number] == [
            *(piece(b"%d" % n, number) for n in range(50)),
            replied(b"", number),
        ]
    if kind == "def":
        assert min(index for index, frame in enumerate(found) if not frame.flags) > 100


def test_an_id_is_free_when_the_stream_has_ended(begin):
    streaming, peer = begin()
    for _ in range(3):
        peer.send(ask(b"[b'a']", 5))
        assert [next_frame(peer), next_frame(peer)] == [piece(b"a", 5), replied(b"", 5)]
    wait_for(lambda: streaming.in_flight() == 0)
    wire.counted(streaming.server, clients=1, requests=3, errors=0)


def test_an_id_twice(begin):
    streaming, peer = begin()
    peer.send(ask(b"forever()", 5))
    taken(peer)
    peer.send(ask(b"", 5))
    assert wire.rest_of(peer)[0] == failed(wire.MALFORMED, texts.ID_IN_FLIGHT, 5)
    streaming.wait_closed()


# Who may ask


@pytest.mark.parametrize("bits", [None, 0, 1, wire.SPEAKS_STREAM, 3, 7])
def test_who_does_not_take_a_stream(begin, bits):
    """An old client learns why, byte for byte as of any ERROR; what belongs to features only who speaks them."""
    streaming, peer = begin(b"" if bits is None else features(bits))
    peer.send(srm(b"forever()", 3) + srm(b"a", 4, service=1))
    error = not_started if bits and bits & 3 else failed
    assert next_frame(peer) == error(wire.NEEDS_STREAM, texts.NEEDS_STREAM, 3)
    assert next_frame(peer) == replied(b"A", 4)
    assert streaming.yielded == 0
    wire.counted(streaming.server, clients=1, requests=2, errors=1)


@pytest.mark.parametrize("flags", [wire.NO_REPLY, wire.NO_REPLY | wire.TAKES_STREAM])
def test_one_that_nobody_would_take_is_not_begun(begin, flags):
    streaming, peer = begin()
    peer.send(srm(b"[b'a']", 3, flags=flags) + wire.ping())
    assert next_frame(peer) == wire.ponged()
    wire.counted(streaming.server, clients=1, requests=1, errors=1)
    assert streaming.yielded == 0


def test_a_service_that_does_not_stream_answers_as_always(begin):
    _, peer = begin()
    peer.send(ask(b"abc", 3, service=1))
    assert next_frame(peer) == replied(b"ABC", 3)


def test_the_server_tells_who_streams(begin):
    streaming, _ = begin()
    with wire.dial(streaming.server) as peer:
        peer.send(wire.cir(ALL))
        fields = wire.fields_of(peer.frame().payload)
    assert [value for tag, value in fields if tag == wire.SERVICE_OPTIONS] == [b"\0\0\1"]
    assert [value for tag, value in fields if tag == wire.STREAM_WINDOW] == [struct.pack("!I", WINDOW)]


def test_there_is_no_window_for_who_does_not_take_streams(begin):
    streaming, _ = begin()
    with wire.dial(streaming.server) as peer:
        peer.send(wire.cir(features(3), wire.field(wire.STREAM_WINDOW, struct.pack("!I", 5))))
        assert wire.STREAM_WINDOW not in dict(wire.fields_of(peer.frame().payload))


# Credit


@pytest.mark.parametrize("size", [0, 84, 1000])
def test_it_stops_when_its_credit_is_used_up(begin, size):
    """One piece takes the last of it; nothing is asked of the handler then."""
    streaming, peer = begin()
    peer.send(ask(b"forever(%d)" % size))
    found = taken(peer)
    assert len(found) == -(-WINDOW // (size + COST))
    assert cost(found) - size - COST < WINDOW <= cost(found)
    assert streaming.yielded == len(found)
    peer.send(credit(1, 5 * (size + COST)))
    assert len(taken(peer)) == 5
    assert streaming.yielded == len(found) + 5


def test_one_piece_may_be_larger_than_all_of_it(begin):
    _, peer = begin()
    peer.send(ask(b"[b'x' * 50_000, b'y']"))
    assert taken(peer) == [piece(b"x" * 50_000)]
    peer.send(credit(1, 40_016))  # what was overdrawn, less one byte
    assert taken(peer) == []
    peer.send(credit(1, 1))
    assert taken(peer) == [piece(b"y")]
    peer.send(credit(1, 17))
    assert taken(peer) == [replied(b"")]


@pytest.mark.parametrize(("asked", "got"), [(0, 0), (1, 1), (5000, 5000), (WINDOW, WINDOW), (2**32 - 1, WINDOW)])
def test_the_smaller_window_counts(begin, asked, got):
    streaming, peer = begin(ALL, wire.field(wire.STREAM_WINDOW, struct.pack("!I", asked)))
    with wire.dial(streaming.server) as other:
        other.send(wire.cir(ALL, wire.field(wire.STREAM_WINDOW, struct.pack("!I", asked))))
        fields = dict(wire.fields_of(other.frame().payload))
    assert fields[wire.STREAM_WINDOW] == struct.pack("!I", got)
    peer.send(ask(b"forever()"))
    assert len(taken(peer)) == -(-got // 100)
    assert streaming.yielded == -(-got // 100)
    peer.send(credit(1, 100))
    assert len(taken(peer)) == 1
    peer.send(cancel(1))
    assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED)
    streaming.wait_closed()


def test_a_stream_that_waits_holds_up_nothing_else(begin):
    """Another one of the same connection, an ordinary request, and those of others."""
    streaming, peer = begin()
    peer.send(ask(b"forever()", 1))
    assert cost(taken(peer)) >= WINDOW
    peer.send(ask(b"[b'a', b'b']", 2) + srm(b"c", 3, service=1))
    assert {next_frame(peer) for _ in range(4)} == {piece(b"a", 2), piece(b"b", 2), replied(b"", 2), replied(b"C", 3)}
    with wire.let_in(streaming.server, ALL) as other:
        other.send(ask(b"[b'a']"))
        assert [next_frame(other), next_frame(other)] == [piece(b"a"), replied(b"")]


@pytest.mark.parametrize("number", [0, 2, 2**32 - 1])
def test_credit_for_nothing_is_ignored(begin, number):
    """It has crossed the end, or was for another request."""
    _, peer = begin()
    peer.send(credit(number, 2**32 - 1) * 3 + ask(b"[b'a']") + credit(number, 2**32 - 1) + srm(b"b", 2, service=1))
    assert {next_frame(peer) for _ in range(3)} == {piece(b"a"), replied(b""), replied(b"B", 2)}
    peer.send(credit(1, 2**32 - 1) * 2 + srm(b"b", 2, service=1))
    assert next_frame(peer) == replied(b"B", 2)


def test_credit_that_32_bits_do_not_hold(begin):
    """What is left counts, too. It goes to nobody, and other streams of the connection end as well."""
    streaming, peer = begin()
    peer.send(ask(b"forever()", 4) + ask(b"forever()", 5))
    assert cost(taken(peer)) == 2 * WINDOW
    peer.send(credit(4, 2**32 - 1) + credit(4, 1))
    frames = [frame for frame in wire.rest_of(peer) if frame.kind == wire.ERROR]
    assert frames[0] == failed(wire.MALFORMED, texts.CREDIT_OVERFLOW, 4)
    assert sorted(frames[1:]) == [failed(wire.CANCELLED, texts.CANCELLED, number) for number in (4, 5)]
    streaming.wait_closed()
    streaming.wait_closed()
    wire.counted(streaming.server, violations=1)
    wait_for(lambda: streaming.gone == ["protocol violation"])


def test_as_much_credit_as_32_bits_hold(begin):
    _, peer = begin()
    peer.send(ask(b"[b'x' * 84] * 102", 4))
    assert cost(taken(peer)) == WINDOW
    peer.send(credit(4, 2**32 - 1))
    assert taken(peer) == [piece(b"x" * 84, 4)] * 2 + [replied(b"", 4)]


def test_its_client_is_closed_by_the_server(begin):
    """Nothing is read of it any more, so a stream without credit can't go on; one that has some does."""
    streaming, peer = begin()
    peer.send(ask(b"forever()", 4))
    taken(peer)
    (client,) = streaming.server.clients.values()
    client.close()
    assert wire.rest_of(peer) == [failed(wire.CANCELLED, texts.CANCELLED, 4)]
    streaming.wait_closed()
    wait_for(lambda: streaming.gone == ["closed by server"])


def test_it_closes_its_client_itself(begin):
    """In the middle: what it sends then is sent, as far as its credit goes."""
    streaming, peer = begin()
    peer.send(ask(b"[b'a', lambda: current().client.close() or b'b', *[b'c' * 84] * 300]"))
    frames = wire.rest_of(peer)
    assert frames[:2] == [piece(b"a"), piece(b"b")]
    assert frames[-1] == failed(wire.CANCELLED, texts.CANCELLED)
    assert cost(frames[:-1]) >= WINDOW
    streaming.wait_closed()


# Its end


def test_it_is_cancelled(begin):
    """One answer, nothing after it; the generator is closed, its place free, and its id."""
    streaming, peer = begin()
    peer.send(ask(b"forever()", 6))
    assert cost(taken(peer)) >= WINDOW
    assert streaming.in_flight() == 1
    peer.send(cancel(6))
    assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED, 6)
    streaming.wait_closed()
    wait_for(lambda: streaming.in_flight() == 0)
    peer.send(credit(6, 100_000) + cancel(6) + ask(b"[b'a']", 6))
    assert [next_frame(peer), next_frame(peer)] == [piece(b"a", 6), replied(b"", 6)]
    wire.counted(streaming.server, clients=1, requests=2, errors=1, violations=0)


def leave(peer, how):
    if how == "reset":
        wire.reset(peer.sock)
    elif how == "bye":
        peer.send(wire.BYE_FRAME)
        peer.rest()
    else:
        peer.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("how", ["reset", "bye", "end of file"])
@pytest.mark.parametrize("waits", ["for credit", "nothing"])
def test_its_client_goes(begin, how, waits):
    """Then it is closed, whether it waits or not; and before the hook is told."""
    streaming, peer = begin(limits={"stream_window": WINDOW if waits == "for credit" else 1 << 30})
    peer.send(ask(b"forever()") if waits == "for credit" else ask(b"forever(1000)"))
    assert next_frame(peer).flags == wire.MORE
    if waits == "for credit":
        taken(peer)
    leave(peer, how)
    streaming.wait_closed()
    wire.counted(streaming.server, clients=0, errors=0)


def test_its_deadline_passes(begin):
    streaming, peer = begin()
    peer.send(wire.timed(b"forever()", 3, left=200_000, flags=wire.TAKES_STREAM))
    *pieces, last = taken(peer, seconds=0.5)
    assert cost(pieces) >= WINDOW
    assert last == failed(wire.TOO_LATE, texts.TOO_LATE, 3)
    streaming.wait_closed()
    wait_for(lambda: streaming.in_flight() == 0)


def test_it_is_late_before_it_begins(begin):
    streaming, peer = begin()
    peer.send(wire.timed(b"forever()", 3, left=0, flags=wire.TAKES_STREAM))
    assert next_frame(peer) == not_started(wire.TOO_LATE, texts.TOO_LATE, 3)
    assert streaming.yielded == 0


def records(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("count", [0, 3, 16, 40])
def test_it_raises(begin, caplog, count):
    """Its pieces, then one ERROR, and one line in the log."""
    streaming, peer = begin()
    peer.send(ask(b"[b'a'] * %d + [ZeroDivisionError('why')]" % count))
    assert [next_frame(peer) for _ in range(count)] == [piece(b"a")] * count
    assert next_frame(peer) == failed(wire.HANDLER_FAILED, "ZeroDivisionError")
    streaming.wait_closed()
    wait_for(lambda: streaming.in_flight() == 0)
    (record,) = records(caplog)
    assert "ZeroDivisionError: why" in caplog.text
    assert "request 1" in record.getMessage()
    wire.counted(streaming.server, clients=1, requests=1, errors=1)


def test_it_says_what_is_wrong(begin, caplog):
    _, peer = begin()
    peer.send(ask(b"[b'a', __import__('pysock').RemoteError('no more', 77)]"))
    assert [next_frame(peer), next_frame(peer)] == [piece(b"a"), failed(77, "no more")]
    assert records(caplog) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"'text'", "yielded str, not a bytes-like object: encode it"),
        (b"None", "yielded NoneType, not a bytes-like object"),
        (b"5", "yielded int, not a bytes-like object"),
        (b"[b'x']", "yielded list, not a bytes-like object"),
    ],
)
@pytest.mark.parametrize("before", [0, 2, 16])
def test_what_it_yields_is_no_piece(begin, caplog, wrong, says, before):
    """The pieces before are sent, it is closed, and the log says what it was."""
    streaming, peer = begin()
    peer.send(ask(b"[b'a'] * %d + [%s, b'never']" % (before, wrong)))
    assert [next_frame(peer) for _ in range(before)] == [piece(b"a")] * before
    assert next_frame(peer) == failed(wire.HANDLER_FAILED, "TypeError")
    streaming.wait_closed()
    wait_for(lambda: streaming.in_flight() == 0)
    assert len(records(caplog)) == 1
    assert f"the handler {says}" in caplog.text
    assert taken(peer, seconds=0.05) == []


def test_a_piece_that_is_too_large(begin, caplog):
    streaming, peer = begin(ALL, wire.field(wire.MAX_PAYLOAD, struct.pack("!I", 100)))
    peer.send(ask(b"[b'a' * 100, b'b' * 101, b'never']"))
    assert next_frame(peer) == piece(b"a" * 100)
    text = texts.REPLY_TOO_LARGE % (101, 100)
    assert next_frame(peer) == failed(wire.TOO_LARGE, text[:100])
    streaming.wait_closed()
    assert len(records(caplog)) == 1
    assert text in caplog.text
    peer.send(srm(b"b", 2, service=1))
    assert next_frame(peer) == replied(b"B", 2)


def test_the_last_piece_is_too_large_or_none(begin, kind):
    if kind == "async":
        pytest.skip("an async generator returns nothing")
    _, peer = begin(ALL, wire.field(wire.MAX_PAYLOAD, struct.pack("!I", 2)))
    peer.send(ask(b"[b'a'] #"))
    assert next_frame(peer) == piece(b"a")
    assert next_frame(peer) == failed(wire.TOO_LARGE, texts.REPLY_TOO_LARGE[:2])


# The server's end


def stop(streaming, grace):
    thread = threading.Thread(target=streaming.server.stop, args=(grace,))
    thread.start()
    return thread


def test_a_drain_lets_it_finish(begin):
    """Its client is read on, for the sake of CREDIT; what else it asks for comes too late."""
    streaming, peer = begin()
    peer.send(ask(b"[b'x' * 84] * 250"))
    assert len(taken(peer)) == 100
    stopping = stop(streaming, PATIENCE)
    assert next_frame(peer) == wire.LEAVING
    peer.send(credit(1, 10_000) + srm(b"b", 2, service=1) + ask(b"[b'a']", 3))
    found = taken(peer)
    late = [not_started(wire.SHUTTING_DOWN, texts.SHUTTING_DOWN, number) for number in (2, 3)]
    assert [frame for frame in found if frame.kind == wire.ERROR] == late
    assert len(found) == 102
    assert stopping.is_alive()
    peer.send(credit(1, 10_000))
    *replies, last = wire.rest_of(peer)
    assert [frame.flags for frame in replies] == [1] * 50 + [0]
    assert last == wire.goaway(texts.SHUTTING_DOWN)
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    wait_for(lambda: streaming.gone == ["server stopping"])


def test_it_can_be_cancelled_while_the_server_stops(begin):
    streaming, peer = begin()
    peer.send(ask(b"forever()"))
    taken(peer)
    stopping = stop(streaming, PATIENCE)
    assert next_frame(peer) == wire.LEAVING
    peer.send(cancel(1))
    assert wire.rest_of(peer) == [failed(wire.CANCELLED, texts.CANCELLED), wire.goaway(texts.SHUTTING_DOWN)]
    streaming.wait_closed()
    stopping.join(PATIENCE)


def test_the_grace_ends(begin):
    streaming, peer = begin()
    peer.send(ask(b"forever()"))
    taken(peer)
    began = time.monotonic()
    stopping = stop(streaming, 0.3)
    assert wire.rest_of(peer) == [wire.LEAVING, failed(wire.CANCELLED, texts.CUT_SHORT)]
    streaming.wait_closed()
    stopping.join(PATIENCE)
    assert 0.3 <= time.monotonic() - began < PATIENCE / 2


def test_one_that_is_endless_is_not_waited_for(begin):
    """As one that isn't is."""
    streaming, peer = begin(endless=True)
    peer.send(ask(b"forever()"))
    taken(peer)
    began = time.monotonic()
    stopping = stop(streaming, 2 * PATIENCE)
    cut_short = failed(wire.CANCELLED, texts.CUT_SHORT)
    assert wire.rest_of(peer) == [wire.LEAVING, cut_short, wire.goaway(texts.SHUTTING_DOWN)]
    streaming.wait_closed()
    stopping.join(PATIENCE)
    assert time.monotonic() - began < PATIENCE


# Who waits for whom


@pytest.mark.not_over_tls("what the test's own TLS has read ahead is no frame yet")
def test_a_client_that_reads_nothing(begin, kind):
    """What waits for it is bounded by ``output_pause``, however many streams it has; others notice nothing."""
    limits = {"stream_window": 1 << 24, "output_pause": 100_000, "output_timeout": 60}
    streaming, peer = begin(limits=limits)
    peer.send(b"".join(ask(b"forever(10_000)", number) for number in range(1, 21)))
    engine = streaming.server._running.engine
    (client_id,) = streaming.server.clients

    def is_held():
        before = streaming.yielded
        time.sleep(0.1)
        return streaming.yielded == before > 0

    wait_for(is_held)
    assert engine.info(client_id).queued <= 100_000 + 20 * 80_000
    with wire.let_in(streaming.server, ALL) as other:
        other.send(srm(b"b", 2, service=1))
        assert next_frame(other) == replied(b"B", 2)
        if kind != "threads":  # all of its four threads wait
            other.send(ask(b"[b'a']"))
            assert [next_frame(other), next_frame(other)] == [piece(b"a"), replied(b"")]
    before = streaming.yielded
    got = 0
    while streaming.yielded < before + 100:  # it reads again, and they go on
        got += next_frame(peer).kind == wire.REPLY
    assert got > 50


def test_a_handler_that_takes_long_is_no_trouble_to_others(begin):
    """Of one that the loop runs a piece or two at a time."""
    streaming, peer = begin()
    peer.send(ask(b"sleep(0.05, 40)"))
    assert next_frame(peer) == piece(b"slow")
    with wire.let_in(streaming.server, ALL) as other:
        began = time.monotonic()
        other.send(srm(b"b", 2, service=1))
        assert next_frame(other) == replied(b"B", 2)
        assert time.monotonic() - began < 0.5


def test_the_error_of_a_violation_follows_the_pieces(begin):
    streaming, peer = begin()
    peer.send(ask(b"[b'a', b'b']"))
    assert [next_frame(peer) for _ in range(3)] == [piece(b"a"), piece(b"b"), replied(b"")]
    peer.send(wire.frame(wire.CREDIT, b"123", id=1))
    assert wire.rest_of(peer) == [failed(wire.MALFORMED, texts.CREDIT_SIZE, 1)]
    wire.counted(streaming.server, violations=1)


def test_a_remote_error_is_no_surprise():
    """The code of ERROR 11 is a number like others."""
    assert RemoteError("x", wire.NEEDS_STREAM).code == 11
