"""What a handler may do, and what it may do wrong: the client gets what is due, the server and all others live on."""

from __future__ import annotations

import array
import contextlib
import threading
import time

import pytest
import wire
from support import wait_for
from wire import failed, field, goaway, ping, ponged, pushed, replied, srm, talk

from pysock import Limits, RemoteError, connect
from pysock.wire import texts


@pytest.fixture
def server(make_server, address):
    server = make_server(address)
    server.service("upper")(lambda client, request: request.upper())
    server.gone = []
    server.on_disconnect(lambda client, reason: server.gone.append((client.name, reason.value)))
    return server


UPPER = 1


# What it returns


class Text(bytes):
    """A subclass of bytes."""


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        (None, b""),
        (b"", b""),
        (b"x", b"x"),
        (Text(b"x"), b"x"),
        (bytearray(b"x"), b"x"),
        (bytearray(), b""),
        (memoryview(b"abc")[1:], b"bc"),
        (memoryview(b"abcd")[::2], b"ac"),
        (array.array("H", [0x4141, 0x4242]), b"AABB"),
        (memoryview(array.array("H", [0x4141, 0x4242])), b"AABB"),
        (bytearray(b"x" * 100_000), b"x" * 100_000),
        (memoryview(b"x" * 100_000), b"x" * 100_000),
    ],
    ids=lambda value: f"{type(value).__name__} {len(value or b'')}",
)
def test_anything_bytes_like(server, cut, made, sent):
    """The reply is its bytes; ``None`` is none."""
    server.service(lambda client, request: made)
    with server:
        assert talk(server, srm(b"a", 1) + srm(b"b", 2), cut) == [replied(sent, 1), replied(sent, 2)]


def released():
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("text", "TypeError"),
        (5, "TypeError"),
        (5.0, "TypeError"),
        (True, "TypeError"),
        ([b"x"], "TypeError"),
        ((b"x",), "TypeError"),
        ({}, "TypeError"),
        (object(), "TypeError"),
        (ValueError("not raised"), "TypeError"),
        (bytes, "TypeError"),
        (Ellipsis, "TypeError"),
        (released(), "ValueError"),
        ((byte for byte in b"x"), "TypeError"),
        (lambda: b"x", "TypeError"),
        (bytearray, "TypeError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_garbage(server, cut, made, kind):
    """ERROR 1 with the name of the exception, no more; and one log record."""
    server.service(lambda client, request: made)
    with server:
        data = srm(b"a", 1) + srm(b"b", 2, service=UPPER) + srm(b"c", 3, flags=wire.NO_REPLY)
        assert talk(server, data, cut) == [failed(wire.HANDLER_FAILED, kind, 1), replied(b"B", 2)]
        wire.counted(server, errors=2, requests=3)


def test_one_buffer_for_all_replies(server, cut):
    """A reply is what it was when the handler returned it, though the buffer is used again."""
    buffer = bytearray(40_000)

    @server.service
    def reuse(client, request):
        buffer[:] = request * 40_000
        return buffer if request < b"5" else memoryview(buffer)

    with server:
        data = b"".join(srm(b"%d" % number, number) for number in range(10))
        assert talk(server, data, cut) == [replied(b"%d" % number * 40_000, number) for number in range(10)]


def test_a_request_is_the_handlers_own(server):
    """It stays what it was, whatever comes later."""
    kept = []
    server.service(lambda client, request: kept.append(request))
    with server:
        wanted = [b"%d" % number * size for number in range(5) for size in (1, 100, 70_000, 200_000)]
        answers = talk(server, b"".join(srm(each, 1) for each in wanted), "random")
        assert answers == [replied(b"")] * len(wanted)
    assert kept == wanted
    assert {type(each) for each in kept} == {bytes}


# What it raises


class OddError(Exception):
    """An exception that can't even be shown."""

    def __str__(self):
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.plain
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("secret"), 1, "ValueError"),
        (OSError(5, "secret"), 1, "OSError"),
        (StopIteration(), 1, "StopIteration"),
        (MemoryError(), 1, "MemoryError"),
        (RecursionError(), 1, "RecursionError"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "secret"), 1, "UnicodeDecodeError"),
        (TimeoutError(), 1, "TimeoutError"),
        (OddError(), 1, "OddError"),
        (RemoteError("for you"), 1, "for you"),
        (RemoteError("näh", 6), 6, "näh"),
        (RemoteError("", 99), 99, ""),
        (RemoteError("\udcff?", 65535), 65535, "??"),
        (RemoteError("x", 65536), 1, "x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_raising(server, cut, error, code, text):
    """ERROR 1 with the type's name; the text of a RemoteError, and its code."""

    @server.service
    def fail(client, request):
        raise error

    with server:
        data = srm(b"a", 1) + srm(b"b", 2, service=UPPER)
        assert talk(server, data, cut) == [failed(code, text, 1), replied(b"B", 2)]
        wire.counted(server, errors=1)


def test_raising_the_same_exception_again_and_again(server):
    """One object for all, as some libraries do."""
    error = ValueError()

    @server.service
    def fail(client, request):
        raise error

    with server:
        answers = talk(server, b"".join(srm(id=number) for number in range(50)))
        assert answers == [failed(1, "ValueError", number) for number in range(50)]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 5, 100])
