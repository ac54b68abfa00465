"""The outlets of the asyncio client, both engines': what is numbered, packed and gathered, and who is told of it."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysock.engine.choice import choose
from pysock.engine.outlet import FULL, SMALL
from pysock.wire.features import LONGEST, decode_deadline
from pysock.wire.format import FLAG_DEADLINE, Kind, decode_header
from pysock.wire.format import HEADER as H


class Owner:
    """An outlet, and all that it calls or looks into."""

    def __init__(self, backend, **options):
        self.waiting, self.unwanted = {}, set()
        self.told, self.deadlines = [], []
        self.outlet = choose(backend).outlet(
            waiting=self.waiting,
            unwanted=self.unwanted,
            gathered=lambda *args: self.gathered(*args),  # noqa: PLW0108  # a test puts others in their place
            deadline=lambda *args: self.deadline(*args),  # noqa: PLW0108
            **{"window": 1000, "largest": SMALL, "timed": True, **options},
        )

    def gathered(self, at_once):
        self.told.append(at_once)

    def deadline(self, when, number):
        self.deadlines.append([when, number, number])
        return self.deadlines[-1]

    def submit(self, payload=b"", seconds=None, service=0):
        return self.outlet.submit(object(), service, payload, seconds)

    def take(self):
        """What was gathered, as frames: number, service, payload, and the seconds, or None."""
        data, frames = self.outlet.take(), []
        while data:
            header = decode_header(data)
            payload, data = data[H.size : H.size + header.length], data[H.size + header.length :]
            assert header.kind == Kind.SRM
            timed = header.flags == FLAG_DEADLINE
            assert timed or not header.flags
            seconds = decode_deadline(payload) if timed else None
            frames.append((header.request_id, header.code, payload[4 * timed :], seconds))
        return frames


def test_requests_are_gathered_until_they_are_taken(backend):
    owner = Owner(backend)
    assert owner.submit(b"one", 2.5, service=7) == 1
    owner.told.clear()
    assert owner.submit(b"", None) == 2
    assert owner.submit(b"x" * SMALL, LONGEST + 1) == 3
    assert owner.take() == [(1, 7, b"one", 2.5), (2, 0, b"", None), (3, 0, b"x" * SMALL, None)]
    assert owner.take() == []
    assert list(owner.waiting) == [1, 2, 3]


def test_whoever_sends_is_told_once_and_again_when_it_is_much(backend):
    owner = Owner(backend)
    owner.submit()
    assert owner.told == [True]  # nothing was in flight
    owner.submit()
    assert owner.told == [True]  # it hasn't been taken
    owner.take()
    owner.submit()
    owner.submit()
    assert owner.told == [True, False]
    while len(owner.told) == 2:
        owner.submit(b"x" * 1000)
    assert owner.told == [True, False, True]
    assert FULL <= len(owner.outlet.take()) < FULL + 1016


def test_what_is_not_ordinary_is_refused_and_nothing_is_done(backend):
    owner = Owner(backend, window=3, largest=100)
    for payload in (bytearray(b"x"), memoryview(b"x"), bytes(101), "text", None):
        assert owner.submit(payload, 1.0) == 0
    assert not owner.waiting
    assert not owner.deadlines
    assert not owner.told
    assert owner.outlet.take() == b""
    assert owner.submit(bytes(100)) == 1
    owner.unwanted.update((7, 8))
    assert owner.submit() == 0
    owner.unwanted.discard(7)
    assert owner.submit() == 2
    assert Owner(backend, largest=10**6).submit(bytes(SMALL + 1)) == 0


def test_it_stays_within_its_room_where_nobody_takes(backend):
    owner = Owner(backend, window=10**6)
    while owner.submit(b"x" * SMALL):
        assert len(owner.waiting) < 10
    taken = owner.take()
    assert [number for number, *_ in taken] == list(owner.waiting)


def test_a_server_of_old_is_told_no_deadline_but_there_is_one(backend):
    owner = Owner(backend, timed=False)
    owner.submit(b"x", 5.0)
    assert owner.take() == [(1, 0, b"x", None)]
    assert owner.deadlines[0][1:] == [1, 1]


def test_a_number_that_may_be_answered_is_not_used_again(backend):
    owner = Owner(backend, after=2**32 - 3)
    owner.waiting.update(dict.fromkeys((1, 2, 5)))
    owner.unwanted.add(3)
    numbers = [owner.submit(), owner.outlet.next_id(), owner.submit(), owner.outlet.next_id(), owner.submit()]
    assert numbers == [2**32 - 2, 2**32 - 1, 4, 6, 7]
    assert [number for number, *_ in owner.take()] == [2**32 - 2, 4, 7]


def test_requests_of_one_moment_have_one_deadline(backend):
    owner = Owner(backend)
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    for _ in range(3):
        owner.submit(seconds=10)
    owner.submit(seconds=20.0)
    owner.submit(seconds=None)
    owner.submit(seconds=20.0)  # not the number behind the last one's
    ended = time.clock_gettime(time.CLOCK_MONOTONIC)
    covered = sorted(number for _, first, last in owner.deadlines for number in range(first, last + 1))
    assert covered == [1, 2, 3, 4, 6]
    for when, first, _ in owner.deadlines:
        assert began <= when - (10 if first <= 3 else 20) <= ended
    if ended - began < 0.0005:
        assert [one[1:] for one in owner.deadlines] == [[1, 3], [4, 4], [6, 6]]
    time.sleep(0.002)
    owner.submit(seconds=20.0)
    assert owner.deadlines[-1][1:] == [7, 7]


def test_a_short_timeout_is_shared_for_a_short_time_only(backend):
    owner = Owner(backend)
    owner.submit(seconds=0.0)
    owner.submit(seconds=0.0)
    assert [one[1:] for one in owner.deadlines] == [[1, 1], [2, 2]]


@pytest.mark.parametrize("payload", [b"", b"x" * SMALL])
def test_what_is_called_may_gather_too(backend, payload):
    """As a collection of garbage in the middle may let anything run."""
    owner = Owner(backend, window=50)
    plain, inner = owner.deadline, []

    def deadline(when, number):
        owner.deadline = plain
        while number := owner.submit(payload):
            inner.append(number)
        return plain(when, number)

    owner.deadline = deadline
    outer = owner.submit(payload, 1.0)
    assert outer == 0  # there was no more room, in one way or the other
    taken = owner.take()
    assert [number for number, *_ in taken] == inner == list(owner.waiting)
    assert {body for _, _, body, _ in taken} == {payload}
    owner.waiting.clear()
    assert owner.submit(b"next") not in {0, *inner}


def test_what_is_called_raises(backend):
    owner = Owner(backend)

    def failing(*args):
        raise ZeroDivisionError

    owner.deadline = failing
    with pytest.raises(ZeroDivisionError):
        owner.submit(b"a", 1.0)
    assert not owner.waiting
    assert owner.outlet.take() == b""
    plain, owner.gathered = owner.gathered, failing
    with pytest.raises(ZeroDivisionError):
        owner.submit(b"b")
    owner.gathered = plain
    owner.submit(b"c")
    assert owner.told == [False], "the first one is sent with the second"
    assert [payload for _, _, payload, _ in owner.take()] == [b"b", b"c"]


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_both_do_the_same(chance):
    try:
        both = [Owner(name, window=5, largest=2000, after=2**32 - 8) for name in ("native", "pure")]
    except ImportError as error:
        pytest.skip(str(error))
    for _ in range(chance.randrange(60)):
        act = chance.choice([submit, submit, submit, answered, given_up, taken, numbered])(chance)
        one, other = (act(owner) for owner in both)
        assert one == other
        assert both[0].told == both[1].told
        assert list(both[0].waiting) == list(both[1].waiting)


def submit(chance: random.Random):
    payload = chance.choice([b"", b"x", bytes(1999), bytes(2001), bytearray(3)])
    seconds = chance.choice([None, 0, 1, 10.0, 0.1234567, LONGEST, 1e9])
    service = chance.randrange(3)
    return lambda owner: owner.submit(payload, seconds, service)


def answered(chance):
    which = chance.random()
    return lambda owner: owner.waiting and owner.waiting.pop(list(owner.waiting)[int(which * len(owner.waiting))]) and 0


def given_up(chance):
    which = chance.random()

    def act(owner):
        if owner.waiting and len(owner.unwanted) < 4:
            number = list(owner.waiting)[int(which * len(owner.waiting))]
            del owner.waiting[number]
            owner.unwanted.add(number)
        elif owner.unwanted:
            owner.unwanted.remove(min(owner.unwanted))
        return owner.unwanted

    return act


def taken(_chance):
    return lambda owner: owner.outlet.take()


def numbered(_chance):
    return lambda owner: owner.outlet.next_id()
