"""Workers that share a listener: their clients are spread evenly, and nobody waits in vain."""

from __future__ import annotations

import mmap
import os
import resource
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from support import PATIENCE, RawPeer, plug, wait_for
from wire import CIR_ACCEPTED, CIR_REFUSED, GOAWAY, cir, next_frame

from pysock import Limits, Server
from pysock.engine.seats import SEAT_BYTES, Seat, clear_seat, read_seat

WORKERS = 4
CLIENTS = 1000


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * CLIENTS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def listening(address, socket_dir):
    """What all of them accept from."""
    kind = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET
    with socket.socket(kind) as sock:
        sock.bind(f"{socket_dir}/s" if kind == socket.AF_UNIX else ("127.0.0.1", 0))
        sock.listen(CLIENTS)
        yield sock


@pytest.fixture
def page():
    return mmap.mmap(-1, mmap.PAGESIZE)  # it goes with the last engine


@pytest.fixture
def workers(make_server, listening, page):
    """``workers(count)``: so many servers that share the listener; ``workers(2, [0])``: one, in another's place."""
    made: list[Server] = []

    def make(count: int, numbers: Sequence[int] = (), **options: Any) -> list[Server]:
        for number in numbers or range(count):
            server = make_server(f"fd://{os.dup(listening.fileno())}", **{"framing": "line"} | options)
            server._running.listening.seat = Seat(page, count, number)
            server.service(lambda client, request: request)
            made.append(server)
            server.start()
        return made[-len(numbers or range(count)) :]

    yield make
    for server in made:
        server.stop(0)


def where(listening: socket.socket) -> str:
    name = listening.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"tcp://{name[0]}:{name[1]}"


def counts(servers: list[Server]) -> list[int]:
    return [len(server.clients) for server in servers]


@pytest.mark.parametrize("pace", ["burst", "one by one"])
def test_clients_are_spread_evenly(many_files, workers, listening, stack, pace):
    """1,000 connects, at once or each when the one before is served: the largest share is 1.15 times the smallest."""
    servers = workers(WORKERS, limits=Limits(max_clients=CLIENTS))
    for number in range(CLIENTS):
        client = stack.enter_context(plug(where(listening)))
        if pace == "one by one":
            client.sendall(b"%d\n" % number)
            assert client.recv(10) == b"%d\n" % number
    wait_for(lambda: sum(counts(servers)) == CLIENTS)
    assert max(counts(servers)) / min(counts(servers)) <= 1.15, counts(servers)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def ask(listening: socket.socket, stack: ExitStack) -> None:
    peer = stack.enter_context(RawPeer.connect(where(listening)))
    peer.send(b"x\n")
    assert peer.read(2) == b"x\n"


def test_the_page_says_how_it_is(workers, listening, page, stack):
    first, second = workers(2)
    for _ in range(3):
        ask(listening, stack)
    wait_for(lambda: sum(read_seat(page, number).clients for number in range(2)) == 3)
    wait_for(lambda: all(read_seat(page, number).open for number in range(2)))
    rows = [read_seat(page, number) for number in range(2)]
    assert [row.clients for row in rows] == counts([first, second])
    now = time.monotonic_ns()
    assert all(0 < now - row.turned_ns < 2_000_000_000 for row in rows)
    turned = rows[1].turned_ns
    wait_for(lambda: read_seat(page, 1).turned_ns > turned)  # though it has nothing to do
    first.stop(0)
    assert read_seat(page, 0)[1:] == (0, False, False)
    clear_seat(page, 1)
    assert SEAT_BYTES == 64


def test_who_cannot_take_clients_keeps_nobody_waiting(workers, listening, page, stack):
    """A worker with fewest clients that is in a long turn, or doesn't accept, is as one that isn't there."""
    entered, end = threading.Event(), threading.Event()
    servers = workers(2)

    def hold() -> None:
        entered.set()
        end.wait(PATIENCE)

    servers[0].call_soon(hold)
    assert entered.wait(PATIENCE)
    try:
        for _ in range(40):  # more than the gate allows one of them
            ask(listening, stack)
        assert counts(servers) == [0, 40]
    finally:
        end.set()
    servers[0].stop(1)
    for _ in range(20):
        ask(listening, stack)
    assert counts(servers)[1] == 60


def test_who_has_too_many_leaves_the_next_ones_to_others(workers, listening, page, stack):
    """Also when those others only come later; and then it takes some again."""
    first, second = workers(2)
    first.stop(0)
    for _ in range(40):
        ask(listening, stack)
    assert counts([first, second]) == [0, 40]
    (third,) = workers(2, [0])
    for _ in range(40):
        ask(listening, stack)
    took, others = counts([third, second])
    assert took >= others - 40 + 23  # 40 to 24 is within the slack of 16
    assert abs(took - others) <= 18


def taken_by(page: mmap.mmap, was: int) -> int:
    """Which of two workers has one client more than so many, as soon as one has."""
    wait_for(lambda: max(read_seat(page, number).clients for number in range(2)) > was)
    return max(range(2), key=lambda number: read_seat(page, number).clients)


def stopped(server: Server, grace: float) -> threading.Thread:
    thread = threading.Thread(target=server.stop, args=(grace,))
    thread.start()
    return thread


def test_who_leaves_lets_in_those_that_have_come_and_leaves_the_next_ones_to_others(workers, listening, page, stack):
    servers = workers(2, framing="pysock")
    peer = stack.enter_context(RawPeer.connect(where(listening)))
    peer.send(cir()[:10])
    number = taken_by(page, 0)
    thread = stopped(servers[number], PATIENCE)
    wait_for(lambda: not read_seat(page, number).open)
    for _ in range(3):  # it has left the listener already, and the other one serves
        stack.enter_context(RawPeer.connect(where(listening))).hello()
    peer.send(cir()[10:])
    assert [next_frame(peer).kind for _ in range(2)] == [CIR_ACCEPTED, GOAWAY]
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert counts(servers)[1 - number] == 3


def test_who_leaves_waits_for_half_of_its_grace_at_most_and_for_nobody_where_no_other_accepts(
    workers, listening, page, stack
):
    servers = workers(2, framing="pysock")
    silent = stack.enter_context(RawPeer.connect(where(listening)))
    number = taken_by(page, 0)
    began = time.monotonic()
    thread = stopped(servers[number], 0.4)
    assert next_frame(silent).kind == CIR_REFUSED
    assert time.monotonic() - began >= 0.2
    thread.join(PATIENCE)
    silent = stack.enter_context(RawPeer.connect(where(listening)))
    assert taken_by(page, 0) == 1 - number
    thread = stopped(servers[1 - number], 2 * PATIENCE)
    assert next_frame(silent).kind == CIR_REFUSED
    thread.join(PATIENCE)
    assert not thread.is_alive()
