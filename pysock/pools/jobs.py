"""The requests that wait for a worker of one pool: how many, whose turn it is, and which of them are never run.

Each client has a line of its own, and the lines take turns, so a request waits for one of each other client at most,
however many those have sent. Where all places are taken, who has most of them gives one back: its newest, which wasn't
started, so that one client can't keep all others out.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import OrderedDict
from collections.abc import Callable
from queue import SimpleQueue

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended, Kept
from pysock.errors import Overloaded
from pysock.replies.current import Request

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.data import DataSocket
    from pysock.engine.contract import Engine
    from pysock.engine.rows import Current
    from pysock.pools.pool import Pool

WAITS: Final = 0
RUNS: Final = 1
#: It is not to be run any more.
IS_OFF: Final = 2


class Job(Kept):
    """One request. Whoever takes it answers it, and nobody else does: so it needs no lock of its own, and its state
    belongs to that of the jobs.

    :ivar row: what the engine knows of it.
    :ivar begun_at: when a worker had it, on the monotonic clock; 0: none has.
    :ivar why: why nobody waits for its answer any more.
    :ivar after_reply: what the handler wants to be done then, if anything.
    """

    __slots__ = ("_engine", "_handle", "after_reply", "begun_at", "client", "pool", "request", "row", "state", "why")

    def __init__(self, pool: Pool, client: DataSocket, request: bytes, row: Current) -> None:
        self.pool: Pool = pool
        self.client: DataSocket = client
        self.request: bytes = request
        self.row: Current = row
        self.state: int = IS_OFF
        self.begun_at: float = 0.0
        self.why: Ended | None = None
        self.after_reply: list[Callable[[], object]] | None = None

    def begin(self, engine: Engine, handle: int) -> bool:
        """It has a handle by now, so it may be taken. With none there is nobody to answer."""
        self._engine = engine
        self._handle = handle
        if handle:
            self.pool.put(self)
        return True

    def tell(self, why: Ended) -> bool:
        """Nobody waits for its answer any more: if it hasn't begun, it never will."""
        self.why = why
        if not self.is_wanted and self.pool.jobs.withdraw(self):
            return False
        self.pool.unwanted(self, why)
        return True

    def answer(self, reply: Any) -> None:
        """Its work is over: as :meth:`pysock.engine.contract.Engine.answer`."""
        self._engine.answer(self._handle, reply)

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
        return Request(self.client, self.pool.name, self.row, self._call_after, lambda: not self.is_waited_for)

    def _call_after(self, function: Callable[[], object]) -> None:
        if self.after_reply is None:
            self.after_reply = []
        self.after_reply.append(function)


class Jobs(Unique):
    """Those of one pool. They are put in by one thread, the loop's.

    :param most: how many may wait; ``None``: any number.
    """

    def __init__(self, most: int | None) -> None:
        self.most: int | None = most
        #: Those of each client, oldest first; the client whose turn it is first.
        self._lines: OrderedDict[DataSocket, OrderedDict[Job, None]] = OrderedDict()
        self._waiting = 0
        self._idle = 0  # workers that wait for a token
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._lock = allocate_lock()
        self._closed = False

    def make_room(self, client: DataSocket) -> Job | None:
        """For one more of this client. Return the one that has to go for it, if any.

        :raises Overloaded: none goes for that.
        """
        if self.most is None or self._waiting < self.most:
            return None
        with self._lock:
            return self._newest_of_most(client) if self._waiting >= self.most else None

    def put(self, job: Job) -> None:
        """Let it wait."""
        with self._lock:
            job.state = WAITS
            line = self._lines.get(job.client)
            if line is None:
                line = self._lines[job.client] = OrderedDict()
            line[job] = None
            self._waiting += 1
            wakes = self._idle > 0
            self._idle -= wakes
        if wakes:
            self._tokens.put(None)

    def begin(self, job: Job) -> None:
        """One that needn't wait."""
        job.begun_at = monotonic()
        with self._lock:
            job.state = RUNS

    def next(self) -> Job | None:
        """The next one, which begins now; ``None``: none waits."""
        with self._lock:
            return self._next()

    def take(self) -> Job | None:
        """As ``next``, but it waits for one; ``None``: there will be no more."""
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
                self._take_out(job)
            return job.state == IS_OFF

    def close(self) -> None:
        """What waits is never begun, and who takes gets ``None``."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
            for line in self._lines.values():
                for job in line:
                    job.state = IS_OFF
            self._lines.clear()
        for _ in range(idle):
            self._tokens.put(None)

    def abandon(self) -> None:
        """In a forked child: as ``close``, without the lock, which a thread may have that isn't here."""
        self._closed = True
        self._lock = allocate_lock()

    # With the lock

    def _next(self) -> Job | None:
        lines = self._lines
        while lines:
            client, line = lines.popitem(last=False)
            job, _ = line.popitem(last=False)
            if line:
                lines[client] = line
            self._waiting -= 1
            if (job.why is None and not job.row.deadline) or job.is_wanted:
                job.state, job.begun_at = RUNS, monotonic()
                return job
            job.state = IS_OFF  # the loop asks for that in a moment
        return None

    def _newest_of_most(self, client: DataSocket) -> Job:
        own = len(self._lines.get(client, ())) + 1
        if self._waiting > own * len(self._lines):  # else it has no less than the others have on average
            most = max(self._lines.values(), key=len)
            if len(most) > own:
                victim = next(reversed(most))
                self._take_out(victim)
                return victim
        raise Overloaded

    def _take_out(self, job: Job) -> None:
        job.state = IS_OFF
        line = self._lines[job.client]
        del line[job]
        if not line:
            del self._lines[job.client]
        self._waiting -= 1
