"""Deferred requests by the contract of the engines, without the facade: who is told what, and when, and how often.

What users see of them is in ``test_deferred.py``.
"""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest
from engine_alone import Running, eventually, reply, srm, started, u32

from pysock.engine.contract import Service
from pysock.engine.deferral import Ended
from pysock.wire import texts
from pysock.wire.cir import encode_cir
from pysock.wire.features import DEADLINE, Feature
from pysock.wire.format import (
    FLAG_DEADLINE,
    FLAG_NO_REPLY,
    FLAG_NOT_STARTED,
    GOAWAY_SETTLED,
    ErrorCode,
    Framing,
    Kind,
    encode,
    encode_text,
)

BOTH = Feature.DEADLINE | Feature.CANCEL
BYE = encode(Kind.BYE)


class Work:
    """What a handler returns here, and what is kept of it."""

    def __init__(self, request):
        self.request = bytes(request)
        self.handle = None
        self.told = []


class Worker:
    """The callbacks ``defer`` and ``ended``; each handle, as the engine gives it."""

    def __init__(self):
        self.works = []
        self.begun = True
        self.on_defer = self.on_ended = lambda work: None

    def handler(self, client, request):
        return Work(request)

    def batch(self, clients, requests):
        return [Work(request) for request in requests]

    def defer(self, handle, work):
        if not isinstance(work, Work):
            return None
        work.handle = handle
        self.works.append(work)
        self.on_defer(work)
        return work

    def ended(self, work, why):
        work.told.append(Ended(why))
        self.on_ended(work)
        if isinstance(self.begun, Exception):
            raise self.begun
        return self.begun

    def wait(self, count):
        eventually(lambda: len(self.works) >= count)
        return self.works[:count]


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def start(socket_dir, backend, worker):
    makes = started(socket_dir)
    start = next(makes)

    def begin(**options):
        options.setdefault("handler", worker.handler)
        return start(backend=backend, callbacks={"defer": worker.defer, "ended": worker.ended}, **options)

    yield begin
    next(makes, None)


def cancel(request_id):
    return encode(Kind.CANCEL, request_id=request_id)


def timed(seconds, payload=b"x", request_id=9, flags=0):
    return srm(DEADLINE.pack(int(seconds * 1e6)) + payload, request_id=request_id, flags=flags | FLAG_DEADLINE)


def error(code, text, request_id=9, started=True):
    return encode(Kind.ERROR, text.encode(), code=code, request_id=request_id, flags=0 if started else FLAG_NOT_STARTED)


def let_in(running, **cir):
    peer = running.peer()
    cir.setdefault("features", BOTH)
    peer.id = peer.let_in(**cir)
    return peer


def in_flight(running, peer):
    return running.engine.info(peer.id).in_flight


# --- answers ---


def test_from_another_thread_in_any_order(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm(b"a", request_id=1), srm(b"b", request_id=2))
    first, second = worker.wait(2)
    assert 0 < first.handle != second.handle > 0
    assert in_flight(running, peer) == 2
    assert running.engine.answer(second.handle, b"B")
    peer.expect(reply(b"B", 2))
    assert running.engine.answer(first.handle, None)
    peer.expect(reply(b"", 1))
    assert in_flight(running, peer) == 0
    assert first.told == second.told == []


def test_from_within_the_callback(start, worker):
    running = start()
    answered = []
    worker.on_defer = lambda work: answered.append(running.engine.answer(work.handle, work.request.upper()))
    peer = let_in(running)
    peer.send(srm(b"a", request_id=1), srm(b"b", request_id=2))
    peer.expect(reply(b"A", 1), reply(b"B", 2))
    assert answered == [True, True]
    assert in_flight(running, peer) == 0


def test_within_the_callback_without_ids(start, worker):
    running = start(framing=Framing.U32)
    worker.on_defer = lambda work: running.engine.answer(work.handle, work.request.upper())
    peer = running.peer()
    peer.send(u32(*[b"%d" % n for n in range(300)]))
    peer.expect(u32(*[b"%d" % n for n in range(300)]))
    peer.send(u32(b"one"))
    peer.expect(u32(b"ONE"))
    assert not running.failures


