"""The requests that wait for a worker of one pool: how many, whose turn it is, and which of them are never run.

Each client has a line of its own, and the lines take turns, so a request waits for one of each other client at most,
however many those have sent. Where all places are taken, who has most of them gives one back: its newest, which wasn't
started, so that one client can't keep all others out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.deferral import Deferred, Ended
from pysock.replies.current import Request

if TYPE_CHECKING:
    from typing import Final

    from pysock.data import DataSocket
    from pysock.engine.contract import Current
    from pysock.pools.pool import Pool

WAITS: Final = 0
RUNS: Final = 1
#: It is not to be run any more.
IS_OFF: Final = 2

#: So many that are off stay in a line beside as many that wait.
_OFF_MAX: Final = 16


class Job(Deferred):
    """One request. Its state belongs to the lock of the jobs.

    :ivar row: what the engine knows of it.
    :ivar after_reply: what the handler wants to be done then.
    """

    __slots__ = ("after_reply", "client", "pool", "request", "row", "state")

    def __init__(self, pool: Pool, client: DataSocket, request: bytes, row: Current) -> None:
        super().__init__()
        self.pool: Pool = pool
        self.client: DataSocket = client
        self.request: bytes = request
        self.row: Current = row
        self.state: int = WAITS
        self.after_reply: list[Callable[[], object]] = []

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for its answer, as far as is known here. What is late the loop may not know yet."""
        return self.why is None and (not self.row.deadline or monotonic() < self.row.deadline)

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be begun."""
        return self.is_waited_for or (self.why == Ended.GONE and self.pool.finishes)

    def current(self) -> Request:
        """What :func:`pysock.current` returns in its handler."""
        return Request(self.client, self.pool.name, self.row, self.after_reply.append, lambda: not self.is_waited_for)

    def ended(self, why: Ended) -> bool:
        """Nobody waits for its answer any more: if it hasn't begun, it never will."""
        if not self.is_wanted and self.pool.jobs.withdraw(self):
            return False
        self.pool.unwanted(self, why)
        return True


class _Line:
    """Those of one client, oldest first."""

    __slots__ = ("jobs", "waiting")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.waiting: int = 0


class Jobs(Unique):
    """Those of one pool.

    :param most: how many may wait; ``None``: any number.
    """

    def __init__(self, most: int | None) -> None:
        self.most: int | None = most
        self._lines: dict[DataSocket, _Line] = {}
        self._turns: deque[_Line] = deque()  # those in which a job waits, or one that is off
        self._waiting = 0
        self._idle = 0  # workers that wait for a token
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def put(self, job: Job) -> Job | None:
        """Let it wait. Return the one that has to go for it, which may be itself.

        In one thread only, the loop's.
        """
        with self._lock:
            victim = None
            if self.most is not None and self._waiting >= self.most:
                victim = self._newest_of_most(job)
                if victim is job:
                    return job
            self._append(job)
            wakes = self._idle > 0
            self._idle -= wakes
        if wakes:
            self._tokens.put(None)
        return victim

    def take(self) -> Job | None:
        """The next one, which begins now. It waits for one; ``None``: there will be no more."""
        while not self._closed:
            with self._lock:
                job = self._next()
                if job is not None:
                    return job
                self._idle += 1
            self._tokens.get()
        return None

    def withdraw(self, job: Job) -> bool:
        """It isn't to be run; ``False``: it was begun already."""
        with self._lock:
            if job.state == WAITS:
                line = self._lines.get(job.client)
                if line is None:  # after close()
                    job.state = IS_OFF
                else:
                    self._off(job, line)
            return job.state == IS_OFF

    def close(self) -> None:
        """What waits is never begun, and who takes gets ``None``."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
            self._lines.clear()
            self._turns.clear()
        for _ in range(idle):
            self._tokens.put(None)

    def abandon(self) -> None:
        """In a forked child: as ``close``, without the lock, which a thread may have that isn't here."""
        self._closed = True
        self._lock = threading.Lock()

    # With the lock

    def _append(self, job: Job) -> None:
        line = self._lines.get(job.client)
        if line is None:
            line = self._lines[job.client] = _Line()
            self._turns.append(line)
        line.jobs.append(job)
        line.waiting += 1
        self._waiting += 1

    def _next(self) -> Job | None:
        turns = self._turns
        while turns:
            line = turns.popleft()
            job = line.jobs.popleft()
            while job.state != WAITS and line.jobs:
                job = line.jobs.popleft()
            if line.jobs:
                turns.append(line)
            else:
                del self._lines[job.client]
            if job.state == WAITS:
                line.waiting -= 1
                self._waiting -= 1
                if job.is_wanted:
                    job.state = RUNS
                    return job
                job.state = IS_OFF  # the loop asks for that in a moment
        return None

    def _newest_of_most(self, job: Job) -> Job:
        line = self._lines.get(job.client)
        own = 1 if line is None else line.waiting + 1
        if self._waiting <= own * len(self._lines):  # no less than the others have on average
            return job
        most = max(self._turns, key=lambda line: line.waiting)
        if most.waiting <= own:
            return job
        victim = next(other for other in reversed(most.jobs) if other.state == WAITS)
        self._off(victim, most)
        return victim

    def _off(self, job: Job, line: _Line) -> None:
        job.state = IS_OFF
        line.waiting -= 1
        self._waiting -= 1
        if len(line.jobs) > 2 * line.waiting + _OFF_MAX:  # so that cancelling costs no memory
            line.jobs = deque(other for other in line.jobs if other.state == WAITS)
        if not line.jobs:
            del self._lines[job.client]
            self._turns.remove(line)
