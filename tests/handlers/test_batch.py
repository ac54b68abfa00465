"""Batch services: the requests of all clients that are ready, in one call, and each gets its own reply."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from concurrent.futures import Future

import pytest
import wire
from support import running, wait_for
from wire import Good, failed, goaway, replied, srm, talk

import pysock
from pysock import Limits, RemoteError
from pysock.wire import texts


@pytest.fixture
def server(make_server, address):
    return make_server(address)


class Gate:
    """A service, number 1, that holds the loop, so that the next turn finds everything that came meanwhile."""

    def __init__(self, server):
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.server = server
        server.service("gate")(self.wait)

    def wait(self, client, request):
        self.entered.set()
        assert self.go_on.wait(10)

    @contextlib.contextmanager
    def shut(self):
        """Inside, nothing is read."""
        with wire.let_in(self.server, name=b"gate") as peer:
            self.entered.clear()
            self.go_on.clear()
            peer.send(srm(service=1))
            assert self.entered.wait(10)
            try:
                yield
            finally:
                self.go_on.set()
            assert wire.next_frame(peer) == replied(b"")


def test_all_that_is_ready_in_one_call(server):
    """From all clients, several of each; every one of them gets the replies to its own, in order."""
    gate, calls = Gate(server), []

    @server.batch_service
    def both(clients, requests):
        calls.append([(client.name, request) for client, request in zip(clients, requests, strict=True)])
        return [client.name.encode() + request for client, request in zip(clients, requests, strict=True)]

    with server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(wire.let_in(server, name=b"%d" % number)) for number in range(5)]
        with gate.shut():
            for peer in peers:
                peer.send(b"".join(srm(b":%d" % number, number) for number in range(4)))
        for name, peer in enumerate(peers):
            for number in range(4):
                assert wire.next_frame(peer) == replied(b"%d:%d" % (name, number), number)
        assert len(calls) == 1
        assert sorted(calls[0]) == [(str(name), b":%d" % number) for name in range(5) for number in range(4)]


def test_the_arguments_of_a_batch(server):
    """Two lists of equal length: data sockets, one for each request, and bytes."""
    seen = []

    @server.batch_service
    def look(clients, requests):
        seen.append((type(clients), type(requests), {type(request) for request in requests}, clients[0].id))
        return requests

    with server, wire.let_in(server, name=b"me") as peer:
        peer.send(srm(b"a"))
        assert wire.next_frame(peer) == replied(b"a")
        assert seen == [(list, list, {bytes}, server.clients.by_name("me").id)]


@pytest.mark.parametrize("most", [1, 3, 10])
def test_max_batch(server, most):
    """No call gets more requests than that; none is lost, and none waits for long."""
    gate, sizes = Gate(server), []

    @server.batch_service(max_batch=most)
    def count(clients, requests):
        sizes.append(len(requests))
        return requests

    with server, wire.let_in(server) as peer:
        with gate.shut():
            peer.send(b"".join(srm(b"%d" % number, number) for number in range(10)))
        assert [wire.next_frame(peer) for _ in range(10)] == [replied(b"%d" % number, number) for number in range(10)]
        assert sizes == {1: [1] * 10, 3: [3, 3, 3, 1], 10: [10]}[most]


def test_max_wait(server):
    """Requests are held back for so long, to let more come; then they are answered together."""
    calls = []

    @server.batch_service(max_wait=0.2)
    def count(clients, requests):
        calls.append(len(requests))
        return requests

    with server, wire.let_in(server) as one, wire.let_in(server) as two:
        started = time.monotonic()
        one.send(srm(b"a"))
        wait_for(lambda: server.stats()["requests"] == 1)
        two.send(srm(b"b"))
        assert wire.next_frame(one) == replied(b"a")
        assert 0.15 < time.monotonic() - started < 1
        assert wire.next_frame(two) == replied(b"b")
        assert calls == [2]


def test_a_full_batch_does_not_wait(server):
    """``max_batch`` requests are answered at once, whatever ``max_wait`` is."""
    server.batch_service(lambda clients, requests: requests, max_batch=4, max_wait=1e300)
    with server, wire.let_in(server) as one, wire.let_in(server) as two:
        started = time.monotonic()
        for number, peer in enumerate([one, two, one, two]):
            peer.send(srm(b"%d" % number, number))
        assert [wire.next_frame(one) for _ in range(2)] == [replied(b"0", 0), replied(b"2", 2)]
        assert [wire.next_frame(two) for _ in range(2)] == [replied(b"1", 1), replied(b"3", 3)]
        assert time.monotonic() - started < 2


def test_what_is_left_over_waits_anew(server):
    """Where more than ``max_batch`` are there, the rest waits for more to come, for ``max_wait``."""
    sizes = []
    server.batch_service(lambda clients, requests: sizes.append(len(requests)) or requests, max_batch=4, max_wait=0.3)
    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"", number) for number in range(5)))
        assert [wire.next_frame(peer) for _ in range(4)] == [replied(b"", number) for number in range(4)]
        started = time.monotonic()
        peer.send(b"".join(srm(b"", number) for number in range(5, 7)))
        assert [wire.next_frame(peer) for _ in range(3)] == [replied(b"", number) for number in range(4, 7)]
        assert 0.1 < time.monotonic() - started < 2
        assert sizes == [4, 3]


def test_others_are_served_while_a_batch_waits(server):
    """Holding back holds nobody else back; not even other requests of the same client."""
    server.batch_service(lambda clients, requests: requests, max_wait=0.2)
    server.service("upper")(lambda client, request: request.upper())
    with server, wire.let_in(server) as peer:
        peer.send(srm(b"slow", 1) + srm(b"fast", 2, service=1))
        assert wire.next_frame(peer) == replied(b"FAST", 2)
        assert wire.next_frame(peer) == replied(b"slow", 1)


def test_batch_services_that_wait_differently(server):
    """The one that is due first goes first, and the other is still answered in its time."""
    server.batch_service(lambda clients, requests: requests, max_wait=0.3)
    server.batch_service("soon", max_wait=0.1)(lambda clients, requests: requests)
    with server, wire.let_in(server) as peer:
        started = time.monotonic()
        peer.send(srm(b"late", 1) + srm(b"soon", 2, service=1))
        assert wire.next_frame(peer) == replied(b"soon", 2)
        assert wire.next_frame(peer) == replied(b"late", 1)
        assert 0.25 < time.monotonic() - started < 1.5


def test_several_batch_services(server):
    """Each has its own batch."""
    server.batch_service(lambda clients, requests: [b"a%d" % len(requests)] * len(requests))
    server.batch_service("b")(lambda clients, requests: [b"b%d" % len(requests)] * len(requests))
    with server:
        data = srm(id=1) + srm(id=2, service=1) + srm(id=3) + srm(id=4, service=1) + srm(id=5)
        a, b = b"a3", b"b2"
        expected = [replied(a, 1), replied(b, 2), replied(a, 3), replied(b, 4), replied(a, 5)]
        assert sorted(talk(server, data)) == sorted(expected)


# What a batch handler may return


@pytest.mark.parametrize(
    "made",
    [
        [b"x", b"y", b"z"],
        (b"x", b"y", b"z"),
        [bytearray(b"x"), memoryview(b"y"), b"z"],
        [None, b"y", b""],
    ],
    ids=["list", "tuple", "other buffers", "None and empty"],
)
def test_good_replies(server, made):
    """A sequence of what a plain handler may return."""
    server.batch_service(lambda clients, requests: made)
    with server:
        expected = [b"" if reply is None else bytes(reply) for reply in made]
        answers = talk(server, b"".join(srm(id=number) for number in range(3)))
        assert answers == [replied(reply, number) for number, reply in enumerate(expected)]


class Unreadable:
    """A sequence that fails when it is looked at."""

    def __getitem__(self, index):
        raise ZeroDivisionError

    def __len__(self):
        return 3


def raising(error):
    def handler(clients, requests):
        raise error

    return handler


def returning(made):
    return lambda clients, requests: made


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        (returning(None), wire.HANDLER_FAILED, "TypeError"),
        (returning(5), wire.HANDLER_FAILED, "TypeError"),
        (returning("abc"), wire.HANDLER_FAILED, "TypeError"),
        (returning(b"abc"), wire.HANDLER_FAILED, "TypeError"),
        (returning(bytearray(b"abc")), wire.HANDLER_FAILED, "TypeError"),
        (returning(memoryview(b"abc")), wire.HANDLER_FAILED, "TypeError"),
        (returning({b"a", b"b", b"c"}), wire.HANDLER_FAILED, "TypeError"),
        (returning({0: b"a", 1: b"b", 2: b"c"}), wire.HANDLER_FAILED, "TypeError"),
        (lambda clients, requests: (each for each in requests), wire.HANDLER_FAILED, "TypeError"),
        (returning([]), wire.HANDLER_FAILED, "ValueError"),
        (returning([b"a", b"b"]), wire.HANDLER_FAILED, "ValueError"),
        (returning([b"a", b"b", b"c", b"d"]), wire.HANDLER_FAILED, "ValueError"),
        (returning(Unreadable()), wire.HANDLER_FAILED, "ZeroDivisionError"),
        (raising(ZeroDivisionError("oh")), wire.HANDLER_FAILED, "ZeroDivisionError"),
        (raising(RemoteError("sorry", 6)), wire.NOT_ALLOWED, "sorry"),
    ],
)  # fmt: skip
def test_a_batch_that_fails_as_a_whole(server, handler, code, text):
    """Each of its requests gets the ERROR; the server and the connections live on."""
    server.batch_service(handler)
    server.service("upper")(lambda client, request: request.upper())
    with server:
        data = b"".join(srm(id=number) for number in range(3))
        assert talk(server, data) == [failed(code, text, number) for number in range(3)]
        assert talk(server, srm(b"a", service=1)) == [replied(b"A")]
        wire.counted(server, errors=3, requests=4)


def test_one_of_a_batch_fails(server, cut):
    """An exception in the place of a reply, a wrong type, a reply that is too large: the others get theirs."""
    most = server.limits.max_payload
    replies = {
        b"0": b"zero",
        b"1": ZeroDivisionError("oh"),
        b"2": RemoteError("sorry", 6),
        b"3": "text",
        b"4": bytes(most + 1),
        b"5": KeyboardInterrupt(),
        b"6": ZeroDivisionError,
        b"7": None,
    }
    server.batch_service(lambda clients, requests: [replies[request] for request in requests])
    with server:
        assert talk(server, b"".join(srm(b"%d" % number, number) for number in range(8)), cut) == [
            replied(b"zero", 0),
            failed(wire.HANDLER_FAILED, "ZeroDivisionError", 1),
            failed(wire.NOT_ALLOWED, "sorry", 2),
            failed(wire.HANDLER_FAILED, "TypeError", 3),
            failed(wire.TOO_LARGE, texts.REPLY_TOO_LARGE % (most + 1, most), 4),
            failed(wire.HANDLER_FAILED, "TypeError", 5),
            failed(wire.HANDLER_FAILED, "TypeError", 6),
            replied(b"", 7),
        ]
        wire.counted(server, errors=6, requests=8)


def test_replies_that_are_changed_while_they_are_sent(server, request):
    """The handler may keep its list; Python code that runs before the last is answered, here of a log, changes it."""
    kept = []
    log, clears = logging.getLogger("pysock"), logging.Handler()
    clears.emit = lambda record: kept.clear()
    log.addHandler(clears)
    request.addfinalizer(lambda: log.removeHandler(clears))

    @server.batch_service
    def fails_first(clients, requests):
        kept[:] = [ZeroDivisionError(), *requests[1:]]
        return kept

    with server:
        answers = talk(server, b"".join(srm(b"%d" % number, number) for number in range(3)))
        assert answers == [failed(wire.HANDLER_FAILED, "ZeroDivisionError", 0), replied(b"1", 1), replied(b"2", 2)]
        assert not kept


def test_no_reply_wanted_in_a_batch(server):
    """It takes part, and gets nothing."""
    server.batch_service(lambda clients, requests: [b"%d" % len(requests)] * len(requests))
    with server:
        data = srm(id=1) + srm(id=2, flags=wire.NO_REPLY) + srm(id=3)
        assert talk(server, data) == [replied(b"3", 1), replied(b"3", 3)]


# What happens to clients meanwhile


def test_a_later_reply_where_none_is_wanted(server, caplog):
    """It is done with when it is answered, or forgotten, which the log has; its client is told nothing."""
    caplog.set_level(logging.ERROR, "pysock")
    made = []

    @server.batch_service(max_batch=3, max_wait=10)
    def later(clients, requests):
        made.extend(pysock.later() for _ in requests)
        return made[-3:]

    with server, wire.let_in(server, wire.features(3)) as peer:
        peer.send(b"".join(srm(b"x", number, flags=wire.NO_REPLY) for number in (0, 5, 5)))
        wait_for(lambda: len(made) == 3)
        assert made.pop().send(b"for nobody") is True
        assert made.pop().fail(ValueError("told to nobody")) is True
        made.clear()
        (client,) = server.clients
        wait_for(lambda: server._running.engine.info(client).in_flight == 0)
        peer.send(wire.ping())
        assert wire.next_frame(peer) == wire.ponged()
    wire.counted(server, requests=3, errors=2, violations=0)
    assert "told to nobody" in caplog.text
    assert "the handler dropped its reply" in caplog.text


def test_a_batch_handler_closes_clients(server):
    """They are answered first, what was accepted of them."""

    @server.batch_service
    def close(clients, requests):
        for client, request in zip(clients, requests, strict=True):
            if request == b"close":
                client.close()
        return requests

    gate, gone = Gate(server), []
    server.on_disconnect(lambda client, reason: gone.append((client.name, str(reason))))
    with server, wire.let_in(server, name=b"it") as it, wire.let_in(server, name=b"other") as other:
        with gate.shut():
            it.send(srm(b"a", 1) + srm(b"close", 2) + srm(b"b", 3))
            other.send(srm(b"c", 4))
        assert wire.rest_of(it) == [replied(b"a", 1), replied(b"close", 2), replied(b"b", 3)]
        assert wire.next_frame(other) == replied(b"c", 4)
        wait_for(lambda: ("it", "closed by server") in gone)
        other.send(srm(b"d", 5))
        assert wire.next_frame(other) == replied(b"d", 5)


def test_a_client_that_its_own_batch_drops(make_server, address, caplog):
    """It doesn't take its replies, and too much waits: what failed of the rest of its batch concerns nobody."""
    server = make_server(address, limits=Limits(output_pause=10_000, output_drop=20_000))
    server.batch_service(lambda clients, requests: [bytes(9_000_000), bytes(20_000), ValueError("told to nobody")])
    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"x", number) for number in range(3)))
        wire.counted(server, clients=0, over_limit=1, errors=0)
    assert "told to nobody" not in caplog.text


