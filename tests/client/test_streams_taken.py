"""Streams as clients take them: blocking and asyncio ones, that heal, and pools; on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
from proxy import between
from restarted import FAST
from support import wait_for

import pysock
import pysock.aio
from pysock import (
    ConnectionLost,
    Limits,
    OutcomeUnknown,
    ProtocolError,
    PysockError,
    RemoteError,
    RequestTimeout,
)
from pysock.errors import FrameTooLarge
from pysock.wire.cir import decode_cir, encode_accepted, encode_welcome
from pysock.wire.features import CLIENT_FEATURES
from pysock.wire.format import FLAG_DEADLINE, FLAG_MORE, FLAG_TAKES_STREAM, Kind, ServiceOption, encode

WINDOW = 5000


class Streamer:
    """A server of which the test sees how far its generators are."""

    def __init__(self, make_server, address, **limits):
        self.made = 0
        self.ended = threading.Event()
        self.begun = threading.Event()
        self.held = threading.Event()
        self.server = make_server(address, limits=Limits(stream_window=WINDOW, **limits))
        for name in ("count", "endless", "bad", "empty", "silent", "echo", "large", "pushing"):
            self.server.service(name)(getattr(self, name))
        self.server.service("held", threads=1)(self.wait)

    def count(self, client, request):
        for number in range(int(request)):
            yield b"%d " % number
        return b"end"

    def endless(self, client, request):
        try:
            while True:
                self.made += 1
                yield b"x" * int(request)
        finally:
            self.ended.set()

    def bad(self, client, request):
        yield b"one"
        yield b"two"
        raise RemoteError("no more", 77)

    def empty(self, client, request):
        return
        yield

    def silent(self, client, request):
        reply = pysock.later()
        self.kept = reply
        return reply

    def wait(self, client, request):
        self.begun.set()
        yield b"first"
        self.held.wait(5)
        yield b"second"

    def echo(self, client, request):
        return request

    def large(self, client, request):
        yield b"small"
        yield bytes(int(request))

    def pushing(self, client, request):
        for number in range(5):
            client.send(b"push %d" % number)
            yield b"piece %d" % number

    @property
    def address(self):
        return self.server.addresses[0]


def is_usable(client):
    return client.closed or client.ended or client.request(b"?", "echo") == b"?"


async def are_usable(client):
    return client.closed or client.ended or await client.request(b"?", "echo") == b"?"


class Blocking:
    """What there is of a stream, and what it ended with."""

    def __init__(self, backend):
        self.backend = backend

    def take(self, address, payload, service, most=None, timeout=None, patience=10.0, **options):
        with pysock.connect(address, timeout=patience, backend=self.backend, **options) as client:
            found = []
            try:
                with client.stream(payload, service, timeout) as stream:
                    for piece in stream:
                        found.append(piece)
                        if len(found) == most:
                            break
            except (PysockError, FrameTooLarge) as error:
                found.append(error)
            self.usable = is_usable(client)
            return found

    def request(self, address, payload, service, **options):
        with pysock.connect(address, backend=self.backend, **options) as client:
            try:
                return client.request(payload, service)
            except PysockError as error:
                return error
            finally:
                self.usable = is_usable(client)


class Awaiting(Blocking):
    """The same of an asyncio client."""

    def take(self, address, payload, service, most=None, timeout=None, patience=10.0, **options):
        async def main():
            async with pysock.aio.connect(address, timeout=patience, backend=self.backend, **options) as client:
                found = []
                try:
                    async with client.stream(payload, service, timeout) as stream:
                        async for piece in stream:
                            found.append(piece)
                            if len(found) == most:
                                break
                except (PysockError, FrameTooLarge) as error:
                    found.append(error)
                self.usable = await are_usable(client)
                return found

        return asyncio.run(main())

    def request(self, address, payload, service, **options):
        async def main():
            async with pysock.aio.connect(address, backend=self.backend, **options) as client:
                try:
                    return await client.request(payload, service)
                except PysockError as error:
                    return error
                finally:
                    self.usable = await are_usable(client)

        return asyncio.run(main())


@pytest.fixture(params=[Blocking, Awaiting])
def taker(request, backend):
    return request.param(backend)


@pytest.fixture
def streamer(make_server, unix_address):
    one = Streamer(make_server, unix_address)
    one.server.start()
    return one


def test_pieces_come_as_they_were_yielded(taker, streamer):
    assert taker.take(streamer.address, b"3", "count") == [b"0 ", b"1 ", b"2 ", b"end"]
    assert taker.take(streamer.address, b"", "empty") == []
    assert len(taker.take(streamer.address, b"2000", "count")) == 2001  # over the window


@pytest.mark.parametrize("payload", [b"hello", b"", b"x" * 100_000], ids=["some", "empty", "large"])
def test_a_service_that_answers_at_once_gives_one_piece(taker, streamer, payload):
    assert taker.take(streamer.address, payload, "echo", timeout=5) == [payload]


def test_a_request_joins_the_pieces(taker, streamer):
    assert taker.request(streamer.address, b"3", "count") == b"0 1 2 end"
    assert taker.request(streamer.address, b"", "empty") == b""


def test_what_is_joined_has_a_bound_and_the_client_goes_on(taker, streamer):
    error = taker.request(streamer.address, b"100", "endless", max_payload=1000)
    assert isinstance(error, FrameTooLarge)
    assert "more than 1000 bytes" in str(error)
    assert "stream()" in str(error)
    assert streamer.ended.wait(5)
    assert taker.usable


def test_who_leaves_early_ends_the_generator(taker, streamer):
    assert taker.take(streamer.address, b"10", "endless", most=3) == [b"x" * 10] * 3
    assert streamer.ended.wait(5)
    assert taker.usable


def test_an_error_comes_behind_the_pieces(taker, streamer):
    *pieces, error = taker.take(streamer.address, b"", "bad")
    assert pieces == [b"one", b"two"]
    assert isinstance(error, RemoteError)
    assert (error.code, str(error)) == (77, "no more")
    error = taker.request(streamer.address, b"", "bad")
    assert isinstance(error, RemoteError)
    assert taker.usable


def test_the_whole_has_a_deadline_where_one_is_given(taker, streamer):
    *pieces, error = taker.take(streamer.address, b"10", "endless", timeout=0.1)
    assert pieces
    assert isinstance(error, RequestTimeout)
    assert streamer.ended.wait(5)
    assert taker.usable


def test_else_each_piece_has_the_clients(taker, streamer):
    *pieces, error = taker.take(streamer.address, b"", "held", patience=0.15)
    assert pieces == [b"first"]
    assert isinstance(error, RequestTimeout)
    assert taker.usable


def test_a_piece_over_what_the_client_takes_is_the_servers_error(taker, streamer):
    *pieces, error = taker.take(streamer.address, b"2000", "large", max_payload=1000)
    assert pieces == [b"small"]
    assert isinstance(error, RemoteError)
    assert taker.usable


def test_pushes_of_the_handler_are_kept_meanwhile(streamer, backend):
    with pysock.connect(streamer.address, backend=backend) as client:
        assert len(list(client.stream(b"", "pushing"))) == 5
        assert list(client.pushes(0)) == [b"push %d" % number for number in range(5)]
        seen = []
        client.on_push(seen.append)
        assert len(list(client.stream(b"", "pushing"))) == 5
        wait_for(lambda: len(seen) == 5)


def test_a_slow_reader_stops_its_own_stream_only(streamer, backend):
    with pysock.connect(streamer.address, backend=backend) as client:
        with client.stream(b"100", "endless") as slow:
            next(slow)
            assert client.request(b"5", "count") == b"0 1 2 3 4 end"
            made = streamer.made
            assert made <= WINDOW // 116 + 2
            assert len(list(client.stream(b"3000", "count"))) == 3001
            assert client.request(b"a", "echo") == b"a"
            assert streamer.made <= WINDOW // 116 + 2
            for _ in range(3 * made):
                next(slow)
        assert streamer.ended.wait(5)
        assert client.request_many([b"a", b"b"], "echo") == [b"a", b"b"]


def test_a_slow_task_stops_its_own_stream_only(streamer, backend):
    async def main():
        async with pysock.aio.connect(streamer.address, backend=backend) as client:
            async with client.stream(b"100", "endless") as slow:
                await anext(slow)
                assert await client.request(b"5", "count") == b"0 1 2 3 4 end"
                made = streamer.made
                assert made <= WINDOW // 116 + 2
                assert len([piece async for piece in client.stream(b"3000", "count")]) == 3001
                assert streamer.made <= WINDOW // 116 + 2
                for _ in range(3 * made):
                    await anext(slow)
            assert await client.request_many([b"a", b"b"], "echo") == [b"a", b"b"]
        assert streamer.ended.wait(5)

    asyncio.run(main())


def test_a_stream_that_is_thrown_away_ends(streamer, backend):
    with pysock.connect(streamer.address, backend=backend) as client:
        stream = client.stream(b"1", "endless")
        assert next(stream) == b"x"
        assert "open" in repr(stream)
        del stream
        assert streamer.ended.wait(5)
        stream = client.stream(b"1", "count")
        stream.close()
        stream.close()
        assert list(stream) == []
        assert "over" in repr(stream)

    async def main():
        async with pysock.aio.connect(streamer.address, backend=backend) as client:
            streamer.ended.clear()
            stream = client.stream(b"1", "endless")
            assert await anext(stream) == b"x"
            del stream
            assert await client.request(b"a", "echo") == b"a"
            stream = client.stream(b"1", "endless")  # not begun
            await stream.aclose()
            assert [piece async for piece in stream] == []

    asyncio.run(main())
    assert streamer.ended.wait(5)


def test_threads_share_a_client(streamer, backend):
    with pysock.connect(streamer.address, backend=backend) as client:
        wrong = []

        def work(number):
            for _ in range(5):
                streamed, echoed = list(client.stream(b"300", "count")), client.request(b"%d" % number, "echo")
                wrong.extend([number] if (len(streamed), echoed) != (301, b"%d" % number) else ())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert wrong == []


def test_no_more_streams_than_the_server_takes_requests(make_server, unix_address, backend):
    """Behind as many it would read nothing more: no credit either."""
    streamer = Streamer(make_server, unix_address, max_in_flight=2)
    with streamer.server, pysock.connect(streamer.address, backend=backend) as client:
        with client.stream(b"9", "endless") as one, client.stream(b"9", "endless") as two:
            with pytest.raises(PysockError, match="2 streams of this client are open"):
                client.stream(b"9", "endless")
            with pytest.raises(PysockError, match="close one"):
                client.request(b"a", "echo")
            for _ in range(1000):
                assert next(one) == next(two)
        assert client.request(b"a", "echo") == b"a"

    async def main():
        async with pysock.aio.connect(streamer.address, backend=backend) as client:
            async with client.stream(b"9", "endless") as one, client.stream(b"9", "endless") as two:
                third = asyncio.ensure_future(client.stream(b"3", "count").join(100))
                for _ in range(1000):
                    assert await anext(one) == await anext(two)
                assert not third.done()
            assert await third == b"0 1 2 end"

    streamer = Streamer(make_server, unix_address, max_in_flight=2)
    with streamer.server:
        asyncio.run(main())


def test_a_server_that_stops_lets_a_stream_come_to_its_end(taker, streamer):
    stopping = threading.Thread(target=streamer.server.stop, args=(5,))

    def stop():
        streamer.begun.wait(5)
        stopping.start()
        time.sleep(0.05)
        streamer.held.set()

    threading.Thread(target=stop).start()
    found = taker.take(streamer.address, b"", "held", most=2)
    stopping.join(10)
    assert found == [b"first", b"second"]


# What only a script can say


def offer(features=7, options=((0, int(ServiceOption.STREAMS)),), in_flight=4):
    return encode_accepted(7, encode_welcome(1_000_000, in_flight, [(1, "one")], "fake", options), features, WINDOW)


def scripted(play, **how):
    def whole(peer):
        cir = decode_cir(peer.frame().payload)
        assert (cir.features, cir.stream_window) == (CLIENT_FEATURES, 256 * 1024)
        peer.send(offer(**how))
        play(peer)

    return whole


def piece(frame, payload):
    return encode(Kind.REPLY, payload, request_id=frame.request_id, flags=FLAG_MORE)


def test_the_request_says_so_and_what_was_taken_is_given_back(fake, backend):
    given = []

    def play(peer):
        frame = peer.frame()
        assert frame.flags & FLAG_TAKES_STREAM
        assert not frame.flags & FLAG_DEADLINE  # it may last
        for _ in range(3):
            peer.send(piece(frame, b"x" * 1500) * 2)  # over half of the window
            given.append(peer.frame())
        peer.send(encode(Kind.REPLY, b"", request_id=frame.request_id))
        assert peer.frame().kind == Kind.BYE

    with pysock.connect(fake(scripted(play)), backend=backend) as client:
        assert [len(one) for one in client.stream(b"")] == [1500] * 6
    assert [(one.kind, int.from_bytes(one.payload, "big")) for one in given] == [(Kind.CREDIT, 3032)] * 3


def test_an_older_server_is_asked_as_ever(fake, taker):
    def play(peer):
        peer.frame()
        peer.send(encode_accepted(7, encode_welcome(1_000_000, 4, [(1, "echo")], "fake"), 3))
        while (frame := peer.frame()).kind == Kind.SRM:
            assert not frame.flags & FLAG_TAKES_STREAM
            peer.send(encode(Kind.REPLY, frame.payload[4 if frame.flags else 0 :], request_id=frame.request_id))

    assert taker.take(fake(play), b"whole", None) == [b"whole"]


def test_pieces_that_nobody_asked_for_break_the_rules(fake, taker):
    def play(peer):
        peer.send(piece(peer.frame(), b"x"))
        with contextlib.suppress(OSError):
            peer.frame()

    error = taker.request(fake(scripted(play, options=())), b"", None)
    assert isinstance(error, ProtocolError)


def test_what_comes_still_of_a_stream_that_was_left_is_dropped(fake, taker):
    def play(peer):
        frame = peer.frame()
        peer.send(piece(frame, b"x") * 3)
        while peer.frame().kind != Kind.CANCEL:
            pass
        asked = peer.frame()
        peer.send(piece(frame, b"late") + encode(Kind.ERROR, b"cancelled", code=9, request_id=frame.request_id))
        peer.send(encode(Kind.REPLY, b"?", request_id=asked.request_id))
        assert peer.frame().kind == Kind.BYE

    accepted = encode_accepted(7, encode_welcome(1_000_000, 4, [(1, "echo")], "fake", [(0, 1)]), 7, WINDOW)

    def whole(peer):
        peer.frame()
        peer.send(accepted)
        play(peer)

    assert taker.take(fake(whole), b"", None, most=2) == [b"x", b"x"]
    assert taker.usable


def test_the_connection_is_lost_in_the_middle(fake, taker):
    def play(peer):
        peer.send(piece(peer.frame(), b"one") * 2)

    *pieces, error = taker.take(fake(scripted(play)), b"", None)
    assert pieces == [b"one", b"one"]
    assert isinstance(error, OutcomeUnknown)
    assert error.request_id
    assert error.client_id == 7
    assert time.time() - error.sent_at < 60


def test_or_before_the_first_piece(fake, taker):
    *pieces, error = taker.take(fake(scripted(lambda peer: peer.frame())), b"", None)
    assert pieces == []
    assert type(error) is ConnectionLost
    assert type(taker.request(fake(scripted(lambda peer: peer.send(piece(peer.frame(), b"x")))), b"", None)) is (
        ConnectionLost
    )


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_through_a_slow_proxy(taker, streamer, size):
    with between(str(streamer.address), piece=size) as proxy:
        count = b"20" if size < 10 else b"2000"
        assert (
            b"".join(taker.take(proxy.address, count, "count"))
            == b"".join(b"%d " % number for number in range(int(count))) + b"end"
        )


def test_cut_at_every_offset(streamer, backend):
    whole = [b"0 ", b"1 ", b"2 ", b"end"]
    with between(str(streamer.address)) as proxy:
        with pysock.connect(proxy.address, backend=backend):
            wait_for(lambda: proxy.passed["down"])
            welcome = proxy.passed["down"]
        for offset in range(welcome, welcome + 12 * 4 + 9):
            wait_for(lambda: not proxy.pairs)
            with pysock.connect(proxy.address, backend=backend) as client:
                proxy.left["down"] = offset - welcome or None
                if offset == welcome:
                    continue
                pieces = []
                with pytest.raises(ConnectionLost) as caught:
                    pieces.extend(client.stream(b"3", "count"))
                assert pieces == whole[: len(pieces)]
                assert isinstance(caught.value, OutcomeUnknown) == bool(pieces)
                assert client.closed


def test_cut_at_every_offset_in_a_loop(streamer, backend):
    """The pieces whose last byte came are there, and then it says what it knows of the rest."""
    whole, lengths = [b"0 ", b"1 ", b"2 ", b"end"], [14, 28, 42, 57]

    async def take(stream, pieces):
        async for piece in stream:
            pieces.append(piece)  # what came before an error is to be seen

    async def take_cut(proxy, offset):
        pieces = []
        await asyncio.to_thread(wait_for, lambda: not proxy.pairs)
        async with pysock.aio.connect(proxy.address, backend=backend) as client:
            proxy.left["down"] = offset
            with pytest.raises(ConnectionLost) as caught:
                await take(client.stream(b"3", "count"), pieces)
            assert pieces == whole[: sum(offset >= length for length in lengths)]
            assert isinstance(caught.value, OutcomeUnknown) == bool(pieces)
            assert client.closed

    async def main():
        for offset in range(1, lengths[-1]):
            await take_cut(proxy, offset)

    with between(str(streamer.address)) as proxy:
        asyncio.run(main())


# Clients that heal, and pools


def again(streamer, backend, **options):
    return pysock.connect(streamer.address, backend=backend, reconnect=FAST, **options)


def test_a_healing_client_streams(streamer, backend):
    with again(streamer, backend) as client:
        assert list(client.stream(b"3", "count")) == [b"0 ", b"1 ", b"2 ", b"end"]
        assert list(client.stream(b"", "empty")) == []
        assert client.request(b"3", "count") == b"0 1 2 end"
        with client.stream(b"1", "endless", timeout=5) as stream:
            assert next(stream) == b"x"
        assert streamer.ended.wait(5)
        assert list(stream) == []

    async def main():
        async with pysock.aio.connect(streamer.address, backend=backend, reconnect=FAST) as client:
            assert [one async for one in client.stream(b"3", "count")] == [b"0 ", b"1 ", b"2 ", b"end"]
            assert [one async for one in client.stream(b"", "empty")] == []
            async with client.stream(b"1", "endless") as stream:
                assert await anext(stream) == b"x"
            assert await client.request(b"3", "count") == b"0 1 2 end"

    streamer.ended.clear()
    asyncio.run(main())
    assert streamer.ended.wait(5)


def test_a_stream_that_gave_a_piece_is_never_begun_again(streamer, backend):
    with between(str(streamer.address)) as proxy:
        with pysock.connect(proxy.address, backend=backend, reconnect=FAST) as client:
            stream = client.stream(b"10", "endless", idempotent=True)
            assert next(stream) == b"x" * 10
            for pair in tuple(proxy.pairs):
                proxy.cut(pair)
            with pytest.raises(OutcomeUnknown):
                for _ in stream:
                    pass
            assert list(stream) == []
            assert client.request(b"a", "echo") == b"a"

        async def main():
            async with pysock.aio.connect(proxy.address, backend=backend, reconnect=FAST) as client:
                stream = client.stream(b"10", "endless", idempotent=True)
                assert await anext(stream) == b"x" * 10
                for pair in tuple(proxy.pairs):
                    proxy.cut(pair)
                with pytest.raises(OutcomeUnknown):
                    async for _ in stream:
                        pass
                assert await client.request(b"a", "echo") == b"a"

        asyncio.run(main())


def test_one_that_gave_none_is_begun_again_where_it_may_run_twice(streamer, backend):
    with between(str(streamer.address)) as proxy:
        with pysock.connect(proxy.address, backend=backend, reconnect=FAST) as client:
            proxy.left["down"] = 5  # in the first header
            assert list(client.stream(b"1", "count", idempotent=True)) == [b"0 ", b"end"]
            proxy.left["down"] = 5
            with pytest.raises(OutcomeUnknown):
                list(client.stream(b"1", "count"))

        async def main():
            async with pysock.aio.connect(proxy.address, backend=backend, reconnect=FAST) as client:
                proxy.left["down"] = 5
                stream = client.stream(b"1", "count", idempotent=True)
                assert [one async for one in stream] == [b"0 ", b"end"]

        asyncio.run(main())


def test_pools_count_a_stream_as_a_call_until_it_is_over(streamer, backend):
    with pysock.Pool(streamer.address, 2, backend=backend) as pool:
        assert list(pool.stream(b"1", "count")) == [b"0 ", b"end"]
        assert pool.stream(b"1", "count").join(10) == b"0 end"
        with pool.stream(b"1", "endless") as stream:
            assert next(stream) == b"x"
            assert pool.request(b"a", "echo") == b"a"
            assert sorted(pool._calls.values()) == [0, 1]
        assert list(pool._calls.values()) == [0, 0]

    async def main():
        async with pysock.aio.Pool(streamer.address, 2, backend=backend) as pool:
            assert [one async for one in pool.stream(b"1", "count")] == [b"0 ", b"end"]
            assert await pool.stream(b"1", "count").join(10) == b"0 end"
            async with pool.stream(b"1", "endless") as stream:
                assert await anext(stream) == b"x"
                assert await pool.request(b"a", "echo") == b"a"
                assert sorted(pool._calls.values()) == [0, 1]
            assert list(pool._calls.values()) == [0, 0]

    asyncio.run(main())
