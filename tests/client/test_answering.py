"""What a blocking client answers its server: in a thread of its own, whatever else goes on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import threading
import time
import weakref

import pytest
import wire
from support import wait_for

import pysock
import pysock.aio
from pysock import Cancelled, ConnectionLost, RemoteError, RequestTimeout, connect
from pysock.wire import texts

#: A service with threads= is a plain function.
pytestmark = pytest.mark.plain


def upper(client, request):
    return request.upper()


def fails(client, request):
    raise ValueError(request.decode())


def refuses(client, request):
    raise RemoteError(request.decode(), 6)


SERVICES = {None: upper, "fails": fails, "refuses": refuses, "nothing": lambda client, request: None}


@pytest.fixture
def server(make_server, unix_address):
    one = make_server(unix_address)
    one.service()(lambda client, request: request[::-1])

    @one.service("back", threads=3)
    def back(client, request):
        """Ask whoever asks."""
        return b"<" + client.request(request, "back") + b">"

    one.start()
    return one


@pytest.fixture
def join(server, backend):
    """``join(services)``: a client that answers, and its data socket."""
    with contextlib.ExitStack() as stack:

        def make(services=None, **options):
            address = server.addresses[0]
            client = stack.enter_context(connect(address, services=services, backend=backend, **options))
            return client, server.clients[client.id]

        yield make


def test_the_answers(join):
    _, data = join(SERVICES)
    assert data.request(b"a") == b"A"
    assert data.request(bytearray(b"b")) == b"B"
    assert data.request(b"x" * 1_000_000) == b"X" * 1_000_000
    assert data.request(b"", "nothing") == b""


def test_errors(join, caplog):
    _, data = join(SERVICES)
    with caplog.at_level(logging.ERROR, "pysock"), pytest.raises(RemoteError, match="ValueError") as info:
        data.request(b"its own business", "fails")
    assert (info.value.code, info.value.type) == (1, "ValueError")
    assert "a service of this client failed" in caplog.text
    with pytest.raises(RemoteError, match="no, thanks") as info:
        data.request(b"no, thanks", "refuses")
    assert info.value.code == 6
    with pytest.raises(RemoteError, match=texts.NO_SUCH_SERVICE) as info:
        data.request(b"", "none")
    assert info.value.code == 2
    assert data.request(b"fine") == b"FINE"


def test_a_client_without_any(join):
    _, data = join({})
    with pytest.raises(RemoteError, match=texts.NO_SUCH_SERVICE):
        data.request(b"")


@pytest.mark.parametrize(("result", "code"), [("text", 1), (b"x" * 1001, 3)], ids=["text", "large"])
def test_a_result_that_can_not_be_sent(make_server, unix_address, backend, result, code):
    server = make_server(unix_address, limits=pysock.Limits(max_payload=1000))
    with server, connect(unix_address, services={None: lambda client, request: result}, backend=backend) as client:
        with pytest.raises(RemoteError) as info:
            server.clients[client.id].request(b"")
        assert info.value.code == code


def test_what_the_client_takes(join):
    """Of the request; the name isn't counted."""
    _, data = join({"n" * 255: lambda client, request: b"%d" % len(request)}, max_payload=1000)
    assert data.request(b"x" * 1000, "n" * 255) == b"1000"
    with pytest.raises(pysock.FrameTooLarge):
        data.request(b"x" * 1001, "n" * 255)


def test_beside_calls_of_its_own(join):
    """Whoever reads, the answers go out."""
    client, data = join(SERVICES)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(data.request, b"%d a" % i) for i in range(100)]
        own = [client.request(b"%d b" % i) for i in range(100)]
        assert own == [(b"%d b" % i)[::-1] for i in range(100)]
        assert [one.result() for one in asked] == [b"%d A" % i for i in range(100)]


def test_within_a_call_of_its_own(join):
    """The server asks back before it answers: the thread that waits can't."""
    client, _ = join({"back": upper})
    for _ in range(20):
        assert client.request(b"a", "back") == b"<A>"


def test_a_service_that_calls_its_own_client(join):
    """And is asked again meanwhile, and so on."""

    def back(client, request):
        return client.request(request[1:], "back") if request else b"end"

    client, data = join({"back": back})
    assert data.request(b"", "back") == b"end"
    assert client.request(b"ab", "back") == b"<<<end>>>"
    assert client.request(b"ab", "back") == b"<<<end>>>"


def test_pushes_come_all_the_same(join):
    client, data = join(SERVICES)
    data.send(b"one")
    assert data.request(b"a") == b"A"
    data.send(b"two")
    assert [next(client.pushes(10)), next(client.pushes(10))] == [b"one", b"two"]
    got = []
    client.on_push(got.append)
    data.send(b"three")
    wait_for(lambda: got == [b"three"], "the hook")