def test_later_answers_to_a_client_that_its_own_batch_drops(make_server, address):
    """Whoever is to give them hears that nobody waits, as of any other request."""
    server = make_server(address, limits=Limits(output_pause=10_000, output_drop=20_000))
    reply, waits, runs = pysock.later(), Future(), Future()
    runs.set_running_or_notify_cancel()
    server.batch_service(max_batch=4, max_wait=10)(lambda clients, requests: [bytes(9_000_000), reply, waits, runs])
    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"x", number) for number in range(4)))
        wire.counted(server, clients=0, over_limit=1)
        wait_for(lambda: reply.cancelled, "the worker to be told")
        assert reply.send(b"too late") is False
        assert waits.cancelled()
        runs.set_result(b"too late")


def test_a_client_that_is_gone_before_its_batch(server):
    """No handler sees its requests."""
    names = []

    @server.batch_service(max_wait=0.2)
    def note(clients, requests):
        names.extend(client.name for client in clients)
        return requests

    with server, wire.let_in(server, name=b"stays") as stays:
        goes = wire.let_in(server, name=b"goes")
        goes.send(b"".join(srm(b"x", number) for number in range(5)))
        stays.send(srm(b"a", 1))
        wait_for(lambda: server.stats()["requests"] == 6)
        # With something unread the close is a reset, also on a Unix socket: a half-close would let its requests live.
        server.clients.by_name("goes").send(b"unread")
        assert goes.sock.recv(1, socket.MSG_PEEK)
        wire.reset(goes.sock)
        wire.counted(server, clients=1)
        assert wire.next_frame(stays) == replied(b"a")
        assert names == ["stays"]