def test_a_long_error_is_cut_to_what_the_client_takes(server, most):
    """Between two characters; never more bytes than the client said it takes."""

    @server.service
    def fail(client, request):
        raise RemoteError("aäö" * 100, 7)

    with server, wire.let_in(server, field(wire.MAX_PAYLOAD, most.to_bytes(4, "big"))) as peer:
        peer.send(srm())
        cut = ("aäö" * 100).encode()[:most].decode("utf-8", "ignore")
        assert wire.next_frame(peer) == failed(7, cut)


def test_recursing_without_end(server):
    """A RecursionError like any exception, as often as it happens, and also where it happens in what is returned."""

    def deeper(level):
        return deeper(level + 1)

    class Deep:
        def __getattribute__(self, name):
            return deeper(0)

    @server.service
    def recurse(client, request):
        return Deep() if request == b"later" else deeper(0)

    server.batch_service("batch")(lambda clients, requests: deeper(0))
    with server:
        data = srm(b"a", 1) + srm(b"later", 2) + srm(b"b", 3, service=UPPER) + srm(b"c", 4, service=2) + srm(b"d", 5)
        answers = sorted(talk(server, data), key=lambda frame: frame.id)
        errors = [answer for answer in answers if answer.kind == wire.ERROR]
        assert [error.id for error in errors] == [1, 2, 4, 5]
        assert {error.payload for error in errors} <= {b"RecursionError", b"TypeError"}
        assert errors[0].payload == errors[2].payload == errors[3].payload == b"RecursionError"
        assert replied(b"B", 3) in answers
        assert talk(server, srm(b"b", service=UPPER)) == [replied(b"B")]


class OddExit(BaseException):
    """One that is neither an Exception nor anything Python knows."""


def test_closing_a_client_of_its_own(server, make_server, unix_address):
    """A handler may be a client of another server, and close that one, and that server."""
    other = make_server(unix_address + "2")
    other.service(lambda client, request: request * 2)

    @server.service
    def ask(client, request):
        with connect(other.addresses[0], backend=other.backend) as inner:
            found = inner.request(request)
        if request == b"stop":
            other.stop(1)
        return found + other.state.name.encode()

    with other, server:
        assert talk(server, srm(b"a", 1)) == [replied(b"aaSERVING", 1)]
        assert talk(server, srm(b"stop", 1)) == [replied(b"stopstopCLOSED", 1)]
        wire.counted(server, errors=0)


@pytest.mark.plain
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, OddExit])
@pytest.mark.parametrize("batch", [False, True], ids=["plain", "batch"])
def test_what_is_no_exception_ends_the_server(server, kind, batch):
    """It comes out of ``serve_forever``, what was answered before is sent, every connection is closed."""

    def end(client, request):
        if request in (b"end", [b"end"]):
            raise kind
        return request

    server.batch_service(end) if batch else server.service(end)
    frames = []

    def drive():
        wait_for(lambda: server.state.name == "SERVING")
        with wire.let_in(server, name=b"other") as other, wire.let_in(server, name=b"it") as it:
            it.send(srm(b"a", 1, service=UPPER) + srm(b"end", 2) + srm(b"b", 3, service=UPPER))
            frames.append(wire.rest_of(it))
            frames.append(wire.rest_of(other))

    thread = threading.Thread(target=drive)
    thread.start()
    with pytest.raises(kind):
        server.serve_forever()
    thread.join(10)
    assert server.state.name == "CLOSED"
    assert frames == [[replied(b"A", 1), replied(b"B", 3)][: 1 + batch], []]


