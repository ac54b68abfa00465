"""Service requests on the wire, from CIR_ACCEPTED to the end of the connection."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
import wire
from support import wait_for
from wire import Services, cir, failed, frame, goaway, parse, ping, ponged, pushed, replied, say, send_cut, srm, talk

from pysock import Limits
from pysock.wire import texts

CAP = 1000


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=CAP))
    server.asked = Services(server)
    with server:
        yield server


# Replies


@pytest.mark.parametrize("number", [0, 1, 0x01020304, 2**31, 2**32 - 1])
def test_the_reply_has_the_requests_id(server, number):
    """Whatever number it is; all other fields of the header are 0."""
    assert talk(server, srm(b"abc", number)) == [replied(b"ABC", number)]


@pytest.mark.parametrize("cut_at", range(13))
def test_after_a_large_request_another_size(make_server, address, cut_at):
    """Who sent a large request may send anything next: here the header of a small one lies where another large one
    would have ended, cut at each of its bytes.
    """
    server = make_server(address)
    server.asked = Services(server)
    large = 20_000  # so that the kernel hands what follows on in one piece
    with server, wire.let_in(server) as peer:
        for turn in range(3):
            read = server.stats()["bytes_in"] + 100
            data = srm(b"a" * large, 1)
            peer.send(data[:100])
            wait_for(lambda: server.stats()["bytes_in"] == read)  # noqa: B023
            peer.send(data[100:])
            assert wire.next_frame(peer) == replied(b"A" * large, 1)
            first, second = b"b" * (large - cut_at), b"c" * (turn + 1)
            peer.send(srm(first, 2) + srm(second, 3) + srm(b"d", 4))
            answers = [wire.next_frame(peer) for _ in range(3)]
            assert answers == [replied(first.upper(), 2), replied(second.upper(), 3), replied(b"D", 4)]


@pytest.mark.parametrize("left", range(14))
def test_after_a_large_request_one_that_is_too_large(make_server, address, left):
    """Its payload is thrown away as it comes; here its last bytes come together with what follows it."""
    large = 20_000
    server = make_server(address, limits=Limits(max_payload=large))
    server.asked = Services(server)
    with server, wire.let_in(server) as peer:

        def send_read(data):
            read = server.stats()["bytes_in"] + len(data)
            peer.send(data)
            wait_for(lambda: server.stats()["bytes_in"] == read)

        good, bad = srm(b"a" * large, 1), srm(b"b" * (large + 1), 2)
        send_read(good[:100])
        send_read(good[100:] + bad[: len(bad) - left])
        assert wire.next_frame(peer) == replied(b"A" * large, 1)
        assert wire.next_frame(peer) == failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (large + 1, large), 2)
        peer.send(bad[len(bad) - left :] + srm(b"c", 3) + srm(b"d", 4))
        assert [wire.next_frame(peer) for _ in range(2)] == [replied(b"C", 3), replied(b"D", 4)]


def test_each_request_is_answered_exactly_once_and_in_order(server, cut):
    """Also where ids repeat, services mix and some requests fail."""
    data = b"".join(
        [
            srm(b"a", 5),
            srm(b"b", 5),
            srm(b"3", 4, service=Services.SIZE),
            srm(b"x", 3, service=Services.FAIL),
            ping(b"p", 3),
            srm(b"why", 2, service=Services.SAY),
            srm(b"", 1),
            srm(b"x", 0, service=99),
        ]
    )
    assert talk(server, data, cut) == [
        replied(b"A", 5),
        replied(b"B", 5),
        replied(b"sss", 4),
        failed(wire.HANDLER_FAILED, "ZeroDivisionError", 3),
        ponged(b"p", 3),
        failed(wire.HANDLER_FAILED, "why", 2),
        replied(b"", 1),
        failed(wire.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE, 0),
    ]
    wire.counted(server, requests=7, errors=3, disconnected=1, violations=0)


def test_a_batch_answers_as_any_service_does(server, cut):
    """With the ids of the requests; one client's requests in their order."""
    data = b"".join(srm(b"ab%d" % number, number, service=Services.GATHER) for number in range(20))
    assert talk(server, data, cut) == [replied((b"ab%d" % number)[::-1], number) for number in range(20)]


