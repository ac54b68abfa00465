"""`pysock.current()`: which request a handler runs for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time

import pytest
import wire
from support import wait_for
from wire import failed, features, next_frame, replied, srm, timed

import pysock
import pysock.aio
from pysock import RemoteError, connect
from pysock.wire import texts

BOTH = features(3)
HOUR = 3_600_000_000


@pytest.fixture
def seen(make_server, address):
    """A server that notes the request of each call."""
    server = make_server(address)
    server.seen = []

    def note(client, request):
        found = pysock.current()
        assert found.client is client
        server.seen.append((found.client.name, found.service, found.request_id, found.wants_reply, found.remaining()))
        return request

    server.service(note)
    server.service("named")(note)
    with server:
        yield server


def test_which_request_it_is(seen):
    with connect(seen.addresses[0], name="me") as client:
        client.request_many([b"x"] * 3)
        client.request_many([b"x"] * 2, service="named")
        client.notify(b"n")
        client.request(bytes(200_000), service="named", timeout=None)
    assert [entry[:2] for entry in seen.seen] == [("me", "")] * 3 + [("me", "named")] * 2 + [
        ("me", ""),
        ("me", "named"),
    ]
    numbers = [entry[2] for entry in seen.seen if entry[3]]
    assert len(set(numbers)) == len(numbers)
    assert [entry[3] for entry in seen.seen] == [True] * 5 + [False, True]


def test_its_number_is_that_on_the_wire(seen, cut):
    data = srm(b"a", 7) + srm(b"b", 2**32 - 1, service=1) + srm(b"c", 9, flags=wire.NO_REPLY)
    wire.talk(seen, data, cut)
    assert [entry[1:4] for entry in seen.seen] == [("", 7, True), ("named", 2**32 - 1, True), ("", 9, False)]


def test_how_long_its_client_waits(seen):
    with wire.let_in(seen, BOTH) as peer:
        peer.send(timed(b"a", 1, left=HOUR) + srm(b"b", 2) + timed(b"c", 3, left=5_000_000))
        assert [next_frame(peer) for _ in range(3)] == [replied(b"a", 1), replied(b"b", 2), replied(b"c", 3)]
    first, second, third = (entry[4] for entry in seen.seen)
    assert 3590 < first <= 3600
    assert second is None
    assert 4 < third <= 5


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_without_ids(make_server, address, framing):
    server = make_server(address, framing=framing)
    found = []

    @server.service
    def handle(client, request):
        found.append(pysock.current())
        return request

    with server, wire.dial(server) as peer:
        peer.send({"u32": b"\0\0\0\1a\0\0\0\1b", "line": b"a\nb\n", "raw": b"ab"}[framing])
        wait_for(lambda: len(found) >= (1 if framing == "raw" else 2))
        (client,) = server.clients.values()
    assert {(one.client, one.service, one.request_id, one.deadline) for one in found} == {(client, "", 0, None)}


def test_it_stays_what_it_was(make_server, address):
    """Also when another request is served, and after all."""
    server = make_server(address)
    found = []

    @server.service
    def handle(client, request):
        found.append(pysock.current())
        return request

    with server, wire.let_in(server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        assert [next_frame(peer), next_frame(peer)] == [replied(b"a", 1), replied(b"b", 2)]
    assert [one.request_id for one in found] == [1, 2]


def test_where_no_handler_runs(make_server, address):
    server = make_server(address)
    raised = []

    def ask(*_arguments):
        with pytest.raises(LookupError, match="for handlers"):
            pysock.current()
        raised.append(threading.current_thread())

    server.on_connect(ask)
    server.on_disconnect(ask)

    @server.batch_service("batch")
    def batch(clients, requests):
        ask()
        return requests

    @server.service
    def handle(client, request):
        thread = threading.Thread(target=ask)  # it is in the handler's place, and not the handler
        thread.start()
        thread.join()
        return request

    ask()
    with server:
        with connect(server.addresses[0]) as client:
            assert client.request(b"x") == b"x"
            assert client.request(b"x", service="batch") == b"x"
            ask()
        wait_for(lambda: len(raised) == 6)


def test_in_a_loop_of_the_programs(make_server, address):
    server = make_server(address)
    found = []

    @server.service
    def handle(client, request):
        found.append(pysock.current().request_id)
        return request

    def talk():
        with wire.let_in(server) as peer:
            peer.send(srm(b"a", 5))
            return next_frame(peer)

    async def main():
        async with server:
            assert await asyncio.get_running_loop().run_in_executor(None, talk) == replied(b"a", 5)
            with pytest.raises(LookupError):
                pysock.current()

    asyncio.run(main())
    assert found == [5]


def test_a_task_that_found_none_begins_others(make_server, unix_address):
    """That it is no handler's says nothing of handlers whose context is a copy of its own."""
    server, found = make_server(unix_address), []

    def note():
        found.append((pysock.current().service, pysock.current().client.name))

    @server.service("async")
    async def suspended(client, request):
        note()
        await asyncio.sleep(0)
        note()
        await asyncio.create_task(later())
        return request

    @server.service("suspended")
    async def later_only(client, request):
        await asyncio.sleep(0)
        note()
        return request

    @server.service("plain")
    def plain(client, request):
        note()
        return request

    async def later():
        note()

    async def main():
        for _ in range(2):
            with pytest.raises(LookupError):
                pysock.current()
        async with server, pysock.aio.connect(server.addresses[0], "me") as client:
            for name in ("async", "plain", "suspended"):
                assert await client.request(b"x", service=name) == b"x"
            with pytest.raises(LookupError):
                pysock.current()
            with pytest.raises(LookupError):
                await asyncio.create_task(later())

    asyncio.run(main())
    assert found == [("async", "me")] * 3 + [("plain", "me"), ("suspended", "me")]


