"""What a client says of how long it waits, and that it waits no more; what it is told of a request that wasn't run."""

from __future__ import annotations

import asyncio
import math
import pickle

import pytest
from support import until_bye, wait_for

import pysock
from pysock import Cancelled, ErrorCode, Overloaded, RemoteError, RequestTimeout, aio
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.features import FEATURES, decode_deadline
from pysock.wire.format import FLAG_DEADLINE, FLAG_NOT_STARTED, Kind, encode

WELCOME = encode_accepted(7, encode_welcome(1000, 100, [(0, "")], "fake"), FEATURES)
OLD = encode_accepted(7, encode_welcome(1000, 100, [(0, "")], "fake"))


def told(script):
    """A server that answers each request by what the script makes of its id; it keeps what it got."""

    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
            play.seen.append(frame)
            peer.send(script(frame))

    play.seen = []
    return play


def failing(code, flags=0):
    return lambda frame: encode(Kind.ERROR, b"so it is", code=code, request_id=frame.request_id, flags=flags)


@pytest.fixture(params=["blocking", "asyncio"])
def asked(request, backend):
    """A function: what a request at this address ends with."""

    async def ask(address, timeout):
        async with aio.connect(address, backend=backend) as client:
            return await client.request(b"x", timeout=timeout)

    def wait(address, timeout):
        with pysock.connect(address, backend=backend) as client:
            client.request(b"x", timeout=timeout)

    def asked(address, timeout=5):
        with pytest.raises(pysock.PysockError) as caught:
            wait(address, timeout) if request.param == "blocking" else asyncio.run(ask(address, timeout))
        return caught.value

    return asked


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ErrorCode.CANCELLED, Cancelled), (ErrorCode.OVERLOADED, Overloaded), (ErrorCode.SHUTTING_DOWN, RemoteError)],
)
def test_codes_have_classes(fake, asked, code, kind):
    error = asked(fake(told(failing(code, FLAG_NOT_STARTED))))
    assert type(error) is kind
    assert (error.code, error.message, error.request_id) == (code, "so it is", 1)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.message, again.request_id) == (kind, code, "so it is", 1)


@pytest.mark.parametrize(("flags", "started"), [(FLAG_NOT_STARTED, False), (0, True)])
def test_what_came_too_late_says_whether_it_was_started(fake, asked, flags, started):
    error = asked(fake(told(failing(ErrorCode.DEADLINE_PASSED, flags))))
    assert type(error) is RequestTimeout
    assert (str(error), error.started) == ("so it is", started)


def listening(welcome, seen):
    """A server that answers what ends with "next", and keeps what it got."""

    def play(peer):
        peer.frame()
        peer.send(welcome)
        while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
            seen.append(frame)
            if frame.payload[-4:] == b"next":
                peer.send(encode(Kind.REPLY, b"yes", request_id=frame.request_id))

    return play


def test_what_times_out_is_taken_back(fake, asked):
    seen = []
    error = asked(fake(listening(WELCOME, seen)), timeout=0.05)
    assert type(error) is RequestTimeout
    assert error.started is None  # of its own timeout a client knows nothing more
    wait_for(lambda: len(seen) > 1)
    assert [(frame.kind, frame.request_id) for frame in seen] == [(Kind.SRM, 1), (Kind.CANCEL, 1)]


def test_a_request_says_how_long_it_waits(fake, backend):
    seen = []
    with pysock.connect(fake(listening(WELCOME, seen)), backend=backend, timeout=20) as client:
        for timeout in (5, None, math.inf, 5000):
            assert client.request(b"next", timeout=timeout) == b"yes"
        assert client.request_many([b"1 next", b"2 next"], timeout=7) == [b"yes"] * 2
        client.notify(b"x", timeout=5)
        client.request(b"next", timeout=5)
    said = [decode_deadline(frame.payload) if frame.flags & FLAG_DEADLINE else None for frame in seen]
    assert [None if seconds is None else round(seconds) for seconds in said] == [5, 20, None, None, 7, 7, None, 5]
    assert [frame.payload[4 if seconds else 0 :] for frame, seconds in zip(seen, said, strict=True)] == [
        *(b"next", b"next", b"next", b"next", b"1 next", b"2 next", b"x", b"next")
    ]


