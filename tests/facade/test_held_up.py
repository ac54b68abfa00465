"""A handler or a hook that blocks keeps all others waiting: the log says whose it was, and for how long."""

from __future__ import annotations

import asyncio
import logging
import re
import time

import pytest
import wire
from wire import cir, next_frame, srm

from pysock.engine import contract

#: What is told of here, in seconds, and what takes a little longer. Less may be the machine's own doing.
LONG, LONGER = 0.12, 0.15
TOLD = re.compile(r"service (.*) held up the loop for ([0-9.]+) s, .*; its handler is (.*)")


@pytest.fixture(autouse=True)
def soon(monkeypatch, caplog):
    """It is told of sooner, and only of that."""
    monkeypatch.setattr(contract, "HELD_UP", LONG)
    caplog.set_level(logging.WARNING, "pysock.server")


@pytest.fixture
def told(caplog):
    """``told()``: the services and handlers that the log has named, each as often as it has."""

    def look():
        found = []
        for record in caplog.records:
            assert (record.name, record.levelno) == ("pysock.server", logging.WARNING), record
            match = TOLD.fullmatch(record.getMessage())
            if match is None:
                found.append(record.getMessage())
                continue
            title, seconds, handler = match.groups()
            assert LONG <= float(seconds) + 0.05 < 5
            found.append((title, handler.partition(" ")[0].rpartition(".")[2]))
        caplog.clear()
        return found

    return look


def nap(client, request):
    if request == b"long":
        time.sleep(LONGER)
    return request


def quick(client, request):
    return request


def ask(peer, *frames):
    """One after the other."""
    for number, (payload, service) in enumerate(frames):
        peer.send(srm(payload, number, service=service))
        next_frame(peer)


def ask_at_once(peer, *frames):
    peer.send(b"".join(srm(payload, number, service=service) for number, (payload, service) in enumerate(frames)))
    for _ in frames:
        next_frame(peer)


def ended(server):
    """What was told in its last turn is there."""
    server.stop(0)


def two(server):
    server.service("nap")(nap)
    server.service("quick")(quick)
    return server


def test_the_service_is_named(make_server, unix_address, told):
    server = two(make_server(unix_address))
    with server, wire.let_in(server) as peer:
        ask(peer, (b"", 1), (b"", 2), (b"long", 1), (b"", 2))
        assert told() == [("'nap'", "nap")]
        ask(peer, (b"", 1), (b"", 2))
    assert told() == []


def test_among_many_it_is_named_the_second_time(make_server, unix_address, told):
    """Until then nobody pays for a look at the clock."""
    server = two(make_server(unix_address))
    with server, wire.let_in(server) as peer:
        ask_at_once(peer, (b"", 2), (b"long", 1), (b"", 2))
        ask(peer, (b"", 2))  # in the turn that follows: the log has had the last one
        (line,) = told()
        assert "whose it is will be told if it happens again" in line
        ask_at_once(peer, (b"", 2), (b"long", 1), (b"", 2))
        ask(peer, (b"", 2))
        assert told() == [("'nap'", "nap")]


def test_many_short_ones_are_as_long(make_server, unix_address, told):
    server = make_server(unix_address)
    server.service("short")(lambda client, request: time.sleep(LONGER / 8))
    server.service("quick")(quick)
    with server, wire.let_in(server) as peer:
        for _ in range(2):
            peer.send(srm(b"", 0, service=2) + srm(b"", 9, service=1, flags=wire.NO_REPLY) * 8 + srm(b"", 1, service=2))
            assert [next_frame(peer).id for _ in range(2)] == [0, 1]
            ask(peer, (b"", 2))
        assert told()[-1] == ("'short'", "<lambda>")


