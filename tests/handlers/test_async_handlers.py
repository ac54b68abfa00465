"""Handlers that are ``async def``, in every kind of loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import wire
from support import run_python, wait_for
from wire import cancel, failed, features, next_frame, srm, timed

from pysock import ConnectionLost, PysockError, RemoteError, connect
from pysock.wire import texts

BOTH = features(3)
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="base")


def ask(server, payload=b"x", **options):
    with connect(server.addresses[0], **options) as client:
        return client.request(payload)


async def echo(client, request):
    return request


async def echo_later(client, request):
    await asyncio.sleep(0.001)
    return request


class Callable:
    async def __call__(self, client, request):
        return request


# --- what may be one ---


@pytest.mark.parametrize(
    "handler", [echo, partial(echo), Callable(), Callable().__call__, partial(Callable()), echo_later]
)
def test_seen_at_registration(serve, handler):
    assert ask(serve(handler), b"hello") == b"hello"


def test_one_that_returns_something_to_be_awaited(make_server, unix_address, loop):
    server = make_server(unix_address, loop=loop)

    @server.service(kind="async")
    def handler(client, request):
        return echo_later(client, request) if request == b"later" else request

    with server:
        assert ask(server, b"now") == b"now"
        assert ask(server, b"later") == b"later"


def test_one_that_does_not_say_so(make_server, unix_address):
    """It isn't awaited: nobody has said that there is a loop to be."""
    server = make_server(unix_address)
    made = []

    @server.service
    def handler(client, request):
        made.append(echo(client, request))
        return made[-1]

    with server, pytest.raises(RemoteError, match="TypeError"):
        ask(server)
    made[0].close()  # else Python would complain of it, some time later


def test_no_loop_without_async_handlers(make_server, unix_address):
    server = make_server(unix_address)
    found = []

    @server.service
    def handler(client, request):
        found.append(asyncio._get_running_loop())

    with server:
        ask(server)
    assert found == [None]


@pytest.mark.parametrize("kind", ["trio", None, 3])
def test_a_loop_that_there_is_not(make_server, unix_address, kind):
    with pytest.raises(ValueError, match="loop must be 'auto'"):
        make_server(unix_address, loop=kind)


def test_a_function_that_makes_the_loop(make_server, unix_address):
    made = []

    def make():
        made.append(asyncio.new_event_loop())
        return made[0]

    server = make_server(unix_address, loop=make)

    @server.service
    async def handler(client, request):
        return str(asyncio.get_running_loop() is made[0]).encode()

    with server:
        assert ask(server) == b"True"
    wait_for(made[0].is_closed)


def closed_loop():
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


