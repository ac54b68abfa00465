from __future__ import annotations

import math
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import until_bye, wait_for, welcomed

import pysock
from pysock import Client, Limits, RemoteError, connect
from pysock.calls.mailbox import PUSHES_MAX, Mailbox
from pysock.errors import ConnectionLost
from pysock.wire.format import Frame, Kind, encode


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=100_000))
    server.service(lambda client, request: request.upper())
    server.service("add")(lambda client, request: b"%d" % sum(map(int, request.split())))
    server.service("fail")(lambda client, request: 1 / 0)
    server.service("push")(lambda client, request: client.send(request))
    server.service("push and fail")(lambda client, request: client.send(request) or 1 / 0)
    with server:
        yield server


@pytest.fixture
def client(server):
    with connect(server.addresses[0], name="me", backend=server.backend, max_payload=200_000) as client:
        yield client


def test_on_push_is_called_after_the_call(client):
    events = []

    @client.on_push
    def hook(payload):
        events.append(payload)
        if payload == b"one":
            events.append(client.request(b"from the hook"))  # the client is free already

    assert client.request(b"one", service="push") == b""
    assert events == [b"one", b"FROM THE HOOK"]
    client.request_many([b"two", b"three"], service="push")
    assert events[2:] == [b"two", b"three"]
    with pytest.raises(TypeError, match="a hook must be callable"):
        client.on_push("name")


def test_on_push_is_called_though_the_call_failed(client):
    events = []
    client.on_push(events.append)
    with pytest.raises(RemoteError):
        client.request(b"news", service="push and fail")
    assert events == [b"news"]


def test_a_failing_on_push_does_not_cost_the_reply(client, caplog):
    @client.on_push
    def hook(payload):
        raise ValueError("oh")

    assert client.request(b"x", service="push") == b""
    assert "ValueError: oh" in caplog.text


def test_pushes_are_kept_without_a_hook(client):
    client.request_many([b"one", b"two"], service="push")
    client.ping()
    assert list(client.pushes(timeout=0)) == [b"one", b"two"]
    assert list(client.pushes(timeout=0.05)) == []


def test_pushes_without_time_yields_what_has_come(server, client):
    """Also what no call has received yet; and it doesn't wait for more."""
    got = list(client.pushes(timeout=0))
    assert got == []
    for _ in range(3):
        server.clients.broadcast(b"news")
    wait_for(lambda: got.extend(client.pushes(timeout=0)) or len(got) == 3)
    assert list(client.pushes(timeout=0)) == []


