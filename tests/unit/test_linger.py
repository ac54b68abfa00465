"""When the pure engine's linger polls, and whether that is found to pay. ``tests/c/test_linger.c`` asks it of C."""

from __future__ import annotations

import pytest

from pysock.engine import linger as linger_module
from pysock.engine.linger import HALF_MOST, HOLD, PREEMPTED, USUAL, WITHDRAWN_MAX, Linger, Trial


def nothing_done():
    return 0


class Idle:
    """A poll that finds nothing, and the clock that goes on by it: ``sleep`` seconds when it sleeps, else 1 us."""

    def __init__(self, sleep):
        self.sleep, self.polls, self.sleeps, self.now = sleep, 0, 0, 0.0

    def __call__(self, timeout):
        if timeout == 0:
            self.polls += 1
            self.now += 1e-6
        else:
            self.sleeps += 1
            self.now += self.sleep
        return []

    def waits_that_polled(self, linger, waits):
        polled = 0
        for _ in range(waits):
            before = self.polls
            linger.wait(None)
            polled += self.polls > before
        return polled


@pytest.fixture
def idle(monkeypatch):
    """``idle(sleep)``: an :class:`Idle` whose clock is the linger's."""

    def idle(sleep):
        poll = Idle(sleep)
        monkeypatch.setattr(linger_module, "monotonic", lambda: poll.now)
        return poll

    return idle


def test_the_linger_gives_up_where_nothing_comes_soon(idle):
    poll = idle(0.1)
    linger = Linger(poll, 1e-4, nothing_done)
    assert poll.waits_that_polled(linger, 130) == 7  # the waits 0, 2, 6, 14, 30, 62 and 126
    assert poll.sleeps == 130


def test_the_linger_tries_longer_where_something_may_come(idle):
    poll = idle(0)
    linger = Linger(poll, 1e-4, nothing_done)
    assert poll.waits_that_polled(linger, 4) == 4
    assert poll.waits_that_polled(linger, 1) == 0
    assert poll.waits_that_polled(linger, 4) == 4


def test_a_hit_encourages_the_linger():
    found = []
    linger = Linger(lambda timeout: found, 1e-6, nothing_done)
    for _ in range(100):
        linger.wait(0.001)
    found.append("ready")
    polled = Idle(0)
    linger._poll = lambda timeout: found if timeout == 0 else polled(timeout)
    for _ in range(200):
        linger.wait(None)
    assert polled.sleeps < 63 + 31 + 15 + 7


def test_the_linger_polls_before_it_sleeps():
    calls = []

    def poll(timeout):
        calls.append(timeout)
        return ["ready"] if len(calls) == 3 else []

    assert Linger(poll, 1.0, nothing_done).wait(None) == ["ready"]
    assert calls == [0, 0, 0]
    calls.clear()
    off = Linger(poll, 0, nothing_done)
    assert off.wait(0.5) == []
    assert calls == [0.5]


# Whether it pays


class World:
    """A clock, a processor's clock, and a trial between requests. Times are in microseconds.

    ``quota``: of processor time in each tenth of a second, as of a cgroup (cgroups(7)).
    """

    def __init__(self, quota=float("inf")):
        self.trial, self.now, self.cpu, self.done, self.polled = Trial(), 0.001, 0.0, 0, 0
        self.quota, self.period, self.had, self.throttled = quota, 0, 0.0, 0

    def live(self, load, requests):
        """``load``: what a request takes, and what it costs: first without polling, then with."""
        each, cpu = load
        trial = self.trial
        for _ in range(requests):
            now = self.now / 1e6
            if now >= trial.due and self.done >= trial.due_done:
                trial.step(now, self.cpu / 1e6, self.done)
            polls = trial.polls
            self.now += each[polls]
            self.cpu += cpu[polls]
            self.polled += polls
            self.done += 1
            self.throttle(polls)

    def throttle(self, polls):
        """Who has used up the quota goes on with the next period."""
        if self.now // 100_000 != self.period:
            self.period, self.had = self.now // 100_000, self.cpu
        if self.cpu - self.had < self.quota:
            return
        late = (self.period + 1) * 100_000 - self.now
        self.now += late
        self.throttled += 1
        if polls and late >= PREEMPTED * 1e6:
            self.trial.preempted(self.now / 1e6, late / 1e6)


OPEN = (16, 16), (7, 16)  # requests come by themselves,
CLOSED = (17, 11), (8, 12)  # after the reply to the last one,
EQUAL = (3, 3), (3, 3)  # so many that nobody ever sleeps,
CHEAPER = (20, 20), (9, 8)  # or so that polling spares work