def test_what_was_given_up_before_its_turn_is_not_run(join):
    ran, go_on = [], threading.Event()

    def slow(client, request):
        ran.append(request)
        go_on.wait(10)
        return b""

    _, data = join({None: slow})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(data.request, b"first")
        wait_for(lambda: ran, "the first one")
        with pytest.raises(RequestTimeout):
            data.request(b"second", timeout=0.01)
        time.sleep(0.02)
        go_on.set()
        assert first.result() == b""
    assert data.request(b"third") == b""
    assert ran == [b"first", b"third"]


def test_what_is_given_up_while_it_runs_is_ignored(join):
    go_on = threading.Event()
    _, data = join({None: lambda client, request: request if go_on.wait(10) else b""})
    with pytest.raises(RequestTimeout):
        data.request(b"late", timeout=0.01)
    go_on.set()
    assert data.request(b"in time") == b"in time"


@pytest.mark.parametrize("how", ["closed", "server stops"])
def test_the_end_in_the_middle(join, server, how):
    running, go_on = threading.Event(), threading.Event()

    def slow(client, request):
        running.set()
        go_on.wait(10)
        return b""

    client, data = join({None: slow})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(data.request, b"")
        running.wait(10)
        if how == "closed":
            client.close()
        else:
            server.stop()
        assert isinstance(asked.exception(10), ConnectionLost)
        go_on.set()
    wait_for(lambda: not _threads(), "the threads' end")


def _threads():
    return [thread for thread in threading.enumerate() if thread.name in {"pysock services", "pysock pushes"}]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_one_that_is_thrown_away(server, backend):
    client = connect(server.addresses[0], services=SERVICES, backend=backend)
    data, gone = server.clients[client.id], weakref.ref(client)
    assert data.request(b"a") == b"A"
    del client
    gc.collect()
    assert gone() is None
    wait_for(lambda: not _threads(), "the threads' end")
    with pytest.raises(ConnectionLost):
        data.request(b"a")


def test_it_is_called_with_the_client(join):
    seen = []
    client, data = join({None: lambda *arguments: seen.append(arguments)})
    data.request(b"a")
    assert seen == [(client, b"a")]


@pytest.mark.parametrize(
    ("services", "kind", "words"),
    [
        ([upper], TypeError, "a dict of functions by name, not list"),
        ({"": upper}, ValueError, "1 to 255 bytes in UTF-8, not 0"),
        ({"x" * 256: upper}, ValueError, "not 256"),
        ({b"x": upper}, TypeError, "a str, or None for the unnamed one"),
        ({"x": 5}, TypeError, "must be callable"),
        ({"x": lambda request: b""}, TypeError, r"service\(client, request\)"),
    ],
)
def test_bad_services(server, backend, services, kind, words):
    with pytest.raises(kind, match=words):
        connect(server.addresses[0], services=services, backend=backend)


def test_an_async_one_needs_the_other_client(server, backend):
    async def service(client, request):
        return b""

    with pytest.raises(TypeError, match=r"pysock.aio.connect\(\)"):
        connect(server.addresses[0], services={"x": service}, backend=backend)


def test_an_ask_that_makes_no_sense(fake, backend):
    """The name is cut short; and what is taken back came never."""
    got = []

    def play(peer):
        peer.frame()
        peer.send(_accepted() + wire.frame(wire.ASK, b"", id=1) + wire.frame(wire.ASK, b"\x05abc", id=2))
        peer.send(wire.frame(wire.ASK_CANCEL, id=9))
        got.extend(wire.next_frame(peer) for _ in range(2))
        peer.frame()

    with connect(fake(play), services={}, backend=backend):
        wait_for(lambda: len(got) == 2, "the answers")
    text = b"an ASK whose name is cut short"
    assert got == [wire.Got(wire.ANSWER_ERROR, 0, 7, number, text) for number in (1, 2)]


@pytest.mark.parametrize("services", [None, {}])
def test_what_it_says_in_its_cir(fake, backend, services):
    said = []

    def play(peer):
        said.append(dict(wire.fields_of(peer.frame().payload[4:])).get(wire.FEATURES, b""))
        peer.send(_accepted())
        peer.frame()

    with connect(fake(play), services=services, backend=backend):
        assert bool(said[0][3] & wire.SPEAKS_ASK) is (services is not None)


@pytest.mark.parametrize("services", [None, {}])
def test_an_ask_that_was_not_agreed_on(fake, backend, services):
    """Whether or not the client had offered it."""

    def play(peer):
        peer.frame()
        peer.send(wire.frame(wire.CIR_ACCEPTED, wire.field(wire.CLIENT_ID, bytes(8))))
        peer.frame()
        peer.send(wire.frame(wire.ASK, b"\0", id=1))
        peer.frame()

    with connect(fake(play), services=services, backend=backend) as client, pytest.raises(ConnectionError):
        client.request(b"")


