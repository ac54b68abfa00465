"""Services with workers of their own, threads or processes, as their clients and the program see them."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from pathlib import Path

import pytest
import wire
from support import ROOT, run_python, wait_for
from wire import BYE_FRAME, cancel, failed, features, next_frame, not_started, ping, pushed, replied, srm, timed
from worked import fails, pid, swap

import pysock
from pysock import Limits, RemoteError, connect
from pysock.pools.processes import DIED
from pysock.wire import texts

BOTH = features(3)
HOUR = 3_600_000_000
TOO_MANY = "too many requests wait already"


class Held:
    """A service with one thread, whose handler waits until it is let go; and which requests it was called for."""

    def __init__(self, server, **options):
        self.server = server
        self.begun = []
        self._go = queue.Queue()
        server.service("held", threads=1, **options)(self._handle)

    def _handle(self, client, request):
        self.begun.append(request)
        self._go.get(timeout=10)
        return request.upper()

    def let_go(self, times=1):
        for _ in range(times):
            self._go.put(None)

    def has_begun(self, request):
        wait_for(lambda: request in self.begun, f"{request} to begin")

    def wait_in_line(self, number):
        pool = self.server._running.services._pools.by_number[1]
        wait_for(lambda: pool.jobs._waiting == number, f"{number} requests that wait")

    def wait_idle(self):
        engine = self.server._running.engine
        wait_for(lambda: not any(engine.info(number).in_flight for number in self.server.clients), "all to end")


@pytest.fixture
def held(make_server, address):
    server = make_server(address, limits=Limits(max_in_flight=100))
    held = Held(server, queue=4)
    server.service(lambda client, request: request)
    with server:
        yield held
        held.let_go(200)


def ask(payload, number=1):
    return srm(payload, number, service=1)


# Answers


@pytest.mark.parametrize("size", [0, 5, 100_000, 3_000_000])
def test_threads_and_processes_answer(make_server, address, size):
    server = make_server(address)
    server.service("threads", threads=2)(lambda client, request: request[::-1])
    server.service("processes", processes=1)(swap)
    payload = os.urandom(size)
    with server, connect(server.addresses[0]) as client:
        assert client.request(payload, service="threads") == payload[::-1]
        assert client.request(payload, service="processes") == payload[::-1]


@pytest.mark.parametrize("framing", ["pysock", "u32", "line"])
def test_in_every_framing_each_reply_is_its_requests(make_server, address, framing):
    server = make_server(address, framing=framing)
    server.service(threads=4)(lambda client, request: request[::-1])
    payloads = [b"%d-x" % n for n in range(500)]
    with server:
        if framing == "pysock":
            with connect(server.addresses[0]) as client:
                assert client.request_many(payloads) == [payload[::-1] for payload in payloads]
            return
        with wire.dial(server) as peer:
            u32 = framing == "u32"
            peer.send(b"".join(len(p).to_bytes(4, "big") + p if u32 else p + b"\n" for p in payloads))
            for payload in payloads:
                wanted = payload[::-1]
                wanted = len(wanted).to_bytes(4, "big") + wanted if u32 else wanted + b"\n"
                assert peer.read(len(wanted)) == wanted


def test_the_loop_goes_on_meanwhile(held):
    with wire.let_in(held.server) as peer:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(srm(b"b", 2) + ping(b"c", 3))
        assert next_frame(peer) == replied(b"b", 2)
        assert next_frame(peer) == wire.ponged(b"c", 3)
        held.let_go()
        assert next_frame(peer) == replied(b"A", 1)


def test_what_a_worker_sends_precedes_its_reply(make_server, address):
    server = make_server(address)

    @server.service(threads=1)
    def push(client, request):
        client.send(b"first")
        return b"then"

    with server, wire.let_in(server) as peer:
        peer.send(srm(b"", 7))
        assert next_frame(peer) == pushed(b"first")
        assert next_frame(peer) == replied(b"then", 7)


def test_a_worker_may_answer_later(make_server, address):
    server = make_server(address)
    waiting = queue.Queue()

    @server.service(threads=1)
    def later(client, request):
        reply = pysock.later()
        waiting.put((reply, request))
        return reply

    with server, connect(server.addresses[0]) as client:
        thread = threading.Thread(target=lambda: [waiting.get()[0].send(b"%d" % n) for n in range(3)])
        thread.start()
        assert [client.request(b"x") for _ in range(3)] == [b"0", b"1", b"2"]
        thread.join(10)


def test_a_worker_may_answer_later_but_nobody_waits_any_more(make_server, address):
    """Whoever is to answer hears of it."""
    server = make_server(address)
    begun, go_on, waiting = threading.Event(), threading.Event(), queue.Queue()

    @server.service(threads=1)
    def later(client, request):
        begun.set()
        go_on.wait(10)
        reply = pysock.later()
        waiting.put(reply)
        return reply

    with server:
        with wire.let_in(server, BOTH) as peer:
            peer.send(srm())
            assert begun.wait(10)
        wire.counted(server)
        go_on.set()
        reply = waiting.get(timeout=10)
        wait_for(lambda: reply.cancelled, "the worker to be told")
        assert reply.send(b"too late") is False


def test_which_request_a_worker_runs_for(make_server, address):
    server = make_server(address)
    seen, after = [], []

    @server.service("about", threads=1)
    def about(client, request):
        now = pysock.current()
        seen.append((now.client is client, now.service, now.request_id, now.wants_reply, now.cancelled))
        now.check()
        now.after_reply(lambda: after.append(threading.current_thread().name))
        return b"%d" % (now.remaining() or 0)

    with server, wire.let_in(server, BOTH) as peer:
        peer.send(timed(b"", 5, left=100_500_000, service=1))
        assert next_frame(peer) == replied(b"100", 5)
        wait_for(lambda: after, "what comes after the reply")
    assert seen == [(True, "about", 5, True, False)]
    assert after[0].startswith("pysock-")
    assert "about" not in after[0]  # the loop's thread


# Failures


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_worker_raises_fails_one_request(make_server, address, caplog, kind):
    server = make_server(address)

    @server.service(threads=1)
    def raises(client, request):
        if request:
            raise kind("why")
        return b"fine"

    with server, connect(server.addresses[0]) as client:
        with pytest.raises(RemoteError, match=kind.__name__) as failure:
            client.request(b"x")
        assert failure.value.code == 1
        assert client.request(b"") == b"fine"
    assert "why" in caplog.text


def test_what_a_process_raises_is_told_as_everywhere(make_server, address, caplog):
    server = make_server(address, expose="message")
    server.service("fails", processes=1)(fails)
    with server, connect(server.addresses[0]) as client, pytest.raises(RemoteError) as failure:
        client.request(b"not there", service="fails")
    assert (failure.value.type, failure.value.message, failure.value.code) == ("LookupError", "not there", 1)
    assert "service 'fails' failed for client" in caplog.text
    assert "in the worker process" in caplog.text


def test_a_reply_that_is_none(make_server, address, caplog):
    server = make_server(address)
    server.service(threads=1)(lambda client, request: "text")
    with server, connect(server.addresses[0]) as client, pytest.raises(RemoteError, match="TypeError"):
        client.request(b"")
    assert "encode it" in caplog.text


# Too many


def test_one_too_many_is_refused_at_once(held, caplog):
    with wire.let_in(held.server, BOTH) as peer, wire.let_in(held.server) as old:
        peer.send(ask(b"a"))
        held.has_begun(b"a")
        peer.send(b"".join(ask(b"w", number) for number in range(2, 8)))
        assert [next_frame(peer) for _ in range(2)] == [not_started(wire.OVERLOADED, TOO_MANY, n) for n in (6, 7)]
        held.let_go(5)
        assert [next_frame(peer).id for _ in range(5)] == [1, 2, 3, 4, 5]
        held.wait_idle()
        # Who doesn't know the flag is told without it.
        old.send(b"".join(ask(b"o", number) for number in range(1, 8)))
        refused = next_frame(old)
        assert refused == failed(wire.OVERLOADED, TOO_MANY, refused.id)
    assert "service 'held' is overloaded: 4 requests wait for its 1 workers" in caplog.text


def test_who_asks_much_makes_room_for_who_asks_little(held):
    with wire.let_in(held.server, BOTH) as hog, wire.let_in(held.server, BOTH) as lonely:
        hog.send(ask(b"a"))
        held.has_begun(b"a")
        hog.send(b"".join(ask(b"h%d" % number, number) for number in range(2, 6)))
        held.wait_in_line(4)
        lonely.send(ask(b"l"))
        assert next_frame(hog) == not_started(wire.OVERLOADED, TOO_MANY, 5)
        held.let_go(3)
        assert next_frame(lonely) == replied(b"L")
        assert held.begun[:3] == [b"a", b"h2", b"l"]


def test_without_ids_each_client_waits_unread(make_server, address):
    """There is no way to refuse one, and each has one at a time there: however many clients, none is turned away."""
    server = make_server(address, framing="line")
    server.service(threads=1, queue=1)(lambda client, request: time.sleep(0.002) or request.upper())
    with server:
        peers = [wire.dial(server) for _ in range(20)]
        for peer in peers:
            peer.send(b"ab\ncd\nef\n")
        for peer in peers:
            assert peer.read(9) == b"AB\nCD\nEF\n"
            peer.close()


# Nobody waits any more


def test_what_is_late_in_the_queue_is_never_run(held):
    with wire.let_in(held.server, BOTH) as peer:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(timed(b"late", 2, left=20_000, service=1))
        assert next_frame(peer) == not_started(wire.TOO_LATE, texts.TOO_LATE, 2)
        held.let_go(2)
        assert next_frame(peer) == replied(b"A", 1)
        held.wait_idle()
        assert held.begun == [b"a"]


def test_what_is_late_while_the_loop_is_held_up_is_not_run_either(make_server, address):
    """A worker looks at the deadline itself."""
    server = make_server(address)
    held = Held(server)
    go_on = threading.Event()
    server.service("block")(lambda client, request: go_on.wait(10) and b"")
    with server, wire.let_in(server, BOTH) as peer, wire.let_in(server) as other:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(timed(b"late", 2, left=200_000, service=1))
        held.wait_in_line(1)
        other.send(srm(b"", 1, service=2))
        time.sleep(0.3)
        held.let_go(2)
        held.wait_in_line(0)
        go_on.set()
        got = sorted((next_frame(peer) for _ in range(2)), key=lambda frame: frame.id)
        assert got == [replied(b"A", 1), not_started(wire.TOO_LATE, texts.TOO_LATE, 2)]
        assert held.begun == [b"a"]


def test_what_is_cancelled_in_the_queue_is_never_run(held):
    with wire.let_in(held.server, BOTH) as peer:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(ask(b"b", 2) + cancel(2))
        assert next_frame(peer) == not_started(wire.CANCELLED, texts.CANCELLED, 2)
        peer.send(cancel(1))  # this one runs
        assert next_frame(peer) == failed(wire.CANCELLED, texts.CANCELLED, 1)
        held.let_go(2)
        held.wait_idle()
        peer.send(ask(b"c", 1))
        assert next_frame(peer) == replied(b"C", 1)
        assert held.begun == [b"a", b"c"]


def test_of_a_client_that_leaves_only_notifications_are_done(held):
    with wire.let_in(held.server) as other:
        other.send(ask(b"a"))
        held.has_begun(b"a")
        with wire.let_in(held.server, BOTH) as peer:
            peer.send(ask(b"gone", 1) + srm(b"told", 2, service=1, flags=wire.NO_REPLY))
            held.wait_in_line(2)
            peer.send(BYE_FRAME)
            held.wait_in_line(1)
        held.let_go(5)
        assert next_frame(other) == replied(b"A")
        held.has_begun(b"told")
        assert held.begun == [b"a", b"told"]


def test_a_stop_waits_for_what_runs_and_tells_the_others(held):
    with wire.let_in(held.server, BOTH) as peer:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(ask(b"b", 2))
        held.wait_in_line(1)
        threading.Timer(0.1, held.let_go).start()
        held.server.stop(0.5)
        assert held.begun == [b"a", b"b"]  # its turn came
        got = {frame.id: frame for frame in wire.rest_of(peer) if frame.id}
        assert got == {1: replied(b"A", 1), 2: failed(wire.CANCELLED, texts.CUT_SHORT, 2)}


def test_what_has_no_turn_before_the_end_was_not_started(held):
    with wire.let_in(held.server, BOTH) as peer:
        peer.send(ask(b"a", 1))
        held.has_begun(b"a")
        peer.send(ask(b"b", 2))
        held.wait_in_line(1)
        held.server.stop(0)
        got = {frame.id: frame for frame in wire.rest_of(peer) if frame.id}
        assert got == {
            1: failed(wire.CANCELLED, texts.CUT_SHORT, 1),
            2: not_started(wire.SHUTTING_DOWN, texts.SHUTTING_DOWN, 2),
        }
        assert held.begun == [b"a"]


# Whose turn it is


def test_a_hog_holds_up_others_for_one_request_at_most(make_server, address):
    server = make_server(address)
    order = []
    first = threading.Event()

    @server.service(threads=1)
    def note(client, request):
        first.wait(10)
        order.append(request)
        return request

    with server, wire.let_in(server) as hog, wire.let_in(server) as lonely:
        hog.send(b"".join(srm(b"hog", number) for number in range(1, 101)))
        pool = server._running.services._pools.by_number[0]
        wait_for(lambda: pool.jobs._waiting == 99, "the hog's requests")
        lonely.send(srm(b"lonely"))
        wait_for(lambda: pool.jobs._waiting == 100, "the other one's")
        first.set()
        assert next_frame(lonely) == replied(b"lonely")
        assert order.index(b"lonely") <= 2


# Processes


def test_a_process_that_dies_fails_one_request(make_server, address, caplog):
    server = make_server(address)
    server.service(processes=2)(pid)
    with server, connect(server.addresses[0]) as client:
        before = {client.request(b"") for _ in range(20)}
        for _ in range(3):
            with pytest.raises(RemoteError, match=DIED) as failure:
                client.request(b"die")
            assert failure.value.code == 1
        assert int(client.request(b"")) not in before | {os.getpid()}
    assert "was ended by signal 9" in caplog.text


def test_no_process_outlives_its_server(make_server, unix_address):
    server = make_server(unix_address)
    server.service(processes=2)(pid)
    with server, connect(unix_address) as client:
        pids = {int(client.request(b"")) for _ in range(50)}
        assert all(Path(f"/proc/{number}").exists() for number in pids)
    assert not any(Path(f"/proc/{number}").exists() for number in pids)


LIFE = """
import glob, os, sys, threading, time
sys.path.insert(0, sys.argv[4])
import pysock, worked
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
begun = threading.Event()

