"""Pools: whose turn it is, what is never run, and what workers make of whatever a handler does."""

from __future__ import annotations

import select
import sys
import threading
import time
import types
from contextvars import ContextVar

import pytest
from support import wait_for
from worked import double, ends, means, nothing, pid, raises, slow, text, view

from pysock import Overloaded, PysockError, RemoteError
from pysock.engine.deferral import Ended
from pysock.engine.rows import Current
from pysock.pools.jobs import Job, Jobs
from pysock.pools.pool import Pool
from pysock.pools.processes import DIED, Processes
from pysock.pools.target import check_target, target_of
from pysock.pools.threads import Threads

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="-")


class Answers:
    """In the place of an engine: the answers by their handles, and what the engine's callbacks do. Each descriptor
    that is watched has a thread; one at a time is the loop's.
    """

    def __init__(self):
        self.given = {}
        self.jobs = []
        self.loop = threading.RLock()
        self._watched = {}

    def watch(self, fd, ready, writes=False):
        before = self._watched.get(fd)
        self._watched[fd] = None if ready is None else (ready, select.POLLIN | select.POLLOUT * writes)
        if ready is not None and before is None:
            threading.Thread(target=self._wait, args=(fd,), daemon=True).start()

    def _wait(self, fd):
        while (watched := self._watched[fd]) is not None:
            poll = select.poll()
            poll.register(fd, watched[1])
            found = poll.poll(100)
            with self.loop:
                if found and self._watched[fd] is not None:
                    self._watched[fd][0]()

    def call_later(self, function):
        with self.loop:
            function()

    def answer(self, handle, reply):
        self.given[handle] = reply
        return True

    def current(self):
        return Current(1, 1, 0, 0.0, True)

    def begun(self, job):
        """Its handler has returned it."""
        self.jobs.append(job)
        assert job.begin(self, len(self.jobs))
        return job


ENGINE = Answers()


class Pretended(Pool):
    """One of which only the jobs are used."""

    def __init__(self, most=None):
        super().__init__("pretended", 1, most)
        self.serve(ENGINE)


def put(pool, client, request=b""):
    """The job, and which one has to go for it: that may be itself."""
    job = Job(pool, client, request, ENGINE.current())
    try:
        victim = pool.jobs.make_room(client)
    except Overloaded:
        return job, job
    return ENGINE.begun(job), victim


def ask(pool, client, request):
    with ENGINE.loop:
        return ENGINE.begun(pool.ask(client, request))


def answer_of(job):
    handle = ENGINE.jobs.index(job) + 1
    wait_for(lambda: handle in ENGINE.given, "an answer")
    return ENGINE.given[handle]


@pytest.fixture
def started():
    """``started(pool)``: it has begun, and is ended after the test."""
    made = []

    def start(pool):
        made.append(pool)
        pool.start()
        pool.serve(ENGINE)
        return pool

    yield start
    for pool in made:
        with ENGINE.loop:
            for process in getattr(pool, "processes", ()):
                ENGINE.watch(process._fd, None)
            pool.close()


def threads(handler, size=1, most=None):
    return Threads("pool", handler, size, most)


def processes(handler, size=1, **options):
    return Processes("pool", handler, target_of(handler), size, None, **options)


# Whose turn it is


def test_clients_take_turns():
    pool = Pretended()
    for client, requests in (("hog", 3), ("a", 1), ("b", 2)):
        for _ in range(requests):
            put(pool, client)
    assert [pool.jobs.take().client for _ in range(6)] == ["hog", "a", "b", "hog", "b", "hog"]


def test_one_clients_requests_are_begun_in_order():
    pool = Pretended()
    jobs = [put(pool, "a")[0] for _ in range(5)]
    assert [pool.jobs.take() for _ in jobs] == jobs


def test_the_one_too_many_is_refused():
    pool = Pretended(2)
    put(pool, "a")
    put(pool, "a")
    job, refused = put(pool, "a")
    assert refused is job


def test_a_hog_makes_room_for_others():
    pool = Pretended(4)
    hogs = [put(pool, "hog")[0] for _ in range(4)]
    lonely, victim = put(pool, "lonely")
    assert victim is hogs[-1]
    assert [pool.jobs.take() for _ in range(4)] == [hogs[0], lonely, hogs[1], hogs[2]]


def test_where_all_have_as_much_nobody_makes_room():
    pool = Pretended(2)
    put(pool, "a")
    put(pool, "b")
    job, refused = put(pool, "c")
    assert refused is job


def test_what_is_ended_before_it_began_is_never_begun():
    pool = Pretended(2)
    first, second = put(pool, "a")[0], put(pool, "a")[0]
    assert first.tell(Ended.CANCELLED) is False
    assert put(pool, "b")[1] is None  # its place is free
    assert pool.jobs.take() is second