# What it does to connections


def test_closing_its_own_client(server, cut):
    """The reply is sent, what came before it too; what comes behind it isn't looked at."""

    @server.service
    def close(client, request):
        client.close()
        client.close()
        return request

    with server, wire.let_in(server, name=b"it") as peer:
        wire.send_cut(
            server, peer.sock, srm(b"a", 1, service=UPPER) + srm(b"bye", 2) + srm(b"b", 3, service=UPPER), cut
        )
        assert wire.rest_of(peer) == [replied(b"A", 1), replied(b"bye", 2)]
        wire.counted(server, disconnected=1, requests=2)
        wait_for(lambda: server.gone == [("it", "closed by server")])


def test_closing_its_own_client_and_failing(server):
    """The ERROR is sent as well."""

    @server.service
    def close(client, request):
        client.close()
        raise ValueError

    with server:
        assert talk(server, srm(), end=False) == [failed(1, "ValueError")]


def test_closing_with_a_large_reply(server):
    """All of it arrives before the end, however slowly it is read."""

    @server.service
    def close(client, request):
        client.close()
        return b"x" * 5_000_000

    with server, wire.let_in(server) as peer:
        peer.send(srm())
        wait_for(lambda: server.stats()["requests"])
        assert wire.rest_of(peer) == [replied(b"x" * 5_000_000)]


def test_closing_another_client(server):
    """In order: what the other one asked before is answered."""

    @server.service
    def close(client, request):
        server.clients.by_name(request.decode()).close()

    with server, wire.let_in(server, name=b"it") as it, wire.let_in(server, name=b"killer") as killer:
        it.send(srm(b"a", 1, service=UPPER))
        assert wire.next_frame(it) == replied(b"A", 1)
        killer.send(srm(b"it", 1) + srm(b"b", 2, service=UPPER))
        assert wire.rest_of(it) == []
        assert [wire.next_frame(killer), wire.next_frame(killer)] == [replied(b"", 1), replied(b"B", 2)]
        wait_for(lambda: server.gone == [("it", "closed by server")])


def test_closing_everybody(server):
    """Also itself, and with requests of the others waiting in the kernel."""

    @server.service
    def close(client, request):
        for other in list(server.clients.values()):
            other.close()
        return b"all"

    with server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(wire.let_in(server, name=b"%d" % number)) for number in range(20)]
        for peer in peers[1:]:
            peer.send(srm(b"a", service=UPPER))
        peers[0].send(srm(b"x"))
        assert wire.rest_of(peers[0]) == [replied(b"all")]
        for peer in peers[1:]:
            assert wire.rest_of(peer) in ([], [replied(b"A")])
        wire.counted(server, disconnected=20)
        assert talk(server, srm(b"a", service=UPPER)) == [replied(b"A")]


def test_stopping_the_server(server, cut):
    """Its reply is sent, then GOAWAY, then the end."""

    @server.service
    def stop(client, request):
        server.stop()
        server.stop(5)
        return b"stopping"

    with server, wire.let_in(server) as other:
        answers = talk(server, srm(b"a", 1, service=UPPER) + srm(b"x", 2), cut, end=False)
        assert answers == [replied(b"A", 1), replied(b"stopping", 2), goaway(texts.SHUTTING_DOWN)]
        assert wire.rest_of(other) == [goaway(texts.SHUTTING_DOWN)]
        wait_for(lambda: server.state.name == "CLOSED")


def test_stopping_the_server_at_once(server):
    """``stop(0)`` gives nobody time; the handler's own reply goes if the kernel takes it."""

    @server.service
    def stop(client, request):
        server.stop(0)
        return b"stopping"

    with server, wire.let_in(server) as peer:
        peer.send(srm())
        assert wire.rest_of(peer) in (
            [],
            [replied(b"stopping")],
            [replied(b"stopping"), goaway(texts.SHUTTING_DOWN)],
        )
        wait_for(lambda: server.state.name == "CLOSED")