def test_an_exception_is_a_failure(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    assert running.engine.answer(work.handle, ValueError("no"))
    peer.expect(error(ErrorCode.HANDLER_FAILED, "no"))
    assert [type(failure) for failure in running.failures] == [ValueError]


def test_what_cannot_be_sent_is_a_failure(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    running.engine.answer(work.handle, 5)
    peer.expect(error(ErrorCode.HANDLER_FAILED, "the handler returned int, not a bytes-like object"))


def test_by_what_is_for_later_again(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    running.engine.answer(work.handle, Work(b"again"))
    again = worker.wait(2)[1]
    assert again.handle != work.handle
    assert in_flight(running, peer) == 1
    running.engine.answer(again.handle, b"at last")
    peer.expect(reply(b"at last"))


@pytest.mark.parametrize("thread", ["the loop's", "another"])
def test_by_what_is_for_later_again_where_nobody_waits(start, worker, thread):
    """Of neither of them."""
    running = start()
    peer = let_in(running)
    peer.send(srm(), cancel(9))
    (work,) = worker.wait(1)
    peer.expect(error(ErrorCode.CANCELLED, texts.CANCELLED))

    def answer():
        running.engine.answer(work.handle, Work(b"again"))
        running.engine.answer(work.handle, Work(b"once more"))
        running.engine.answer(work.handle, b"and for nobody")

    if thread == "another":
        answer()
    else:
        running.engine.call_later(answer)
    worker.wait(2)
    eventually(lambda: len(worker.works) == 3 and worker.works[2].told)
    assert [(work.handle, work.told) for work in worker.works[1:]] == [(0, [Ended.GONE])] * 2
    assert in_flight(running, peer) == 0
    assert not running.failures


def test_only_the_first_answer_counts(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    assert running.engine.answer(work.handle, b"1")
    running.engine.answer(work.handle, b"2")
    peer.expect(reply(b"1"))
    peer.send(encode(Kind.PING, request_id=3))
    peer.expect(encode(Kind.PONG, request_id=3))


def test_a_request_that_wants_no_reply(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm(flags=FLAG_NO_REPLY))
    (work,) = worker.wait(1)
    assert in_flight(running, peer) == 1
    running.engine.answer(work.handle, b"nobody reads this")
    eventually(lambda: in_flight(running, peer) == 0)
    peer.send(encode(Kind.PING, request_id=3))
    peer.expect(encode(Kind.PONG, request_id=3))


def test_the_slots_of_a_batch(start, worker):
    running = start(services=[Service("", worker.batch, batch=True, max_batch=3, max_wait=10)])
    peer = let_in(running)
    peer.send(*[srm(b"%d" % n, request_id=n) for n in range(3)])
    works = worker.wait(3)
    assert in_flight(running, peer) == 3
    for work in reversed(works):
        running.engine.answer(work.handle, work.request * 2)
    peer.expect(*[reply(b"%d%d" % (n, n), n) for n in (2, 1, 0)])


def test_an_object_that_nobody_knows_is_a_failure(start):
    running = start(handler=lambda client, request: 5)
    peer = let_in(running)
    peer.send(srm())
    peer.expect(error(ErrorCode.HANDLER_FAILED, "the handler returned int, not a bytes-like object"))
    assert in_flight(running, peer) == 0


def test_after_the_end_nobody_waits(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    running.stop(0)
    running.engine.close()
    assert running.engine.answer(work.handle, b"late") is False


# --- nobody waits ---


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_its_client_is_answered_at_once(start, worker, begun, how):
    worker.begun = begun
    running = start()
    peer = let_in(running)
    peer.send(timed(0.05) if how == "late" else srm())
    (work,) = worker.wait(1)
    if how == "cancelled":
        peer.send(cancel(9))
    why, text = (ErrorCode.CANCELLED, texts.CANCELLED) if how == "cancelled" else (8, texts.TOO_LATE)
    peer.expect(error(why, text, started=begun))
    assert work.told == [Ended.CANCELLED if how == "cancelled" else Ended.LATE]
    assert in_flight(running, peer) == begun
    running.engine.answer(work.handle, b"too late")
    eventually(lambda: in_flight(running, peer) == 0)
    peer.send(srm(request_id=9))  # its id is free
    assert running.engine.answer(worker.wait(2)[1].handle, b"second")
    peer.expect(reply(b"second"))
    assert len(work.told) == 1


def test_the_first_reason_counts(start, worker):
    """It is told once, though its client leaves afterwards."""
    running = start()
    peer = let_in(running)
    peer.send(srm(), cancel(9))
    (work,) = worker.wait(1)
    peer.expect(error(ErrorCode.CANCELLED, texts.CANCELLED))
    peer.sock.close()
    eventually(lambda: running.gone)
    other = let_in(running)
    other.send(srm())
    worker.wait(2)
    assert work.told == [Ended.CANCELLED]


@pytest.mark.parametrize("how", ["close", "half", "bye"])
def test_its_client_has_gone(start, worker, how):
    running = start()
    peer = let_in(running)
    peer.send(srm(request_id=1), srm(request_id=2, flags=FLAG_NO_REPLY))
    works = worker.wait(2)
    if how == "close":
        peer.sock.close()
    elif how == "half":
        peer.sock.shutdown(socket.SHUT_WR)
    else:
        peer.send(BYE)
    eventually(lambda: running.gone)
    eventually(lambda: works[0].told)
    assert works[0].told == [Ended.GONE]
    assert works[1].told == []  # its client hadn't waited for it
    other = let_in(running)  # in the place of the first
    other.send(srm(request_id=1))
    worker.wait(3)
    for work in works:
        running.engine.answer(work.handle, b"for nobody")
    running.engine.answer(worker.works[2].handle, b"mine")
    other.expect(reply(b"mine", 1))


def test_a_client_without_features_that_half_closes_gets_its_answer(start, worker):
    running = start()
    peer = let_in(running, features=0)
    peer.send(srm())
    (work,) = worker.wait(1)
    peer.sock.shutdown(socket.SHUT_WR)
    eventually(lambda: running.engine.answer(work.handle, b"all the same"))
    assert peer.to_the_end() == reply(b"all the same")
    assert work.told == []


def test_gone_in_its_own_handler(start, worker):
    """It is closed when the engine would give the request a handle: that is 0."""

    def handler(client, request):
        running.engine.push(client, b"x" * 200_000)
        return Work(request)

    running = start(handler=handler, limits={"output_pause": 1000, "output_drop": 50_000, "max_payload": 200_000})
    peer = let_in(running)
    peer.send(srm())
    eventually(lambda: worker.works and worker.works[0].told)
    assert worker.works[0].handle == 0
    assert worker.works[0].told == [Ended.GONE]
    assert not running.failures


def test_gone_in_its_own_batch(start, worker):
    """Whoever works for a slot is told; what else is in one is nobody's any more."""

    def batch(clients, requests):
        running.engine.push(clients[0], b"x" * 200_000)
        return [Work(b"1"), b"nobody's", None, 5, ValueError("told to nobody"), Work(b"6")]

    running = start(
        services=[Service("", batch, batch=True, max_batch=6, max_wait=10)],
        limits={"output_pause": 1000, "output_drop": 50_000, "max_payload": 200_000},
    )
    peer = let_in(running)
    peer.send(*[srm(request_id=number) for number in range(6)])
    eventually(lambda: len(worker.works) == 2 and worker.works[1].told)
    assert [(work.handle, work.told) for work in worker.works] == [(0, [Ended.GONE])] * 2
    assert not running.failures


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError()], ids=["memory", "other"])
def test_ended_that_fails_counts_as_begun(start, worker, failure):
    worker.begun = failure
    running = start()
    peer = let_in(running)
    peer.send(srm(), cancel(9))
    (work,) = worker.wait(1)
    peer.expect(error(ErrorCode.CANCELLED, texts.CANCELLED))
    assert in_flight(running, peer) == 1
    running.engine.answer(work.handle, b"")
    eventually(lambda: in_flight(running, peer) == 0)


def test_ended_may_answer(start, worker):
    running = start()
    worker.on_ended = lambda work: running.engine.answer(work.handle, b"what there is")
    peer = let_in(running)
    peer.send(srm(), cancel(9))
    peer.expect(reply(b"what there is"))
    eventually(lambda: in_flight(running, peer) == 0)


# --- the server stops ---


@pytest.mark.parametrize("begun", [True, False])
def test_the_grace_is_over(start, worker, begun):
    worker.begun = begun
    running = start()
    peer = let_in(running)
    peer.send(srm(request_id=1), srm(request_id=2, flags=FLAG_NO_REPLY))
    works = worker.wait(2)
    running.stop(0.05)
    assert peer.frame().kind == Kind.GOAWAY
    last = (ErrorCode.CANCELLED, texts.CUT_SHORT) if begun else (ErrorCode.SHUTTING_DOWN, texts.SHUTTING_DOWN)
    assert peer.to_the_end() == error(*last, 1, started=begun)
    assert [work.told for work in works] == [[Ended.STOPPED], [Ended.STOPPED]]


def test_a_drain_waits(start, worker):
    running = start()
    peer = let_in(running)
    peer.send(srm())
    (work,) = worker.wait(1)
    running.engine.stop(10)
    assert peer.frame().kind == Kind.GOAWAY
    running.engine.answer(work.handle, b"done")
    assert peer.to_the_end() == reply(b"done") + encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)
    running.thread.join(10)
    assert work.told == []


@pytest.mark.parametrize("most", [1, 3])
def test_a_drain_looks_at_all_that_was_read(start, worker, most):
    """Though there are more of them than may be in flight."""
    running = start(limits={"max_in_flight": most})
    peer = let_in(running, features=0)
    peer.send(*[srm(b"%d" % n, request_id=n) for n in range(8)])
    worker.wait(most)
    running.engine.stop(10)
    works = worker.wait(8)
    for work in works:
        running.engine.answer(work.handle, work.request)
    assert peer.frame().kind == Kind.GOAWAY
    settled = encode_text(Kind.GOAWAY, GOAWAY_SETTLED, texts.SHUTTING_DOWN)
    assert peer.to_the_end() == b"".join(reply(b"%d" % n, n) for n in range(8)) + settled


# --- how many ---


def test_so_many_may_be_in_flight(start, worker):
    running = start(limits={"max_in_flight": 3})
    peer = let_in(running, features=0)
    for n in range(8):
        peer.send(srm(b"%d" % n, request_id=n))
    worker.wait(3)
    other = let_in(running)
    other.send(encode(Kind.PING, request_id=1))
    other.expect(encode(Kind.PONG, request_id=1))
    assert len(worker.works) == 3
    for n in range(8):
        running.engine.answer(worker.wait(n + 1)[n].handle, b"%d" % n)
        peer.expect(reply(b"%d" % n, n))


def test_without_ids_the_next_one_waits(start, worker):
    running = start(framing=Framing.U32)
    peer = running.peer()
    peer.send(u32(b"a", b"b"))
    peer.send(u32(b"c"))
    for n, text in enumerate((b"a", b"b", b"c")):
        works = worker.wait(n + 1)
        assert len(worker.works) == n + 1
        assert works[n].request == text
        running.engine.answer(works[n].handle, text)
        peer.expect(u32(text))


def test_without_ids_two_of_a_batch(start, worker):
    services = [Service("", worker.batch, batch=True, max_batch=2, max_wait=10)]
    running = start(framing=Framing.U32, services=services)
    peer = running.peer()
    peer.send(u32(b"a", b"b"))
    assert peer.to_the_end() == b""
    assert [str(failure) for failure in running.failures] == [texts.NO_IDS]
    assert [(work.handle, work.told) for work in worker.works] == [(0, [Ended.GONE])] * 2


def test_many_with_deadlines_that_are_answered_in_time(start, worker):
    """What is over leaves nothing behind that counts."""
    running = start()
    worker.on_defer = lambda work: running.engine.answer(work.handle, b"")
    peer = let_in(running)
    for n in range(20):
        peer.send(*[timed(600, request_id=n * 100 + m) for m in range(100)])
        peer.expect(*[reply(b"", n * 100 + m) for m in range(100)])
    assert in_flight(running, peer) == 0


# --- between the turns of a guest ---


@pytest.fixture
def guest(socket_dir, backend, worker):
    """An engine whose turns the test calls for."""
    running = Running(
        f"{socket_dir}/guest",
        backend=backend,
        handler=worker.handler,
        limits={"max_in_flight": 2},
        callbacks={"defer": worker.defer, "ended": worker.ended},
    )
    engine = running.engine
    engine.begin()
    engine.wants_turn = lambda: running.wanted.append(1)
    running.wanted = []
    running.turn_until = lambda condition: eventually(lambda: (engine.turn(), condition())[1])
    yield running
    engine.end()
    engine.close()
    running.master.close()
    for peer in running.peers:
        peer.sock.close()


def be_let_in(guest, **cir):
    peer = guest.peer()
    peer.send(encode_cir(**cir))
    guest.turn_until(lambda: guest.engine.client_count() == 1)
    assert peer.frame().kind == Kind.CIR_ACCEPTED
    return peer


def test_between_turns(guest, worker):
    peer = be_let_in(guest)
    peer.send(srm(request_id=1), srm(request_id=2))
    for n in (1, 2):
        guest.turn_until(lambda n=n: len(worker.works) >= n)
        assert guest.engine.answer(worker.works[n - 1].handle, b"a") is True
        assert len(guest.wanted) == n
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        peer.sock.settimeout(10)
        guest.turn_until(lambda: True)
        peer.expect(reply(b"a", n))
    assert guest.engine.answer(worker.works[0].handle, b"a") is False


def test_a_place_that_is_free_between_turns_wants_one_too(guest, worker):
    """Nobody waited for the answer, but its client isn't read before there is room."""
    peer = be_let_in(guest, features=BOTH)
    peer.send(*[srm(request_id=n) + cancel(n) for n in (1, 2)])
    guest.turn_until(lambda: len(worker.works) == 2 and worker.works[1].told)
    peer.expect(*[error(ErrorCode.CANCELLED, texts.CANCELLED, n) for n in (1, 2)])
    peer.send(srm(request_id=3), srm(request_id=4))
    guest.turn_until(lambda: len(worker.works) == 3)
    for _ in range(5):
        guest.engine.turn()
    assert len(worker.works) == 3
    assert [guest.engine.answer(work.handle, b"") for work in worker.works[:2]] == [False, False]
    assert guest.wanted
    guest.turn_until(lambda: len(worker.works) == 4)


def test_another_thread_beside_a_guest(guest, worker):
    peer = be_let_in(guest)
    peer.send(srm())
    guest.turn_until(lambda: worker.works)
    beside = threading.Thread(target=guest.engine.answer, args=(worker.works[0].handle, b"a"))
    beside.start()
    beside.join()
    assert not guest.wanted
    guest.turn_until(lambda: True)
    peer.expect(reply(b"a"))


def test_its_deadline_is_a_reason_for_a_turn(guest, worker):
    peer = be_let_in(guest, features=BOTH)
    peer.send(timed(0.1))
    guest.turn_until(lambda: worker.works)
    end = time.monotonic() + 5
    wait = guest.engine.turn()
    while not worker.works[0].told and time.monotonic() < end:
        select.select([guest.engine.poll_fd], [], [], min(wait, 5))
        wait = guest.engine.turn()
    assert time.monotonic() < end - 4
    peer.expect(error(ErrorCode.DEADLINE_PASSED, texts.TOO_LATE))