def test_of_many_those_are_taken_back_that_have_no_answer(fake, backend):
    seen = []
    with pysock.connect(fake(listening(WELCOME, seen)), backend=backend) as client:
        with pytest.raises(RequestTimeout):
            client.request_many([b"1", b"next", b"3"], timeout=0.1)
        assert client.request(b"next") == b"yes"
    assert [(frame.kind, frame.request_id) for frame in seen[3:]] == [
        *((Kind.CANCEL, 1), (Kind.CANCEL, 3), (Kind.SRM, 4))
    ]


def test_a_server_of_old_gets_nothing_new(fake, backend):
    seen = []
    with pysock.connect(fake(listening(OLD, seen)), backend=backend) as client:
        with pytest.raises(RequestTimeout):
            client.request(b"1", timeout=0.05)
        assert client.request(b"next") == b"yes"
    assert [(frame.kind, frame.flags, frame.payload) for frame in seen] == [
        (Kind.SRM, 0, b"1"),
        (Kind.SRM, 0, b"next"),
    ]


def test_a_server_of_old_may_not_say_what_nobody_knows(fake, backend):
    def play(peer):
        peer.frame()
        peer.send(OLD)
        frame = peer.frame()
        peer.send(encode(Kind.ERROR, code=9, request_id=frame.request_id, flags=FLAG_NOT_STARTED))
        peer.frame()

    with pysock.connect(fake(play), backend=backend) as client, pytest.raises(pysock.ProtocolError):
        client.request(b"x")


@pytest.mark.parametrize("size", [0, 1, 20_000, 300_000])
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_requests_of_all_sizes_arrive_with_their_deadline(make_server, address, size, many):
    server = make_server(address)

    @server.service
    def echo(client, request):
        return request

    payloads = [bytearray(size), bytes(size), b"x" * size]
    with server, pysock.connect(server.addresses[0], backend=server.backend) as client:
        replies = client.request_many(payloads) if many else [client.request(payload) for payload in payloads]
        assert replies == payloads


def test_a_server_knows_that_nobody_waits(make_server, address):
    server = make_server(address)
    kept = []

    @server.service
    def hold(client, request):
        if request != b"hold":
            return request
        kept.append(pysock.later())
        return kept[-1]

    with server, pysock.connect(server.addresses[0], backend=server.backend) as client:
        with pytest.raises(RequestTimeout):
            client.request(b"hold", timeout=0.1)
        wait_for(lambda: kept and kept[0].cancelled)
        assert not kept[0].send(b"")
        assert client.request(b"next") == b"next"


@pytest.mark.parametrize("kind", [Cancelled, Overloaded])
def test_a_handler_may_raise_them(make_server, address, kind):
    server = make_server(address)

    @server.service
    def fail(client, request):
        raise kind("not now") if request else kind()

    with server, pysock.connect(server.addresses[0], backend=server.backend) as client:
        for request, message in ((b"x", "not now"), (b"", kind().message)):
            with pytest.raises(kind) as caught:
                client.request(request)
            assert (caught.value.code, caught.value.message) == (kind().code, message)


def test_a_ping_is_not_taken_back(fake, backend):
    """A server has no use for that: the next answers are whose they are all the same."""
    pings = []

    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        pings.extend(peer.frame() for _ in range(3))
        peer.send(encode(Kind.PONG, b"late", request_id=pings[0].request_id))
        peer.send(encode(Kind.PONG, b"now", request_id=pings[2].request_id))
        until_bye(peer)

    async def ask():
        async with aio.connect(fake(play), backend=backend) as client:
            for _ in range(2):
                with pytest.raises(RequestTimeout):
                    await client.ping(b"late", timeout=0.05)
            await client.ping(b"now")

    asyncio.run(ask())
    assert [frame.kind for frame in pings] == [Kind.PING] * 3