def test_looking_at_the_table(server):
    """Everything the table knows may be asked inside a handler."""

    @server.service
    def look(client, request):
        row = server.clients[client.id]
        assert row is client
        assert len(list(server.clients)) == len(server.clients) == server.stats()["clients"]
        return b"%s %d %d" % (client.state.name.encode(), client.requests, client.bytes_in)

    with server:
        one, two = srm(b"a", 1), srm(b"b", 2)
        size = len(wire.cir()) + len(one) + len(two)
        assert talk(server, one + two) == [
            replied(b"ESTABLISHED 1 %d" % size, 1),
            replied(b"ESTABLISHED 2 %d" % size, 2),
        ]


# Pushes


def test_pushing_to_itself(server, cut):
    """In the order of the calls: before its reply, behind the replies before."""

    @server.service
    def push(client, request):
        client.send(b"one " + request)
        client.send(b"")
        client.send(bytearray(b"x" * 50_000))
        return b"reply " + request

    with server:
        expected = []
        for number, word in enumerate([b"a", b"b"]):
            expected += [pushed(b"one " + word), pushed(b""), pushed(b"x" * 50_000), replied(b"reply " + word, number)]
        data = srm(b"z", 9, service=UPPER) + srm(b"a", 0) + srm(b"b", 1) + ping(b"p", 2)
        assert talk(server, data, cut) == [replied(b"Z", 9), *expected, ponged(b"p", 2)]


def test_pushing_to_others(server):
    """At once, without waiting for their next word."""

    @server.service
    def tell(client, request):
        for other in server.clients.values():
            if other is not client:
                other.send(request)
        return b"%d" % server.clients.broadcast(b"all")

    with server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(wire.let_in(server)) for _ in range(10)]
        peers[0].send(srm(b"news"))
        assert [wire.next_frame(peers[0]) for _ in range(2)] == [pushed(b"all"), replied(b"10")]
        for peer in peers[1:]:
            assert [wire.next_frame(peer) for _ in range(2)] == [pushed(b"news"), pushed(b"all")]


def test_pushing_to_one_who_is_gone(server):
    """It raises ConnectionError, which a handler may leave to the server."""
    kept = []

    @server.service
    def push(client, request):
        kept.append(client)
        kept[0].send(b"x")

    with server, wire.let_in(server, name=b"other") as other:
        first = wire.let_in(server, name=b"first")
        first.send(srm())
        assert [wire.next_frame(first), wire.next_frame(first)] == [pushed(b"x"), replied(b"")]
        first.close()
        wire.counted(server, clients=1)
        other.send(srm(b"", 1) + srm(b"a", 2, service=UPPER))
        assert [wire.next_frame(other), wire.next_frame(other)] == [failed(1, "ConnectionLost", 1), replied(b"A", 2)]


def test_pushing_to_one_who_is_leaving(server):
    """A client that is being closed takes no more pushes."""

    @server.service
    def close_then_push(client, request):
        client.close()
        client.send(b"too late")

    with server:
        assert talk(server, srm(), end=False) == [failed(1, "ConnectionLost")]


def test_pushing_too_much_to_itself(make_server, address):
    """Over ``output_drop`` it is dropped in the middle of its own handler; the handler's next push raises."""
    server = make_server(address, limits=Limits(output_pause=10_000, output_drop=1_000_000))
    raised = []

    @server.service
    def flood(client, request):
        try:
            for _ in range(500):
                client.send(bytes(100_000))
        except ConnectionError as error:
            raised.append(error)
            raise
        return b"never sent"

    server.service("upper")(lambda client, request: request.upper())
    with server, wire.let_in(server) as other:
        with wire.let_in(server) as peer:
            peer.send(srm(b"x", 1) + srm(b"a", 2, service=UPPER))
            wait_for(lambda: raised)
            wire.counted(server, clients=1, over_limit=1, pushes=server.stats()["pushes"])
        other.send(srm(b"a", service=UPPER))
        assert wire.next_frame(other) == replied(b"A")


