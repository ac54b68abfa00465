"""Handlers that answer later: `pysock.later()`, futures, and what becomes of a request when nobody waits any more."""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import socket
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import wire
from support import running, wait_for
from wire import BYE_FRAME, cancel, failed, features, next_frame, not_started, ping, replied, srm, timed

import pysock
from pysock import ConnectionLost, Limits, PysockError, RemoteError, connect
from pysock.wire import texts

BOTH = features(3)
HOUR = 3_600_000_000


class Later:
    """A server whose handler returns a Reply for each request, and the replies in the order of the requests."""

    def __init__(self, server):
        self.server = server
        self.replies = queue.Queue()
        self.left = []
        server.service(self.handle)
        server.on_disconnect(lambda client, reason: self.left.append(client.id))

    def handle(self, client, request):
        reply = pysock.later()
        self.replies.put((reply, bytes(request)))
        return reply

    def next(self):
        return self.replies.get(timeout=5)[0]

    def in_flight(self):
        return sum(self.server._running.engine.info(number).in_flight for number in self.server.clients)


@pytest.fixture
def later(make_server, address):
    server = make_server(address, limits=Limits(max_in_flight=10))
    later = Later(server)
    with server:
        yield later


def send_to(server):
    return connect(server.addresses[0])


def in_thread(work):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result(10)


# --- answering ---


def test_any_thread_answers_when_it_can(later):
    with wire.let_in(later.server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2) + srm(b"c", 3))
        one, two, three = (later.next() for _ in range(3))
        assert three.send(b"third") is True
        assert next_frame(peer) == replied(b"third", 3)
        assert one.send(b"first") is True
        assert next_frame(peer) == replied(b"first", 1)
        assert in_thread(lambda: two.send(b"second")) is True
        assert next_frame(peer) == replied(b"second", 2)
        assert later.in_flight() == 0


@pytest.mark.parametrize("framing", ["pysock", "u32", "line"])
def test_in_every_framing(make_server, address, framing):
    server = make_server(address, framing=framing)
    later = Later(server)

    def answer():
        for _ in range(200):
            reply, request = later.replies.get(timeout=5)
            reply.send(request[::-1])

    with server, connect(server.addresses[0]) if framing == "pysock" else socket_to(server, framing) as client:
        worker = threading.Thread(target=answer)
        worker.start()
        payloads = [b"%d-x" % n for n in range(200)]
        assert client.request_many(payloads) == [payload[::-1] for payload in payloads]
        worker.join(10)


class socket_to:  # noqa: N801  # it stands where connect() does
    """A client of a framing without ids, all of whose requests are sent at once."""

    def __init__(self, server, framing):
        self._sock = wire.dial(server).sock
        self._framing = framing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()

    def request_many(self, payloads):
        u32 = self._framing == "u32"
        messages = [len(p).to_bytes(4, "big") + p if u32 else p + b"\n" for p in payloads]
        self._sock.sendall(b"".join(messages))
        size, got = sum(map(len, messages)), b""
        while len(got) < size and (piece := self._sock.recv(65536)):
            got += piece
        if not u32:
            return got.split(b"\n")[:-1]
        replies = []
        while got:
            end = 4 + int.from_bytes(got[:4], "big")
            replies.append(got[4:end])
            got = got[end:]
        return replies


def test_without_ids_one_after_the_other(make_server, address):
    """The next handler is called when the one before has its answer."""
    server = make_server(address, framing="line")
    later = Later(server)
    with server, wire.dial(server) as peer:
        peer.send(b"one\ntwo\nthree\n")
        for word in (b"one", b"two", b"three"):
            reply, request = later.replies.get(timeout=5)
            assert request == word
            assert later.replies.empty()
            reply.send(word.upper())
            assert peer.sock.recv(100) == word.upper() + b"\n"