def test_on_push_is_called_while_nobody_calls(server, client):
    got = []
    client.on_push(lambda push: got.append((push, client.request(push))))
    server.clients.broadcast(b"one")
    wait_for(lambda: got == [(b"one", b"ONE")])
    client.close()
    wait_for(lambda: "pysock pushes" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("other", ["begins", "ends"])
def test_it_is_known_whether_anybody_calls(make_server, unix_address, backend, other):
    """Whatever another thread's call does between two steps of this one's, as where there is no GIL."""
    server = make_server(unix_address)
    waiting, got = queue.Queue(), queue.Queue()

    @server.service
    def handler(client, request):
        reply = pysock.later()
        waiting.put(reply)
        return reply

    with server, connect(unix_address, backend=backend) as client, ThreadPoolExecutor(1) as pool:
        client.on_push(got.put)
        step = 0
        while step < 1000:
            step += 1
            replies = []

            def begin(replies=replies):
                replies.append((pool.submit(client.request, b"x"), waiting.get(timeout=10)))

            def end(replies=replies):
                for answer, reply in replies:
                    reply.send(b"")
                    answer.result(10)

            if other == "ends":
                begin()
            came = between(step, Client._call, begin if other == "begins" else end, client.ping)
            if other == "begins":
                end()
            server.clients.broadcast(b"news")
            assert got.get(timeout=5) == b"news", f"at step {step}"
            if not came:
                break
    assert 10 < step < 1000


def between(step, function, act, call):
    """Call in a thread of its own, and act before so many steps of the function are done. Whether there were as many;
    if not it acts afterwards.
    """
    done = [0]

    def trace(frame, event, _argument):
        if frame.f_code is not function.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            done[0] += 1
            if done[0] == step:
                act()
        return trace

    def traced():
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one when tracing begins
        sys.settrace(trace)
        call()
        sys.settrace(None)

    thread = threading.Thread(target=traced)
    thread.start()
    thread.join(10)
    if done[0] < step:
        act()
    return done[0] >= step


def test_pushes_waits(server, client):
    threading.Timer(0.1, server.clients.broadcast, [b"news"]).start()
    assert next(client.pushes(timeout=5)) == b"news"


def test_requests_between_pushes(server, client):
    pushes = client.pushes(timeout=5)
    server.clients.broadcast(b"one")
    assert next(pushes) == b"one"
    assert client.request(b"x") == b"X"
    server.clients.broadcast(b"two")
    assert next(pushes) == b"two"


def test_a_thread_that_listens_leaves_room_for_others(server, client):
    got = []
    listener = threading.Thread(target=lambda: got.extend(client.pushes()))
    listener.start()
    for _ in range(5):
        started = time.monotonic()
        assert client.request(b"x") == b"X"
        assert time.monotonic() - started < 2
    server.clients.broadcast(b"news")
    wait_for(lambda: got == [b"news"])
    client.close()
    listener.join(5)
    assert not listener.is_alive()


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_the_timeout_of_pushes_must_be_one(client, timeout):
    with pytest.raises(ValueError, match="a timeout must be 0 or more seconds"):
        client.pushes(timeout=timeout)


def test_pushes_ends_with_the_servers_goodbye(server, client):
    threading.Timer(0.1, server.stop).start()
    assert list(client.pushes()) == []


def test_pushes_raises_when_the_connection_is_lost(backend, fake):
    def play(peer):
        peer.send(encode(Kind.PUSH, b"last words"))

    with connect(fake(welcomed(play)), backend=backend) as client:
        pushes = client.pushes()
        assert next(pushes) == b"last words"
        with pytest.raises(ConnectionLost):
            next(pushes)


def test_the_mailbox_is_bounded():
    mail = Mailbox()
    for number in range(PUSHES_MAX + 3):
        mail.append(Frame(Kind.PUSH, 0, 0, 0, b"%d" % number))
    assert mail.dropped == 3
    assert mail.take(None) == b"3"


def test_pushes_waits_no_longer_than_it_says_for_another_threads_call(backend, fake):
    arrived, go_on = threading.Event(), threading.Event()

    def play(peer):
        frame = peer.frame()
        arrived.set()
        assert go_on.wait(10)
        peer.send(encode(Kind.PUSH, b"news") + encode(Kind.REPLY, request_id=frame.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        slow = threading.Thread(target=client.request, args=(b"",))
        slow.start()
        try:
            assert arrived.wait(10)
            started = time.monotonic()
            assert list(client.pushes(timeout=0.1)) == []
            assert time.monotonic() - started < 5
            assert slow.is_alive()
        finally:
            go_on.set()
            slow.join()
        assert list(client.pushes(timeout=0)) == [b"news"]


def test_each_push_that_is_dropped_is_counted_and_the_first_is_logged(server, caplog):
    """The bound is a parameter, and the oldest go."""
    with connect(server.addresses[0], name="me", backend=server.backend, max_pushes=3) as client:
        for rounds in (1, 2):
            client.request_many([b"%d" % number for number in range(5)], service="push")
            assert client.dropped_pushes == 5 * rounds - 3
        assert list(client.pushes(timeout=0)) == [b"2", b"3", b"4"]
    (record,) = [record for record in caplog.records if record.name == "pysock.client"]
    assert record.levelname == "WARNING"
    assert "'me'" in record.getMessage()
    assert "at most 3; take them by pushes() or on_push, or give connect() a larger max_pushes=" in record.getMessage()


def test_pushes_that_came_within_one_call_are_kept(backend, fake):
    """As many as the client says."""
    count = 100_000

    def play(peer):
        frame = peer.frame()
        peer.send(encode(Kind.PUSH, b"x") * count + encode(Kind.REPLY, request_id=frame.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend, max_pushes=count - 5) as client:
        client.request(b"")
        assert client.dropped_pushes == 5
        assert sum(1 for _ in client.pushes(timeout=0)) == count - 5


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None])
def test_the_bound_of_the_mailbox_must_be_one(wrong):
    with pytest.raises(ValueError, match="max_pushes must be a number from 1 on"):
        connect("unix:nowhere", max_pushes=wrong)
