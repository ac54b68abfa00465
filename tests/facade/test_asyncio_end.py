"""The end of a server in a loop, whatever it comes by: what its clients are told, and that nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import queue
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wire
from support import Program, wait_for
from wire import failed, features, next_frame, not_started, srm

import pysock
from pysock import PysockError, connect
from pysock.wire import texts

BOTH = features(3)


def in_thread(work, *arguments):
    return asyncio.get_running_loop().run_in_executor(None, work, *arguments)


PROGRAM = """
import asyncio, sys, threading
import pysock
address, backend, kind = sys.argv[1:4]
server = pysock.Server(address, backend=backend)

@server.service
async def sleep(client, request):
    print("begun", flush=True)
    await asyncio.sleep(30)

@server.service("stop")
def stop(client, request):
    loop.stop()

if kind == "uvloop":
    import uvloop
    new_loop, run = uvloop.new_event_loop, uvloop.run
else:
    new_loop, run = asyncio.new_event_loop, asyncio.run
"""


# --- the loop ends ---


def test_a_loop_that_is_stopped_and_closed_under_it(backend, address, loop, socket_dir):
    """Its clients see the end when the interpreter ends, at the latest; then its file has gone, too."""
    code = f"""{PROGRAM}
loop = new_loop()
loop.run_until_complete(server.__aenter__())
print(server.addresses[0], flush=True)
loop.run_forever()
loop.close()
print("closed", flush=True)
"""
    with Program(code, address, backend, loop, PYTHONWARNINGS="default") as program:
        listens_at = program.line()
        with wire.RawPeer.connect(listens_at) as peer:
            peer.send(wire.cir(BOTH) + srm(b"x", 1))
            assert next_frame(peer).kind == wire.CIR_ACCEPTED
            assert program.line() == "begun"
            peer.send(srm(b"", 2, service=1))
            assert program.line() == "closed"
            ends = [frame for frame in wire.rest_of(peer) if frame.id != 2]
            assert ends in ([wire.LEAVING, failed(9, texts.CUT_SHORT, 1)], [])
        status, _, errors = program.end()
    assert status == 0
    assert errors.count("ResourceWarning") == 1
    assert "Traceback" not in errors
    assert "pending" not in errors
    assert list(socket_dir.iterdir()) == []


@pytest.mark.parametrize("raises", [False, True])
def test_the_programs_loop_ends(run, make_server, address, raises, caplog):
    """Each request has its answer in time: of what ran, and of what was never begun."""
    caplog.set_level(logging.CRITICAL, "pysock")
    server = make_server(address)
    begun, go_on = queue.Queue(), threading.Event()

    @server.service
    async def sleep(client, request):
        begun.put(request)
        await asyncio.sleep(30)

    @server.service("held", threads=1)
    def held(client, request):
        begun.put(request)
        go_on.wait(10)

    def ask():
        peer = wire.let_in(server, BOTH)
        peer.send(srm(b"task", 1) + srm(b"worker", 2, service=1))
        assert {begun.get(timeout=5), begun.get(timeout=5)} == {b"task", b"worker"}
        peer.send(srm(b"waits", 3, service=1) + wire.ping(id=4))
        assert next_frame(peer) == wire.ponged(id=4)
        return peer, reader.submit(lambda: (wire.rest_of(peer), time.monotonic()))

    async def main():
        await server.__aenter__()
        found.append(await in_thread(ask))
        found.append(time.monotonic())
        if raises:
            raise ZeroDivisionError

    found = []
    with ThreadPoolExecutor(1) as reader:
        if raises:
            with pytest.raises(ZeroDivisionError):
                run(main())
        else:
            run(main())
        (peer, told), ended = found
        frames, at_end = told.result(10)
        peer.close()
        go_on.set()
    assert at_end - ended < 1
    assert frames[0] == wire.LEAVING
    assert sorted(frames[1:], key=lambda frame: frame.id) == [
        failed(9, texts.CUT_SHORT, 1),
        failed(9, texts.CUT_SHORT, 2),
        not_started(wire.SHUTTING_DOWN, texts.SHUTTING_DOWN, 3),
    ]
    assert server.state.name == "CLOSED"
    if address.startswith("unix:"):
        assert not Path(address.removeprefix("unix:")).exists()


def test_a_second_run_needs_another_server(run, make_server, address):
    """Whether it has async handlers or not; and nothing is left of the attempt."""
    before = set(pysock.servers())
    for kind in ("async", "plain"):
        server = make_server(address)

        async def later(client, request):
            await asyncio.sleep(0)
            return request

        server.service(later if kind == "async" else lambda client, request: request)

        def ask(server=server):
            with connect(server.addresses[0]) as client:
                return client.request(b"x")

        async def main(server=server, ask=ask):
            async with server:
                assert await in_thread(ask) == b"x"

        run(main())
        with pytest.raises(PysockError, match="has ended: make a new Server"):
            run(main())
        for again in (server.start, server.serve_forever):
            with pytest.raises(PysockError, match="has ended: make a new Server"):
                again()
        assert server.state.name == "CLOSED"
    assert set(pysock.servers()) <= before


def test_two_interrupts(backend, address, loop):
    """The first one leaves ``async with``, which waits for what runs; the second ends that, too.

    Before Python 3.11 the first one does both, for ``asyncio.run`` cancels all tasks then, not only the main one.
    """
    code = f"""{PROGRAM}
