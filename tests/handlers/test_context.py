"""Context variables: each client's handlers have a context of their own, a batch and each hook a fresh one."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest
from support import RawPeer, run_python, running, wait_for

import pysock

pytestmark = pytest.mark.plain  # each call of one that is async has a fresh context

VARIABLE: ContextVar[bytes] = ContextVar("VARIABLE", default=b"-")


def swap(client, request):
    """What the variable was; the request is its next value."""
    before = VARIABLE.get()
    VARIABLE.set(bytes(request))
    return before


def test_a_clients_variables_are_its_own(make_server, unix_address):
    server = make_server(unix_address)
    server.service("swap")(swap)
    with running(server), pysock.connect(unix_address) as a, pysock.connect(unix_address) as b:
        assert a.request(b"a1", service="swap") == b"-"
        assert b.request(b"b1", service="swap") == b"-"
        assert a.request_many([b"a2", b"a3"], service="swap") == [b"a1", b"a2"]
        assert b.request(b"b2", service="swap") == b"b1"
        with pysock.connect(unix_address) as c:
            assert c.request(b"c1", service="swap") == b"-"
    assert VARIABLE.get() == b"-"


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_in_framings_without_names(make_server, unix_address, framing):
    """Also where requests come in one piece or in several."""
    server = make_server(unix_address, framing=framing)
    server.service(swap)
    head = b"\0\0\0\1" if framing == "u32" else b""
    tail = b"\n" if framing == "line" else b""
    with running(server):
        a, b = RawPeer.connect(unix_address), RawPeer.connect(unix_address)
        try:
            for peer, before, value in ((a, b"-", b"1"), (b, b"-", b"2"), (a, b"1", b"3"), (b, b"2", b"4")):
                peer.send(head + value + tail)
                assert peer.read(len(head + before + tail)) == head + before + tail
        finally:
            a.close()
            b.close()


def test_a_handler_that_fails_leaves_its_context(make_server, unix_address):
    def fails(client, request):
        swap(client, request)
        raise ValueError

    server = make_server(unix_address)
    server.service("swap")(swap)
    server.service("fails")(fails)
    with running(server), pysock.connect(unix_address) as a, pysock.connect(unix_address) as b:
        with pytest.raises(pysock.RemoteError):
            a.request(b"a1", service="fails")
        assert b.request(b"b1", service="swap") == b"-"
        assert a.request(b"a2", service="swap") == b"a1"


def test_a_batch_has_a_fresh_one(make_server, unix_address):
    server = make_server(unix_address)
    server.service("swap")(swap)
    server.batch_service("batch")(lambda clients, requests: [swap(None, one) for one in requests])
    with running(server), pysock.connect(unix_address) as a:
        assert a.request(b"a1", service="swap") == b"-"
        assert a.request(b"x", service="batch") == b"-"
        assert a.request(b"y", service="batch") == b"-"
        assert a.request(b"a2", service="swap") == b"a1"


def test_hooks_and_handlers_see_nothing_of_each_other(make_server, unix_address):
    seen, gone = [], threading.Semaphore(0)

    def hook(name):
        def call(*_arguments):
            seen.append((name, swap(None, name.encode())))
            if name == "disconnect":
                gone.release()
            return True

        return call

    server = make_server(unix_address, allow=hook("allow"))
    server.service("swap")(swap)
    server.on_connect(hook("connect"))
    server.on_connect(hook("connect"))
    server.on_disconnect(hook("disconnect"))
    with running(server):
        for _ in range(2):
            with pysock.connect(unix_address) as client:
                assert client.request(b"handler", service="swap") == b"-"
            assert gone.acquire(timeout=10)
    assert {name for name, _ in seen} == {"allow", "connect", "disconnect"}
    assert {value for _, value in seen} == {b"-"}


def test_what_was_set_before_it_serves_is_seen(make_server, unix_address):
    """Handlers start with a copy of the context that the loop runs in, and change nothing in that."""
    server = make_server(unix_address)
    server.service("swap")(swap)
    found = []

    def client():
        wait_for(lambda: server.state is pysock.ServerState.SERVING)
        with pysock.connect(unix_address) as it:
            found.append(it.request(b"changed", service="swap"))
        server.stop()

    token = VARIABLE.set(b"before")
    try:
        beside = threading.Thread(target=client)
        beside.start()
        server.serve_forever()
        beside.join()
        assert (found, VARIABLE.get()) == ([b"before"], b"before")
    finally:
        VARIABLE.reset(token)


SIGNALLED = """
import os, signal, sys, threading
from contextvars import ContextVar
import pysock

variable = ContextVar("variable", default="-")
server = pysock.Server(sys.argv[1], backend=sys.argv[2])

@server.service
def handler(client, request):
    variable.set("a client's")
    os.kill(os.getpid(), signal.SIGUSR1)
    return request

seen = []
after = lambda *_: (seen.append(variable.get()), server.stop(0))
signal.signal(signal.SIGUSR2, after)
signal.signal(signal.SIGUSR1, lambda *_: None)

def ask():
    with pysock.connect(sys.argv[1], backend=sys.argv[2]) as client:
        client.request(b"x")
        client.ping()  # the turn of the request is over
    os.kill(os.getpid(), signal.SIGUSR2)

server.on_state(lambda old, new: new.name == "SERVING" and threading.Thread(target=ask, daemon=True).start())
server.serve_forever()
print(*seen, variable.get())
"""


def test_a_signals_handler_between_requests_is_in_none_of_them(backend, unix_address):
    done = run_python(SIGNALLED, unix_address, backend)
    assert (done.stdout, done.stderr, done.returncode) == ("- -\n", "", 0)


def test_requests_in_a_row_of_many_clients_are_kept_apart(make_server, unix_address):
    """Each client's are served in one context; between them it is left, whatever else runs: failures, pushes, hooks."""
    server = make_server(unix_address, limits=pysock.Limits(output_pause=1000, output_drop=20_000))

    @server.service
    def counts(client, request):
        before = int(VARIABLE.get().strip(b"-") or b"0")
        VARIABLE.set(b"%d" % (before + 1))
        if request == b"fail":
            raise ValueError
        server.clients.broadcast(b"told")
        return b"%d" % before

    seen = []
    server.on_disconnect(lambda client, reason: seen.append(VARIABLE.get()))
    with running(server):
        clients = [pysock.connect(unix_address, backend=server.backend) for _ in range(5)]
        for round_ in range(3):
            for client in clients:
                many = client.request_many([b"x"] * 9 + [b"fail"], return_exceptions=True)
                assert many[:9] == [b"%d" % (10 * round_ + number) for number in range(9)]
        for client in clients:
            client.close()
        wait_for(lambda: len(seen) == 5, "the hooks")
    assert seen == [b"-"] * 5
