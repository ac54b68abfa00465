"""Handlers that answer by streams: which functions do, where they run, what they may do, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import io
import threading
import time

import pytest
import wire
from support import PATIENCE, wait_for
from wire import Got, cancel, credit, failed, features, next_frame, pushed, replied, srm

import pysock
from pysock import Limits
from pysock.errors import ParameterError
from pysock.wire import texts

ALL = features(7)
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="base")


def piece(payload: bytes, id: int = 1) -> Got:  # noqa: A002
    return Got(wire.REPLY, wire.MORE, 0, id, payload)


def ask(payload: bytes = b"", id: int = 1, *, service: int = 0) -> bytes:  # noqa: A002
    return srm(payload, id, service=service, flags=wire.TAKES_STREAM)


def asked(server, request=b"", **options):
    """All frames that answer it."""
    with wire.let_in(server, ALL) as peer:
        peer.send(ask(request, **options))
        return until_the_end(peer)


def until_the_end(peer):
    found = []
    while True:
        found.append(next_frame(peer))
        if not (found[-1].kind == wire.REPLY and found[-1].flags):
            return found


def letters(client, request):
    for letter in request:
        yield b"%c" % letter
    return b"."


async def letters_later(client, request):
    for letter in request:
        await asyncio.sleep(0)
        yield b"%c" % letter


class Methods:
    def letters(self, client, request):
        yield from letters(client, request)

    async def later(self, client, request):
        async for letter in letters_later(client, request):
            yield letter

    @staticmethod
    def static(client, request):
        yield request

    @classmethod
    def of_class(cls, client, request):
        yield request


class Object:
    def __call__(self, client, request):
        yield request


class Later:
    async def __call__(self, client, request):
        yield request


def with_more(more, client, request):
    yield more + request


def decorated(function):
    @functools.wraps(function)
    def call(client, request):
        return function(client, request)

    return call


async def coming(client, request):
    await asyncio.sleep(0)
    return letters_later(client, request)


STREAMS = {
    "generator": (letters, None, [b"a", b"b"]),
    "async": (letters_later, None, [b"a", b"b"]),
    "method": (Methods().letters, None, [b"a", b"b"]),
    "async method": (Methods().later, None, [b"a", b"b"]),
    "static": (Methods.static, None, [b"ab"]),
    "class": (Methods.of_class, None, [b"ab"]),
    "object": (Object(), None, [b"ab"]),
    "async object": (Later(), None, [b"ab"]),
    "partial": (functools.partial(with_more, b"_"), None, [b"_ab"]),
    "partial of a partial": (functools.partial(functools.partial(with_more, b"_")), None, [b"_ab"]),
    "decorated": (decorated(letters), "stream", [b"a", b"b"]),
    "lambda": (lambda client, request: (b"%c" % one for one in request), "stream", [b"a", b"b"]),
    "iterator": (lambda client, request: iter([request, request]), "stream", [b"ab", b"ab"]),
    "list": (lambda client, request: [request] * 3, "stream", [b"ab"] * 3),
    "file": (lambda client, request: io.BytesIO(b"1\n2\n" + request), "stream", [b"1\n", b"2\n", b"ab"]),
    "coroutine": (coming, "stream", [b"a", b"b"]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_which_functions_stream(make_server, unix_address, name):
    handler, kind, expected = STREAMS[name]
    server = make_server(unix_address)
    assert server.service(kind=kind)(handler) is handler
    with server:
        assert [frame.payload for frame in asked(server, b"ab")[:-1]] == expected


@pytest.mark.parametrize("threads", [None, 1])
def test_one_that_says_it_streams_may_answer_at_once(make_server, unix_address, threads):
    """By the whole reply; what is neither bytes nor pieces is said to be neither."""
    server = make_server(unix_address)
    server.service(kind="stream", threads=threads)(lambda client, request: eval(request))
    with server:
        assert asked(server, b"b'whole'") == [replied(b"whole")]
        assert asked(server, b"bytearray(b'whole')") == [replied(b"whole")]
        assert asked(server, b"None") == [replied(b"")]
        assert asked(server, b"'text'") == [failed(wire.HANDLER_FAILED, "TypeError")]
        assert asked(server, b"5") == [failed(wire.HANDLER_FAILED, "TypeError")]
        assert asked(server, b"1 / 0") == [failed(wire.HANDLER_FAILED, "ZeroDivisionError")]


def test_one_that_does_not_say_so_does_not_stream(make_server, unix_address, caplog):
    server = make_server(unix_address)
    server.service(lambda client, request: letters(client, request))  # noqa: PLW0108  # it isn't a generator itself
    with server:
        assert asked(server, b"ab") == [failed(wire.HANDLER_FAILED, "TypeError")]
    assert "returned generator, not a bytes-like object: a plain function that returns an iterator is" in caplog.text


# What can't be


def by_hook(client, *more):
    yield True


async def by_async_hook(client, *more):
    yield True


@pytest.mark.parametrize("handler", [letters, letters_later, Object(), functools.partial(with_more, b"")])
def test_a_batch_can_not_stream(make_server, unix_address, handler):
    with pytest.raises(TypeError, match=r"generator; handlers of batches are plain functions that return the replies"):
        make_server(unix_address).batch_service(handler)


@pytest.mark.parametrize("hook", [by_hook, by_async_hook])
def test_a_hook_yields_nothing(make_server, unix_address, hook):
    """Else it would let everybody in."""
    server = make_server(unix_address)
    for register in (server.on_connect, server.on_disconnect):
        with pytest.raises(TypeError, match=r"hook .* is an? (async )?generator"):
            register(hook)
    with pytest.raises(TypeError, match=r"allow= function .* generator"):
        pysock.Server(unix_address, allow=hook)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
@pytest.mark.parametrize("handler", [letters, letters_later])
def test_a_framing_without_ids_has_no_streams(make_server, unix_address, framing, handler):
    server = make_server(unix_address, framing=framing)
    with pytest.raises(ValueError, match=f"framing '{framing}' has no streams, .* use framing='pysock'"):
        server.service(handler)
    server.service(lambda client, request: request)


@pytest.mark.parametrize(
    ("handler", "options", "says"),
    [
        (letters, {"processes": 1}, "processes= is for functions that return the reply: .* use threads="),
        (letters_later, {"threads": 1}, "threads= is for plain functions"),
        (letters, {"kind": "async"}, "kind can't be 'async': .* is a plain generator"),
        (letters, {"on_leave": "finish"}, "on_leave can't be 'finish' of a stream that the loop runs: use threads="),
        (len, {"kind": "streams"}, "kind must be 'async' or 'stream', or left out, not 'streams'"),
        (lambda client, request: request, {"endless": True}, "endless= is of a stream, of an async handler, or of one"),
    ],
)
def test_what_else_can_not_be(make_server, unix_address, handler, options, says):
    with pytest.raises(ParameterError, match=says):
        make_server(unix_address).service(**options)(handler)


def test_a_window_of_nothing(make_server, unix_address):
    with pytest.raises(ValueError, match=r"Limits.stream_window must be more than 0"):
        make_server(unix_address, limits=Limits(stream_window=0))


# What it may do


@pytest.mark.parametrize("kind", ["def", "async", "threads"])
def test_the_request_is_known_while_it_runs_and_while_it_ends(make_server, unix_address, kind):
    server, seen = make_server(unix_address), []

    def note():
        found = pysock.current()
        seen.append((found.client.name, found.service, found.request_id, found.wants_reply))

    def plain(client, request):
        try:
            note()
            while True:
                yield b"x" * 50_000
        finally:
            note()

    async def later(client, request):
        try:
            note()
            while True:
                yield b"x" * 50_000
        finally:
            note()

    server.service("s", threads=1 if kind == "threads" else None)(later if kind == "async" else plain)
    with server, wire.let_in(server, ALL, name=b"me") as peer:
        peer.send(ask(id=9, service=1))
        assert next_frame(peer).flags == wire.MORE
        peer.send(cancel(9))
        wait_for(lambda: len(seen) == 2)
    assert seen == [("me", "s", 9, True)] * 2


@pytest.mark.parametrize("kind", ["def", "async"])
def test_its_variables_are_its_own(make_server, unix_address, kind):
    """Of a plain one those of its client, as of every handler; nobody else sees them."""
    server = make_server(unix_address)

    def plain(client, request):
        for _ in range(2):
            yield VARIABLE.get().encode()
            VARIABLE.set(request.decode())

    async def later(client, request):
        for _ in range(2):
            yield VARIABLE.get().encode()
            VARIABLE.set(request.decode())

    server.service(later if kind == "async" else plain)
    server.service("read")(lambda client, request: VARIABLE.get().encode())
    with server, wire.let_in(server, ALL) as peer, wire.let_in(server, ALL) as other:
        peer.send(ask(b"mine"))
        assert until_the_end(peer) == [piece(b"base"), piece(b"mine"), replied(b"")]
        other.send(ask(b"its") + srm(b"", 2, service=1))
        assert {next_frame(other) for _ in range(4)} == {
            piece(b"base"),
            piece(b"its"),
            replied(b""),
            replied(b"base", 2),
        }
        peer.send(srm(b"", 2, service=1))
        assert next_frame(peer) == replied(b"mine" if kind == "def" else b"base", 2)


def test_what_it_pushes_comes_between_its_pieces(make_server, address):
    server = make_server(address)

    @server.service
    def news(client, request):
        for number in range(3):
            client.send(b"news %d" % number)
            yield b"%d" % number
        client.send(b"the end")

    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask())
        expected = [frame for n in range(3) for frame in (pushed(b"news %d" % n), piece(b"%d" % n))]
        assert [next_frame(peer) for _ in range(8)] == [*expected, pushed(b"the end"), replied(b"")]


def test_after_the_reply(make_server, unix_address):
    """That is, when the stream has ended."""
    server, done = make_server(unix_address), []

    @server.service(threads=1)
    def threads(client, request):
        pysock.current().after_reply(lambda: done.append("threads"))
        yield b"a"
        assert done == []

    @server.service("async")
    async def later(client, request):
        pysock.current().after_reply(lambda: done.append("async"))
        yield b"a"
        assert done == ["threads"]

    with server:
        assert asked(server) == [piece(b"a"), replied(b"")]
        wait_for(lambda: done == ["threads"])
        assert asked(server, service=1) == [piece(b"a"), replied(b"")]
        wait_for(lambda: done == ["threads", "async"])


# Where it runs, and where it ends


def test_a_thread_closes_its_generator_itself(make_server, unix_address):
    """Also where it is in the middle of a step when its client leaves: nobody else can close it then."""
    server, ended, goes_on = make_server(unix_address), [], threading.Event()

    @server.service(threads=1)
    def slow(client, request):
        thread = threading.get_ident()
        try:
            yield b"begun"
            goes_on.wait(PATIENCE)
            yield b"never taken"
        finally:
            ended.append(threading.get_ident() == thread)

    with server:
        with wire.let_in(server, ALL) as peer:
            peer.send(ask())
            assert next_frame(peer) == piece(b"begun")
        wire.counted(server, clients=0)
        assert ended == []
        goes_on.set()
        wait_for(lambda: ended == [True])


def test_a_thread_that_waits_for_credit_serves_nobody_else(make_server, unix_address):
    """Each stream has a worker as long as it lasts; it is free when the stream has ended."""
    server = make_server(unix_address, limits=Limits(stream_window=100))
    server.service(threads=1)(lambda client, request: None)
    server.service("s", threads=1)(letters)
    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask(b"a" * 50, 1, service=1))
        assert [next_frame(peer) for _ in range(6)] == [piece(b"a", 1)] * 6
        peer.send(ask(b"b", 2, service=1) + wire.ping())
        assert next_frame(peer) == wire.ponged()
        peer.send(cancel(1))
        assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED, 1)
        assert [next_frame(peer), next_frame(peer)] == [piece(b"b", 2), replied(b".", 2)]


@pytest.mark.parametrize("kind", ["async", "threads"])
def test_one_that_finishes_goes_on_when_its_client_has_left(make_server, unix_address, kind):
    """To its end, whatever credit there was."""
    server, done = make_server(unix_address, limits=Limits(stream_window=100)), []

    def plain(client, request):
        for _ in range(20):
            yield b"x" * 50
        done.append("done")

    async def later(client, request):
        for _ in range(20):
            yield b"x" * 50
        done.append("done")

    server.service(on_leave="finish", threads=1 if kind == "threads" else None)(later if kind == "async" else plain)
    with server:
        with wire.let_in(server, ALL) as peer:
            peer.send(ask())
            assert next_frame(peer) == piece(b"x" * 50)
        wait_for(lambda: done == ["done"])


@pytest.mark.parametrize("kind", ["def", "async", "threads"])
def test_what_it_raises_at_its_end_is_logged(make_server, unix_address, caplog, kind):
    """Nobody else hears of it: its client has left, and the server lives."""
    server = make_server(unix_address, limits=Limits(stream_window=100))

    def plain(client, request):
        try:
            while True:
                yield b"x" * 50
        finally:
            raise ZeroDivisionError("at the end")

    async def later(client, request):
        try:
            while True:
                yield b"x" * 50
        finally:
            raise ZeroDivisionError("at the end")

    server.service(threads=1 if kind == "threads" else None)(later if kind == "async" else plain)
    server.service("upper")(lambda client, request: request.upper())
    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask())
        assert [next_frame(peer), next_frame(peer)] == [piece(b"x" * 50)] * 2
        peer.send(cancel(1))
        assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED)
        peer.send(srm(b"a", 2, service=1))
        assert next_frame(peer) == replied(b"A", 2)
        if kind == "def":
            assert "at the end" in caplog.text


def test_a_generator_that_yields_at_its_end(make_server, unix_address, caplog):
    server = make_server(unix_address)

    @server.service
    def stubborn(client, request):
        try:
            yield b"a"
            yield b"b" * 300_000
            yield b"c"
        finally:
            yield b"more"

    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask())
        assert [next_frame(peer), next_frame(peer)] == [piece(b"a"), piece(b"b" * 300_000)]
        peer.send(cancel(1) + wire.ping())
        assert {next_frame(peer), next_frame(peer)} == {failed(wire.CANCELLED, texts.CANCELLED), wire.ponged()}
    assert "generator ignored GeneratorExit" in caplog.text


def test_an_async_one_awaits_at_its_end(make_server, unix_address):
    """In its task, which may take its time; its place is free when it has ended."""
    server, ended = make_server(unix_address, limits=Limits(stream_window=100)), []

    @server.service
    async def later(client, request):
        task = asyncio.current_task()
        try:
            while True:
                yield b"x" * 50
        finally:
            await asyncio.sleep(0.05)
            ended.append(asyncio.current_task() is task)

    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask())
        assert [next_frame(peer), next_frame(peer)] == [piece(b"x" * 50)] * 2
        peer.send(cancel(1))
        assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED)
        assert ended == []
        wait_for(lambda: ended == [True])
        (client_id,) = server.clients
        wait_for(lambda: server._running.engine.info(client_id).in_flight == 0)


def test_an_async_one_waits_for_what_it_likes(make_server, unix_address):
    """What it has yielded is sent before it goes on."""
    server = make_server(unix_address)

    @server.service
    async def slow(client, request):
        async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else contextlib.AsyncExitStack():
            for number in range(3):
                yield b"%d" % number
                await asyncio.sleep(0.05)

    with server, wire.let_in(server, ALL) as peer:
        peer.send(ask())
        moments = []
        for number in range(3):
            assert next_frame(peer) == piece(b"%d" % number)
            moments.append(time.monotonic())
        assert next_frame(peer) == replied(b"")
    assert moments[-1] - moments[0] > 0.08


def test_in_a_loop_of_the_programs(make_server, unix_address):
    """All three kinds, and the loop goes on meanwhile."""

    async def main():
        server = make_server(unix_address, limits=Limits(stream_window=1000))
        server.service(letters)
        server.service("async")(letters_later)
        server.service("threads", threads=1)(letters)
        async with server:
            for service in range(3):
                reader, writer = await asyncio.open_unix_connection(unix_address.removeprefix("unix:"))
                writer.write(wire.cir(ALL) + ask(b"a" * 200, service=service))
                frames = []
                while not frames or frames[-1][0] != wire.REPLY or frames[-1][1]:
                    head = await reader.readexactly(12)
                    payload = await reader.readexactly(int.from_bytes(head[:4], "big"))
                    frames.append((head[4], head[5], payload))
                    if len(frames) % 50 == 0:
                        writer.write(credit(1, 50 * 17))
                assert frames[1:-1] == [(wire.REPLY, wire.MORE, b"a")] * 200
                writer.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_server_that_is_left_with_streams_ends(make_server, unix_address):
    """Of each kind one that waits for credit, and one that doesn't."""
    server, closed = make_server(unix_address, limits=Limits(stream_window=1000)), threading.Semaphore(0)

    def plain(client, request):
        try:
            while True:
                yield request
        finally:
            closed.release()

    async def later(client, request):
        try:
            while True:
                yield request
                await asyncio.sleep(0.001)
        finally:
            closed.release()

    server.service("def")(plain)
    server.service("async")(later)
    server.service("threads", threads=2)(plain)
    with server, wire.let_in(server, ALL) as peer:
        for service in (1, 2, 3):
            peer.send(ask(b"x" * 100, 2 * service, service=service) + ask(b"", 2 * service + 1, service=service))
        begun = set()
        while len(begun) < 6:  # of each a piece
            frame = next_frame(peer)
            assert frame.flags == wire.MORE
            begun.add(frame.id)
        began = time.monotonic()
        server.stop(grace=0)
    assert time.monotonic() - began < PATIENCE / 2
    for _ in range(6):
        assert closed.acquire(timeout=PATIENCE)
