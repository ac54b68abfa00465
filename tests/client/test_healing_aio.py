"""An asyncio client that connects again: on asyncio and uvloop, over both transports, on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from proxy import between
from restarted import FAST, Restarted, answers, lose, speaking
from support import wait_for, welcomed

import pysock
from pysock import ConnectionLost, ConnectionRefused, OutcomeUnknown, RemoteError, RequestTimeout, aio
from pysock.aio.client import AsyncClient
from pysock.aio.healing import HealingAsyncClient
from pysock.healing.known import Known
from pysock.wire.format import Kind, encode


def test_everything_that_a_client_does_is_done_by_a_healing_one_too():
    """One that is inherited would use a connection that isn't there; the hook of gaps is the client's."""
    shared = {"name", "on_gap", "__aenter__", "__aexit__", "__aiter__"}
    names = {name for kind in AsyncClient.__mro__ for name in vars(kind) if kind.__module__.startswith("pysock")}
    public = {name for name in names if not name.startswith("_")} | {"__del__", "__repr__"}
    assert public - set(vars(HealingAsyncClient)) - set(vars(Known)) - shared == set()


def test_a_restart_is_not_noticed(run, server, backend):
    async def main():
        async with aio.connect(server.address, "me", reconnect=FAST, backend=backend) as client:
            for _ in range(3):
                assert await client.request(b"one") == b"ONE"
                await asyncio.to_thread(server.restart)
                assert await client.request_many([b"a", b"b"]) == [b"A", b"B"]
                await client.notify(b"three")
                assert await client.ping(b"?") < 5
                assert await client.request(b"", service="id") == b"%d me" % client.id
            assert (client.closed, client.ended) == (False, None)
            assert set(client.services) == {"id", "push"}
        assert (client.closed, client.ended) == (True, ("left", ""))
        with pytest.raises(ConnectionLost, match=r"^this client is closed: connect\(\) again$"):
            await client.request(b"x")
        assert [push async for push in client.pushes()] == []

    server.start()
    run(main())


def test_a_call_waits_for_the_server_but_no_longer_than_it_says(run, server, backend):
    async def main():
        async with aio.connect(server.address, reconnect=FAST, backend=backend) as client:
            await asyncio.to_thread(server.stop)
            while client._keeper.current is not None:
                await asyncio.sleep(0.001)
            with pytest.raises(ConnectionLost, match="not connected to"):
                await client.request(b"x", wait=False)
            with pytest.raises(RequestTimeout, match="not connected in time") as caught:
                await client.request(b"x", timeout=0.1)
            assert caught.value.started is False
            threading.Timer(0.1, server.start).start()
            assert await client.request(b"x", timeout=10) == b"X"

    server.start()
    run(main())


def test_the_order_of_starts_doesnt_matter(run, server, backend):
    async def main():
        async with aio.connect(server.address, backend=backend, wait=10) as client:
            assert type(client) is AsyncClient
            assert await client.request(b"x") == b"X"

    threading.Timer(0.2, server.start).start()
    run(main())


def test_nobody_comes(run, home, backend):
    async def main():
        for options in ({"wait": 0.1}, {"wait": 0}, {}, {"reconnect": FAST, "timeout": 0.1}):
            with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
                await aio.connect(home, backend=backend, **options)

    run(main())


def test_several_addresses_are_tried_in_order(run, server, backend, socket_dir):
    async def main():
        nowhere = f"unix:{socket_dir}/nowhere"
        async with aio.connect([nowhere, server.address], backend=backend) as client:
            assert await client.request(b"x") == b"X"
        async with aio.connect([nowhere, server.address], backend=backend, reconnect=FAST) as client:
            await asyncio.to_thread(server.restart)
            assert await client.request(b"x") == b"X"
            assert str(client.address) == server.address
        with pytest.raises(FileNotFoundError):
            await aio.connect([nowhere, nowhere], backend=backend)

    server.start()
    run(main())
    with pytest.raises(ValueError, match="at least one address"):
        aio.connect([])


def test_what_is_for_good_is_raised_once(run, server, backend):
    async def main():
        with pytest.raises(ConnectionRefused, match="auth key"):
            await aio.connect(server.address, backend=backend, authkey=b"wrong", reconnect=True, timeout=30)

    server.options["authkey"] = b"right"
    server.start()
    started = time.monotonic()
    run(main())
    assert time.monotonic() - started < 10


def test_a_client_that_is_refused_later_has_ended(run, server, backend):
    async def main():
        async with aio.connect(server.address, backend=backend, reconnect=FAST) as client:
            await asyncio.to_thread(server.stop)
            server.options["authkey"] = b"new"
            await asyncio.to_thread(server.start)
            with pytest.raises(ConnectionLost, match="this client has ended"):
                async for _ in client:
                    pass
            assert client.ended.how == "refused"
            with pytest.raises(ConnectionLost, match="this client has ended: "):
                await client.request(b"x")

    server.start()
    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_hook_restores_what_was_there_before_calls_go_on(run, server, backend, is_async):
    async def main():
        async with aio.connect(server.address, backend=backend, reconnect=FAST) as client:

            async def slow(again):
                assert again is client
                if len(order) == 0 and not failed:
                    failed.append(True)
                    raise ValueError("not yet")
                first, second = await asyncio.gather(again.request(b"hook"), again.request(b"hook"))
                assert first == second
                order.append(first)

            def plain(again):
                order.append(b"HOOK")

            client.on_reconnect(slow if is_async else plain)
            await asyncio.to_thread(server.restart)
            order.extend(await asyncio.gather(*(client.request(b"call") for _ in range(4))))

    order, failed = [], []
    server.start()
    run(main())
    assert order == [b"HOOK"] + [b"CALL"] * 4


def test_what_cant_be_a_hook(run, server, backend):
    async def main():
        async with aio.connect(server.address, backend=backend, reconnect=FAST) as client:
            with pytest.raises(TypeError, match="a hook must be callable, not NoneType"):
                client.on_reconnect(None)
            with pytest.raises(TypeError, match=r"can't be called as hook\(client\)"):
                client.on_reconnect(lambda: None)

    server.start()
    run(main())


def test_a_plain_client_takes_the_words_of_a_healing_one(run, server, backend):
    """Which of the two a program has is said where it connects, and nowhere else."""

    async def main():
        for heals in ({}, {"reconnect": FAST}):
            async with aio.connect(server.address, backend=backend, **heals) as client:
                assert await client.request(b"x", idempotent=True, wait=False) == b"X"
                assert await client.request_many([b"x"], idempotent=True, wait=False) == [b"X"]
                await client.notify(b"x", wait=False)
                assert await client.ping(wait=False) < 5

    server.start()
    run(main())


def test_a_hook_whose_connection_ends_is_told(run, played, backend):
    """And the client connects once more."""

    async def main():
        async with aio.connect(address, backend=backend, reconnect=FAST) as client:

            @client.on_reconnect
            async def restore(again):
                try:
                    assert await again.request(b"hook", idempotent=True) == b"hook"
                except ConnectionLost as error:
                    told.append(str(error))
                    raise

            assert await client.request(b"x", idempotent=True) == b"x"

    told = []
    address = played(lose(1), lose(1), welcomed(answers))
    run(main())
    assert len(told) == 1
    assert told[0].startswith("the connection ended before it was restored")


def test_pushes_go_on_after_a_restart(run, server, backend):
    async def main():
        async with aio.connect(server.address, backend=backend, reconnect=FAST) as client:
            pushes = client.pushes()
            for number in range(3):
                await asyncio.to_thread(wait_for, lambda: len(server.server.clients) == 1)
                server.server.clients.broadcast(b"%d" % number)
                assert await anext(pushes) == b"%d" % number
                await asyncio.to_thread(server.restart)
            await asyncio.to_thread(server.stop)
            assert [push async for push in client.pushes(timeout=0.1)] == []

    server.start()
    run(main())


# Requests in between


def test_what_may_have_run_is_told(run, played, backend):
    async def main():
        async with aio.connect(address, backend=backend, reconnect=FAST) as client:
            with pytest.raises(OutcomeUnknown, match="nobody knows whether the server has run it") as caught:
                await client.request(b"x")
            unknown = caught.value
            assert (unknown.request_id, unknown.client_id) == (1, 0x1_0000_0001)
            assert await client.request(b"x") == b"x"

    address = played(lose(1), welcomed(answers))
    run(main())


def test_what_may_run_twice_is_sent_again_three_times(run, played, backend):
    async def main():
        async with aio.connect(address, backend=backend, reconnect=FAST) as client:
            assert await client.request(b"x", idempotent=True) == b"x"
            await client.request(b"x")

    address = played(lose(1), lose(1), lose(1), welcomed(answers))
    run(main())


@pytest.mark.parametrize("code", [5, 9])
def test_what_was_not_started_is_sent_again(run, played, backend, code):
    def not_started(peer):
        frame = peer.frame()
        peer.send(encode(Kind.ERROR, b"no", code=code, request_id=frame.request_id, flags=code == 9))
        peer.frame()

    async def main():
        async with aio.connect(address, backend=backend, reconnect=FAST) as client:
            assert await client.request(b"x") == b"x"
            with pytest.raises(RemoteError, match="no service"):
                await client.request(b"x", service="none")

    address = played(speaking(not_started), welcomed(answers))
    run(main())


@pytest.mark.parametrize("code", [0, 2])
def test_what_came_too_late_for_a_server_that_goes_is_sent_again(run, played, backend, code):
    """The code 2: what has no answer was not run."""

    def too_late(peer):
        peer.frame()
        peer.send(encode(Kind.GOAWAY, b"moving") + encode(Kind.GOAWAY, b"moving", code=code))

    async def main():
        async with aio.connect(address, reconnect=FAST, backend=backend) as client:
            if code:
                assert await client.request(b"x") == b"x"
                return
            with pytest.raises(OutcomeUnknown, match="the server said goodbye: moving"):
                await client.request(b"x")

    address = played(speaking(too_late), welcomed(answers))
    run(main())


@pytest.mark.parametrize("size", [1, 5000, 40_000])
def test_what_the_kernel_hasnt_taken_whole_is_sent_again(run, played, backend, size):
    """The server takes nothing: of many requests the first are in the kernel's buffer, and the others go again."""
    over = threading.Event()

    def deaf(peer):
        assert over.wait(20)
        data = b""
        peer.sock.shutdown(socket.SHUT_RDWR)
        while part := peer.sock.recv(1_000_000):
            data += part
        taken.append(len(data) // (16 + size))

    async def main():
        async with aio.connect(address, backend=backend, reconnect=FAST) as client:
            count = 200 + 2_000_000 // (size + 100)
            calls = asyncio.gather(
                *(client.request(bytes(size), timeout=60) for _ in range(count)), return_exceptions=True
            )
            await asyncio.sleep(0.3)
            over.set()
            results = await calls
            await asyncio.to_thread(wait_for, lambda: taken)
            unknown = [one for one in results if isinstance(one, OutcomeUnknown)]
            assert len(unknown) == taken[0]
            assert 0 < taken[0] < count
            assert results[taken[0] :] == [bytes(size)] * (count - taken[0])

    taken = []
    address = played(speaking(deaf, 100_000), speaking(answers, 100_000))
    run(main())


@pytest.mark.parametrize("way", ["up", "down"])
def test_cut_at_every_byte(unix_address, backend, way):
    """A request runs at most once; if it isn't answered its caller hears so."""

    async def main():
        with between(server.address) as proxy:
            async with aio.connect(proxy.address, backend=backend) as client:
                await client.request(b"once")
                whole = proxy.passed[way]
        for at in range(1, whole + 1):
            server.ran.clear()
            with between(server.address, **{f"cut_{way}": at}) as proxy:
                async with aio.connect(proxy.address, backend=backend, reconnect=FAST) as client:
                    try:
                        assert await client.request(b"once") == b"ONCE"
                    except OutcomeUnknown:
                        assert server.ran in ([], [b"once"])
                    else:
                        assert server.ran == [b"once"]
                    await asyncio.to_thread(wait_for, lambda: proxy.cuts)  # else it may be sent before the cut
                    assert await client.request(b"next") == b"NEXT"
            assert server.ran.count(b"once") <= 1

    server = Restarted(unix_address, backend).start()
    try:
        asyncio.run(main())
    finally:
        server.stop(0)


@pytest.mark.parametrize("healing", [False, True])
def test_a_cancelled_request_never_gives_its_answer_to_another(run, unix_address, backend, healing):
    """redis-py#2624: cancelled when so many bytes of the answer have come, for each number of them."""

    async def main():
        with between(server.address, piece=1) as proxy:
            async with aio.connect(proxy.address, backend=backend, reconnect=FAST if healing else False) as client:
                before = proxy.passed["down"]
                await client.request(b"first")
                whole = proxy.passed["down"] - before
                for at in range(whole + 1):
                    start, up = proxy.passed["down"], proxy.passed["up"]
                    task = asyncio.ensure_future(client.request(b"secret"))
                    while proxy.passed["down"] - start < at or proxy.passed["up"] == up:
                        await asyncio.sleep(0)
                    task.cancel()
                    assert await client.request(b"mine%d" % at) == b"MINE%d" % at
                    assert await client.request(b"mine too") == b"MINE TOO"
                    with contextlib.suppress(asyncio.CancelledError):
                        assert await task == b"SECRET"  # it was there already

    server = Restarted(unix_address, backend).start()
    try:
        run(main())
    finally:
        server.stop(0)


# The end


@pytest.mark.parametrize("when", ["sleeping", "in the handshake"])
def test_a_connect_that_is_cancelled_stops_at_once(run, fake, unix_address, backend, when):
    """nats.py#981: a cancelled loop that took the CancelledError for another failed attempt."""

    async def main():
        task = asyncio.ensure_future(_connect(address, backend))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1

    deaf = threading.Event()
    address = unix_address if when == "sleeping" else fake(lambda peer: deaf.wait(10))
    run(main())
    deaf.set()


async def _connect(address, backend):
    return await aio.connect(address, backend=backend, reconnect=pysock.Backoff(5, 5), timeout=30)


@pytest.mark.parametrize("when", ["sleeping", "in the handshake"])
def test_closed_while_it_connects_again(run, played, backend, when):
    async def main():
        backoff = pysock.Backoff(30, 30) if when == "sleeping" else FAST
        client = await aio.connect(address, backend=backend, reconnect=backoff)
        call = asyncio.ensure_future(client.request(b"x", timeout=30, idempotent=True))
        while client._keeper._task is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await client.aclose()
        with pytest.raises(ConnectionLost, match="this client is closed"):
            await call
        assert time.monotonic() - started < 1
        assert len(asyncio.all_tasks()) <= 2
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    deaf = threading.Event()
    address = played(lose(1), lambda peer: deaf.wait(10))
    run(main())
    deaf.set()


def test_a_loop_that_ends_ends_it(server, backend):
    async def main():
        made.append(await aio.connect(server.address, backend=backend, reconnect=FAST))
        await asyncio.to_thread(server.stop)
        while made[0]._keeper._task is None:
            await asyncio.sleep(0.001)

    made = []
    server.start()
    asyncio.run(main())
    assert made[0].closed


def test_thrown_away_open(run, server, backend):
    async def main():
        client = await aio.connect(server.address, backend=backend, reconnect=FAST)
        with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):
            del client
        await asyncio.to_thread(wait_for, lambda: not server.server.clients)

    server.start()
    run(main())