def test_the_only_service_needs_no_clock(make_server, unix_address, told):
    """Nor does one in a framing that has no names."""
    server = make_server(unix_address, framing="line")
    server.service(nap)
    with server, wire.dial(server) as peer:
        peer.send(b"a\nlong\nb\n")
        assert peer.read(9) == b"a\nlong\nb\n"
    assert told() == [("(unnamed)", "nap")]


@pytest.mark.parametrize("kind", ["batch", "stream", "piece of a stream"])
def test_what_is_called_in_another_way(make_server, unix_address, told, kind):
    server = make_server(unix_address)

    def slow(client, request):
        if kind == "stream":
            time.sleep(LONGER)
        yield b"a"
        if kind != "stream":
            time.sleep(LONGER)
        yield b"b"

    def slow_batch(clients, requests):
        time.sleep(LONGER)
        return requests

    server.service("quick")(quick)
    if kind == "batch":
        server.batch_service("slow")(slow_batch)
    else:
        server.service("slow")(slow)
    flags = 0 if kind == "batch" else wire.TAKES_STREAM
    with server, wire.let_in(server, wire.features(7)) as peer:
        peer.send(b"".join(srm(b"", number, service=1) for number in range(3)) + srm(b"", 3, service=2, flags=flags))
        for _ in range(4 if kind == "batch" else 6):
            next_frame(peer)
    assert told() == [("'slow'", "slow_batch" if kind == "batch" else "slow")]


@pytest.mark.parametrize("hook", ["on_connect", "on_join", "on_disconnect"])
def test_a_hook_is_no_handler(make_server, unix_address, told, hook):
    server = make_server(unix_address)
    server.service(quick)
    getattr(server, hook)(lambda *about: time.sleep(LONGER))
    with server:
        with wire.dial(server) as peer:
            peer.send(cir() + srm())
            for _ in range(2):
                next_frame(peer)
        if hook == "on_disconnect":
            wire.counted(server, clients=0)
    (line,) = told()
    assert f"an {hook}" in line.replace("on_disconnect or on_leave", "on_disconnect")


def test_a_function_for_the_loop(make_server, unix_address, told):
    server = make_server(unix_address)
    server.service(quick)
    with server:
        server.call_soon(time.sleep, LONGER)
    (line,) = told()
    assert "call_soon()" in line


@pytest.mark.parametrize("waits", [False, True], ids=["first step", "later step"])
@pytest.mark.parametrize("where", ["own", "program's"])
def test_a_step_of_an_async_handler(make_server, unix_address, told, run, loop, waits, where):
    server = make_server(unix_address, loop=loop)
    server.service("quick")(quick)

    @server.service("slow")
    async def slow(client, request):
        if waits:
            await asyncio.sleep(0)
        time.sleep(LONGER)
        await asyncio.sleep(0)
        return request

    def use():
        with wire.let_in(server) as peer:
            ask(peer, (b"", 1), (b"", 2), (b"", 1))

    async def main():
        async with server:
            await asyncio.to_thread(use)

    if where == "own":
        with server:
            use()
    else:
        run(main())
    assert told() == [("'slow'", "slow")]


def test_a_plain_handler_in_the_programs_loop(make_server, unix_address, told, run):
    server = two(make_server(unix_address))

    def use():
        with wire.let_in(server) as peer:
            ask(peer, (b"", 2), (b"long", 1), (b"", 2))

    async def main():
        async with server:
            await asyncio.to_thread(use)

    run(main())
    assert told() == [("'nap'", "nap")]


def test_waiting_holds_nobody_up(make_server, unix_address, told, monkeypatch):
    """Nor do workers."""
    monkeypatch.setattr(contract, "HELD_UP", 4 * LONG)
    server = make_server(unix_address)
    server.service("worker", threads=1)(lambda client, request: time.sleep(4 * LONGER))

    @server.service("waits")
    async def waits(client, request):
        await asyncio.sleep(4 * LONGER)
        return request

    with server, wire.let_in(server) as peer:
        ask_at_once(peer, (b"", 1), (b"", 2))
    assert told() == []