@pytest.mark.parametrize("begin", ["start", "serve_forever"])
@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        ("uvloop", PysockError, "pip install uvloop"),
        (lambda: None, PysockError, "must make an asyncio loop that isn't closed and doesn't run yet"),
        (closed_loop, PysockError, "must make an asyncio loop that isn't closed and doesn't run yet"),
        (lambda: {}["no loop"], KeyError, "no loop"),
    ],
    ids=["not installed", "none", "closed", "raises"],
)
def test_where_no_loop_can_be_whoever_begins_is_told(
    make_server, unix_address, socket_dir, monkeypatch, begin, make, error, told
):
    """And nothing is left of the server."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    server = make_server(unix_address, loop=make)
    server.service(echo)
    with pytest.raises(error, match=told):
        getattr(server, begin)()
    assert server.state.name == "CLOSED"
    assert list(socket_dir.iterdir()) == []


def test_a_loop_in_which_nobody_serves_is_closed(make_server, unix_address, monkeypatch):
    """It was made, and then there was no thread for it."""
    made = []
    server = make_server(unix_address, loop=lambda: made.append(asyncio.new_event_loop()) or made[0])
    server.service(echo)

    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        server.start()
    assert made[0].is_closed()


def test_serve_forever_where_a_loop_runs(make_server, unix_address):
    server = make_server(unix_address)
    server.service(echo)

    async def main():
        with pytest.raises(PysockError, match="use `async with server`"):
            server.serve_forever()

    asyncio.run(main())
    assert server.state.name == "NEW"


# --- what its first step has ---


def test_it_is_a_task_from_the_beginning(serve):
    async def handler(client, request):
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert task in asyncio.all_tasks()
        assert await asyncio.wait_for(echo(client, b"1"), 5) == b"1"
        assert asyncio.current_task() is task
        if sys.version_info >= (3, 11):
            async with asyncio.timeout(5):
                pass
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
        assert await asyncio.to_thread(lambda: 5) == 5
        return request

    server = serve(handler)
    assert ask(server, b"well") == b"well"
    with connect(server.addresses[0]) as client:
        assert client.request_many([b"x"] * 50) == [b"x"] * 50


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
def test_a_timeout_of_the_first_step_fires(serve):
    async def handler(client, request):
        async with asyncio.timeout(0.02):
            await asyncio.sleep(30)

    with pytest.raises(RemoteError, match="TimeoutError"):
        ask(serve(handler))


@pytest.mark.parametrize("waits", [False, True])
def test_nothing_leaks_from_one_to_the_next(serve, waits):
    seen = []

    async def handler(client, request):
        seen.append(VARIABLE.get())
        token = VARIABLE.set("mine")
        if waits:
            await asyncio.sleep(0)
            assert VARIABLE.get() == "mine"
            VARIABLE.reset(token)
            VARIABLE.set("again")
        asyncio.current_task().set_name("mine")
        return b""

    server = serve(handler)
    for _ in range(2):
        with connect(server.addresses[0]) as client:
            client.request_many([b"x", b"x", bytes(300_000)])
    assert seen == ["base"] * 6


def test_a_task_that_somebody_keeps_is_not_used_again(serve):
    kept = []

    async def handler(client, request):
        kept.append(asyncio.current_task())

    with connect(serve(handler).addresses[0]) as client:
        client.request_many([b"x"] * 10)
    assert len(set(map(id, kept))) == 10


def test_a_task_that_cancels_itself_and_returns(serve):
    async def handler(client, request):
        if request == b"cancel":
            asyncio.current_task().cancel()
        return request

    with connect(serve(handler).addresses[0]) as client:
        assert client.request_many([b"cancel", b"x"] * 20) == [b"cancel", b"x"] * 20


# --- what it raises ---


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("no"), 1, "ValueError"),
        (RemoteError("no", 77), 77, "no"),
        (asyncio.CancelledError(), 1, "CancelledError"),
    ],
)
def test_what_it_raises_is_an_error(serve, waits, error, code, text):
    async def handler(client, request):
        if request == b"well":
            return b"well"
        if waits:
            await asyncio.sleep(0)
        raise error

    server = serve(handler)
    with connect(server.addresses[0]) as client:
        with pytest.raises(RemoteError, match=text) as raised:
            client.request(b"x")
        assert raised.value.code == code
        assert client.request(b"well") == b"well"


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("value", ["text", ValueError("returned"), 5])
def test_what_it_returns_must_be_bytes(serve, waits, value):
    async def handler(client, request):
        if waits:
            await asyncio.sleep(0)
        return value

    with pytest.raises(RemoteError, match="TypeError"):
        ask(serve(handler))


def test_the_log_has_where_it_was_raised(serve, caplog):
    async def inner():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def handler(client, request):
        await inner()

    with pytest.raises(RemoteError):
        ask(serve(handler))
    assert "in inner" in caplog.text


# --- many ---


def test_they_wait_side_by_side_and_answers_leave_as_they_come(serve):
    async def handler(client, request):
        await asyncio.sleep(int(request) / 1000)
        return request

    with connect(serve(handler).addresses[0]) as client:
        begin = time.monotonic()
        payloads = [b"%d" % (n % 7 * 10) for n in range(300)]
        assert client.request_many(payloads) == payloads
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize("framing", ["u32", "line"])
def test_framings_without_ids_keep_the_order(make_server, address, loop, framing):
    """One request of a connection at a time; also of a client that has closed its sending side."""
    server = make_server(address, framing=framing, loop=loop)

    @server.service
    async def handler(client, request):
        if len(request) % 3:
            await asyncio.sleep(len(request) % 5 / 1000)
        return request

    payloads = [b"x" * (n % 11 + 1) for n in range(200)]
    sent = b"".join(len(p).to_bytes(4, "big") + p if framing == "u32" else p + b"\n" for p in payloads)
    with server, wire.dial(server) as peer:
        peer.send(sent)
        peer.sock.shutdown(socket.SHUT_WR)
        assert rest_of(peer) == sent


@pytest.mark.parametrize("waits", [False, True])
def test_without_ids_a_failure_closes_behind_earlier_replies(make_server, address, loop, waits, caplog):
    server = make_server(address, framing="line", loop=loop)

    @server.service
    async def handler(client, request):
        await asyncio.sleep(0.001)
        if request == b"fail":
            await asyncio.sleep(0.001 if waits else 0)
            raise ZeroDivisionError
        return request

    with server, wire.dial(server) as peer:
        peer.send(b"one\ntwo\nfail\nthree\n")
        assert rest_of(peer) == b"one\ntwo\n"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def rest_of(peer):
    got = b""
    while piece := peer.sock.recv(65536):
        got += piece
    return got


def test_a_server_in_the_programs_loop(run, make_server, address):
    server = make_server(address)
    server.service(echo_later)

    def talk():
        with connect(server.addresses[0]) as client:
            return client.request_many([b"x"] * 100)

    async def main():
        async with server:
            loop = asyncio.get_running_loop()
            for replies in await asyncio.gather(*(loop.run_in_executor(None, talk) for _ in range(3))):
                assert replies == [b"x"] * 100

    run(main())


def test_two_servers_that_ask_each_other(make_server, socket_dir, loop):
    """Each in a loop and a thread of its own: no future of one is waited for in the other."""
    one, two = (make_server(f"unix:{socket_dir}/{n}", loop=loop) for n in "ab")

    @one.service
    async def first(client, request):
        return await asyncio.to_thread(ask, two, request)

    two.service(echo_later)
    with one, two:
        for n in range(20):
            assert ask(one, b"%d" % n) == b"%d" % n


# --- in its first step it may do what it likes ---


def test_it_pushes_closes_others_and_stops_the_server(serve):
    async def handler(client, request):
        match request:
            case b"push":
                client.send(b"pushed")
            case b"others":
                for other in server.clients.values():
                    if other.id != client.id:
                        other.close()
            case b"stop":
                server.stop()
        return request

    server = serve(handler)
    other = connect(server.addresses[0])
    assert other.request(b"x") == b"x"
    with connect(server.addresses[0]) as client:
        assert client.request(b"push") == b"push"
        assert next(client.pushes(timeout=5)) == b"pushed"
        assert client.request(b"others") == b"others"
        wait_for(lambda: server.stats()["clients"] == 1)
        assert client.request(b"stop") == b"stop"
    other.close()
    wait_for(lambda: server.state.name == "CLOSED")


@pytest.mark.parametrize("waits", [False, True])
def test_it_closes_its_own_client_and_goes_on(serve, waits):
    async def handler(client, request):
        client.close()
        if waits:
            await asyncio.sleep(0.01)
        return b"answered"

    assert ask(serve(handler)) == b"answered"


# --- nobody waits any more ---


class Sleeper:
    """A handler that sleeps, and what became of its calls."""

    def __init__(self):
        self.begun, self.ended = queue.Queue(), queue.Queue()
        self.server = None

    async def __call__(self, client, request):
        client.data = "its data"
        self.begun.put(request)
        try:
            if request == b"stubborn":
                return await self.swallow()
            await asyncio.sleep(30 if request != b"short" else 0.2)
        except BaseException as error:
            await asyncio.sleep(0)
            self.ended.put((request, type(error).__name__, client.data))
            raise
        self.ended.put((request, "well", client.data))
        return b"too late"

    async def swallow(self):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        await asyncio.sleep(0.2)
        self.ended.put((b"stubborn", "swallowed", None))
        return b"its result"

    def in_flight(self):
        engine = self.server._running.engine
        return sum(engine.info(number).in_flight for number in self.server.clients)


@pytest.fixture
def sleeper(serve):
    sleeper = Sleeper()
    sleeper.server = serve(sleeper)
    return sleeper


def test_it_is_cancelled_by_its_client(sleeper):
    with wire.let_in(sleeper.server, BOTH) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        assert {sleeper.begun.get(timeout=5) for _ in range(2)} == {b"a", b"b"}
        peer.send(cancel(1))
        assert next_frame(peer) == failed(9, texts.CANCELLED, 1)
        assert sleeper.ended.get(timeout=5) == (b"a", "CancelledError", "its data")
        wait_for(lambda: sleeper.in_flight() == 1)
        peer.send(wire.ping())
        assert next_frame(peer) == wire.ponged()


def test_its_deadline_passes(sleeper):
    with wire.let_in(sleeper.server, BOTH) as peer:
        peer.send(timed(b"a", 1, left=20_000))
        assert next_frame(peer) == failed(8, texts.TOO_LATE, 1)
        assert sleeper.ended.get(timeout=5) == (b"a", "CancelledError", "its data")
        wait_for(lambda: sleeper.in_flight() == 0)


def test_one_that_swallows_its_cancel_holds_its_place(sleeper):
    """Its client has one answer, and its result is dropped."""
    with wire.let_in(sleeper.server, BOTH) as peer:
        peer.send(srm(b"stubborn", 1))
        sleeper.begun.get(timeout=5)
        peer.send(cancel(1))
        assert next_frame(peer) == failed(9, texts.CANCELLED, 1)
        assert sleeper.in_flight() == 1
        assert sleeper.ended.get(timeout=5) == (b"stubborn", "swallowed", None)
        wait_for(lambda: sleeper.in_flight() == 0)
        peer.send(wire.ping())
        assert next_frame(peer) == wire.ponged()
    assert sleeper.server.stats()["errors"] == 1


@pytest.mark.parametrize("how", ["reset", "end of file", "bye"])
def test_it_is_cancelled_when_its_client_has_gone(sleeper, how):
    """But what nobody waits for anyway, is done."""
    peer = wire.let_in(sleeper.server, BOTH)
    peer.send(srm(b"a", 1) + srm(b"short", 2, flags=wire.NO_REPLY))
    assert {sleeper.begun.get(timeout=5) for _ in range(2)} == {b"a", b"short"}
    if how == "bye":
        peer.send(wire.BYE_FRAME)
    elif how == "reset":
        wire.reset(peer.sock)
    peer.sock.close()
    ended = {sleeper.ended.get(timeout=5) for _ in range(2)}
    assert ended == {(b"a", "CancelledError", "its data"), (b"short", "well", "its data")}


def test_it_is_not_where_that_only_sends_no_more(sleeper):
    with wire.let_in(sleeper.server) as peer:
        peer.send(srm(b"short", 1))
        peer.sock.shutdown(socket.SHUT_WR)
        assert wire.rest_of(peer) == [wire.replied(b"too late")]


def test_one_that_finishes_when_its_client_has_gone(make_server, address, loop):
    server = make_server(address, loop=loop)
    sleeper = Sleeper()
    server.service("finish", on_leave="finish")(sleeper)
    with server:
        with wire.let_in(server, BOTH) as peer:
            peer.send(srm(b"short", 1, service=1) + srm(b"a", 2, service=1))
            assert {sleeper.begun.get(timeout=5) for _ in range(2)} == {b"a", b"short"}
            peer.send(cancel(2))  # that is another thing
            assert next_frame(peer) == failed(9, texts.CANCELLED, 2)
            assert sleeper.ended.get(timeout=5) == (b"a", "CancelledError", "its data")
        assert sleeper.ended.get(timeout=5) == (b"short", "well", "its data")


@pytest.mark.parametrize("kind", ["stay", None, True])
def test_what_it_may_do_then(make_server, unix_address, kind):
    with pytest.raises(ValueError, match="on_leave must be 'cancel' or 'finish'"):
        make_server(unix_address).service("x", on_leave=kind)(echo)


def test_a_flood_of_cancels(serve):
    """What is asked and taken back at once costs no more than its own place, and others are served meanwhile."""
    running = [0, 0]

    async def handler(client, request):
        running[0] += 1
        running[1] = max(running)
        try:
            await asyncio.sleep(30 if request else 0)
        finally:
            running[0] -= 1
        return request

    server = serve(handler)
    with wire.let_in(server, BOTH) as peer, connect(server.addresses[0]) as other:
        for turn in range(5):
            numbers = range(turn * 500 + 1, turn * 500 + 501)
            peer.send(b"".join(srm(b"x", n) + cancel(n) for n in numbers))
            assert {next_frame(peer) for _ in numbers} == {failed(9, texts.CANCELLED, n) for n in numbers}
            assert other.request(b"") == b""
        wait_for(lambda: running[0] == 0)
    assert running[1] <= server.limits.max_in_flight + 2


def test_one_that_swallows_its_cancel_is_told_of_once(serve, caplog, monkeypatch):
    monkeypatch.setattr("pysock.tasks.tasks._GOES_ON", 0.05)
    begun, over = threading.Event(), threading.Event()

    async def stubborn(client, request):
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    server = serve(stubborn)
    with wire.let_in(server, BOTH) as peer:
        peer.send(srm(b"x", 1))
        assert begun.wait(10)
        peer.send(cancel(1))
        wait_for(lambda: "stubborn" in caplog.text)
        time.sleep(0.2)
        assert caplog.text.count("after it was cancelled") == 1
        over.set()


# --- the end ---


def test_what_runs_has_the_grace(serve):
    async def handler(client, request):
        begun.set()
        await asyncio.sleep(0.2)
        return b"in time"

    begun = threading.Event()
    server = serve(handler)
    with connect(server.addresses[0]) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.request, b"x")
        assert begun.wait(5)
        server.stop(5)
        assert answer.result() == b"in time"


def test_what_goes_on_after_the_grace_is_cancelled(serve, caplog):
    seen = []

    async def tame(client, request):
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            seen.append("finally")

    begun = threading.Event()
    server = serve(tame)
    with connect(server.addresses[0]) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.request, b"x")
        assert begun.wait(5)
        begin = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - begin < 1.5
        with pytest.raises(RemoteError) as raised:
            answer.result()
        assert raised.value.code == 9
    assert seen == ["finally"]
    assert "goes on" not in caplog.text


def test_one_that_never_ends_is_named(serve, caplog, monkeypatch):
    monkeypatch.setattr("pysock.tasks.tasks.PATIENCE", 0.3)

    async def stubborn(client, request):
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    begun, over = threading.Event(), threading.Event()
    server = serve(stubborn)
    with connect(server.addresses[0]) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.request, b"x")
        assert begun.wait(5)
        begin = time.monotonic()
        server.stop(0.1)
        assert 0.3 < time.monotonic() - begin < 2
        over.set()
        assert isinstance(answer.exception(), (RemoteError, ConnectionLost))
    assert server.state.name == "CLOSED"
    assert "stubborn" in caplog.text
    assert "goes on, though its server has ended" in caplog.text


def test_the_programs_loop_ends(run, make_server, unix_address):
    """All tasks are cancelled by ``asyncio.run``: who waits is told so by the server, not by the handler's error."""
    server = make_server(unix_address)
    begun = threading.Event()

    @server.service
    async def handler(client, request):
        begun.set()
        await asyncio.sleep(30)

    async def main():
        await server.__aenter__()
        answers.append(pool.submit(ask, server))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)

    answers = []
    with ThreadPoolExecutor() as pool:
        begin = time.monotonic()
        run(main())
        assert time.monotonic() - begin < 5
        error = answers[0].exception(5)
    assert isinstance(error, ConnectionLost) or error.code == 9
    assert server.state.name == "CLOSED"