def test_a_half_closed_client_gets_its_batch(server, cut):
    """It waits for its replies, and gets them."""
    server.batch_service(lambda clients, requests: requests, max_wait=0.05)
    with server:
        assert talk(server, srm(b"a", 1) + srm(b"b", 2), cut) == [replied(b"a", 1), replied(b"b", 2)]


@pytest.mark.parametrize("max_wait", [0, 30])
def test_stop_answers_batches(server, max_wait):
    """What waits for its batch was accepted: it is answered, at once."""
    server.batch_service(lambda clients, requests: requests, max_wait=max_wait)
    with server, wire.let_in(server) as peer:
        started = time.monotonic()
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        wait_for(lambda: server.stats()["requests"] == 2)
        server.stop()
        assert time.monotonic() - started < 2
        answers = wire.rest_of(peer)
        assert [answer for answer in answers if answer.kind == wire.REPLY] == [replied(b"a", 1), replied(b"b", 2)]
        assert [answer for answer in answers if answer.kind != wire.REPLY] == [goaway(texts.SHUTTING_DOWN)]


def test_what_one_client_makes_wait_is_bounded(server):
    """By 64 MiB, and the frame that goes over it: then it isn't read until they are answered. Nothing is lost."""
    batches, request, count = [], bytes(4 * 2**20), 40

    @server.batch_service(max_wait=0.2)
    def gather(clients, requests):
        batches.append(len(requests))
        return [b"%d" % len(request) for request in requests]

    with server, wire.let_in(server) as peer:
        sender = threading.Thread(target=lambda: [peer.send(srm(request, number)) for number in range(count)])
        sender.start()
        answers = [wire.next_frame(peer) for _ in range(count)]
        sender.join()
        assert answers == [replied(b"%d" % len(request), number) for number in range(count)]
        assert max(batches) <= 64 // 4