@pytest.mark.parametrize("count", [1, 100])
def test_half_close(server, cut, count):
    """A client that has sent its last is answered everything it asked, then the server closes."""
    answers = talk(server, b"".join(srm(b"%d" % number, number) for number in range(count)), cut)
    assert answers == [replied(b"%d" % number, number) for number in range(count)]
    wire.counted(server, requests=count, disconnected=1)
    server.asked.wait_gone(("", "closed by peer"))


def test_half_close_with_large_replies(make_server, address):
    """What the kernel can't take yet is sent all the same: 100 requests, 100 replies."""
    server = make_server(address)
    Services(server)
    with server:
        requests = b"".join(srm(b"100000", number, service=Services.SIZE) for number in range(100))
        assert talk(server, requests) == [replied(b"s" * 100_000, number) for number in range(100)]


def test_half_close_in_the_middle_of_a_frame(server, cut):
    """The whole requests are answered, the rest is nothing."""
    for rest in (srm(b"abc")[:5], srm(b"abc")[:12], srm(b"abc")[:-1]):
        assert talk(server, srm(b"a", 7) + rest, cut) == [replied(b"A", 7)]


# No reply wanted


def test_no_reply(server, cut):
    """Bit 0 of the flags: the service runs, and nothing is answered, whatever came of it."""
    quiet = [
        srm(b"quiet", 1, flags=wire.NO_REPLY),
        srm(b"x", 2, service=Services.FAIL, flags=wire.NO_REPLY),
        srm(b"x", 3, service=Services.GATHER, flags=wire.NO_REPLY),
        srm(b"x", 4, service=77, flags=wire.NO_REPLY),
        srm(b"x" * (CAP + 1), 5, flags=wire.NO_REPLY),
        srm(b"1001", 6, service=Services.SIZE, flags=wire.NO_REPLY),
    ]
    answers = parse(say(server, cir(name=b"me") + b"".join(quiet) + srm(b"end", 9), cut))[1:]
    assert answers == [replied(b"END", 9)]
    called = [("upper", b"quiet"), ("fail", b"x"), ("gather", b"x"), ("size", b"1001"), ("upper", b"end")]
    assert sorted(server.asked.called_for("me")) == sorted(called)
    wire.counted(server, errors=4)


# Payloads of all sizes


@pytest.mark.parametrize("size", [0, 1, CAP - 1, CAP])
def test_payloads_up_to_the_limit(server, cut, size):
    """The largest payload is as good as any."""
    assert talk(server, srm(b"x" * size, 3) + srm(b"y", 4), cut) == [replied(b"X" * size, 3), replied(b"Y", 4)]


def test_a_payload_over_the_limit(server, cut):
    """ERROR 3, the payload is skipped, whatever it looks like, and the connection lives."""
    data = srm(srm(b"inside") * 100, 3) + srm(b"y", 4) + srm(b"z" * (CAP + 1), 5) + srm(b"end", 6)
    text = texts.REQUEST_TOO_LARGE % (1800, CAP)
    assert talk(server, data, cut) == [
        failed(wire.TOO_LARGE, text, 3),
        replied(b"Y", 4),
        failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (CAP + 1, CAP), 5),
        replied(b"END", 6),
    ]
    wire.counted(server, requests=2, errors=2, over_limit=0, violations=0)


