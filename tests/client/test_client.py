from __future__ import annotations

import math
import os
import statistics
import struct
import threading
import time

import pytest
from support import until_bye, wait_for, welcomed

import pysock
from pysock import FrameTooLarge, Limits, ProtocolError, RemoteError, RequestTimeout, connect
from pysock.base.ids import shown
from pysock.errors import ConnectionLost
from pysock.wire.format import FLAG_NO_REPLY, ErrorCode, Kind, encode, encode_text


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=100_000))
    server.service(lambda client, request: request.upper())
    server.service("add")(lambda client, request: b"%d" % sum(map(int, request.split())))
    server.service("fail")(lambda client, request: 1 / 0)
    server.service("push")(lambda client, request: client.send(request))
    with server:
        yield server


@pytest.fixture
def client(server):
    with connect(server.addresses[0], name="me", backend=server.backend, max_payload=200_000) as client:
        yield client


def test_what_a_client_knows(server, client):
    assert client.name == "me"
    assert client.id == server.clients.by_name("me").id
    assert dict(client.services) == {"add": 1, "fail": 2, "push": 3}
    assert client.server_software == f"pysock/{pysock.__version__}"
    assert client.max_payload == 100_000
    assert client.address == server.addresses[0]
    assert client.closed is False
    assert repr(client) == f"<Client {shown(client.id)} 'me' connected {server.addresses[0]}>"
    with pytest.raises(TypeError):
        client.services["x"] = 1


# Requests


def test_request(client):
    assert client.request(b"hello") == b"HELLO"
    assert client.request(b"") == b""
    assert client.request(bytearray(b"abc")) == b"ABC"
    assert client.request(memoryview(b"abc")[1:]) == b"BC"
    assert client.request(b"1 2 3", service="add") == b"6"
    assert client.request(b"1 2 3", "add", 5.0) == b"6"


def test_large_requests_and_replies(client):
    payload = os.urandom(50_000).hex().encode()
    assert client.request(payload) == payload.upper()


def test_request_many(client):
    numbers = range(5000)
    assert client.request_many([b"%d 1" % number for number in numbers], service="add") == [
        b"%d" % (n + 1) for n in numbers
    ]
    assert client.request_many([]) == []
    assert client.request_many((b"a", bytearray(b"b"))) == [b"A", b"B"]
    assert client.request_many(x for x in [b"a"]) == [b"A"]


def test_request_many_with_failures(client):
    payloads = [b"1", b"x", b"2"]
    with pytest.raises(RemoteError, match=r"^ValueError$"):
        client.request_many(payloads, service="add")
    assert client.request(b"in step") == b"IN STEP"
    replies = client.request_many(payloads, service="add", return_exceptions=True)
    assert (replies[0], replies[2]) == (b"1", b"2")
    assert isinstance(replies[1], RemoteError)
    assert (replies[1].code, replies[1].message) == (ErrorCode.HANDLER_FAILED, "ValueError")


def test_a_failing_service(client):
    with pytest.raises(RemoteError, match=r"^ZeroDivisionError$"):
        client.request(b"", service="fail")
    assert client.request(b"x") == b"X"


def test_an_unknown_service_is_known_here(server, client):
    with pytest.raises(RemoteError, match="the server has no service 'ad'; it has 'add', 'fail', 'push'") as caught:
        client.request(b"", service="ad")
    assert caught.value.code == ErrorCode.NO_SUCH_SERVICE
    for call in (client.notify, lambda *a, **k: client.request_many([b""], **k)):
        with pytest.raises(RemoteError):
            call(b"", service="ad")
    assert server.stats()["requests"] == 0  # nothing was sent


def test_a_server_without_an_unnamed_service(make_server, address):
    server = make_server(address)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert dict(client.services) == {}
        with pytest.raises(RemoteError) as caught:
            client.request(b"")
        assert caught.value.code == ErrorCode.NO_SUCH_SERVICE
        with pytest.raises(RemoteError, match="the server has no service 'x'; it has no named ones"):
            client.request(b"", service="x")
        assert client.ping() > 0


def test_a_request_over_the_limit_is_known_here(server, client):
    assert len(client.request(b"x" * 100_000)) == 100_000
    for call in (client.request, client.notify, lambda payload: client.request_many([b"", payload])):
        with pytest.raises(FrameTooLarge, match="100001 bytes is over the server's limit of 100000 bytes"):
            call(b"x" * 100_001)
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("wrong", ["text", None, 5, [b"x"]])
def test_only_bytes_can_be_sent(client, wrong):
    for call in (client.request, client.notify, client.ping, lambda payload: client.request_many([payload])):
        with pytest.raises(TypeError, match="a payload must be bytes-like, not"):
            call(wrong)


def test_a_reply_over_the_clients_own_limit(make_server, address):
    server = make_server(address)
    server.service(lambda client, request: b"x" * 1001)
    with server:
        client = connect(server.addresses[0], backend=server.backend, max_payload=1000)
        with client, pytest.raises((ProtocolError, RemoteError)):
            client.request(b"")