def test_stop_answers_what_waits_behind_a_batch(make_server, address):
    """Requests that were read and kept back, because too many were in flight, are answered at the stop as well."""
    server = make_server(address, limits=Limits(max_in_flight=2))
    server.batch_service(lambda clients, requests: requests, max_wait=30)
    with server, wire.let_in(server) as peer:
        peer.send(b"".join(srm(b"%d" % number, number) for number in range(9)))
        wait_for(lambda: server.stats()["requests"] == 2)
        server.stop()
        answers = [answer for answer in wire.rest_of(peer) if answer.kind == wire.REPLY]
        assert answers == [replied(b"%d" % number, number) for number in range(9)]


def test_stop_answers_what_is_older_than_what_it_refuses(make_server, unix_address):
    """Without error frames: what was accepted is answered, then the connection ends because the server stops."""
    server = make_server(unix_address, framing="u32", limits=Limits(max_in_flight=4))
    served, gone = [], []
    server.batch_service(lambda clients, requests: served.extend(requests) or requests, max_wait=60)
    server.on_disconnect(lambda client, reason: gone.append(str(reason)))
    messages = [struct.pack("!I", 2) + b"%02d" % number for number in range(12)]
    with server, wire.dial(server) as peer:
        peer.send(b"".join(messages[:10]))
        wait_for(lambda: server.stats()["bytes_in"] == 60)
        peer.send(b"".join(messages[10:]))  # it isn't read any more
        server.stop()
        assert peer.rest() == b"".join(messages[: len(served)])
    assert len(served) == 10
    assert gone == ["server stopping"]