SERVE = """
import asyncio, sys
import pysock
server = pysock.Server({address!r}, backend={backend!r}, loop={loop!r})
@server.service
async def handler(client, request):
    if request == b"swallow":
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                pass
    await asyncio.sleep(float(request))
    return request
@server.on_state
def changed(old, new):
    print(new.name, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize(("signals", "status"), [(1, 0), (2, 143)])
def test_signals(backend, unix_address, loop, signals, status):
    """The first drains; the second ends it at once."""
    program = SERVE.format(address=unix_address, backend=backend, loop=loop)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "LISTENING\n" or process.stdout.readline()
    with ThreadPoolExecutor() as pool, wait_for(lambda: try_connect(unix_address)) as client:
        client.request(b"0")
        answer = pool.submit(client.request, b"0.5" if signals == 1 else b"30")
        time.sleep(0.1)
        begin = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - begin < 3
        assert process.returncode == status, errors
        if signals == 1:
            assert answer.result() == b"0.5"
        else:
            assert isinstance(answer.exception(), (RemoteError, ConnectionLost))
    assert "Traceback" not in errors


def try_connect(address):
    try:
        return connect(address)
    except OSError:
        return None


def test_the_interpreter_ends_with_a_task_that_does_not(backend, unix_address, loop):
    program = SERVE.format(address=unix_address, backend=backend, loop=loop)
    program = program.replace("server.serve_forever()", "")
    program += f"""