def test_notify(server, client):
    got = []
    client.notify(b"1 2", service="add")
    client.notify(b"boom", service="fail")
    client.notify(b"x")
    assert client.request(b"after") == b"AFTER"  # none of them is answered
    assert server.stats()["requests"] == 4
    assert got == []


def test_what_a_notify_is_on_the_wire(backend, fake):
    seen = []

    def play(peer):
        seen.append(peer.frame())
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        client.notify(b"hello", service="add")
        wait_for(lambda: seen)
    assert (seen[0].kind, seen[0].flags, seen[0].code, seen[0].payload) == (Kind.SRM, FLAG_NO_REPLY, 1, b"hello")


def test_ping(server, client):
    assert 0 < client.ping() < 5
    assert 0 < client.ping(b"x" * 64, timeout=5) < 5
    with pytest.raises(FrameTooLarge, match="65 bytes is over a ping's limit of 64 bytes"):
        client.ping(b"x" * 65)
    assert server.stats()["requests"] == 0


def test_a_ping_that_comes_back_changed(backend, fake):
    def play(peer):
        peer.send(encode(Kind.PONG, b"other", request_id=peer.frame().request_id))
        peer.rest()

    with connect(fake(welcomed(play)), backend=backend) as client:
        with pytest.raises(ProtocolError, match="answered a ping with other bytes"):
            client.ping(b"mine")
        assert client.closed


def test_close_says_goodbye(backend, fake):
    seen = []

    def play(peer):
        seen.extend(iter(peer.frame, None))

    client = connect(fake(welcomed(play)), backend=backend)
    client.close()
    client.close()
    wait_for(lambda: seen)
    assert [frame.kind for frame in seen] == [Kind.BYE]
    assert client.closed
    assert repr(client).count("closed") == 1
    for call in (client.request, client.notify, client.ping, lambda payload: client.request_many([payload])):
        with pytest.raises(ConnectionLost, match=r"this client is closed: connect\(\) again"):
            call(b"")
    assert list(client.pushes()) == []


# Timeouts