def test_a_keyboard_interrupt_in_a_batch(server, caplog):
    """It ends the loop, as in any handler."""
    server.batch_service(raising(KeyboardInterrupt()))
    server.start()
    with wire.let_in(server) as peer:
        peer.send(srm())
        assert wire.rest_of(peer) == []
    wait_for(lambda: server.state.name == "CLOSED")
    assert "ended because of an exception" in caplog.text


def test_pushes_of_a_batch_handler(server):
    """They come in the order in which they were sent, in front of the replies."""

    @server.batch_service
    def push(clients, requests):
        for client, request in zip(clients, requests, strict=True):
            client.send(b"push " + request)
        return requests

    with server, wire.let_in(server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        frames = [wire.next_frame(peer) for _ in range(4)]
        assert frames == [wire.pushed(b"push a"), wire.pushed(b"push b"), replied(b"a", 1), replied(b"b", 2)]


def test_large_replies_of_a_batch(server):
    """Of any size together, to clients that read slowly; the good ones don't wait for them."""
    server.batch_service(lambda clients, requests: [b"x" * int(request) for request in requests])
    server.service("upper")(lambda client, request: request.upper())
    with server, wire.let_in(server) as slow, wire.let_in(server) as other:
        sizes = [3_000_000, 5, 70_000, 0, 2_000_000]
        slow.send(b"".join(srm(b"%d" % size, number) for number, size in enumerate(sizes)))
        wait_for(lambda: server.stats()["requests"] == 5)
        other.send(srm(b"a", service=1))
        assert wire.next_frame(other) == replied(b"A")
        for number, size in enumerate(sizes):
            assert wire.next_frame(slow) == replied(b"x" * size, number)


def test_a_batch_is_nothing_to_good_clients(server):
    """Many clients, each checked for its own replies."""
    server.batch_service("gather")(lambda clients, requests: [request[::-1] for request in requests])
    server.service(lambda client, request: request.upper())
    with server, Good(server) as good, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(wire.let_in(server)) for _ in range(50)]
        for turn in range(5):
            for number, peer in enumerate(peers):
                peer.send(srm(b"%03d" % number, turn, service=1))
            good.check()
            for number, peer in enumerate(peers):
                assert wire.next_frame(peer) == replied((b"%03d" % number)[::-1], turn)


@pytest.mark.parametrize("reply", [b"bytes", [], ["text"], [ValueError("made, not raised")]])
def test_a_wrong_return_is_logged_with_a_traceback(make_server, unix_address, caplog, reply):
    server = make_server(unix_address)
    server.batch_service("wrong")(lambda clients, requests: reply)
    with running(server), pysock.connect(unix_address) as client, pytest.raises(pysock.RemoteError):
        client.request(b"x", service="wrong")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[2] is not None