@server.service("threads", threads=2)
def sleep(client, request):
    begun.set()
    time.sleep(float(request))
    return request

server.service("processes", processes=1)(worked.slow)
server.service("pid", processes=1)(worked.pid)
if __name__ == "__main__":
    server.start()
    client = pysock.connect(sys.argv[1])
    client.notify(b"30", service="threads")
    client.notify(b"30", service="processes")
    worker = int(client.request(b"", service="pid"))
    begun.wait(10)
    exec(sys.argv[3])
"""


def live(address, backend, code, **options):
    return run_python(LIFE, address, backend, code, f"{ROOT}/tests/help", **options)


@pytest.mark.parametrize("stop", ["", "server.stop(0)"])
def test_an_exit_is_quiet_and_soon(backend, unix_address, stop):
    """Whatever the workers are at."""
    done = live(unix_address, backend, f"{stop}\nprint(worker, time.time())")
    after = time.time()
    assert (done.returncode, done.stderr.replace(hanging(done), "")) == (0, "")
    worker, ended = done.stdout.split()
    assert after - float(ended) < 2  # one, and one for a busy machine
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "its processes to end")


def hanging(done):
    """What is said of a handler that hasn't returned."""
    return next((line + "\n" for line in done.stderr.splitlines() if "hasn't returned" in line), "\0")


def test_a_server_that_is_killed_takes_its_processes_with_it(backend, unix_address):
    done = live(unix_address, backend, "print(worker, flush=True); os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{int(done.stdout)}").exists(), "its processes to end")


def test_a_forked_child_has_no_workers(backend, unix_address):
    code = """
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    try:
        server.stats()
    except pysock.PysockError as error:
        print("child:", "of which this one is a forked child" in str(error), threading.active_count())
    print("sockets:", sum("socket" in os.path.realpath(fd) for fd in glob.glob("/proc/self/fd/*")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", client.request(b"0", service="threads"), int(client.request(b"", service="pid")) == worker, flush=True)
os._exit(0)
"""
    done = live(unix_address, backend, code)
    assert done.stdout == "child: True 1\nsockets: 0\nparent: b'0' True\n"


def test_a_module_that_starts_its_server_when_it_is_imported_says_so(backend, tmp_path):
    (tmp_path / "starts.py").write_text(
        f"import pysock\nserver = pysock.Server('unix:{tmp_path}/s', backend={backend!r})\n"
        "@server.service(processes=1)\ndef echo(request):\n    return request\n"
        "server.start()\n"
    )
    done = run_python("import starts", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert "import" in done.stderr.splitlines()[-1]
