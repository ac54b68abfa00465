"""Clients that join and leave, and what they are told between the two: nothing is missed, and nothing comes twice."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from itertools import takewhile

import pytest
import wire
from support import plug, wait_for

from pysock import ConnectionLost, DisconnectReason


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address)
    server.service(lambda _client, request: request)
    return server


def test_a_client_that_joins_is_told_of_with_its_row(make_server, address, transport):
    server, told = make_server(address), []

    @server.on_join
    def joined(client, row):
        told.append((client, row, client.id in server.clients, threading.current_thread().name))

    with server, wire.let_in(server, name=b"anna"):
        ((client, row, is_there, thread),) = told
        assert client is server.clients.by_name("anna")
        assert (row.id, row.name, row.transport, row.frames_in) == (client.id, "anna", wire.socket_of(transport), 1)
        assert is_there
        assert thread.startswith("pysock-")


def test_its_pushes_follow_those_of_on_connect_and_precede_all_others(server):
    server.on_connect(lambda client: client.send(b"connect"))

    @server.on_join
    def joined(client, _row):
        client.send(b"join")
        server.clients.broadcast(b"all")

    with server, wire.dial(server) as peer:
        peer.send(wire.cir() + wire.srm(b"x", 1))
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        assert [wire.next_frame(peer).payload for _ in range(4)] == [b"connect", b"join", b"all", b"x"]


def test_one_that_is_refused_neither_joins_nor_leaves(server):
    told = []
    server.on_connect(lambda client: client.name != "bad")
    server.on_join(lambda _client, row: told.append(row.name))
    server.on_leave(lambda _client, left: told.append(left.row.name))
    with server:
        with wire.dial(server) as peer:
            peer.send(wire.cir(name=b"bad"))
            assert wire.next_frame(peer).kind == wire.CIR_REFUSED
        with wire.let_in(server, name=b"good"):
            pass
        wait_for(lambda: len(told) == 2)
    assert told == ["good", "good"]
    assert [left.row.name for left in server.clients.left()] == ["good"]


def test_a_client_that_leaves_is_told_of_with_its_last_row(server):
    told = []
    server.on_disconnect(lambda client, reason: told.append((client, reason)))
    server.on_leave(lambda client, left: told.append((client, left)))
    with server:
        with wire.let_in(server, name=b"anna") as peer:
            peer.send(wire.srm(b"x", 1))
            wire.next_frame(peer)
            client = server.clients.by_name("anna")
            client.join("red")
        wait_for(server.clients.left)
    (first, reason), (second, left) = told
    assert first is second is client
    assert left.reason is reason is DisconnectReason.CLOSED_BY_PEER
    assert (left.row.requests, left.row.groups) == (1, ("red",))
    (kept,) = server.clients.left()
    assert kept.row._replace(idle_since=0) == left.row._replace(idle_since=0)
    assert kept.left_at == pytest.approx(left.left_at, abs=1)


def test_a_hook_that_fails_harms_nobody(server, caplog):
    server.on_join(lambda client, row: 1 / 0)
    server.on_leave(lambda client, left: 1 / 0)
    with server:
        with wire.let_in(server) as peer:
            peer.send(wire.srm(b"x", 1))
            assert wire.next_frame(peer) == wire.replied(b"x")
        wait_for(lambda: len(caplog.records) >= 2)
    assert ["on_join" in record.getMessage() for record in caplog.records if record.exc_info] == [True, False]


def test_a_hook_may_close_the_client_that_joins(server):
    server.on_join(lambda client, _row: client.close())
    with server, wire.dial(server) as peer:
        peer.send(wire.cir() + wire.srm(b"x", 1))
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        assert wire.next_frame(peer) is None
        wait_for(server.clients.left)
        assert server.clients.left()[0].reason is DisconnectReason.CLOSED_BY_SERVER


def test_where_there_is_no_cir_the_kernels_connect_is_the_join(make_server, unix_address):
    server = make_server(unix_address, framing="line")
    server.on_join(lambda client, row: client.send(f"hello {row.frames_out}".encode()))
    with server, plug(server.addresses[0]) as peer:
        assert peer.recv(100) == b"hello 0\n"


def test_hooks_are_functions_of_two(server):
    async def asynchronous(client, row): ...

    with pytest.raises(TypeError, match=r"can't be called as hook\(client, row\)"):
        server.on_join(lambda client: None)
    with pytest.raises(TypeError, match="async"):
        server.on_leave(asynchronous)


def test_none_is_missed_and_none_comes_twice(server):
    """Threads change a table by the loop while clients join: what each was sent at the join, and the changes after it,
    are all that there were, once each.
    """
    changes = []
    done = threading.Event()

    @server.on_join
    def bring_up_to_date(client, _row):
        for change in changes:
            client.send(change)

    def change(text):
        changes.append(text)
        server.clients.broadcast(text)

    def feed(name):
        for number in range(150):
            server.call_soon(change, b"%s%d " % (name, number))
            if number % 10 == 0:
                time.sleep(0.001)
        done.set()

    with server, ExitStack() as stack:
        threads = [threading.Thread(target=feed, args=(name,)) for name in (b"a", b"b")]
        for thread in threads:
            thread.start()
        peers = [stack.enter_context(wire.let_in(server)) for _ in takewhile(lambda _: not done.is_set(), range(60))]
        for thread in threads:
            thread.join()
        server.call_soon(change, b"end")
        for peer in peers:
            assert up_to_end(peer) == changes


def up_to_end(peer) -> list[bytes]:
    got = []
    while not got or got[-1] != b"end":
        got.append(wire.next_frame(peer).payload)
    return got


def test_a_broadcast_of_another_thread_reaches_who_is_being_let_in(server):
    """The loop sees to it after the hook, and the client is in then."""
    asked, sent = threading.Event(), threading.Event()

    @server.on_connect
    def wait(_client):
        asked.set()
        assert sent.wait(10)

    with server, wire.dial(server) as peer:
        peer.send(wire.cir())
        assert asked.wait(10)
        server.clients.broadcast(b"news")
        sent.set()
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        assert wire.next_frame(peer) == wire.pushed(b"news")


def test_who_left_is_not_reached(server):
    """Also by a function that was handed over before it left."""
    failed = []

    def send(client):
        try:
            client.send(b"x")
        except ConnectionLost:
            failed.append(client)

    with server:
        with wire.let_in(server):
            (client,) = server.clients.values()
        wait_for(server.clients.left)
        server.call_soon(send, client)
        wait_for(lambda: failed)