async def main():
    async with server:
        print(server.addresses[0], flush=True)
        try:
            await server.wait_closed()
        finally:
            print("leaves", flush=True)
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", server.state.name, flush=True)
"""
    with Program(code, address, backend, loop) as program:
        listens_at = program.line()
        with wire.RawPeer.connect(listens_at) as peer:
            peer.send(wire.cir(BOTH) + srm(b"x", 1))
            assert next_frame(peer).kind == wire.CIR_ACCEPTED
            assert program.line() == "begun"
            time.sleep(0.1)  # the turn is over: before Python 3.11 it raises wherever the program is
            program.signal(signal.SIGINT)
            assert program.line() == "leaves"
            begin = time.monotonic()
            if sys.version_info >= (3, 11):
                time.sleep(0.1)
                program.signal(signal.SIGINT)
            assert wire.rest_of(peer) == [wire.LEAVING, failed(9, texts.CUT_SHORT, 1)]
            status, out, errors = program.end()
            assert time.monotonic() - begin < 3
    assert (status, out, errors) == (0, "interrupted CLOSED\n", "")


# --- who doesn't end ---


@pytest.mark.parametrize("attached", [False, True], ids=["its own loop", "the program's"])
def test_a_task_that_never_ends(run, loop, make_server, address, attached, caplog, monkeypatch):
    """It has the grace, is cancelled, has a little more, and is named; its client has an answer in time."""
    monkeypatch.setattr("pysock.tasks.tasks.PATIENCE", 0.3)
    server = make_server(address, loop=loop)
    begun, over = threading.Event(), threading.Event()

    @server.service
    async def stubborn(client, request):
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    def ask():
        peer = wire.let_in(server, BOTH)
        peer.send(srm(b"x", 1))
        assert begun.wait(5)
        return peer

    async def main():
        async with server:
            peer = await in_thread(ask)
            begin = time.monotonic()
            await server.aclose(grace=0.2)
            took.append(time.monotonic() - begin)
        over.set()
        return peer

    took = []
    if attached:
        peer = run(main())
    else:
        server.start()
        peer = ask()
        begin = time.monotonic()
        server.stop(0.2)
        took.append(time.monotonic() - begin)
        over.set()
    assert 0.4 < took[0] < 2
    assert wire.rest_of(peer) == [wire.LEAVING, failed(9, texts.CUT_SHORT, 1)]
    peer.close()
    assert caplog.text.count("stubborn") == 1
    assert "goes on, though its server has ended" in caplog.text


def test_the_hooks_of_a_client_whose_tasks_are_being_cancelled(make_server, address, loop, caplog):
    """One fails, one takes its time: the tasks have what is the client's to their end."""
    server = make_server(address, loop=loop)
    begun, ended = threading.Event(), queue.Queue()

    @server.service
    async def handler(client, request):
        client.data = "its data"
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.15)
            ended.put(("handler", client.name, client.data))

    @server.on_disconnect
    def fails(client, reason):
        ended.put(("fails", client.name, client.data))
        raise ZeroDivisionError

    @server.on_disconnect
    async def slow(client, reason):
        await asyncio.sleep(0.05)
        ended.put(("slow", client.name, client.data))

    with server:
        peer = wire.let_in(server, BOTH, name=b"me")
        peer.send(srm(b"x", 1))
        assert begun.wait(5)
        wire.reset(peer.sock)
        found = [ended.get(timeout=5) for _ in range(3)]
        assert found == [(which, "me", "its data") for which in ("fails", "slow", "handler")]
        assert caplog.text.count("raise ZeroDivisionError") == 1
        with connect(server.addresses[0]) as client:
            assert client.ping() < 5


def test_nothing_is_kept_of_what_was_cancelled(make_server, address, loop):
    """Its client, say: a flood of cancels would fill the memory."""
    server = make_server(address, loop=loop)
    begun = threading.Event()
    clients = []

    @server.service
    async def handler(client, request):
        clients.append(weakref.ref(client))
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)

    with server:
        peer = wire.let_in(server, BOTH)
        peer.send(srm(b"x", 1))
        assert begun.wait(5)
        wire.reset(peer.sock)
        wait_for(lambda: gc.collect() >= 0 and clients[0]() is None, "the client to be let go", timeout=3)