def test_what_has_begun_goes_on():
    pool = Pretended()
    job, _ = put(pool, "a")
    assert pool.jobs.take() is job
    assert job.tell(Ended.GONE) is True


def test_what_is_taken_in_the_moment_when_its_end_is_told_is_not_begun():
    pool = Pretended()
    first, second = put(pool, "a")[0], put(pool, "a")[0]
    first.why = Ended.LATE  # as in tell(), before that comes to the lock
    assert pool.jobs.take() is second
    assert first.tell(Ended.LATE) is False


def test_cancelling_costs_no_memory():
    pool = Pretended()
    put(pool, "a")
    for _ in range(1000):
        put(pool, "a")[0].tell(Ended.CANCELLED)
    assert [len(line) for line in pool.jobs._lines.values()] == [1]


def test_who_waits_is_woken_by_the_end():
    jobs = Jobs(None)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(jobs.take()))
    thread.start()
    wait_for(lambda: jobs._idle, "a worker that waits")
    jobs.close()
    thread.join(5)
    assert taken == [None]


def test_after_the_end_nothing_is_begun():
    pool = Pretended()
    job, _ = put(pool, "a")
    pool.jobs.close()
    assert job.tell(Ended.STOPPED) is False
    assert pool.jobs.take() is None


# Threads


def test_threads_run_at_once(started):
    both = threading.Barrier(2, timeout=5)

    def meets(client, request):
        both.wait()
        return request

    pool = started(threads(meets, 2))
    jobs = [ask(pool, "a", b"1"), ask(pool, "a", b"2")]
    assert [answer_of(job) for job in jobs] == [b"1", b"2"]


def test_each_request_has_a_context_of_its_own(started):
    def swaps(client, request):
        before = VARIABLE.get()
        VARIABLE.set("set")
        return before

    pool = started(threads(swaps))
    assert [answer_of(ask(pool, "a", b"")) for _ in range(3)] == ["-"] * 3


def test_a_thread_outlives_whatever_is_raised(started, caplog):
    def raises(client, request):
        raise {b"e": ValueError, b"s": SystemExit, b"k": KeyboardInterrupt}[request]("why")

    pool = started(threads(raises))
    assert isinstance(answer_of(ask(pool, "a", b"e")), ValueError)
    for request, name in ((b"s", "SystemExit"), (b"k", "KeyboardInterrupt")):
        answer = answer_of(ask(pool, "a", request))
        assert isinstance(answer, RemoteError)
        assert (answer.message, answer.code) == (name, 1)
        assert name in caplog.text


def test_an_exception_that_is_returned_is_no_reply(started):
    pool = started(threads(lambda client, request: ValueError()))
    assert isinstance(answer_of(ask(pool, "a", b"")), TypeError)


def test_too_many_are_refused_with_code_10(started):
    go_on = threading.Event()
    begun = threading.Event()

    def waits(client, request):
        begun.set()
        go_on.wait(5)

    pool = started(threads(waits, most=1))
    ask(pool, "a", b"")
    begun.wait(5)
    ask(pool, "a", b"")
    with pytest.raises(Overloaded) as refused:
        ask(pool, "a", b"")
    assert refused.value.code == 10
    go_on.set()


def test_the_end_gives_up_on_a_thread_that_hangs(started, caplog):
    go_on = threading.Event()
    pool = started(threads(lambda client, request: go_on.wait(5)))
    ask(pool, "a", b"")
    wait_for(lambda: not pool.jobs._lines, "it to begin")
    before = time.monotonic()
    pool.close()
    assert time.monotonic() - before < 2
    assert "hasn't returned" in caplog.text
    go_on.set()


# Processes


@pytest.mark.parametrize(
    ("handler", "request_", "reply"),
    [
        (double, b"ab", b"abab"),
        (double, b"", b""),
        (double, b"x" * 1_000_000, b"x" * 2_000_000),
        (nothing, b"x", None),
        (view, b"abcd", b"ac"),
    ],
)
def test_a_process_answers(started, handler, request_, reply):
    pool = started(processes(handler))
    assert answer_of(ask(pool, "a", request_)) == reply


@pytest.mark.parametrize(
    ("handler", "name", "told"),
    [(raises, "ZeroDivisionError", "why"), (ends, "SystemExit", "3"), (text, "TypeError", "encode it")],
)
def test_what_a_handler_raises_there_arrives_here(started, handler, name, told):
    pool = started(processes(handler))
    error = answer_of(ask(pool, "a", b"why"))
    assert type(error).__name__ == name
    assert told in str(error)
    assert "in the worker process" in str(error.__cause__)
    assert type(answer_of(ask(pool, "a", b"why"))).__name__ == name  # it lives


