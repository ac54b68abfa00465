"""What a client says of how long it waits, and that it waits no more; what it is told of a request that wasn't run."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from support import until_bye

import pysock
from pysock import Cancelled, ErrorCode, Overloaded, RemoteError, RequestTimeout, aio
from pysock.wire.features import FEATURES
from pysock.wire.format import FLAG_NOT_STARTED, Kind, encode, encode_accepted, encode_welcome

WELCOME = encode_accepted(7, encode_welcome(1000, 100, [(0, "")], "fake"), FEATURES)


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


def asked(address, backend):
    """What an asyncio client's request ends with."""

    async def ask():
        async with aio.connect(address, backend=backend) as client:
            return await client.request(b"x", timeout=5)

    with pytest.raises(pysock.PysockError) as caught:
        asyncio.run(ask())
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ErrorCode.CANCELLED, Cancelled), (ErrorCode.OVERLOADED, Overloaded), (ErrorCode.SHUTTING_DOWN, RemoteError)],
)
def test_codes_have_classes(fake, backend, code, kind):
    error = asked(fake(told(failing(code, FLAG_NOT_STARTED))), backend)
    assert type(error) is kind
    assert (error.code, error.message, error.request_id) == (code, "so it is", 1)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.message, again.request_id) == (kind, code, "so it is", 1)


@pytest.mark.parametrize(("flags", "started"), [(FLAG_NOT_STARTED, False), (0, True)])
def test_what_came_too_late_says_whether_it_was_started(fake, backend, flags, started):
    error = asked(fake(told(failing(ErrorCode.DEADLINE_PASSED, flags))), backend)
    assert type(error) is RequestTimeout
    assert (str(error), error.started) == ("so it is", started)


def test_of_its_own_timeout_a_client_knows_nothing_more(fake, backend):
    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        until_bye(peer)

    async def ask():
        async with aio.connect(fake(play), backend=backend) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.request(b"x", timeout=0.05)
            return caught.value

    assert asyncio.run(ask()).started is None


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
