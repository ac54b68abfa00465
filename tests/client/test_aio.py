"""The asyncio client: on asyncio and uvloop, on both engines, over both transports."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time

import pytest
from support import until_bye, wait_for

import pysock
from pysock import ConnectionLost, PysockError, RemoteError, RequestTimeout, aio
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.format import Kind, encode

WELCOME = encode_accepted(7, encode_welcome(1000, 2, [(0, ""), (1, "other")], "fake"))


@pytest.fixture
def echo(make_server, address):
    server = make_server(address)

    @server.service
    def echo(client, request):
        if request == b"fail":
            raise RemoteError("as you like")
        if request == b"slow":
            time.sleep(0.2)
        return request

    @server.service("push")
    def push(client, request):
        for number in range(int(request)):
            client.send(b"%d" % number)
        return b""

    with server:
        yield server


def test_a_request_a_ping_a_notify_and_many(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], "me", backend=backend) as client:
            assert (client.name, client.closed, client.services) == ("me", False, {"push": 1})
            assert await client.request(b"hello") == b"hello"
            assert await client.request(bytearray(b"x" * 1_000_000)) == b"x" * 1_000_000
            await client.notify(b"nobody waits")
            assert 0 <= await client.ping(b"there?") < 10
            many = [b"%d" % number for number in range(5000)]
            assert await client.request_many(many) == many
            assert await client.request_many([]) == []
        assert client.closed
        with pytest.raises(ConnectionLost, match="this client is closed"):
            await client.request(b"")

    run(main())


def test_it_is_awaited_as_well(run, echo, backend):
    async def main():
        client = await aio.connect(echo.addresses[0], backend=backend)
        try:
            assert await client.request(b"1") == b"1"
        finally:
            client.close()
            client.close()

    run(main())


def test_many_tasks_each_get_their_own(run, echo, backend):
    async def one(client, number):
        for turn in range(20):
            payload = b"%d %d" % (number, turn) * random.randrange(1, 300)
            assert await client.request(payload) == payload

    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            await asyncio.gather(*(one(client, number) for number in range(100)))

    run(main())


def test_errors_are_those_of_the_blocking_client(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            with pytest.raises(RemoteError, match="as you like"):
                await client.request(b"fail")
            with pytest.raises(RemoteError, match="no service 'none'"):
                await client.request(b"", "none")
            with pytest.raises(TypeError):
                await client.request("text")
            with pytest.raises(pysock.FrameTooLarge):
                await client.request(b"x" * (client.max_payload + 1))
            replies = await client.request_many([b"a", b"fail", b"b"], return_exceptions=True)
            assert replies[::2] == [b"a", b"b"]
            assert isinstance(replies[1], RemoteError)
            with pytest.raises(RemoteError, match="as you like"):
                await client.request_many([b"a", b"fail"])

    run(main())


def test_a_cancelled_request_hands_its_answer_to_nobody(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            for turn in range(200):
                tasks = [asyncio.create_task(client.request(b"%d %d" % (turn, number))) for number in range(5)]
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(0)
                tasks[turn % 5].cancel()
                replies = await asyncio.gather(*tasks, return_exceptions=True)
                for number, reply in enumerate(replies):
                    assert reply == b"%d %d" % (turn, number) or isinstance(reply, asyncio.CancelledError)
            assert await client.request(b"last") == b"last"

    run(main())


def test_a_timeout_leaves_the_client_usable(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            with pytest.raises(RequestTimeout):
                await client.request(b"slow", timeout=0.05)
            assert await client.request(b"next") == b"next"

    run(main())


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1", b"1"])
def test_a_timeout_that_is_none(run, echo, backend, wrong):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            for call in (client.request, client.ping, client.notify):
                with pytest.raises(ValueError, match="a timeout must be 0 or more seconds"):
                    await call(b"x", timeout=wrong)
            with pytest.raises(ValueError, match="a timeout must be 0 or more seconds"):
                await client.request_many([b"x"], timeout=wrong)
            with pytest.raises(RequestTimeout):
                await client.request(b"x", timeout=0)
            assert await client.request(b"next") == b"next"

    run(main())


def test_pushes_come_as_an_iterator(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            await client.request(b"3", "push")
            assert [one async for one in client.pushes(timeout=0)] == [b"0", b"1", b"2"]
            task = asyncio.create_task(client.request(b"2", "push"))
            assert [one async for one in client.pushes(timeout=0.3)] == [b"0", b"1"]
            await task

    run(main())


def test_a_server_that_stops_ends_the_listener_and_the_requests(run, echo, backend):
    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            threading.Timer(0.1, echo.stop).start()
            assert [one async for one in client.pushes()] == []
            with pytest.raises(ConnectionLost, match="goodbye"):
                await client.request(b"")

    run(main())


def test_no_more_than_the_server_takes_is_in_flight(run, fake, backend):
    seen = []

    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        first = [peer.frame(), peer.frame()]
        seen.extend(first)
        time.sleep(0.1)
        for frame in first:
            peer.send(encode(Kind.REPLY, frame.payload, request_id=frame.request_id))
        third = peer.frame()
        seen.append(third)
        peer.send(encode(Kind.REPLY, third.payload, request_id=third.request_id))
        until_bye(peer)

    async def main():
        async with aio.connect(fake(play), backend=backend) as client:
            replies = await asyncio.gather(*(client.request(b"%d" % number) for number in range(3)))
            assert replies == [b"0", b"1", b"2"]

    run(main())
    assert [(frame.payload, frame.flags) for frame in seen] == [(b"0", 0), (b"1", 0), (b"2", 0)]


def test_a_server_of_old_gets_nothing_new(run, fake, backend):
    """It said nothing of features: no deadline, no CANCEL; the place of what was given up is free with its answer."""
    seen = []

    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        late = peer.frame()
        seen.append(late)
        seen.append(peer.frame())
        peer.send(encode(Kind.REPLY, b"late", request_id=late.request_id))
        peer.send(encode(Kind.REPLY, b"next", request_id=seen[-1].request_id))
        until_bye(peer)

    async def main():
        async with aio.connect(fake(play), backend=backend) as client:
            with pytest.raises(RequestTimeout):
                await client.request(b"one", timeout=0.05)
            assert await client.request(b"two") == b"next"

    run(main())
    assert [(frame.kind, frame.flags, frame.payload) for frame in seen] == [
        (Kind.SRM, 0, b"one"),
        (Kind.SRM, 0, b"two"),
    ]


def test_the_connection_is_lost(run, fake, backend):
    def play(peer):
        peer.frame()
        peer.send(WELCOME)
        peer.frame()

    async def main():
        async with aio.connect(fake(play), backend=backend) as client:
            with pytest.raises(ConnectionLost, match="may have run"):
                await client.request(b"one")
            assert client.closed

    run(main())


def test_the_auth_key_is_proved(run, make_server, address, backend):
    server = make_server(address, authkey=b"key")
    server.service(lambda client, request: request)

    async def main():
        async with aio.connect(server.addresses[0], backend=backend, authkey=b"key") as client:
            assert await client.request(b"in") == b"in"
        with pytest.raises(pysock.ConnectionRefused):
            await aio.connect(server.addresses[0], backend=backend, authkey=b"other")
        with pytest.raises(pysock.ConnectionRefused):
            await aio.connect(server.addresses[0], backend=backend)

    with server:
        run(main())


def test_no_memory_for_what_comes_ends_the_connection(run, echo, backend):
    """Else who waits for what is lost would wait in vain."""

    class Scarce:
        def receive(self, *_args):
            raise MemoryError

    async def main():
        async with aio.connect(echo.addresses[0], backend=backend) as client:
            client._connection._inlet = Scarce()
            with pytest.raises(ConnectionLost, match="no memory"):
                await client.request(b"1")
            assert client.closed

    run(main())


def test_nobody_listens(run, backend):
    async def main():
        with pytest.raises(FileNotFoundError, match="no such socket file"):
            await aio.connect("unix:/nowhere/x.sock", backend=backend)
        with pytest.raises(ConnectionRefusedError, match="nobody listens"):
            await aio.connect("tcp://127.0.0.1:1", backend=backend)

    run(main())


def test_without_a_loop_it_says_so():
    connecting = aio.connect("unix:/nowhere/x.sock").__await__()
    with pytest.raises(PysockError, match="running loop of asyncio or uvloop"):
        next(connecting)


def test_another_loop_is_told(echo, backend):
    async def connect():
        return await aio.connect(echo.addresses[0], backend=backend)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    client = first.run_until_complete(connect())
    with pytest.raises(PysockError, match="another loop"):
        second.run_until_complete(client.request(b""))
    second.close()

    async def close():
        await client.aclose()

    first.run_until_complete(close())
    first.close()


def test_thrown_away_open_it_warns_and_closes(run, echo, backend):
    async def main():
        client = await aio.connect(echo.addresses[0], backend=backend)
        assert len(echo.clients) == 1
        with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):  # noqa: PT031
            del client
            gc.collect()
        await asyncio.sleep(0)

    run(main())
    wait_for(lambda: len(echo.clients) == 0)


def test_the_loop_was_closed_before_it(run, echo, backend):
    async def main():
        return await aio.connect(echo.addresses[0], backend=backend)

    client = run(main())
    with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):  # noqa: PT031
        del client
        gc.collect()
    wait_for(lambda: len(echo.clients) == 0)


def test_the_package_alone_imports_no_asyncio():
    program = "import sys, pysock; pysock.connect; pysock.Server; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
