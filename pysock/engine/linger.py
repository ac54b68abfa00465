"""Polling before a sleep: when something may be found, and whether that is worth its price.

``csrc/base/linger.h`` and ``csrc/base/trial.h`` have the same rules, with the reasons and the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from threading import get_ident
from time import thread_time

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import Final

Events = TypeVar("Events", bound=Sized)

#: Seconds to poll where nobody has said how long.
USUAL: Final = 20e-6
#: Windows: after a sleep that lasted longer than so many, nothing would have come soon.
_FAR: Final = 5
#: Polls in vain in a row, where something might come soon.
_TRIES: Final = 4
#: Where nothing does, one wait in 2 ** so many polls.
_MISSES_MAX: Final = 6

#: Odd: polling or sleeping has more votes.
PAIRS: Final = 5
#: Requests at least in each half of a pair,
DONE: Final = 32
#: and so much time;
HALF: Final = 0.001
#: one that took longer was idle most of it, and is tried again.
HALF_MOST: Final = 0.1
#: What was found holds so long at first,
HOLD: Final = 0.064
#: doubled so often at most,
HOLDS_MAX: Final = 4
#: and so many times as long as the trial took at least.
HOLD_TRIALS: Final = 16
#: What polling must cost less than, of the price without, in percent.
PERCENT: Final = 95

#: A poll that ends so late was taken off the processor;
PREEMPTED: Final = 0.005
#: polling ends where it loses more than this part of its time so, for it gains less,
PREEMPTED_PART: Final = 4
#: for four times as long each time, so often at most.
WITHDRAWN_MAX: Final = 5


class Trial:
    """Whether polling pays, found out by trying.

    Where a method takes them, ``now`` is the monotonic clock's, ``cpu`` what the thread has used, in seconds both;
    ``done`` are the requests so far.
    """

    __slots__ = (
        "_cpu",
        "_done",
        "_half",
        "_holds",
        "_now",
        "_preempted",
        "_price",
        "_start",
        "_votes",
        "_withdrawn",
        "due",
        "due_done",
        "pays",
    )

    def __init__(self) -> None:
        self.due: float = 0.0
        self.due_done: int = 0
        self.pays: bool = False
        self._start = self._now = self._cpu = self._price = self._preempted = 0.0
        self._done = self._half = self._votes = self._holds = self._withdrawn = 0

    @property
    def polls(self) -> bool:
        """Whether a wait is to poll: with, without, without, with; between the trials, what was found."""
        return not self._half & 2 if self._half else self.pays

    def step(self, now: float, cpu: float, done: int) -> None:
        """What was due has come."""
        if not self._half:
            self._start, self._votes, self._half = now, 0, 1
        elif now - self._now > HALF_MOST:
            self._start += now - self._now
        else:
            self._vote(self._price_of(now, cpu, done))
            if self._half == 2 * PAIRS:
                self._end(now, done)
                return
            self._half += 1
        self.begin_half(now, cpu, done)

    def begin_half(self, now: float, cpu: float, done: int) -> None:
        """Measure from here on."""
        self._now, self._cpu, self._done = now, cpu, done
        self.due, self.due_done = now + HALF, done + DONE

    def _price_of(self, now: float, cpu: float, done: int) -> float:
        count = done - self._done
        each = (now - self._now) / count
        return (cpu - self._cpu) / count * each * each

    def _vote(self, price: float) -> None:
        if self._half & 1:
            self._price = price
            return
        polled, slept = (price, self._price) if self.polls else (self._price, price)
        self._votes += 100 * polled < PERCENT * slept

    def _end(self, now: float, done: int) -> None:
        pays = self._votes > PAIRS // 2
        self._holds = min(self._holds + 1, HOLDS_MAX) if pays == self.pays else 0
        self._withdrawn = max(0, self._withdrawn - self.pays)
        self.pays = pays
        self._half = 0
        self._preempted = 0.0
        self.due = now + max(HOLD * 2**self._holds, HOLD_TRIALS * (now - self._start))
        self.due_done = done

    def preempted(self, now: float, late: float) -> None:
        """A poll has ended so much too late, ``PREEMPTED`` at least. In a trial the price tells."""
        if self._half or not self.pays:
            return
        self._preempted += late
        if PREEMPTED_PART * self._preempted <= max(now, self.due) - self._start:
            return
        self._withdrawn = min(self._withdrawn + 1, WITHDRAWN_MAX)
        self.pays = False
        self._holds = 0
        self.due = now + HOLD * 4**self._withdrawn


class Linger(Generic[Events]):
    """Polling without sleeping before a wait, for ``window`` seconds; ``None``: as long as usual, where that pays.

    ``done`` says how many requests there were so far; it is asked once a millisecond at most, and not while nothing
    happens.
    """

    __slots__ = ("_done", "_due", "_events", "_misses", "_poll", "_skip", "_thread", "_trial", "_tries", "_window")

    def __init__(self, poll: Callable[[float | None], Events], window: float | None, done: Callable[[], int]) -> None:
        self._poll = poll
        self._window = USUAL if window is None else window
        self._misses = self._tries = self._skip = 0
        self._trial = Trial() if window is None else None
        self._done = done
        self._events = self._due = self._thread = 0

    def wait(self, timeout: float | None) -> Events:
        """Poll, then sleep; what the poll found."""
        if timeout == 0 or not self._window:
            return self._poll(timeout)
        trial = self._trial
        if trial is not None:
            if self._events >= self._due:
                self._look(trial)
            found = self._poll_or_sleep(timeout) if trial.polls else self._poll(timeout)
            self._events += len(found)
            return found
        return self._poll_or_sleep(timeout)

    def _poll_or_sleep(self, timeout: float | None) -> Events:
        if self._skip:
            self._skip -= 1
            return self._poll(timeout)
        return self._linger(self._window if timeout is None else min(self._window, timeout), timeout)

    def _look(self, trial: Trial) -> None:
        """So much has happened that something may be due."""
        now = monotonic()
        if now < trial.due:
            return
        done, thread = self._done(), get_ident()
        if thread != self._thread:  # what it began on another thread's clock
            self._thread = thread
            trial.begin_half(now, thread_time(), done)
        elif done >= trial.due_done:
            trial.step(now, thread_time(), done)
        self._due = self._events + DONE

    def _linger(self, window: float, timeout: float | None) -> Events:
        poll = self._poll
        found = poll(0)
        now = monotonic()
        end = now + window
        while not found and now < end:
            found = poll(0)
            now = monotonic()
        if self._trial is not None and now >= end + PREEMPTED:
            self._trial.preempted(now, now - end)
        if found:
            self._tries = 0
            self._misses //= 2
            return found
        found = poll(None if timeout is None else max(0.0, timeout - window))
        self._missed(monotonic() - end)
        return found

    def _missed(self, slept: float) -> None:
        self._tries += 1
        if slept < _FAR * self._window and self._tries < _TRIES:
            return
        self._tries = 0
        self._misses = min(self._misses + 1, _MISSES_MAX)
        self._skip = (1 << self._misses) - 1
