"""When a client connects again, and what it sends again: by a fake clock, without any I/O."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
from types import SimpleNamespace

import pytest

from pysock import Address, ConnectionLost, ConnectionRefused, ErrorCode, OutcomeUnknown, PysockError, RequestTimeout
from pysock.errors import Overloaded, ProtocolError, RemoteError, ServerFull
from pysock.healing.machine import TABLE, Event, Machine, State
from pysock.healing.policy import (
    AGAIN_MAX,
    PASSING_ERRORS,
    Backoff,
    Bucket,
    Spans,
    checked_reconnect,
    checked_wait,
    is_passing,
)
from pysock.healing.session import Session
from pysock.healing.verdict import Sending, says_goodbye

NEAR = Address.parse("unix:/x")
FAR = Address.parse("tcp://127.0.0.1:1")
GONE = ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


def longest(low, high):
    """In the place of chance: a wait is as long as it may be."""
    assert low == 0.0
    return high


def machine(first=0.01, most=2.0, now=100.0):
    return Machine(Spans(first, most, longest), now)


def opened(now=100.0, **options):
    one = machine(now=now, **options)
    one.begin()
    one.let_in(now)
    return one


# The table


def test_every_state_can_be_reached_and_closed_is_left_from_nowhere():
    reached = {State.WAITING}
    for _ in State:
        reached |= {after for (before, _), after in TABLE.items() if before in reached}
    assert reached == set(State)
    assert not [event for (state, event) in TABLE if state is State.CLOSED]
    assert {state for (state, event), after in TABLE.items() if event is Event.CLOSE and after is State.CLOSED} == set(
        State
    ) - {State.CLOSED}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_what_is_not_in_the_table_leaves_the_state_as_it_was(state, event):
    one = machine()
    one.state = state
    if (state, event) in TABLE:
        one._happens(event)
        assert one.state is TABLE[state, event]
    else:
        with pytest.raises(PysockError, match=f"a client that is {state.name} can't have {event.name}"):
            one._happens(event)
        assert one.state is state


# Moments


def test_the_first_attempt_is_due_at_once():
    one = machine()
    assert (one.state, one.due_in(100.0)) == (State.WAITING, 0.0)
    one.begin()
    assert (one.state, one.due_in(100.0)) == (State.CONNECTING, None)


def test_each_failure_doubles_the_wait_up_to_the_longest():
    one, now, waits = machine(), 100.0, []
    for _ in range(12):
        one.begin()
        assert one.failed(GONE, now)
        waits.append(round(one.due_in(now), 9))
        now += waits[-1]
    assert waits == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.0, 2.0, 2.0, 2.0]
    assert one.error is GONE


def test_a_connection_that_has_lived_that_long_is_forgotten():
    one = machine()
    for _ in range(5):
        one.begin()
        one.failed(GONE, 100.0)
    one.begin()
    one.let_in(100.0)
    one.lost(100.1)  # shorter than 0.32
    assert one.due_in(100.1) == pytest.approx(0.32)
    one.begin()
    one.let_in(101.0)
    one.lost(102.0)  # longer than 0.64
    assert one.due_in(102.0) == pytest.approx(0.01)


def test_after_a_goodbye_the_next_is_due_at_once():
    one = opened(100.0)
    one.goodbye(200.0)
    assert (one.state, one.due_in(200.0)) == (State.DRAINING, 0.0)
    one.lost(200.1)
    assert (one.state, one.due_in(200.1)) == (State.WAITING, 0.0)


def test_a_server_that_says_goodbye_to_all_who_come_isnt_asked_without_end():
    one, now, waits = machine(), 100.0, []
    for _ in range(5):
        one.begin()
        one.let_in(now)
        one.goodbye(now)
        waits.append(round(one.due_in(now), 9))
        now += waits[-1]
    assert waits == [0.01, 0.02, 0.04, 0.08, 0.16]


def test_for_good_is_for_good():
    one = machine()
    one.begin()
    error = ConnectionRefused("no", 3)
    assert not one.failed(error, 100.0)
    assert (one.state, one.error, one.due_in(100.0)) == (State.CLOSED, error, None)
    one.close()
    one.forked(100.0)
    assert one.state is State.CLOSED


def test_a_forked_child_begins_anew():
    one = opened()
    one.forked(150.0)
    assert (one.state, one.due_in(150.0)) == (State.WAITING, 0.0)


def test_one_that_is_given_up_says_nothing_of_the_server():
    one = machine()
    one.begin()
    one.given_up(100.5)
    assert (one.state, one.due_in(100.5)) == (State.WAITING, 0.0)


def test_one_that_isnt_wanted_back_stays_away():
    one = opened()
    one.unwanted(ConnectionLost("replaced"))
    assert one.state is State.CLOSED


# What is tried again


@pytest.mark.parametrize("code", range(1, 9))
def test_refusals(code):
    assert is_passing(ConnectionRefused("", code)) is (code in (4, 5, 6))


@pytest.mark.parametrize(
    "number",
    [errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EMFILE],
)
def test_errors_that_pass(number):
    assert is_passing(OSError(number, ""))
    assert number in PASSING_ERRORS


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, ""),
        PermissionError(errno.EPERM, "the server runs as somebody else"),
        OSError(errno.ENOTSOCK, ""),
        OSError("no number"),
        ProtocolError("it isn't a pysock server"),
        socket.gaierror(socket.EAI_NONAME, ""),
        ValueError(""),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_errors_that_dont(error):
    assert not is_passing(error)


def test_an_end_within_the_handshake_passes():
    assert is_passing(ConnectionLost(""))
    assert is_passing(RequestTimeout(""))
    assert is_passing(ServerFull())
    assert is_passing(socket.gaierror(socket.EAI_AGAIN, ""))


# Backoff


@pytest.mark.parametrize(
    ("backoff", "addresses", "spans"),
    [
        (Backoff(), [NEAR], (0.01, 2.0)),
        (Backoff(), [NEAR, FAR], (0.1, 10.0)),
        (Backoff(0.5), [NEAR], (0.5, 2.0)),
        (Backoff(5), [NEAR], (5.0, 5.0)),
        (Backoff(longest=0.05), [FAR], (0.05, 0.05)),
        (Backoff(1, 3), [FAR], (1.0, 3.0)),
    ],
)
def test_the_spans_of_a_backoff(backoff, addresses, spans):
    made = backoff.spans(addresses)
    assert (made.span(0), made.span(1000)) == spans


def test_a_wait_is_anywhere_in_its_span():
    waits = [Backoff(1, 1).spans([NEAR]).wait(0) for _ in range(200)]
    assert 0 <= min(waits) < 0.2 < 0.8 < max(waits) <= 1


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", True])
def test_what_isnt_a_wait(wrong):
    with pytest.raises(ValueError, match=r"Backoff.first must be a number of seconds over 0"):
        Backoff(wrong)
    with pytest.raises(ValueError, match=r"Backoff.longest must be a number of seconds over 0"):
        Backoff(longest=wrong)


def test_the_first_isnt_the_longer_one():
    with pytest.raises(ValueError, match=r"Backoff.longest must not be less than first"):
        Backoff(3, 1)


def test_parameters():
    assert checked_reconnect(False) is None
    assert checked_reconnect(True) == Backoff()
    assert checked_reconnect(Backoff(1)) == Backoff(1)
    with pytest.raises(TypeError, match=r"reconnect= takes True or a pysock.Backoff, not 3"):
        checked_reconnect(3)
    assert (checked_wait(None), checked_wait(3)) == (0.0, 3.0)
    for wrong in (-1, float("nan"), "1", True):
        with pytest.raises(ValueError, match="wait must be 0 or more seconds"):
            checked_wait(wrong)


# Requests


def lost(*fates):
    error = ConnectionLost("gone")
    error.fates = list(fates)
    return error


def remote(code, started=None, kind=RemoteError):
    error = kind("text", code)
    error.started = started
    return error


def test_the_bucket_isnt_emptied_below_its_half():
    bucket = Bucket()
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    for _ in range(11):
        bucket.answered()
    assert bucket.take()
    assert not bucket.take()
    for _ in range(1000):
        bucket.answered()
    assert bucket.tokens == Bucket.MOST


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("error", [lost(False), lost(), remote(5), remote(9, False)], ids=repr)
def test_what_didnt_run_is_sent_again_at_any_time(error, idempotent):
    bucket = Bucket()
    sending = Sending(bucket, idempotent)
    assert [sending.after(error, 7) for _ in range(100)] == [0.0] * 100
    assert bucket.tokens == Bucket.MOST


@pytest.mark.parametrize("error", [lost(41), ConnectionLost("?")], ids=["id", "nothing"])
def test_what_may_have_run_is_unknown(error):
    sending = Sending(Bucket(), idempotent=False)
    with pytest.raises(OutcomeUnknown, match=r"nobody knows whether .* has it sent again") as caught:
        sending.after(error, 7)
    unknown = caught.value
    assert (unknown.request_id, unknown.client_id, unknown.sent_at) == (
        41 if error.fates == [41] else 0,
        7,
        sending.sent_at,
    )
    assert isinstance(unknown, ConnectionLost)


def test_what_may_run_twice_is_sent_again_a_few_times():
    sending = Sending(Bucket(), idempotent=True)
    for _ in range(AGAIN_MAX):
        assert sending.after(lost(41), 7) == 0.0
    with pytest.raises(OutcomeUnknown) as caught:
        sending.after(lost(41), 7)
    assert "idempotent" not in str(caught.value)  # as it was said to be


def test_not_while_the_bucket_is_half_empty():
    bucket = Bucket()
    while bucket.take():
        pass
    with pytest.raises(OutcomeUnknown):
        Sending(bucket, idempotent=True).after(lost(41), 7)


def test_a_server_without_room_is_asked_again_a_few_times_ever_later():
    sending = Sending(Bucket(), idempotent=False, uniform=longest)
    error = remote(ErrorCode.OVERLOADED, False, Overloaded)
    assert [sending.after(error, 7) for _ in range(AGAIN_MAX)] == [0.02, 0.04, 0.08]
    with pytest.raises(Overloaded):
        sending.after(error, 7)


@pytest.mark.parametrize("error", [remote(1), remote(2, False), remote(9), remote(10), remote(77)], ids=repr)
def test_all_else_is_the_answer(error):
    with pytest.raises(RemoteError) as caught:
        Sending(Bucket(), idempotent=True).after(error, 7)
    assert caught.value is error
    assert not says_goodbye(error)


def test_who_says_goodbye_in_an_answer():
    assert says_goodbye(remote(5))
    assert says_goodbye(remote(9, False))
    assert not says_goodbye(lost(False))


def test_who_comes_while_another_looks_waits_for_what_it_finds():
    """The server's goodbye has come, and one thread is about to take it: nobody may send behind it."""
    entered, go_on, found = threading.Event(), threading.Event(), []

    class Link:
        def listen(self, seconds, has):
            if entered.is_set():
                raise RequestTimeout("another thread reads")
            entered.set()
            assert go_on.wait(10)
            mail.goodbye = "the server is shutting down"

    mail = SimpleNamespace(goodbye=None)
    session = Session(SimpleNamespace(closed=False, _mail=mail, _link=Link()))
    session.heard -= 1
    threads = [threading.Thread(target=lambda: found.append(session.is_fit())) for _ in range(2)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert found == [False, False]
