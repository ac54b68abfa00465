"""What any thread hands to a server's loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar

import pytest
import wire
from support import wait_for

from pysock import PysockError


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address)

    @server.service
    def loop_of(_client, _request):
        return b"%d" % threading.get_ident()

    return server


def test_it_is_called_in_the_loops_thread_with_its_arguments(server):
    called = []
    with server, wire.let_in(server) as peer:
        peer.send(wire.srm(b"", 1))
        loop = wire.next_frame(peer).payload
        server.call_soon(lambda *args: called.append((threading.get_ident(), args)), 1, "two")
        wait_for(lambda: called)
    assert called == [(int(loop), (1, "two"))]


def test_functions_and_pushes_of_a_thread_keep_their_order(server):
    """Also those that the loop itself makes."""
    with server, wire.let_in(server) as peer:
        (client,) = server.clients.values()
        for number in range(0, 60, 3):
            client.send(b"%d" % number)
            server.call_soon(client.send, b"%d" % (number + 1))
            server.clients.broadcast(b"%d" % (number + 2))
        for number in range(60):
            assert wire.next_frame(peer) == wire.pushed(b"%d" % number)


def test_of_a_handler_it_is_called_when_that_has_returned(make_server, unix_address):
    server, steps = make_server(unix_address), []

    @server.service
    def handler(_client, _request):
        server.call_soon(steps.append, "called")
        server.call_soon(lambda: server.call_soon(steps.append, "called by the call"))
        steps.append("returned")

    with server, wire.let_in(server) as peer:
        peer.send(wire.srm(b"", 1))
        wait_for(lambda: len(steps) == 3)
    assert steps == ["returned", "called", "called by the call"]


def test_what_it_raises_is_logged_and_harms_nobody(server, caplog):
    def fail(what):
        raise ValueError(what)

    with server, wire.let_in(server) as peer, caplog.at_level(logging.ERROR):
        server.call_soon(fail, "no such thing")
        server.call_soon(lambda: asyncio.sleep(0))
        peer.send(wire.srm(b"", 1))
        assert wire.next_frame(peer).kind == wire.REPLY
        wait_for(lambda: len(caplog.records) == 2)
    first, second = caplog.records
    assert "no such thing" in first.exc_text
    assert "fail" in first.getMessage()
    assert "nobody awaits" in second.exc_text


def test_context_variables_are_those_of_whoever_hands_it_over(server):
    variable, seen = ContextVar("variable", default=0), []

    def look():
        seen.append(variable.get())
        variable.set(7)

    with server:
        variable.set(1)
        server.call_soon(look)
        variable.set(2)
        server.call_soon(look)
        wait_for(lambda: len(seen) == 2)
    assert seen == [1, 2]


def test_what_cannot_be_called(server):
    async def coroutine(): ...

    with server:
        with pytest.raises(TypeError, match="a plain function, and this is a str: 'x'"):
            server.call_soon("x")
        with pytest.raises(TypeError, match="this is an async one"):
            server.call_soon(coroutine)


def test_a_server_that_does_not_run_calls_nothing(server):
    with pytest.raises(PysockError, match="doesn't run"):
        server.call_soon(print)
    with server:
        pass
    with pytest.raises(PysockError, match="doesn't run"):
        server.call_soon(print)


def test_in_a_loop_of_the_programs(server):
    """From the loop's own thread, between turns, and from another one."""

    async def main():
        steps = []
        async with server:
            server.call_soon(steps.append, threading.get_ident())
            thread = threading.Thread(target=lambda: server.call_soon(lambda: steps.append(threading.get_ident())))
            thread.start()
            while len(steps) < 2:
                await asyncio.sleep(0.001)
            thread.join()
        assert steps == [threading.get_ident()] * 2

    asyncio.run(asyncio.wait_for(main(), 10))