def _accepted():
    features = wire.features(wire.SPEAKS_DEADLINE | wire.SPEAKS_CANCEL | wire.SPEAKS_ASK)
    return wire.frame(wire.CIR_ACCEPTED, wire.field(wire.CLIENT_ID, bytes(8)) + features)


def test_one_that_connects_again_answers_again(make_server, unix_address, backend):
    """Though nobody makes a call."""
    seen = []

    def service(client, request):
        seen.append(client)
        return request.upper()

    with make_server(unix_address) as server:
        client = connect(unix_address, services={None: service}, reconnect=True, backend=backend)
        assert server.clients[client.id].request(b"a") == b"A"
    with client, make_server(unix_address) as server:
        wait_for(lambda: len(server.clients), "it comes back")
        (data,) = server.clients.values()
        assert data.request(b"b") == b"B"
        assert seen == [client, client]


# --- of asyncio ---


async def held(client, request):
    """Until it is cancelled, where the request isn't a number of seconds."""
    try:
        await asyncio.sleep(float(request or b"60"))
    except asyncio.CancelledError:
        HELD.append("cancelled")
        raise
    return request


HELD: list[str] = []


async def itself(client, request):
    return b"got " + await client.request(request)


ASYNC = {None: upper, "held": held, "itself": itself, "fails": fails}


def asked(server, script, services=ASYNC, **options):
    """``script(client, ask)``, where ``ask`` asks the client from another thread."""

    async def main():
        async with pysock.aio.connect(server.addresses[0], services=services, **options) as client:
            data = server.clients[client.id]
            return await script(client, lambda *arguments, **how: asyncio.to_thread(data.request, *arguments, **how))

    return asyncio.run(main())


def test_an_asyncio_client_answers(server, backend):
    async def script(client, ask):
        assert await ask(b"a") == b"A"
        assert await ask(b"x" * 1_000_000) == b"X" * 1_000_000
        assert await ask(b"0.001", "held") == b"0.001"
        assert await ask(b"abc", "itself") == b"got cba"
        with pytest.raises(RemoteError, match="ValueError"):
            await ask(b"x", "fails")
        with pytest.raises(RemoteError, match=texts.NO_SUCH_SERVICE):
            await ask(b"", "none")
        many = await asyncio.gather(*(ask(b"%d" % (i // 1000), "held") for i in range(20)), client.request(b"ab"))
        assert many == [b"0"] * 20 + [b"ba"]

    asked(server, script, backend=backend)


def test_a_task_whose_answer_nobody_waits_for_is_cancelled(server, backend):
    async def script(client, ask):
        HELD.clear()
        with pytest.raises(RequestTimeout):
            await ask(b"", "held", timeout=0.02)
        while not HELD:
            await asyncio.sleep(0.001)
        assert await ask(b"a") == b"A"

    asked(server, script, backend=backend)


def test_tasks_end_with_the_connection(server, backend):
    async def script(client, ask):
        HELD.clear()
        waiting = asyncio.create_task(ask(b"", "held"))
        await asyncio.sleep(0.02)
        client.close()
        with pytest.raises(ConnectionLost):
            await waiting
        assert HELD == ["cancelled"]

    asked(server, script, backend=backend)


def test_a_service_that_cancels_itself(server, backend):
    async def gives_up(client, request):
        raise asyncio.CancelledError

    async def script(client, ask):
        with pytest.raises(Cancelled):
            await ask(b"")

    asked(server, script, {None: gives_up}, backend=backend)


def test_an_asyncio_client_that_connects_again_answers_again(make_server, unix_address, backend):
    seen = []

    def service(client, request):
        seen.append(client)
        return request.upper()

    async def main():
        with make_server(unix_address) as server:
            client = await pysock.aio.connect(unix_address, services={None: service}, reconnect=True, backend=backend)
            assert await asyncio.to_thread(server.clients[client.id].request, b"a") == b"A"
            await asyncio.to_thread(server.stop)
        with make_server(unix_address) as server:
            while not len(server.clients):
                await asyncio.sleep(0.001)
            (data,) = server.clients.values()
            assert await asyncio.to_thread(data.request, b"b") == b"B"
            assert seen == [client, client]
            await client.aclose()

    asyncio.run(main())


def test_both_directions_at_once_in_one_loop(make_server, unix_address, backend):
    """Tasks on both ends, more of them than may be asked at once."""
    server = make_server(unix_address, limits=pysock.Limits(max_asks=64))

    @server.service()
    async def handler(client, request):
        return await client.request(request) if request else b"end"

    async def service(client, request):
        return await client.request(request[1:])

    async def main():
        async with server, pysock.aio.connect(unix_address, services={None: service}, backend=backend) as client:
            deep = [client.request(b"x" * 10) for _ in range(6)]
            wide = [client.request(b"") for _ in range(1000)]
            assert await asyncio.gather(*deep, *wide) == [b"end"] * 1006

    asyncio.run(main())