@pytest.mark.parametrize("leaves", [False, True])
def test_without_ids_what_waits_unread_costs_nothing(make_server, address, leaves):
    """Nor does a client that has closed its end meanwhile."""
    server = make_server(address, framing="line")
    later = Later(server)
    with server, wire.dial(server) as peer:
        peer.send(b"one\n")
        reply = later.next()
        peer.send(b"two\n")
        if leaves:
            peer.sock.close()
        time.sleep(0.05)
        begin = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - begin < 0.15
        reply.send(b"1")
        if not leaves:
            assert peer.sock.recv(100) == b"1\n"
            later.next().send(b"2")
            assert peer.sock.recv(100) == b"2\n"


def test_without_ids_a_failure_closes_behind_earlier_replies(make_server, address, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    server = make_server(address, framing="line")
    later = Later(server)
    with server, wire.dial(server) as peer:
        peer.send(b"one\ntwo\nthree\n")
        later.next().send(b"1")
        later.next().fail(ValueError("no"))
        assert wire_rest(peer) == b"1\n"
        assert later.replies.empty()


def wire_rest(peer):
    got = b""
    while piece := peer.sock.recv(65536):
        got += piece
    return got


def test_a_client_that_closes_its_sending_side_gets_all(later):
    """Of one that doesn't speak of cancelling that means no more than it says."""
    with wire.let_in(later.server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        one, two = later.next(), later.next()
        peer.sock.shutdown(socket.SHUT_WR)
        one.send(b"1")
        assert next_frame(peer) == replied(b"1", 1)
        assert not two.cancelled
        two.send(b"2")
        assert wire.rest_of(peer) == [replied(b"2", 2)]


@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_large_answers(later, size):
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        later.next().send(bytearray(b"y") * size)
        assert asked.result(10) == b"y" * size


def test_before_the_handler_returns(make_server, address):
    server = make_server(address)

    @server.service
    def at_once(client, request):
        reply = pysock.later()
        assert reply.send(bytes(request) * 2) is True
        return reply

    with server, send_to(server) as client:
        assert client.request_many([b"ab"] * 1000) == [b"abab"] * 1000


def test_in_a_handler_of_another_request(make_server, address):
    """In the loop's own thread it is on its way at the end of the turn."""
    server = make_server(address)
    waiting = []

    @server.service
    def wait(client, request):
        waiting.append(pysock.later())
        return waiting[-1]

    @server.service("go")
    def go(client, request):
        return b"%d" % sum(reply.send(b"went") for reply in waiting)

    with server, wire.let_in(server) as peer, send_to(server) as other:
        peer.send(srm(b"", 1) + srm(b"", 2))
        wire.counted(server, clients=2, requests=2)
        assert other.request(b"", service="go") == b"2"
        assert [next_frame(peer), next_frame(peer)] == [replied(b"went", 1), replied(b"went", 2)]


def test_none_is_an_empty_reply(later):
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        later.next().send(None)
        assert asked.result(10) == b""


def test_failing(later, caplog):
    caplog.set_level(logging.ERROR, "pysock")
    with wire.let_in(later.server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        later.next().fail(KeyError("k"))
        assert next_frame(peer) == failed(1, "KeyError", 1)
        later.next().fail(RemoteError("no such thing", 404))
        assert next_frame(peer) == failed(404, "no such thing", 2)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "KeyError: 'k'" in caplog.text


def test_over_the_clients_limit(later, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    with connect(later.server.addresses[0], max_payload=100) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        later.next().send(bytes(101))
        with pytest.raises(RemoteError, match="101 bytes"):
            asked.result(10)


def test_a_slot_of_a_batch(make_server, address):
    server = make_server(address)
    replies = queue.Queue()

    @server.batch_service(max_batch=4, max_wait=100)
    def batch(clients, requests):
        made = [pysock.later() if request == b"wait" else bytes(request) for request in requests]
        replies.put([reply for reply in made if isinstance(reply, pysock.Reply)])
        return made

    with server, wire.let_in(server) as peer:
        peer.send(srm(b"a", 1) + srm(b"wait", 2) + srm(b"c", 3) + srm(b"wait", 4))
        assert [next_frame(peer), next_frame(peer)] == [replied(b"a", 1), replied(b"c", 3)]
        two, four = replies.get(timeout=5)
        four.send(b"4")
        two.send(b"2")
        assert [next_frame(peer), next_frame(peer)] == [replied(b"4", 4), replied(b"2", 2)]


def test_a_slot_of_a_batch_where_no_id_tells_the_next_one_from_it(make_server, address, caplog):
    """Its answer would come behind those of later requests."""
    caplog.set_level(logging.ERROR, "pysock")
    server = make_server(address, framing="line")

    @server.batch_service(max_batch=2, max_wait=100)
    def batch(clients, requests):
        return [pysock.later(), b"second"]

    with server, wire.dial(server) as peer:
        peer.send(b"1\n2\n")
        assert wire_rest(peer) == b""
    assert "without ids only one may" in caplog.text


# --- misuse ---


def test_a_second_answer(later):
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        reply = later.next()
        reply.send(b"1")
        for again in (lambda: reply.send(b"2"), lambda: reply.fail(ValueError())):
            with pytest.raises(PysockError, match="answered already"):
                again()
        assert asked.result(10) == b"1"


def test_two_threads_answer(later):
    with wire.let_in(later.server) as peer:
        for number in range(50):
            peer.send(srm(b"x", number))
            reply = later.next()
            ready = threading.Barrier(2)
            raised = []

            def answer(reply=reply, ready=ready, raised=raised):
                ready.wait(5)
                try:
                    reply.send(b"y")
                except PysockError as error:
                    raised.append(error)

            threads = [threading.Thread(target=answer) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(5)
            assert len(raised) == 1
            assert next_frame(peer) == replied(b"y", number)
        peer.send(ping())
        assert next_frame(peer) == wire.ponged()


@pytest.mark.parametrize("what", ["text", 5, object(), pysock.later, [b"x"]])
def test_an_answer_that_is_not_bytes(later, what):
    """Whoever gives it hears of it, and may give another."""
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        reply = later.next()
        with pytest.raises(TypeError, match="bytes-like"):
            reply.send(what)
        reply.send(b"well")
        assert asked.result(10) == b"well"


def test_failing_by_no_exception(later):
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        reply = later.next()
        for what in ("text", ValueError, KeyboardInterrupt()):
            with pytest.raises(TypeError, match="fails by an Exception"):
                reply.fail(what)
        reply.send(b"well")
        assert asked.result(10) == b"well"


def test_a_reply_that_is_forgotten(make_server, address, caplog):
    caplog.set_level(logging.ERROR, "pysock")
    server = make_server(address)
    server.service(lambda client, request: pysock.later())
    with server, send_to(server) as client:
        for _ in range(3):
            with pytest.raises(RemoteError, match="the handler dropped its reply") as caught:
                client.request(b"x")
            assert caught.value.code == 1
    assert len(caplog.records) == 3


def test_a_reply_that_is_forgotten_by_another_thread(later, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    with send_to(later.server) as client, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(client.request, b"x")
        later.next()
        gc.collect()
        with pytest.raises(RemoteError, match="the handler dropped its reply"):
            asked.result(10)


def test_one_that_was_never_returned(caplog):
    """Nobody is there to be told."""
    reply = pysock.later()
    del reply
    gc.collect()
    assert not caplog.records


def test_one_for_two_requests(make_server, address, caplog):
    caplog.set_level(logging.ERROR, "pysock")
    server = make_server(address)
    kept = pysock.later()
    server.service(lambda client, request: kept)
    with server, wire.let_in(server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        assert next_frame(peer) == failed(1, "PysockError", 2)
        kept.send(b"well")
        assert next_frame(peer) == replied(b"well", 1)
    assert "was returned for another request before" in caplog.text


@pytest.mark.parametrize("result", [7, "text", object(), [b"x"]])
def test_what_is_neither_bytes_nor_for_later(make_server, address, caplog, result):
    caplog.set_level(logging.CRITICAL, "pysock")
    server = make_server(address)
    server.service(lambda client, request: result)
    with server, send_to(server) as client:
        with pytest.raises(RemoteError) as caught:
            client.request(b"x")
        assert caught.value.type == "TypeError"
        assert server.stats()["errors"] == 1


# --- how many ---


def test_so_many_may_be_in_flight(later):
    """The next ones aren't read; they are when half of them have their answers."""
    with wire.let_in(later.server) as peer:
        peer.send(b"".join(srm(b"x", number) for number in range(1, 16)))
        first = [later.next() for _ in range(10)]
        peer_alive(later.server)
        assert later.replies.empty()
        assert later.in_flight() == 10
        for reply in first:
            reply.send(b"y")
        rest = [later.next() for _ in range(5)]
        for reply in rest:
            reply.send(b"z")
        assert len([next_frame(peer) for _ in range(15)]) == 15


def peer_alive(server):
    """Whatever was sent before has been looked at."""
    with connect(server.addresses[0]) as other:
        other.ping()


def test_cancelling_does_not_make_room(later):
    """Else asking and cancelling could pile up work without end. One more is read, so that each CANCEL is."""
    with wire.let_in(later.server, BOTH) as peer:
        for number in range(1, 11):
            peer.send(srm(b"x", number) + cancel(number))
        assert [next_frame(peer) for _ in range(10)] == [failed(9, texts.CANCELLED, n) for n in range(1, 11)]
        peer.send(srm(b"x", 20) + srm(b"x", 21))
        replies = [later.next() for _ in range(11)]
        peer_alive(later.server)
        assert later.replies.empty()
        assert later.in_flight() == 11
        assert [reply.send(b"y") for reply in replies[:10]] == [False] * 10
        later.next().send(b"well")
        assert next_frame(peer) == replied(b"well", 21)


# --- nobody waits any more ---


def test_it_is_cancelled(later):
    """It has its answer at once, and its place is free when the work has ended."""
    with wire.let_in(later.server, BOTH) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        one, two = later.next(), later.next()
        peer.send(cancel(1))
        assert next_frame(peer) == failed(9, texts.CANCELLED, 1)
        assert one.cancelled
        assert not two.cancelled
        assert later.in_flight() == 2
        peer.send(srm(b"c", 1) + cancel(7))  # its id is free
        again = later.next()
        assert one.send(b"too late") is False
        wait_for(lambda: later.in_flight() == 2)
        again.send(b"again")
        two.send(b"2")
        assert [next_frame(peer), next_frame(peer)] == [replied(b"again", 1), replied(b"2", 2)]
        assert later.server.stats()["errors"] == 1


def test_a_cancel_that_crosses_the_answer(later):
    with wire.let_in(later.server, BOTH) as peer:
        peer.send(srm(b"a", 1))
        later.next().send(b"1")
        assert next_frame(peer) == replied(b"1", 1)
        peer.send(cancel(1) + ping())
        assert next_frame(peer) == wire.ponged()


def test_a_cancel_while_the_answer_is_being_sent(later):
    """What has been begun is sent whole, and nothing more."""
    answer = bytes(range(256)) * 20_000  # more than the kernel keeps for the client
    with wire.let_in(later.server, BOTH) as peer:
        peer.send(srm(b"a", 1))
        later.next().send(answer)
        wait_for(lambda: later.server.stats()["bytes_out"] > len(answer))
        assert later.server._running.engine.info(next(iter(later.server.clients))).queued > 0
        peer.send(cancel(1) + ping())
        assert next_frame(peer) == replied(answer, 1)
        assert next_frame(peer) == wire.ponged()


def test_its_deadline_passes(later):
    with wire.let_in(later.server, BOTH) as peer:
        peer.send(timed(b"a", 1, left=30_000) + timed(b"b", 2, left=HOUR) + timed(b"c", 3, left=10_000))
        one, two, three = (later.next() for _ in range(3))
        assert next_frame(peer) == failed(8, texts.TOO_LATE, 3)
        assert next_frame(peer) == failed(8, texts.TOO_LATE, 1)
        assert (one.cancelled, two.cancelled, three.cancelled) == (True, False, True)
        assert later.in_flight() == 3
        assert one.send(b"1") is False
        assert two.send(b"2") is True
        assert three.fail(ValueError()) is False
        assert next_frame(peer) == replied(b"2", 2)
        wait_for(lambda: later.in_flight() == 0)


def test_many_deadlines(later):
    """Those that are answered in time, in any order, leave the others as they are."""
    with wire.let_in(later.server, BOTH) as peer:
        order = [3, 9, 1, 7, 5, 2, 8, 4, 6]
        peer.send(
            b"".join(timed(b"x", number, left=HOUR + number * 1000 if number % 3 else 40_000) for number in order)
        )
        replies = {number: later.next() for number in order}
        assert {next_frame(peer) for _ in range(3)} == {failed(8, texts.TOO_LATE, number) for number in (3, 6, 9)}
        for number in (7, 1, 4, 8, 2, 5):
            assert replies[number].send(b"y") is True
            assert next_frame(peer) == replied(b"y", number)
        assert [replies[number].send(b"y") for number in (3, 6, 9)] == [False] * 3


@pytest.mark.parametrize("how", ["reset", "end of file", "bye"])
def test_its_client_leaves(later, how):
    peer = wire.let_in(later.server, BOTH)
    peer.send(srm(b"a", 1) + srm(b"n", 2, flags=wire.NO_REPLY))
    one, notified = later.next(), later.next()
    if how == "bye":
        peer.send(BYE_FRAME)
    elif how == "reset":
        wire.reset(peer.sock)
    peer.sock.close()
    wait_for(lambda: one.cancelled, "the worker hears of it")
    assert one.send(b"1") is False
    assert not notified.cancelled  # nobody has waited for that one, and it is done all the same
    notified.send(b"")
    wait_for(lambda: later.left)
    assert later.server.stats()["clients"] == 0


def test_it_is_closed_by_the_server(make_server, address):
    """In order: what was accepted is answered."""
    server = make_server(address)
    later = Later(server)
    with server, wire.let_in(server) as peer:
        peer.send(srm(b"a", 1))
        reply = later.next()
        (client,) = server.clients.values()
        client.close()
        wait_for(lambda: client.state.name == "DRAINING")
        reply.send(b"1")
        assert wire.rest_of(peer) == [replied(b"1", 1)]


def test_a_push_to_a_client_that_is_leaving(make_server, address):
    """It takes none; how long it is doesn't matter any more."""
    server = make_server(address)
    later = Later(server)
    with server, wire.let_in(server, wire.field(wire.MAX_PAYLOAD, b"\0\0\0\12")) as peer:
        peer.send(srm(b"a", 1))
        reply = later.next()
        (client,) = server.clients.values()
        client.close()
        wait_for(lambda: client.state.name == "DRAINING")
        for size in (1, 11):
            with pytest.raises(ConnectionLost):
                client.send(bytes(size))
        reply.send(b"1")
        assert wire.rest_of(peer) == [replied(b"1", 1)]


def test_an_answer_for_a_former_client(later):
    """The next one has its place in the table, and doesn't get its answer."""
    for _ in range(20):
        with wire.let_in(later.server, BOTH) as peer:
            peer.send(srm(b"a", 1))
            old = later.next()
        wait_for(lambda old=old: old.cancelled)
        with wire.let_in(later.server) as peer:
            peer.send(srm(b"b", 1))
            new = later.next()
            assert old.send(b"old") is False
            new.send(b"new")
            assert next_frame(peer) == replied(b"new", 1)


def test_threads_answer_while_clients_come_and_go(make_server, address):
    server = make_server(address)
    later = Later(server)
    over = threading.Event()

    def work():
        while not over.is_set():
            try:
                reply, request = later.replies.get(timeout=0.05)
            except queue.Empty:
                continue
            reply.send(request * 2)

    def come_and_go(number):
        for n in range(40):
            with send_to(server) as client:
                assert client.request(b"%d.%d" % (number, n)) == b"%d.%d" % (number, n) * 2
                client.notify(b"x")

    with server:
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        with ThreadPoolExecutor(4) as executor:
            for done in [executor.submit(come_and_go, number) for number in range(4)]:
                done.result(20)
        over.set()
        for worker in workers:
            worker.join(5)


# --- the end of the server ---


def test_a_stop_waits_for_the_answer(later):
    with wire.let_in(later.server) as peer, ThreadPoolExecutor(1) as executor:
        peer.send(srm(b"a", 1))
        reply = later.next()
        stopped = executor.submit(later.server.stop, 5)
        assert next_frame(peer) == wire.LEAVING
        reply.send(b"1")
        assert wire.rest_of(peer) == [replied(b"1", 1), wire.goaway(texts.SHUTTING_DOWN)]
        stopped.result(5)
        assert reply.cancelled is False


@pytest.mark.parametrize("grace", [0, 0.05])
def test_a_stop_cuts_it_short(later, grace):
    with wire.let_in(later.server) as peer:
        peer.send(srm(b"a", 1) + srm(b"b", 2))
        one, two = later.next(), later.next()
        later.server.stop(grace)
        assert next_frame(peer) == wire.LEAVING
        assert set(wire.rest_of(peer)) == {failed(9, texts.CUT_SHORT, 1), failed(9, texts.CUT_SHORT, 2)}
        assert one.cancelled
        assert two.cancelled
        assert one.send(b"1") is False
        del two


def test_an_answer_after_the_end(make_server, address):
    server = make_server(address)
    later = Later(server)
    with running(server), wire.let_in(server) as peer:
        peer.send(srm(b"a", 1))
        reply = later.next()
        server.stop(0)
    assert reply.send(b"1") is False


def test_an_unread_request_is_not_started_at_a_stop(make_server, address):
    """Where no id would tell its answer from that of the one before."""
    server = make_server(address, framing="line")
    later = Later(server)
    with server, wire.dial(server) as peer, ThreadPoolExecutor(1) as executor:
        peer.send(b"one\ntwo\n")
        reply = later.next()
        stopped = executor.submit(server.stop, 5)
        wait_for(lambda: server.state.name == "DRAINING")
        reply.send(b"1")
        assert wire_rest(peer) == b"1\n"
        stopped.result(5)
        assert later.replies.empty()


# --- futures ---


def test_a_future(make_server, address):
    server = make_server(address)
    with ThreadPoolExecutor(2) as executor:
        server.service(lambda client, request: executor.submit(bytes.upper, bytes(request)))
        with server, send_to(server) as client:
            assert client.request_many([b"ab"] * 300) == [b"AB"] * 300


def test_a_future_that_fails(make_server, address, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    server = make_server(address)
    futures = queue.Queue()

    @server.service
    def handle(client, request):
        futures.put(Future())
        return futures.queue[-1]

    with server, wire.let_in(server) as peer:
        for number, act in enumerate(
            [
                lambda future: future.set_exception(ZeroDivisionError()),
                lambda future: future.cancel(),
                lambda future: future.set_exception(KeyboardInterrupt()),
                lambda future: future.set_result("text"),
                lambda future: future.set_result(b"well"),
            ]
        ):
            peer.send(srm(b"x", number))
            act(futures.get(timeout=5))
            wanted = [
                failed(1, "ZeroDivisionError", number),
                failed(1, "CancelledError", number),
                failed(1, "PysockError", number),
                failed(1, "TypeError", number),
                replied(b"well", number),
            ]
            assert next_frame(peer) == wanted[number]


def test_a_future_that_nobody_waits_for(make_server, address):
    """It is taken out of the executor's queue, and its request is over; one that runs stays in flight."""
    server = make_server(address)
    gate, begun, ran = threading.Event(), threading.Event(), []

    def work(request):
        ran.append(request)
        begun.set()
        gate.wait(5)
        return request

    with ThreadPoolExecutor(1) as executor:
        server.service(lambda client, request: executor.submit(work, bytes(request)))
        with server, wire.let_in(server, BOTH) as peer:
            peer.send(srm(b"a", 1) + srm(b"b", 2))
            assert begun.wait(5)
            peer.send(cancel(2) + cancel(1))
            assert {next_frame(peer), next_frame(peer)} == {
                not_started(9, texts.CANCELLED, 2),
                failed(9, texts.CANCELLED, 1),
            }
            (client_id,) = server.clients
            assert server._running.engine.info(client_id).in_flight == 1
            gate.set()
            wait_for(lambda: server._running.engine.info(client_id).in_flight == 0)
            peer.send(srm(b"c", 3))
            assert next_frame(peer) == replied(b"c", 3)
    assert ran == [b"a", b"c"]


# --- in a loop of the program's ---


def test_answers_between_turns(make_server, address):
    """By tasks of the program's, in the engine's own thread."""
    server = make_server(address)
    waiting = []

    @server.service
    def handle(client, request):
        reply = pysock.later()
        waiting.append((reply, bytes(request)))
        return reply

    async def answer():
        while True:
            if waiting:
                reply, request = waiting.pop()
                assert reply.send(request.upper()) is True
            else:
                await asyncio.sleep(0.001)

    def ask():
        with send_to(server) as client:
            return client.request_many([b"ab"] * 500)

    async def main():
        async with server:
            task = asyncio.create_task(answer())
            assert await asyncio.get_running_loop().run_in_executor(None, ask) == [b"AB"] * 500
            task.cancel()

    asyncio.run(main())


def test_a_failure_between_turns(make_server, address, caplog):
    caplog.set_level(logging.CRITICAL, "pysock")
    server = make_server(address)

    @server.service
    def handle(client, request):
        reply = pysock.later()
        asyncio.get_running_loop().call_later(0.01, reply.fail, ValueError("no"))
        return reply

    def ask():
        with send_to(server) as client, pytest.raises(RemoteError) as caught:
            client.request(b"x")
        return caught.value.type

    async def main():
        async with server:
            assert await asyncio.get_running_loop().run_in_executor(None, ask) == "ValueError"

    asyncio.run(main())


def test_the_loop_ends_with_requests_that_wait(make_server, address):
    server = make_server(address)
    later = Later(server)
    peers = []

    def ask():
        peers.append(wire.let_in(server))
        peers[0].send(srm(b"a", 1))
        return later.next()

    async def main():
        await server.__aenter__()
        return await asyncio.get_running_loop().run_in_executor(None, ask)

    reply = asyncio.run(main())
    assert wire.rest_of(peers[0]) == [wire.LEAVING, failed(9, texts.CUT_SHORT, 1)]
    assert reply.cancelled
    assert reply.send(b"1") is False
    peers[0].sock.close()


# --- what is left ---


def test_nothing_is_kept(make_server, address):
    """Neither by a request that was answered nor by one that nobody waits for."""
    server = make_server(address)
    later = Later(server)
    with server:
        with wire.let_in(server, BOTH) as peer:
            peer.send(srm(b"a", 1) + srm(b"b", 2))
            one, two = later.next(), later.next()
            one.send(b"1")
            assert next_frame(peer) == replied(b"1", 1)
        wait_for(lambda two=two: two.cancelled)
        kept = [weakref.ref(one), weakref.ref(two)]
        del one, two
        gc.collect()
        assert [ref() for ref in kept] == [None, None]