def test_the_handler_of_another_server_in_a_handler(make_server, socket_dir):
    """Each in a thread of its own."""
    outer, inner = (make_server(f"unix:{socket_dir}/{n}") for n in "oi")
    inner.service("inner")(lambda client, request: b"%d" % pysock.current().request_id)

    @outer.service("outer")
    def handle(client, request):
        with connect(inner.addresses[0]) as other:
            other.ping()
            answer = other.request(b"", service="inner")
        return answer + b" in " + pysock.current().service.encode()

    with inner, outer, connect(outer.addresses[0]) as client:
        assert client.request(b"", service="outer").endswith(b" in outer")


def test_a_long_computation_looks_whether_anybody_waits(make_server, address):
    server = make_server(address)
    steps = []

    @server.service
    def compute(client, request):
        while True:
            pysock.current().check()
            steps.append(1)
            time.sleep(0.001)

    with server, wire.let_in(server, BOTH) as peer:
        peer.send(timed(b"x", 1, left=30_000))
        assert next_frame(peer) == failed(8, texts.TOO_LATE, 1)
    assert steps


def test_after_the_reply(make_server, address):
    server = make_server(address)
    done = threading.Event()
    order = []

    @server.service
    def handle(client, request):
        pysock.current().after_reply(lambda: (order.append("after"), done.set()))
        order.append("handler")
        return request

    with server, connect(server.addresses[0]) as client:
        for _ in range(3):
            done.clear()
            assert client.request(b"x") == b"x"
            assert done.wait(5)
    assert order == ["handler", "after"] * 3


def test_after_the_reply_something_fails(make_server, address, caplog):
    caplog.set_level(logging.ERROR, "pysock")
    server = make_server(address)
    server.service(lambda client, request: pysock.current().after_reply(lambda: 1 / 0))
    with server, connect(server.addresses[0]) as client:
        assert client.request(b"x") == b""
        wait_for(lambda: "ZeroDivisionError" in caplog.text)
        assert client.request(b"x") == b""


def test_check_of_one_whose_client_has_gone(make_server, address):
    server = make_server(address)
    kept = []

    @server.service
    def keep(client, request):
        kept.append(pysock.current())
        return request

    with server:
        with connect(server.addresses[0]) as client:
            client.request(b"x", timeout=None)
            kept[0].check()
        wait_for(lambda: kept[0].cancelled)
        with pytest.raises(RemoteError, match="cancelled"):
            kept[0].check()


# --- async handlers ---


@pytest.fixture(params=["first step", "later"])
def awaits(request):
    """Whether it is asked before anything was awaited."""
    return request.param == "later"


