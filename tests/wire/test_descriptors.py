"""At the ceiling of descriptors: who comes is told, who is in is served, the loop doesn't spin, and soon goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest
import wire
from support import Program, RawPeer, environment, plug, run_python, wait_for
from wire import cir, refused, replied, srm

from pysock import connect
from pysock.wire import texts

FULL = refused(wire.FULL, texts.SERVER_FULL)

#: A server whose process may have few descriptors. "spare" gives one back that was put aside at the start.
SERVER = """
import logging, os, resource, sys, time
import pysock
from pysock import Limits, Server
logging.basicConfig(format="%(message)s")
server = Server(sys.argv[1], backend=sys.argv[2], limits=Limits(max_clients=10_000))
spare = [os.dup(0) for _ in range(3)]

@server.service
def upper(client, request):
    return request.upper()

@server.service("spare")
def give_back(client, request):
    os.close(spare.pop())

@server.service("limit")
def limit(client, request):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(request), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

@server.service("used")
def used(client, request):
    return repr([time.process_time(), server.stats()]).encode()

@server.on_state
def changed(old, new):
    if new is pysock.ServerState.SERVING:
        limit(None, len(os.listdir("/proc/self/fd")) + 20)
        print(server.addresses[0], flush=True)

server.serve_forever()
"""


@pytest.fixture
def ceiling(backend, address):
    """A server at the ceiling: the clients it has let in, and one of them to ask."""
    with Program(SERVER, address, backend) as program, contextlib.ExitStack() as stack:
        where = program.line()
        asker = stack.enter_context(connect(where))
        peers = []
        stack.callback(lambda: [peer.close() for peer in peers])
        for _ in range(100):
            peer = RawPeer(plug(where))
            peers.append(peer)
            peer.send(cir())
            answer = wire.next_frame(peer)
            if answer == FULL:
                peers.pop().close()
                break
            assert answer.kind == wire.CIR_ACCEPTED
        yield where, asker, peers


def used(asker):
    """Seconds of the processor that the server has used, and its counters."""
    return eval(asker.request(b"", service="used"))


def replace(where, peers):
    """Let one more in, who stays; whether that took less than 100 ms."""
    started = time.monotonic()
    peers.append(RawPeer(plug(where)))
    peers[-1].send(cir() + srm(b"a", 7))
    assert wire.next_frame(peers[-1]).kind == wire.CIR_ACCEPTED
    assert wire.next_frame(peers[-1]) == replied(b"A", 7)
    return time.monotonic() - started < 0.1


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_who_comes_is_told(ceiling):
    """There is no descriptor for them, but one in reserve to say so with; others are served on."""
    where, asker, peers = ceiling
    assert 10 < len(peers) < 22
    for number in range(5):
        with RawPeer(plug(where)) as peer:
            peer.send(cir())
            assert wire.rest_of(peer) == [FULL]
        peers[0].send(srm(b"x", number))
        assert wire.next_frame(peers[0]) == replied(b"X", number)
    _, stats = used(asker)
    assert stats["refused"] == stats["refused_full"] == 6
    assert 1 <= stats["accept_failures"] <= 7  # Linux says EMFILE also where nobody waits
    assert stats["accepted"] == stats["established"] + 6


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_client_that_leaves_makes_room(ceiling):
    """At once: within 100 ms, though accepting pauses."""
    where, asker, peers = ceiling
    fast = []
    for _ in range(5):
        with RawPeer(plug(where)) as peer:
            assert wire.rest_of(peer) == [FULL]
        used(asker)  # it has ended looking for others who wait
        peers.pop(0).close()
        fast.append(replace(where, peers))
    assert any(fast), "a busy machine may be late once or twice"


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_descriptor_that_somebody_else_frees(ceiling):
    """The loop isn't told of it, and finds it within 100 ms."""
    where, asker, peers = ceiling
    fast = []
    for _ in range(3):
        with RawPeer(plug(where)) as peer:
            assert wire.rest_of(peer) == [FULL]
        asker.request(b"", service="spare")
        fast.append(replace(where, peers))
    assert any(fast), "a busy machine may be late once or twice"


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_crowd_at_the_ceiling_costs_little(ceiling):
    """Hundreds come at once: all are told, a few at a time; the server sleeps in between."""
    where, asker, peers = ceiling
    before, _ = used(asker)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(RawPeer(plug(where))) for _ in range(200)]
        for peer in crowd:
            assert wire.rest_of(peer) == [FULL]
            peers[0].send(srm(b"x", 1))
            assert wire.next_frame(peers[0]) == replied(b"X", 1)
    took = time.monotonic() - started
    after, stats = used(asker)
    assert stats["refused_full"] == 201
    assert stats["accept_failures"] < 60
    assert after - before < 0.2 * took + 0.1


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_it_is_logged_once_a_second(backend, address):
    """One line, not one for each."""
    with Program(SERVER, address, backend) as program:
        where, started = program.line(), time.monotonic()
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(RawPeer(plug(where))) for _ in range(80)]
            assert wire.next_frame(crowd[-1]) == FULL
        program.process.kill()
        lines = [line for line in program.end()[2].splitlines() if line.startswith("accept() failed")]
        assert 1 <= len(lines) <= 2 + time.monotonic() - started


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_where_the_reserve_does_not_help(backend, address):
    """Nobody can be told then. The loop doesn't spin, and who waits is let in when there is a descriptor."""
    with Program(SERVER, address, backend) as program:
        where = program.line()
        with connect(where) as asker:
            asker.request(b"1", service="limit")
            before, _ = used(asker)
            with RawPeer(plug(where)) as waiting:
                waiting.send(cir())
                time.sleep(0.5)
                after, stats = used(asker)
                assert 3 < stats["accept_failures"] < 20
                assert stats["refused"] == 0
                assert after - before < 0.2
                asker.request(b"100", service="limit")
                assert wire.next_frame(waiting).kind == wire.CIR_ACCEPTED


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def test_an_inherited_socket_is_shut_down_by_its_maker(make_server, socket_dir, family):
    """Nobody comes through it any more; the loop sleeps, and serves who is there, and who comes by another one."""
    with socket.socket(family) as maker:
        maker.bind(f"{socket_dir}/inherited" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        maker.listen()
        server = make_server(f"unix:{socket_dir}/other", f"fd://{os.dup(maker.fileno())}")
        server.service(lambda client, request: request)
        with server, wire.let_in(server) as client:
            maker.shutdown(socket.SHUT_RDWR)
            wait_for(lambda: server.stats()["accept_failures"])
            before = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - before < 0.15
            client.send(wire.srm())
            assert wire.next_frame(client)
            with wire.let_in(server) as other:
                other.send(wire.srm())
                assert wire.next_frame(other)


# How many there may be


COUNTING = """
import logging, resource, sys, pysock
soft, hard = map(int, sys.argv[2:4])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
limits = pysock.Limits(max_clients=int(sys.argv[4])) if len(sys.argv) > 4 else None
try:
    with pysock.Server("unix:s", backend=sys.argv[1], limits=limits) as server:
        server.limits and print(server.limits.max_clients)
except pysock.PysockError as error:
    print(error)
"""


def counting(directory, *arguments):
    done = run_python(f"import os; os.chdir({str(directory)!r})\n{COUNTING}", *map(str, arguments))
    return done.stdout.strip(), [line for line in done.stderr.splitlines() if "no service" not in line]


def test_a_default_that_is_cut_is_logged_once(backend, socket_dir):
    out, err = counting(socket_dir, backend, 1024, 4096)
    assert out == "960"
    assert [line.partition(";")[0] for line in err] == [
        "at most 960 clients, not 10000: this process may have 1024 descriptors, 64 of which are kept for itself"
    ]
    assert "raise the limit (up to 4096: ulimit -n" in err[0]


@pytest.mark.parametrize("soft", [20, 64, 79])
def test_a_server_without_room_refuses_to_start(backend, socket_dir, soft):
    out, err = counting(socket_dir, backend, soft, soft)
    assert out.startswith(f"this process may have {soft} descriptors, 64 of which are kept for itself: too few for 16")
    assert err == []


def test_who_says_how_many_is_not_warned(backend, socket_dir):
    assert counting(socket_dir, backend, 1024, 1024, 100) == ("100", [])
    assert counting(socket_dir, backend, 64, 64, 3) == ("3", [])


@pytest.mark.parametrize("said", [(1024, 960), (67, 3), (65, 1)])
def test_who_says_what_the_default_would_be_is_not_warned(backend, socket_dir, said):
    """It is what the warning advises."""
    soft, clients = said
    assert counting(socket_dir, backend, soft, soft, clients) == (str(clients), [])


def test_more_than_there_can_be_is_logged(backend, socket_dir):
    out, err = counting(socket_dir, backend, 200, 4096, 5000)
    assert out == "5000"
    assert [line.partition(";")[0] for line in err] == [
        "at most 136 clients, not 5000: this process may have 200 descriptors, 64 of which are kept for itself"
    ]


@pytest.mark.parametrize(
    ("limits", "asked", "answer"),
    [("", "server.limits.max_clients", b"1936"),
     (", limits=pysock.Limits(max_clients=1500)", "resource.getrlimit(resource.RLIMIT_NOFILE)[0]", b"2000"),
     (", limits=pysock.Limits(max_clients=15000)", "resource.getrlimit(resource.RLIMIT_NOFILE)[0]", b"15064")],
)  # fmt: skip
def test_pysock_serve_raises_the_soft_limit(backend, socket_dir, limits, asked, answer):
    hard = 20_000 if answer == b"15064" else 2000
    (socket_dir / "app.py").write_text(
        "import pysock, resource\n"
        f"server = pysock.Server('unix:s'{limits})\n"
        f"server.service(lambda client, request: b'%d' % {asked})\n"
    )
    limit = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, HARD)); os.execv(sys.executable,"
    )
    limit += " [sys.executable, '-m', 'pysock', 'serve', 'app:server'])"
    with subprocess.Popen(
        [sys.executable, "-c", limit.replace("HARD", str(hard))],
        cwd=socket_dir,
        env=environment(PYSOCK_BACKEND=backend),
        stdout=subprocess.PIPE,
    ) as serving:
        try:
            assert serving.stdout.readline().startswith(b"serving on unix:")
            with connect(f"unix:{socket_dir}/s", backend=backend) as client:
                assert client.request(b"") == answer
        finally:
            serving.terminate()
