"""A server in a loop of the program's: asyncio's, and uvloop's where that is installed."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support import run_python, wait_for

import pysock
from pysock import ConnectionLost, PysockError, Server, connect
from pysock.engine.choice import choose

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="base")


def in_thread(work: Callable[[], Any]) -> Awaitable[Any]:
    return asyncio.get_running_loop().run_in_executor(None, work)


def echo(server: Server) -> None:
    server.service()(lambda client, request: bytes(request))


def ask(server: Server, payload: bytes = b"hello") -> bytes:
    with connect(server.addresses[0]) as client:
        return client.request(payload)


# --- serving ---


def test_serves_in_the_loop_without_a_thread(run, make_server, address):
    server = make_server(address)
    threads = []

    @server.service()
    def handler(client, request):
        threads.append(threading.get_ident())
        return bytes(request)[::-1]

    async def main():
        async with server:
            assert server.state.name == "SERVING"
            assert await in_thread(lambda: ask(server)) == b"olleh"

    run(main())
    assert threads == [threading.get_ident()]
    assert server.state.name == "CLOSED"


def test_serves_many_requests_of_several_clients(run, make_server, address):
    server = make_server(address)
    echo(server)

    def talk():
        payloads = [b"%d" % n * (n % 50 + 1) for n in range(2000)]
        with connect(server.addresses[0]) as client:
            assert client.request_many(payloads) == payloads
            big = bytes(500_000)
            assert client.request(big) == big

    async def main():
        async with server:
            await asyncio.gather(*(in_thread(talk) for _ in range(4)))
            assert server.stats()["requests"] == 4 * 2001

    run(main())


def test_the_programs_tasks_go_on_beside_a_busy_server(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)
    over = threading.Event()

    def hammer():
        with connect(server.addresses[0]) as client:
            while not over.is_set():
                client.request_many([b"x" * 64] * 500)

    async def main():
        async with server:
            work = in_thread(hammer)
            for _ in range(50):
                await asyncio.sleep(0.001)
            over.set()
            await work

    run(main())
    assert server.stats()["requests"] >= 500


def test_a_deadline_comes_though_nothing_is_ready(run, make_server, unix_address):
    server = make_server(unix_address, limits=pysock.Limits(idle_timeout=0.2))
    echo(server)

    def wait_for_the_end():
        with connect(server.addresses[0]) as client:
            client.request(b"x")
            begin = time.monotonic()
            wait_for(lambda: server.stats()["clients"] == 0)
            return time.monotonic() - begin

    async def main():
        async with server:
            assert 0.1 < await in_thread(wait_for_the_end) < 2

    run(main())


def test_a_batch_is_answered_when_it_is_due(run, make_server, unix_address):
    server = make_server(unix_address)

    @server.batch_service(max_wait=0.05)
    def double(clients, requests):
        return [bytes(request) * 2 for request in requests]

    async def main():
        async with server:
            assert await in_thread(lambda: ask(server, b"ab")) == b"abab"

    run(main())


def test_a_task_pushes_between_turns(run, make_server, address):
    server = make_server(address)
    echo(server)
    came = threading.Event()

    def receive():
        with connect(server.addresses[0]) as client:
            client.request(b"x")
            came.set()
            pushes = client.pushes(timeout=5)
            return [next(pushes), next(pushes)]

    async def main():
        async with server:
            received = in_thread(receive)
            await in_thread(came.wait)
            (client,) = server.clients.values()
            client.send(b"one")
            assert server.clients.broadcast(b"two") == 1
            assert [bytes(payload) for payload in await received] == [b"one", b"two"]

    run(main())


def test_handlers_see_none_of_the_programs_variables_and_leave_none(run, make_server, unix_address):
    server = make_server(unix_address)
    seen = []

    @server.service()
    def handler(client, request):
        seen.append(VARIABLE.get())
        VARIABLE.set(bytes(request).decode())
        return b""

    async def main():
        VARIABLE.set("the program's")
        async with server:
            await in_thread(lambda: ask(server, b"first"))
            await in_thread(lambda: ask(server, b"second"))
            assert VARIABLE.get() == "the program's"

    run(main())
    assert seen == ["base", "base"]


def test_two_servers_in_one_loop(run, make_server, socket_dir):
    one, two = (make_server(f"unix:{socket_dir}/{n}") for n in "ab")
    echo(one)
    echo(two)

    async def main():
        async with one, two:
            assert await in_thread(lambda: ask(one, b"1")) == b"1"
            assert await in_thread(lambda: ask(two, b"2")) == b"2"

    run(main())


# --- the end ---


def test_stop_from_another_thread(run, make_server, address):
    server = make_server(address)
    echo(server)

    async def main():
        async with server:
            await in_thread(lambda: ask(server))
            await in_thread(server.stop)
            await server.wait_closed()
            assert server.state.name == "CLOSED"

    run(main())


def test_stop_in_the_loop_does_not_wait(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def main():
        async with server:
            server.stop()
            assert server.state.name != "CLOSED"
            await server.wait_closed()
            assert server.state.name == "CLOSED"
            await server.aclose()  # once more

    run(main())


def test_a_client_that_does_not_leave_is_ended_after_the_grace(run, make_server, unix_address):
    """Its output stands, since it doesn't read."""
    server = make_server(unix_address)
    server.service()(lambda client, request: bytes(8_000_000))

    async def main():
        async with server:
            client = await in_thread(lambda: connect(server.addresses[0]))
            client.notify(b"x")
            await asyncio.sleep(0.05)
            begin = time.monotonic()
            await server.aclose(grace=0.2)
            assert time.monotonic() - begin < 3
            client.close()

    run(main())