def test_a_late_answer_is_thrown_away(backend, fake):
    def play(peer):
        late = peer.frame()
        second = peer.frame()
        peer.send(encode(Kind.REPLY, b"late", request_id=late.request_id))
        peer.send(encode(Kind.REPLY, b"right", request_id=second.request_id))
        ping = peer.frame()
        peer.send(encode(Kind.REPLY, b"later still", request_id=late.request_id))
        peer.send(encode(Kind.PONG, request_id=ping.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        with pytest.raises(RequestTimeout):
            client.request(b"first", timeout=0.05)
        assert client.request(b"second") == b"right"
        assert client.ping() > 0


def test_the_timeout_given_to_connect_is_the_default(backend, fake):
    with connect(fake(welcomed(until_bye)), timeout=0.1, backend=backend) as client:
        for call in (lambda: client.request(b""), lambda: client.request_many([b""]), client.ping):
            started = time.monotonic()
            with pytest.raises(RequestTimeout):
                call()
            assert 0.05 < time.monotonic() - started < 2


def test_no_timeout(backend, fake):
    def play(peer):
        frame = peer.frame()
        time.sleep(0.2)
        peer.send(encode(Kind.REPLY, b"slow", request_id=frame.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), timeout=0.1, backend=backend) as client:
        assert client.request(b"", timeout=math.inf) == b"slow"


@pytest.mark.parametrize("timeout", [10**9, 1e12, 1e300, 2**70, math.inf])
def test_a_timeout_may_be_as_long_as_one_likes(server, backend, timeout):
    with connect(server.addresses[0], timeout=timeout, backend=backend) as client:
        assert client.request(b"x") == b"X"


@pytest.mark.parametrize("timeout", [-1, math.nan, "1"])
def test_a_timeout_must_be_one(client, timeout):
    for call in (client.request, client.notify, client.ping):
        with pytest.raises(ValueError, match="a timeout must be 0 or more seconds"):
            call(b"", timeout=timeout)
    assert client.request(b"x") == b"X"


def test_the_window_is_what_the_server_allows(backend, fake):
    most = []

    def play(peer):
        waiting = []
        for _ in range(12):
            waiting.append(peer.frame())
            if len(waiting) == 4:
                # All four came without an answer; the fifth must not come before one.
                peer.sock.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    peer.sock.recv(1)
                peer.sock.settimeout(10)
                most.append(len(waiting))
                for frame in reversed(waiting):
                    peer.send(encode(Kind.REPLY, frame.payload * 2, request_id=frame.request_id))
                waiting = []
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        assert client.request_many([b"%d" % n for n in range(12)]) == [b"%d" % n * 2 for n in range(12)]
    assert most == [4, 4, 4]


# The end of the connection


def test_goodbye_is_told(backend, fake):
    def play(peer):
        frame = peer.frame()
        peer.send(encode_text(Kind.GOAWAY, 0, "maintenance"))
        peer.send(encode(Kind.REPLY, b"last", request_id=frame.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        assert client.request(b"x") == b"last"
        for call in (client.request, client.notify, client.ping, lambda payload: client.request_many([payload])):
            with pytest.raises(ConnectionLost, match=r"^the server said goodbye: maintenance$"):
                call(b"")


def test_a_loss_after_a_goodbye_names_the_goodbye(backend, fake):
    def play(peer):
        peer.frame()
        peer.send(encode_text(Kind.GOAWAY, 0, "maintenance"))

    with connect(fake(welcomed(play)), backend=backend) as client:
        with pytest.raises(ConnectionLost, match=r"^the server said goodbye: maintenance$"):
            client.request(b"x")
        assert client.closed


def test_a_stopped_server(server, client):
    server.stop()
    with pytest.raises(ConnectionLost, match=r"^the server said goodbye: the server is shutting down$"):
        client.request(b"x")


@pytest.mark.parametrize("call", ["request", "request_many", "ping"])
def test_a_server_that_vanishes_in_the_middle(backend, fake, call):
    with connect(fake(welcomed(lambda peer: peer.frame())), backend=backend) as client:
        with pytest.raises(ConnectionLost):
            getattr(client, call)([b"x"] if call == "request_many" else b"x")
        assert client.closed
        with pytest.raises(ConnectionLost, match=r"this client is closed: connect\(\) again"):
            client.request(b"x")


@pytest.mark.parametrize("nonsense", [struct.pack("!I", 2**32 - 1) + b"\x83\0\0\0\0\0\0\1", b"\x7f" * 40])
def test_a_server_that_breaks_the_protocol(backend, fake, nonsense):
    address = fake(welcomed(lambda peer: (peer.frame(), peer.send(nonsense), peer.rest())))
    with connect(address, backend=backend) as client, pytest.raises(ConnectionError):
        client.request(b"x", timeout=5)


# Threads


def test_many_threads_share_a_client(client):
    failures = []

    def work(number):
        for step in range(50):
            text = b"%d-%d" % (number, step)
            if client.request(b"x" + text) != b"X" + text:
                failures.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_request_goes_out_while_another_waits(backend, fake):
    """Each gets its own answer, in whatever order; and a timeout is one thread's own."""
    got = []

    def play(peer):
        got.extend(peer.frame() for _ in range(3))
        for frame in (got[2], got[0]):
            peer.send(encode(Kind.REPLY, frame.payload * 2, request_id=frame.request_id))
        until_bye(peer)

    with connect(fake(welcomed(play)), backend=backend) as client:
        replies = {}

        def ask(text, timeout=None):
            try:
                replies[text] = client.request(text, timeout=timeout)
            except RequestTimeout as error:
                replies[text] = error

        threads = []
        for number, (text, timeout) in enumerate([(b"a", None), (b"late", 0.2), (b"b", None)]):
            threads.append(threading.Thread(target=ask, args=(text, timeout)))
            threads[-1].start()
            wait_for(lambda number=number: len(threads) == number + 1)
            time.sleep(0.05)
        for thread in threads:
            thread.join(10)
        assert (replies[b"a"], replies[b"b"]) == (b"aa", b"bb")
        assert isinstance(replies[b"late"], RequestTimeout)


def test_who_does_not_come_back_with_its_answer_holds_nobody_up(backend, fake):
    """Four answers come at once, again and again. Who has the first wakes the next as it comes back: or doesn't."""
    came = [[] for _ in range(50)]
    stays = range(9, 50, 10)

    def play(peer):
        for _ in came:
            frames = [peer.frame() for _ in range(4)]
            peer.send(b"".join(encode(Kind.REPLY, b"", request_id=frame.request_id) for frame in frames))
        until_bye(peer)

    def ask(client):
        for step, times in enumerate(came):
            client.request(b"")
            times.append(time.perf_counter())
            if step in stays and len(times) == 1:
                time.sleep(0.1)

    with connect(fake(welcomed(play)), backend=backend) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert statistics.median(max(came[step]) - min(came[step]) for step in stays) < 0.04


def test_all_threads_hear_that_the_connection_is_lost(backend, fake):
    heard = []

    def play(peer):
        for _ in range(4):
            peer.frame()

    def ask(client):
        try:
            client.request(b"x")
        except ConnectionLost as error:
            heard.append(str(error))

    with connect(fake(welcomed(play)), backend=backend) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert len(heard) == 4, heard
        assert client.closed


def test_close_waits_for_other_threads_calls(backend, fake):
    replies = []

    def play(peer):
        frame = peer.frame()
        time.sleep(0.2)
        peer.send(encode(Kind.REPLY, b"slow", request_id=frame.request_id))
        until_bye(peer)

    client = connect(fake(welcomed(play)), backend=backend)
    listener = threading.Thread(target=lambda: replies.extend(client.pushes()))
    caller = threading.Thread(target=lambda: replies.append(client.request(b"")))
    listener.start()
    caller.start()
    time.sleep(0.05)
    client.close()
    for thread in (caller, listener):
        thread.join(5)
        assert not thread.is_alive()
    assert replies == [b"slow"]
