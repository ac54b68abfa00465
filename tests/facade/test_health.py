"""What a server tells health checks: by the code of its PONGs, before it stops and as long as it is lame."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import signal
import threading
import time

import pytest
import wire
from support import PATIENCE, Program, RawPeer, running, wait_for
from wire import goaway, next_frame, ping, ponged, replied, srm

import pysock
import pysock.aio
from pysock import Pong, PysockError, connect
from pysock.wire import texts

DRAINING = 5


def asked(address) -> int:
    """The code that a health check gets: a PING without a CIR."""
    with RawPeer.connect(address) as peer:
        peer.send(ping())
        return next_frame(peer).code


@pytest.fixture
def echo(make_server, unix_address):
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    with running(server):
        yield server


# lame


def test_a_lame_server_says_so_and_serves_on(make_server, address):
    server = make_server(address)
    server.service(lambda client, request: request)
    with running(server):
        where = server.addresses[0]
        with RawPeer.connect(where) as peer:
            peer.hello()
            assert (server.is_lame, asked(where)) == (False, 0)
            for _ in range(2):
                server.lame()
                assert (server.is_lame, asked(where)) == (True, DRAINING)
            peer.send(ping(b"p", 3) + srm(b"still", id=4))
            assert [next_frame(peer), next_frame(peer)] == [ponged(b"p", 3, DRAINING), replied(b"still", 4)]
            with connect(where) as client:  # it accepts as before
                assert client.request(b"new") == b"new"
            assert server.state is pysock.ServerState.SERVING
            for _ in range(2):
                server.resume()
                assert (server.is_lame, asked(where)) == (False, 0)
            peer.send(ping(b"q"))
            assert next_frame(peer) == ponged(b"q")


def test_lame_from_its_beginning(make_server, unix_address):
    """One that has to warm up first."""
    server = make_server(unix_address)
    server.lame()
    with running(server):
        assert asked(unix_address) == DRAINING
        server.resume()
        assert asked(unix_address) == 0


def test_in_the_loop_and_in_a_signals_handler(make_server, unix_address):
    server = make_server(unix_address)
    server.service("lame")(lambda client, request: server.lame())
    before = signal.signal(signal.SIGUSR1, lambda *_: server.resume())
    try:
        with running(server), connect(unix_address) as client:
            client.request(b"", "lame")
            assert client.ping().state == "draining"
            signal.raise_signal(signal.SIGUSR1)
            assert client.ping().state == "serving"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_each_change_has_a_line_in_the_log(echo, caplog):
    with caplog.at_level(logging.INFO, "pysock.server"):
        for change in (echo.lame, echo.lame, echo.resume, echo.resume):
            change()
        told = ["server: lame: health checks fail, clients are served on", "server: no longer lame"]
        wait_for(lambda: caplog.messages[-2:] == told, "both lines")


def test_threads_that_disagree(echo):
    """Whoever is last is right, on the wire as well."""
    changes = [threading.Thread(target=change) for change in (echo.lame, echo.resume) * 8]
    for thread in changes:
        thread.start()
    for thread in changes:
        thread.join(PATIENCE)
    assert asked(echo.addresses[0]) == (DRAINING if echo.is_lame else 0)


def test_it_resumes_only_while_it_goes_on(echo, unix_address):
    echo.stop()
    with pytest.raises(PysockError, match="this server has ended: it can't resume"):
        echo.resume()
    echo.lame()  # which says nothing to anybody


# while it stops


def test_a_server_that_stops_says_so(make_server, unix_address):
    """Also where the PING was on its way when it began."""
    server, go_on = make_server(unix_address), threading.Event()

    @server.service
    def last(client, request):
        assert go_on.wait(PATIENCE)
        server.stop(5)

    with running(server), RawPeer.connect(unix_address) as peer, RawPeer.connect(unix_address) as other:
        peer.hello()
        other.hello()
        peer.send(srm(b""))
        wait_for(lambda: any(row.requests for row in server.clients.snapshot()), "the request")
        other.send(ping(b"well?"))
        go_on.set()
        assert wire.parse(other.rest()) in (
            [goaway(texts.SHUTTING_DOWN), ponged(b"well?", code=DRAINING)],
            [ponged(b"well?"), goaway(texts.SHUTTING_DOWN)],  # read in the turn before
        )


def test_a_delay_before_the_goodbye(echo, unix_address):
    """Meanwhile it is lame, and serves; another stop ends it."""
    with RawPeer.connect(unix_address) as peer:
        peer.hello()
        stopping = threading.Thread(target=echo.stop, kwargs={"drain_delay": 60})
        stopping.start()
        wait_for(lambda: asked(unix_address) == DRAINING, "the health check to fail")
        assert (echo.state, echo.is_lame) == (pysock.ServerState.SERVING, True)
        with pytest.raises(PysockError, match="this server is about to end: it can't resume"):
            echo.resume()
        peer.send(srm(b"still"))
        assert next_frame(peer) == replied(b"still")
        echo.stop()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()
        assert wire.parse(peer.rest()) == [goaway(texts.SHUTTING_DOWN)]


def test_a_delay_that_is_over(echo, unix_address):
    with RawPeer.connect(unix_address) as peer:
        peer.hello()
        began = time.monotonic()
        echo.stop(drain_delay=0.2)
        assert time.monotonic() - began >= 0.2
        assert wire.parse(peer.rest()) == [goaway(texts.SHUTTING_DOWN)]
    assert echo.state is pysock.ServerState.CLOSED


def test_a_handler_does_not_wait_for_the_delay(make_server, unix_address):
    server = make_server(unix_address)

    @server.service
    def stop(client, request):
        server.stop(drain_delay=0.2)
        return b"%d" % server.is_lame

    with running(server), connect(unix_address) as client:
        assert client.request(b"") == b"1"
        assert client.ping().state == "draining"
        wait_for(lambda: server.state is pysock.ServerState.CLOSED, "the end")


def test_a_server_in_a_loop_waits_while_the_others_go_on(run, make_server, unix_address):
    async def main():
        async with make_server(unix_address) as server:
            client = await pysock.aio.connect(unix_address)
            closing = asyncio.create_task(server.aclose(drain_delay=0.2))
            while not server.is_lame:
                await asyncio.sleep(0)
            assert (await client.ping()).state == "draining"
            await closing
            assert server.state is pysock.ServerState.CLOSED
            client.close()

    run(main())


@pytest.mark.parametrize("delay", [-1, "soon", float("nan"), float("inf"), None])
def test_what_is_no_delay(make_server, unix_address, delay):
    server = make_server(unix_address)
    for call in (server.stop, server.serve_forever, lambda **how: asyncio.run(server.aclose(**how))):
        with pytest.raises(ValueError, match="must be 0 or more seconds, not") as caught:
            call(drain_delay=delay)
        assert caught.value.parameter == "drain_delay"


SERVE = """
import sys, pysock
address, backend, delay = sys.argv[1:]
server = pysock.Server(address, backend=backend)
server.service(lambda client, request: request)
server.on_state(lambda old, new: print(new.name, flush=True))
server.serve_forever(grace=5, drain_delay=float(delay))
"""


@contextlib.contextmanager
def serving(address, backend, delay):
    with Program(SERVE, address, backend, delay) as program:
        assert next(line for line in iter(program.line, None) if line == "SERVING")
        yield program


def test_sigterm_begins_with_the_delay(backend, unix_address):
    with serving(unix_address, backend, "0.3") as program, connect(unix_address) as client:
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        wait_for(lambda: client.ping().state == "draining", "the health check to fail")
        assert client.request(b"still") == b"still"
        assert program.line() == "DRAINING"
        assert time.monotonic() - began >= 0.3
        assert program.line() == "CLOSED"
        assert program.end() == (0, "", "")


def test_a_second_sigterm_ends_the_delay_at_once(backend, unix_address):
    with serving(unix_address, backend, "60") as program:
        program.signal(signal.SIGTERM)
        wait_for(lambda: asked(unix_address) == DRAINING, "the health check to fail")
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 128 + signal.SIGTERM


def test_who_types_ctrl_c_wants_no_delay(backend, unix_address):
    with serving(unix_address, backend, "60") as program:
        program.signal(signal.SIGINT)
        assert [program.line(), program.line()] == ["DRAINING", "CLOSED"]
        assert program.end() == (0, "", "")


# what clients see of it


def test_each_client_sees_the_state(run, echo, unix_address, backend):
    async def asyncio_clients():
        for again in (False, True):
            async with await pysock.aio.connect(unix_address, backend=backend, reconnect=again) as client:
                yield await client.ping(b"x")

    async def all_of_them():
        return [pong async for pong in asyncio_clients()]

    for state, code, change in (("serving", 0, echo.resume), ("draining", DRAINING, echo.lame)):
        change()
        pongs = run(all_of_them())
        for again in (False, True):
            with connect(unix_address, backend=backend, reconnect=again) as client:
                pongs += [client.ping(), client.ping(b"x" * 64)]
        for pong in pongs:
            assert (type(pong), pong.state, pong.code) == (Pong, state, code)
            assert 0 < pong < PATIENCE


def test_threads_of_one_client_see_it(echo, unix_address, backend):
    """Whichever of them reads hands the others their PONGs."""
    echo.lame()
    states = []
    with connect(unix_address, backend=backend) as client:
        threads = [threading.Thread(target=lambda: states.append(client.ping(b"x").state)) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert client.request(b"beside") == b"beside"
        for thread in threads:
            thread.join(PATIENCE)
    assert states == ["draining"] * 8


def test_a_state_that_is_not_known_wants_no_new_clients():
    assert Pong(0.5, 77).state == "draining"


def test_a_pong_is_a_number():
    pong = Pong(0.25, DRAINING)
    assert (pong, pong * 2, f"{pong:.1f}") == (0.25, 0.5, "0.2")
    for other in (copy.copy(pong), pickle.loads(pickle.dumps(pong))):
        assert (other, other.state) == (0.25, "draining")