def test_ends_with_the_loop(run, make_server, unix_address):
    """Its client is told, and the file is removed, though nobody has left the `async with`."""
    server = make_server(unix_address)
    echo(server)
    clients = []

    async def main():
        await server.__aenter__()
        clients.append(await in_thread(lambda: connect(server.addresses[0])))
        assert await in_thread(lambda: clients[0].request(b"x")) == b"x"

    run(main())
    assert server.state.name == "CLOSED"
    assert not Path(unix_address.removeprefix("unix:")).exists()
    with pytest.raises((ConnectionLost, pysock.RemoteError)):
        clients[0].request(b"x")
    clients[0].close()


def test_ends_with_the_loop_also_when_the_program_raised(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def main():
        await server.__aenter__()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main())
    assert server.state.name == "CLOSED"


def test_who_waits_may_be_cancelled(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def main():
        async with server:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 0.01)
            assert await in_thread(lambda: ask(server)) == b"hello"

    run(main())


def test_an_exit_in_a_handler_leaves_the_loop(make_server, unix_address):
    server = make_server(unix_address)

    @server.service()
    def leave(client, request):
        raise SystemExit(3)

    def ask_in_vain():
        with pytest.raises((ConnectionLost, pysock.RemoteError)):
            ask(server)

    async def main():
        async with server:
            await in_thread(ask_in_vain)
            await server.wait_closed()

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert server.state.name == "CLOSED"


def test_a_loop_that_is_closed_under_it(backend, unix_address):
    """At the exit of the interpreter its clients see the end, and its file goes."""
    program = f"""
import asyncio, warnings
warnings.simplefilter("always")
import pysock
server = pysock.Server({unix_address!r}, backend={backend!r})
server.service()(lambda client, request: b"")
loop = asyncio.new_event_loop()
loop.run_until_complete(server.__aenter__())
loop.close()
"""
    ended = run_python(program)
    assert ended.returncode == 0, ended.stderr
    assert "ResourceWarning" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path(unix_address.removeprefix("unix:")).exists()


def test_the_number_of_its_descriptor_may_be_used_again(run, make_server, socket_dir):
    """uvloop takes a reader off later than it is told to."""

    async def main():
        for n in range(5):
            server = make_server(f"unix:{socket_dir}/{n}")
            echo(server)
            async with server:
                assert await in_thread(lambda server=server: ask(server)) == b"hello"
        begin = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - begin < 0.15

    run(main())


# --- misuse ---


def test_twice(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def main():
        async with server:
            with pytest.raises(PysockError, match="runs already"):
                await server.__aenter__()
            with pytest.raises(PysockError, match="runs already"):
                server.start()
            assert await in_thread(lambda: ask(server)) == b"hello"

    run(main())

    async def again():
        async with server:
            pass

    with pytest.raises(PysockError, match="has ended: make a new Server"):
        run(again())


def test_in_another_thread_while_it_runs(run, make_server, unix_address):
    """It goes on where it is."""
    server = make_server(unix_address)
    echo(server)

    async def elsewhere():
        async with server:
            pass

    def attach():
        with pytest.raises(PysockError, match="runs already"):
            run(elsewhere())

    async def main():
        async with server:
            await in_thread(attach)
            assert await in_thread(lambda: ask(server)) == b"hello"

    run(main())


def test_in_a_loop_that_is_closed(make_server, unix_address):
    """It is asyncio that says so, and the server can run elsewhere."""
    server = make_server(unix_address)
    echo(server)
    loop = asyncio.new_event_loop()
    loop.close()
    attaching = server.__aenter__()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_until_complete(attaching)
    attaching.close()
    with server:
        assert ask(server) == b"hello"


def test_without_a_loop(make_server, unix_address):
    server = make_server(unix_address)
    with pytest.raises(PysockError, match=r"asyncio.run\(\)"):
        server.__aenter__().send(None)
    assert server.state.name == "NEW"


def test_in_another_loop(run, make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def elsewhere():
        with pytest.raises(PysockError, match="another loop"):
            await server.wait_closed()

    async def main():
        async with server:
            await in_thread(lambda: asyncio.run(elsewhere()))

    run(main())


def test_a_started_server_has_no_loop_to_wait_in(make_server, unix_address):
    server = make_server(unix_address)
    echo(server)

    async def main():
        with server, pytest.raises(PysockError, match="in no asyncio loop"):
            await server.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["the loop watches nothing", "the engine has no descriptor"])
def test_a_beginning_that_fails(backend, make_server, unix_address, monkeypatch, how):
    """The server has ended, and nobody waits for it in vain."""
    server = make_server(unix_address)
    echo(server)

    async def main():
        if how == "the loop watches nothing":
            monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", Mock(side_effect=NotImplementedError))
            expected: Any = pytest.raises(PysockError, match="can't watch descriptors")
        else:
            error = OSError(errno.EMFILE, "Too many open files")
            monkeypatch.setattr(choose(backend).engine, "begin", Mock(side_effect=error))
            expected = pytest.raises(OSError, match="Too many open files")
        with expected:
            await server.__aenter__()
        assert server.state.name == "CLOSED"
        await asyncio.wait_for(server.wait_closed(), 5.0)
        await asyncio.wait_for(server.aclose(), 5.0)
        assert not Path(unix_address.removeprefix("unix:")).exists()

    asyncio.run(main())


def test_nothing_is_left_behind(run, make_server, unix_address):
    before = set(pysock.servers())

    async def main():
        server = make_server(unix_address)
        echo(server)
        async with server:
            pass

    run(main())
    gc.collect()
    assert set(pysock.servers()) <= before