@pytest.mark.parametrize(("load", "pays"), [(OPEN, False), (CLOSED, True), (EQUAL, False), (CHEAPER, True)])
def test_what_a_trial_finds(load, pays):
    world = World()
    world.live(load, 20_000)
    assert world.trial.pays is pays


def test_what_finding_out_costs():
    world = World()
    world.live(OPEN, 1_000_000)
    assert world.polled == pytest.approx(5670, rel=0.02)  # as in C, but for the rounding of the clock
    world = World()
    world.live(CLOSED, 1_000_000)
    assert 1_000_000 - world.polled == pytest.approx(4130, rel=0.02)


def test_a_load_that_changes():
    world = World()
    world.live(OPEN, 1_000_000)
    world.live(CLOSED, 100_000)
    assert world.trial.pays
    world.live(OPEN, 100_000)
    assert not world.trial.pays


def test_one_pair_is_disturbed():
    world = World()
    world.live(OPEN, 100)
    world.now += 20_000  # while it didn't poll
    world.live(OPEN, 2000)
    assert not world.trial._half
    assert not world.trial.pays


def test_an_idle_half_is_measured_again():
    world = World()
    world.live(OPEN, 100)
    assert world.trial._half == 2
    world.now += HALF_MOST * 1e6
    world.live(OPEN, 1)
    assert world.trial._half == 2
    world.live(OPEN, 63)
    assert world.trial._half == 3
    assert world.now / 1e6 - world.trial._start < HALF_MOST  # it's no part of the trial


def test_a_quota():
    """A request takes less with polling, but not under half a processor."""
    world = World(quota=50_000)
    world.live(CLOSED, 600_000)
    assert world.throttled == 6  # as in C
    assert world.trial._withdrawn == 4
    assert not world.trial.pays


def test_a_quota_that_stays():
    """And one that is gone: polling that lasts makes up for polling that didn't."""
    trial, now = Trial(), 0.0
    for _ in range(WITHDRAWN_MAX + 1):
        trial.pays, trial._start = True, now
        trial.preempted(now + 0.06, 0.05)
        assert not trial.pays
        waited, now = trial.due - (now + 0.06), trial.due
    assert waited == pytest.approx(HOLD * 4**WITHDRAWN_MAX)
    world = World()
    world.trial = trial
    world.now = now * 1e6
    world.live(CLOSED, 60_000)
    assert trial.pays
    assert trial._withdrawn < WITHDRAWN_MAX


def test_a_neighbour_now_and_then():
    world = World()
    world.live(CLOSED, 10_000)
    assert not world.trial._half
    for _ in range(20):
        world.live(CLOSED, 20_000)
        world.now += PREEMPTED * 1e6
        world.trial.preempted(world.now / 1e6, PREEMPTED)
    assert world.trial.pays
    assert not world.trial._withdrawn


@pytest.mark.parametrize(("window", "finds", "pays"), [(None, 0, False), (None, 1, False), (USUAL, 0, True)])
def test_a_poll_that_ends_late(monkeypatch, window, finds, pays):
    """A number is obeyed: it asks no trial. And what ends late counts, also where it has found something."""
    clock = [0.0]
    monkeypatch.setattr(linger_module, "monotonic", lambda: clock[0])
    polls = []

    def poll(timeout):
        polls.append(timeout)
        clock[0] += 0.01 if timeout == 0 and len(polls) > 1 else 0
        return ["ready"] * finds if len(polls) > 1 else []

    linger = Linger(poll, window, nothing_done)
    trial = linger._trial = Trial() if window is None else None
    paying = trial or Trial()
    paying.pays, paying.due, paying._start = True, 1000.0, 999.98
    linger._due = 1  # nothing is looked at before
    linger.wait(None)
    assert paying.pays is pays


def test_without_a_number_the_trial_decides(monkeypatch):
    """Polls and sleeps of the linger, each of which finds one request, by a clock that goes on by 1 ms each time."""
    calls, clock = [], [0.0]
    monkeypatch.setattr(linger_module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(linger_module, "thread_time", lambda: clock[0])

    def poll(timeout):
        calls.append(timeout)
        clock[0] += 0.001
        return ["ready"]

    def row(linger):
        calls.clear()
        for _ in range(34):
            linger.wait(None)
        return calls[-1]

    linger = Linger(poll, None, lambda: round(clock[0] * 1000))
    assert linger._window == USUAL
    assert [row(linger) for _ in range(5)] == [0, None, None, 0, 0]  # with, without, without, with, with
    given = Linger(poll, USUAL, nothing_done)
    assert [row(given) for _ in range(5)] == [0] * 5