def test_what_it_means_arrives_as_it_is(started):
    error = answer_of(ask(started(processes(means)), "a", b"no"))
    assert (error.message, error.code) == ("no", 77)


def test_one_that_dies_fails_its_request_and_is_replaced(started, caplog):
    pool = started(processes(pid))
    first = bytes(answer_of(ask(pool, "a", b"")))
    error = answer_of(ask(pool, "a", b"die"))
    assert (error.message, error.code) == (DIED, 1)
    wait_for(lambda: "was ended by signal 9 while it was at a request" in caplog.text, "it to be told")
    assert bytes(answer_of(ask(pool, "a", b""))) != first


def test_deaths_one_after_the_other_slow_it_down(started):
    pool = started(processes(pid))
    before = time.monotonic()
    for _ in range(4):
        answer_of(ask(pool, "a", b"die"))
    assert time.monotonic() - before > 0.3  # 0, then 0.1 and 0.2 seconds of pause


def test_a_late_one_is_killed_if_wanted(started):
    pool = started(processes(slow, kill=True))
    job = ask(pool, "a", b"60")
    wait_for(lambda: pool.processes[0].job is job, "it to begin")
    assert job.tell(Ended.LATE) is True
    assert answer_of(job).message == DIED


def test_the_end_kills_one_that_is_busy(started):
    pool = started(processes(slow, 2))
    found = [process._process for process in pool.processes]
    ask(pool, "a", b"60")
    assert [process.job is None for process in pool.processes] == [True, False]
    before = time.monotonic()
    pool.close()
    assert time.monotonic() - before < 1
    assert [process.returncode for process in found] == [0, -9]


def test_one_that_dies_while_it_is_free_fails_nobody(started, caplog):
    pool = started(processes(pid, 2))
    pool.processes[1]._process.kill()
    wait_for(lambda: "was ended by signal 9" in caplog.text, "it to be told")
    assert "at a request" not in caplog.text
    answers = {bytes(answer_of(ask(pool, "a", b""))) for _ in range(20)}
    assert answers <= {b"%d" % process._process.pid for process in pool.processes}


def test_what_waits_goes_on_when_one_is_free(started):
    pool = started(processes(slow))
    jobs = [ask(pool, client, b"0.05") for client in "abc"]
    assert pool.jobs._waiting == 2
    assert [answer_of(job) for job in jobs] == [b"0.05"] * 3


# What can't be


def local():
    def inside(request):
        return request

    return inside


def in_main(request):
    return request


in_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("handler", "why"), [(lambda request: request, "lambda"), (local(), "inside another"), (in_main, "main module")]
)
def test_handlers_that_no_process_can_import(make_server, handler, why):
    server = make_server("unix:/nowhere/s")
    with pytest.raises(ValueError, match=why):
        server.service("x", processes=1)(handler)


def test_a_module_that_only_this_process_has(make_server, unix_address, monkeypatch, socket_dir):
    """Whoever starts the server is told, before anybody can connect."""
    monkeypatch.setitem(sys.modules, "only_here", types.ModuleType("only_here"))

    def handler(request):
        return request

    handler.__module__, handler.__qualname__ = "only_here", "handler"
    sys.modules["only_here"].handler = handler
    server = make_server(unix_address)
    server.service("x", processes=1)(handler)
    with pytest.raises(PysockError, match="a worker process can't import only_here:handler: ModuleNotFoundError"):
        server.start()
    assert (server.state.name, list(socket_dir.iterdir())) == ("CLOSED", [])


def test_a_handler_whose_name_is_anothers():
    with pytest.raises(PysockError, match="isn't the handler"):
        check_target("worked:double", nothing)


async def is_async(client, request):
    return request


@pytest.mark.parametrize(
    ("workers", "handler", "told"),
    [
        ({"threads": 1, "processes": 1}, double, "exclude"),
        ({"threads": 0}, double, "threads= must be"),
        ({"processes": 0}, double, "processes= must be"),
        ({"threads": True}, double, "threads= must be"),
        ({"threads": 1, "queue": 0}, double, "queue= must be"),
        ({"queue": 5}, double, "queue= is of workers"),
        ({"threads": 1, "kill": True}, double, "kill= is of worker processes"),
        ({"threads": 1}, is_async, "is an async one"),
    ],
)
def test_workers_that_cannot_be(make_server, workers, handler, told):
    server = make_server("unix:/nowhere/s")
    with pytest.raises(ValueError, match=told):
        server.service("x", **workers)(handler)