def test_a_broadcast_leaves_out_nobody_but_those_who_are_dropped(make_server, address):
    """One who doesn't read costs nobody else a message."""
    server = make_server(address, limits=Limits(output_pause=10_000, output_drop=500_000))
    with server, wire.let_in(server, name=b"stuck"), wire.let_in(server, name=b"reads") as reads:
        count = 0
        while server.stats()["clients"] == 2:
            server.clients.broadcast(b"%06d" % count * 3000)
            assert wire.next_frame(reads) == pushed(b"%06d" % count * 3000)
            count += 1
            assert count < 2000
        server.clients.broadcast(b"last")
        assert wire.next_frame(reads) == pushed(b"last")
        wire.counted(server, clients=1, over_limit=1)


# Large replies


LARGE = 5 << 20


def test_large_replies_to_slow_readers(server):
    """Each whole and in order, to several at once, between small ones; those who read fast don't wait."""
    server.service(lambda client, request: request * LARGE)
    with server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(wire.let_in(server)) for _ in range(3)]
        for number, peer in enumerate(slow):
            peer.send(srm(b"%d" % number, 1) + srm(b"a", 2, service=UPPER) + srm(b"x", 3) + srm(b"b", 4, service=UPPER))
        with wire.let_in(server) as fast:
            fast.send(srm(b"a", 1, service=UPPER))
            assert wire.next_frame(fast) == replied(b"A", 1)
        for number, peer in enumerate(slow):
            assert wire.next_frame(peer) == replied(b"%d" % number * LARGE, 1)
            assert wire.next_frame(peer) == replied(b"A", 2)
            assert wire.next_frame(peer) == replied(b"x" * LARGE, 3)
            assert wire.next_frame(peer) == replied(b"B", 4)


def test_pushes_between_large_replies(server):
    """A push never comes into the middle of a reply, also where the kernel has taken half of it."""
    server.service(lambda client, request: request * LARGE)
    with server, wire.let_in(server, name=b"it") as peer:
        client = server.clients.by_name("it")
        peer.send(srm(b"r", 1))
        wait_for(lambda: client.requests == 1)
        for number in range(5):
            client.send(b"push %d" % number)
        client.send(b"p" * LARGE)
        peer.send(srm(b"a", 2, service=UPPER))
        assert wire.next_frame(peer) == replied(b"r" * LARGE, 1)
        got = [wire.next_frame(peer) for _ in range(7)]
        assert [each for each in got if each.kind == wire.PUSH] == [
            *[pushed(b"push %d" % number) for number in range(5)],
            pushed(b"p" * LARGE),
        ]
        assert replied(b"A", 2) in got


@pytest.mark.parametrize("size", [32_767, 32_768, 65_536, 262_131, 262_132, 262_133, 262_144, 300_000])
def test_replies_around_the_sizes_of_buffers(server, size):
    """Large and small ones mixed, none torn."""
    server.service(lambda client, request: request * size)
    with server:
        data = b"".join(srm(b"%d" % (number % 10), number, service=number % 2) for number in range(24))
        expected = [replied(b"%d" % (n % 10) * (1 if n % 2 else size), n) for n in range(24)]
        assert talk(server, data) == expected


def test_many_small_replies_to_one_who_reads_late(server):
    """As many as the kernel's buffers don't hold."""
    server.service(lambda client, request: request * 10)
    with server, wire.let_in(server) as peer:
        count = 20_000
        sender = threading.Thread(target=peer.send, args=[b"".join(srm(b"%06d" % n, n) for n in range(count))])
        sender.start()
        time.sleep(0.05)  # not for a condition: to be late
        for number in range(count):
            assert wire.next_frame(peer) == replied(b"%06d" % number * 10, number)
        sender.join(10)


def test_requests_are_objects_of_their_own(server):
    """One that its handler keeps stays as it is; one that isn't kept leaves nothing behind, not even its hash."""
    answers, kept = {b"first": b"1", b"other": b"2"}, []

    @server.service
    def look_up(client, request):
        if request == b"stays":
            kept.append(request)
        return answers.get(request, b"?")

    with server, connect(server.addresses[0]) as client:
        asked = [b"first", b"other", b"stays", b"other", b"first", b"stays", b"longer one", b"first", b"", b"x", b"x"]
        assert client.request_many(asked) == [answers.get(request, b"?") for request in asked]
    assert kept == [b"stays", b"stays"]