def test_in_an_async_handler(make_server, address, awaits):
    server = make_server(address)
    seen = []

    @server.service("slow")
    async def slow(client, request):
        if awaits:
            await asyncio.sleep(0.001)
        first = pysock.current()
        await asyncio.sleep(0.001)
        again = pysock.current()

        async def child():
            return pysock.current()

        assert first is again is await asyncio.create_task(child())
        assert first.client is client
        seen.append((first.service, first.request_id, first.wants_reply))
        return request

    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"%d" % number, number, service=1) for number in (7, 8, 9)))
        assert {next_frame(peer) for _ in range(3)} == {replied(b"%d" % number, number) for number in (7, 8, 9)}
    assert sorted(seen) == [("slow", number, True) for number in (7, 8, 9)]


def test_an_async_handler_leaves_nothing_to_the_next(make_server, address):
    server = make_server(address)
    numbers = []

    @server.service
    async def handle(client, request):
        numbers.append(pysock.current().request_id)
        return request

    with server, wire.let_in(server) as peer:
        for number in range(1, 6):
            peer.send(srm(b"x", number))
            assert next_frame(peer) == replied(b"x", number)
    assert numbers == [1, 2, 3, 4, 5]


def test_after_the_reply_of_an_async_handler(make_server, address, awaits):
    server = make_server(address)
    order = []
    done = threading.Event()

    @server.service
    async def handle(client, request):
        if not awaits:
            pysock.current().after_reply(lambda: (order.append("after"), done.set()))
        await asyncio.sleep(0.02)
        if awaits:
            pysock.current().after_reply(lambda: (order.append("after"), done.set()))
        order.append("handler")
        return request

    with server, connect(server.addresses[0]) as client:
        assert client.request(b"x") == b"x"
        assert done.wait(5)
    assert order == ["handler", "after"]


def test_an_async_handler_sees_that_it_is_cancelled(make_server, address):
    server = make_server(address)
    seen = []
    begun = threading.Event()

    @server.service
    async def handle(client, request):
        found = pysock.current()
        begun.set()
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(found.cancelled)
            with pytest.raises(RemoteError, match="cancelled"):
                found.check()
            seen.append("checked")

    with server, wire.let_in(server, BOTH) as peer:
        peer.send(srm(b"x", 1))
        assert begun.wait(5)
        peer.send(wire.cancel(1))
        assert next_frame(peer) == failed(9, texts.CANCELLED, 1)
        wait_for(lambda: len(seen) == 2)
    assert seen == [True, "checked"]


# --- calls that a handler makes ---


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("deadline", ["inherit", "ignore"])
def test_a_call_of_a_handlers_keeps_to_its_deadline(make_server, socket_dir, kind, deadline):
    outer, inner = (make_server(f"unix:{socket_dir}/{n}") for n in "oi")
    seen = []

    @inner.service
    def remaining(client, request):
        seen.append(pysock.current().remaining())
        return request

    if kind == "plain":

        @outer.service
        def ask(client, request):
            with connect(inner.addresses[0], deadline=deadline) as other:
                return other.request(request, timeout=100)
    else:

        @outer.service
        async def ask_awaiting(client, request):
            await asyncio.sleep(0)
            async with pysock.aio.connect(inner.addresses[0], deadline=deadline) as other:
                return await other.request(request, timeout=100)

    with inner, outer, connect(outer.addresses[0]) as client:
        assert client.request(b"x", timeout=20) == b"x"
    (left,) = seen
    assert 15 < left <= 20 if deadline == "inherit" else 95 < left <= 100


def test_a_handler_whose_time_is_over_calls_nobody(make_server, socket_dir, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    outer, inner = (make_server(f"unix:{socket_dir}/{n}") for n in "oi")
    raised = []
    inner.service(lambda client, request: request)

    @outer.service
    def ask(client, request):
        with connect(inner.addresses[0]) as other:
            wait_for(lambda: pysock.current().remaining() == 0)
            with pytest.raises(pysock.RequestTimeout) as caught:
                other.request(request)
            raised.append(caught.value)
        return request

    with inner, outer, connect(outer.addresses[0]) as client:
        with contextlib.suppress(pysock.RequestTimeout):  # the reply may come in the last moment
            client.request(b"x", timeout=0.05)
        wait_for(lambda: raised)