@pytest.mark.parametrize("size", [CAP + 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_payload_over_the_limit_is_refused_by_its_header(server, size):
    """Before a byte of it has come; others are served while it is skipped."""
    with wire.Good(server) as good, wire.let_in(server) as peer:
        peer.send(frame(wire.SRM, id=3, length=size))
        assert wire.next_frame(peer) == failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (size, CAP), 3)
        for _ in range(3):
            peer.send(b"\xff" * 300)
            good.check()
        if size < 2000:
            peer.send(b"\xff" * (size - 900) + srm(b"a", 4))
            assert wire.next_frame(peer) == replied(b"A", 4)


def test_a_large_payload_over_the_limit_is_not_kept(make_server, address):
    """50 MiB that nobody wants pass through, and the next request is answered."""
    server = make_server(address, limits=Limits(max_payload=CAP))
    Services(server)
    with server, wire.let_in(server) as peer:
        size, piece = 50 << 20, bytes(1 << 20)
        peer.send(frame(wire.SRM, id=3, length=size))
        for _ in range(size // len(piece)):
            peer.send(piece)
        peer.send(srm(b"a", 4))
        assert wire.next_frame(peer) == failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (size, CAP), 3)
        assert wire.next_frame(peer) == replied(b"A", 4)


@pytest.mark.parametrize("size", [65_000, 65_536, 65_537, 200_000, 5_000_000])
@pytest.mark.parametrize("cut", ["whole", "random"])
def test_large_requests(make_server, address, cut, size):
    """Over many reads, in order with small ones."""
    server = make_server(address)
    Services(server)
    payload = bytes(range(256)) * (size // 256 + 1)
    with server:
        data = srm(b"a", 1) + srm(payload[:size], 2) + srm(b"b", 3) + srm(payload[1:size], 4) + srm(b"c", 5)
        assert talk(server, data, cut) == [
            replied(b"A", 1),
            replied(payload[:size].upper(), 2),
            replied(b"B", 3),
            replied(payload[1:size].upper(), 4),
            replied(b"C", 5),
        ]


def test_a_reply_over_the_limit(server, cut):
    """``max_payload`` holds in both directions: ERROR 3 with the size."""
    requests = srm(b"1000", 1, service=Services.SIZE) + srm(b"1001", 2, service=Services.SIZE)
    text = texts.REPLY_TOO_LARGE % (CAP + 1, CAP)
    assert talk(server, requests, cut) == [replied(b"s" * CAP, 1), failed(wire.TOO_LARGE, text, 2)]


# Malformed frames


MALFORMED = {
    "a second CIR": (cir(), texts.SECOND_CIR),
    "a second CIR of another version": (cir(version=2), texts.SECOND_CIR),
    "a second CIR of 4 GiB": (frame(wire.CIR, code=1, length=2**32 - 1), texts.SECOND_CIR),
    "a PROOF": (frame(wire.PROOF, bytes(35)), texts.UNASKED_PROOF),
    "a PING of 65 bytes": (ping(bytes(65), 0), texts.LONG_PING),
    "a PING of 4 GiB": (frame(wire.PING, length=2**32 - 1), texts.LONG_PING),
    "a PING with flags": (frame(wire.PING, flags=1), texts.BAD_FLAGS),
    "a BYE with a payload": (frame(wire.BYE, b"x"), texts.LONG_BYE),
    "a BYE with flags": (frame(wire.BYE, flags=0x80), texts.BAD_FLAGS),
    **{f"an SRM with flags {flags:#x}": (srm(b"x", 0, flags=flags), texts.BAD_FLAGS) for flags in (2, 3, 0x80, 0xFF)},
    "a huge SRM with flags": (frame(wire.SRM, flags=2, length=2**32 - 1), texts.BAD_FLAGS),
    **{f"kind {kind:#x}": (frame(kind, b"x", flags=0x55), texts.SERVER_KIND) for kind in wire.SERVERS_KINDS},
    **{f"kind {kind:#x}": (frame(kind, b"x", flags=0x55), texts.UNKNOWN_KIND) for kind in wire.UNKNOWN_KINDS},
}


@pytest.mark.parametrize(("data", "text"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(server, data, text):
    """ERROR 7 behind the earlier replies, then the end; what follows isn't looked at."""
    sent = cir(name=b"me") + srm(b"a", 1) + data + srm(b"not for you", 3)
    answers = parse(say(server, sent, end=False))[1:]
    assert answers == [replied(b"A"), failed(wire.MALFORMED, text, 0)]
    wire.counted(server, violations=1, errors=1, disconnected=1, refused=0)
    assert server.asked.called_for("me") == [("upper", b"a")]
    server.asked.wait_gone(("me", "protocol violation"))


@pytest.mark.parametrize(
    "name", ["a second CIR", "a PING of 65 bytes", "kind 0x83", "kind 0xff", "an SRM with flags 0x2"]
)
def test_malformed_in_any_cut(server, cut, name):
    """The same words however the bytes come."""
    data, text = MALFORMED[name]
    assert talk(server, srm(b"a") + data, cut) == [replied(b"A"), failed(wire.MALFORMED, text, 0)]


@pytest.mark.parametrize("name", ["a PING of 4 GiB", "a second CIR of 4 GiB", "a huge SRM with flags", "kind 0x7f"])
def test_a_malformed_frame_is_found_by_its_header(server, name):
    """The 12 bytes of the header are enough."""
    data, text = MALFORMED[name]
    assert talk(server, data[:12], end=False) == [failed(wire.MALFORMED, text, 0)]


@pytest.mark.parametrize("number", [1, 2**32 - 1])
def test_the_error_of_a_malformed_frame_has_its_id(server, number):
    """So that a client finds the request that was wrong."""
    assert talk(server, srm(b"x", number, flags=2)) == [failed(wire.MALFORMED, texts.BAD_FLAGS, number)]


def test_a_malformed_frame_behind_requests_that_wait_for_a_batch(server, cut):
    """They are answered before the connection ends."""
    sent = srm(b"ab", 1, service=Services.GATHER) + frame(0x7F)
    answers = talk(server, sent, cut)
    assert sorted(answers) == sorted([replied(b"ba", 1), failed(wire.MALFORMED, texts.UNKNOWN_KIND, 0)])


# The others


@pytest.mark.parametrize("size", [0, 1, 64])
def test_ping(server, cut, size):
    """A PONG with the same payload and id."""
    payload = bytes(range(size))
    assert talk(server, ping(payload, 2**32 - 1) + ping(payload, 0), cut) == [
        ponged(payload, 2**32 - 1),
        ponged(payload, 0),
    ]
    wire.counted(server, requests=0, errors=0)


def test_bye(server, cut):
    """An orderly leave: earlier requests are answered, later bytes aren't looked at."""
    sent = cir(name=b"me") + srm(b"a", 1) + srm(b"ab", 2, service=Services.GATHER) + wire.BYE_FRAME + srm(b"b", 3)
    assert parse(say(server, sent, cut, end=False))[1:] == [replied(b"A", 1), replied(b"ba", 2)]
    wire.counted(server, disconnected=1, violations=0)
    server.asked.wait_gone(("me", "left"))
    assert ("upper", b"b") not in server.asked.called_for("me")


def test_push(server, cut):
    """Bytes the client didn't ask for, between its replies, as they were sent: id, code and flags 0."""
    with wire.let_in(server, name=b"me") as peer:
        client = server.clients.by_name("me")
        send_cut(server, peer.sock, srm(b"a", 1), cut)
        assert wire.next_frame(peer) == replied(b"A", 1)
        for payload in (b"", b"one", b"x" * CAP):
            client.send(payload)
            assert wire.next_frame(peer) == pushed(payload)
        assert server.clients.broadcast(b"all") == 1
        assert wire.next_frame(peer) == pushed(b"all")
        send_cut(server, peer.sock, srm(b"b", 2), cut)
        assert wire.next_frame(peer) == replied(b"B", 2)
    wire.counted(server, pushes=4, disconnected=1)


def test_pushes_keep_their_order(server):
    """Many from another thread, of all sizes: none is lost, none overtakes another."""
    payloads = [b"%d " % number + b"x" * (number * 7 % 990) for number in range(500)]
    with wire.let_in(server, name=b"me") as peer:
        client = server.clients.by_name("me")
        for payload in payloads:
            client.send(payload)
        assert [wire.next_frame(peer) for _ in payloads] == [pushed(payload) for payload in payloads]


# The server stops


def test_goaway(server, cut):
    """At stop every client hears GOAWAY; then the server closes."""
    with wire.let_in(server) as peer, wire.let_in(server) as other:
        send_cut(server, peer.sock, srm(b"a"), cut)
        assert wire.next_frame(peer) == replied(b"A")
        server.stop()
        for each in (peer, other):
            assert wire.rest_of(each) == [goaway(texts.SHUTTING_DOWN)]
    server.asked.wait_gone(*[("", "server stopping")] * 2)


def test_requests_that_come_too_late(make_server, address):
    """What was read before the stop is answered, what still lies in the kernel gets ERROR 5: it wasn't run."""
    server = make_server(address)
    asked = Services(server)
    go_on = threading.Event()

    @server.service("stop")
    def stop(client, request):
        assert go_on.wait(10)
        server.stop()
        return b"stopping"

    with server, wire.let_in(server, name=b"me") as peer, wire.let_in(server, name=b"you") as other:
        peer.send(srm(b"", 1, service=5) + srm(b"read", 2))
        wait_for(lambda: server.stats()["requests"] == 1)
        other.send(srm(b"late", 3) + srm(b"9", 4, service=Services.SIZE) + ping(b"p", 5))
        peer.send(srm(b"late", 6))
        go_on.set()
        told, text = goaway(texts.SHUTTING_DOWN), texts.SHUTTING_DOWN
        assert wire.rest_of(peer) == [
            replied(b"stopping", 1),
            replied(b"READ", 2),
            told,
            failed(wire.SHUTTING_DOWN, text, 6),
        ]
        assert wire.rest_of(other) == [
            told,
            failed(wire.SHUTTING_DOWN, text, 3),
            failed(wire.SHUTTING_DOWN, text, 4),
            ponged(b"p", 5, wire.SHUTTING_DOWN),
        ]
    assert asked.called_for("you") == []
    assert server.stats()["errors"] == 3


def test_half_close_before_the_stop(server):
    """Who has sent its last and waits for its replies is answered and closed as any other."""
    with wire.let_in(server, name=b"me") as peer:
        peer.send(srm(b"ab", 1, service=Services.GATHER))
        peer.sock.shutdown(socket.SHUT_WR)
        assert wire.rest_of(peer) == [replied(b"ba", 1)]


@pytest.mark.parametrize("more", [1, 30_000, 1_000_000])
@pytest.mark.parametrize("ending", ["malformed", "closed by the server", "server stopping"])
def test_last_words_are_not_overtaken_by_a_reset(make_server, address, ending, more):
    """A large reply and what comes behind it arrive whole, though the client goes on sending what nobody reads."""
    server = make_server(address, limits=Limits(output_pause=10_000_000))
    asked = Services(server)
    server.service("close")(lambda client, request: client.close())
    size = 2_000_000
    last, told = {
        "malformed": (frame(0x7F), failed(wire.MALFORMED, texts.UNKNOWN_KIND, 0)),
        "closed by the server": (srm(b"", 2, service=5), replied(b"", 2)),
        "server stopping": (b"", goaway(texts.SHUTTING_DOWN)),
    }[ending]
    with server, wire.let_in(server) as peer:
        peer.send(srm(b"%d" % size, 1, service=Services.SIZE) + last)
        wait_for(lambda: asked.calls)
        stopping = threading.Thread(target=server.stop)
        if ending == "server stopping":
            stopping.start()
        client = server.clients.get(1 << 32)
        wait_for(lambda: client is None or client.state.name != "ESTABLISHED")
        peer.sock.setblocking(False)
        with contextlib.suppress(OSError):
            peer.send(bytes(more))
        peer.sock.settimeout(10)
        assert wire.rest_of(peer) == [replied(b"s" * size, 1), told]
        if ending == "server stopping":
            stopping.join(10)