import threading, time
server.start()
def ask():
    try:
        with pysock.connect({unix_address!r}) as client:
            client.request(b"swallow")
    except (pysock.PysockError, OSError):
        pass
threading.Thread(target=ask, daemon=True).start()
time.sleep(0.3)
"""
    begin = time.monotonic()
    ended = run_python(program)
    assert time.monotonic() - begin < 6
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert "pending" not in ended.stderr


def test_a_loop_that_is_closed_under_it(backend, unix_address):
    program = SERVE.format(address=unix_address, backend=backend, loop="asyncio")
    program = program.replace("server.serve_forever()", "")
    program += f"""
import threading
loop = asyncio.new_event_loop()
loop.run_until_complete(server.__aenter__())
def ask():
    with pysock.connect({unix_address!r}) as client:
        client.notify(b"30")
        client.ping()
loop.run_until_complete(loop.run_in_executor(None, ask))
loop.close()
"""
    ended = run_python(program, PYTHONWARNINGS="default")
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert "pending" not in ended.stderr


# --- hooks ---


def test_async_hooks_run_beside_others(make_server, unix_address, loop, caplog):
    server = make_server(unix_address, loop=loop)
    server.service(lambda client, request: setattr(client, "data", request))
    gone = []

    @server.on_disconnect
    async def slow(client, reason):
        await asyncio.sleep(0.05)
        gone.append((client.data, reason))

    @server.on_disconnect
    async def broken(client, reason):
        await asyncio.sleep(0)
        raise ZeroDivisionError

    @server.on_disconnect
    def plain(client, reason):
        gone.append("plain")

    with server, connect(server.addresses[0]) as client:
        client.request(b"its data")
    assert gone == ["plain", (b"its data", "left")]
    assert caplog.text.count("raise ZeroDivisionError") == 1
    assert "broken" in caplog.text


def test_a_hook_that_never_ends_is_named(make_server, unix_address, caplog, monkeypatch):
    monkeypatch.setattr("pysock.tasks.tasks.PATIENCE", 0.2)
    server = make_server(unix_address)
    server.service(echo)

    @server.on_disconnect
    async def endless(client, reason):
        await asyncio.sleep(30)

    with server:
        ask(server)
    assert "endless" in caplog.text
    assert "goes on, though its server has ended" in caplog.text
