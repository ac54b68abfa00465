"""A pool: the workers of one service, and what the engine calls in the place of the handler.

The loop hands a request over and goes on. A worker begins it, when one is free and it is its turn; what the handler
made of it is the request's answer. Which workers there are is said in ``threads.py`` and ``processes.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import WARNING, Seldom
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import Overloaded, PysockError
from pysock.pools.jobs import Job, Jobs

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.data import DataSocket
    from pysock.engine.contract import Engine
    from pysock.engine.deferral import Ended

#: How long the end of a pool waits for threads that have nothing to do, in seconds.
_PATIENCE: Final = 0.2


class Pool(Unique):
    """Those of one service.

    :param name: of the service.
    :param size: how many workers there are.
    :param most: how many requests may wait; ``None``: any number.
    :param finishes: whether what a client that has left has asked for is begun all the same.
    """

    _job: type[Job] = Job

    def __init__(self, name: str, size: int, most: int | None, finishes: bool = False) -> None:
        self.name: str = name
        self.size: int = size
        self.finishes: bool = finishes
        self.title: str = repr(name) if name else "(unnamed)"
        self.jobs: Jobs = Jobs(most)
        self.closing: threading.Event = threading.Event()
        self._threads: list[threading.Thread] = []
        self._engine: Engine
        self._overloaded = Seldom(log, WARNING, "service %s is overloaded: %d requests wait for its %d workers")

    def serve(self, engine: Engine) -> None:
        """It is this one that asks."""
        self._engine = engine

    # In the loop's thread

    def ask(self, client: DataSocket, request: bytes) -> Job:
        """The engine's handler.

        :raises Overloaded: too many wait.
        """
        row = self._engine.current()
        assert row is not None  # it is the engine that asks
        try:
            refused = self.jobs.make_room(client)
        except Overloaded:
            self._tell_overloaded()
            raise
        if refused is not None:
            self._tell_overloaded()
            refused.answer(Overloaded())
        return self._job(self, client, request, row)

    def _tell_overloaded(self) -> None:
        self._overloaded.tell(self.title, self.jobs.most or 0, self.size)

    def put(self, job: Job) -> None:
        """It may be begun."""
        self.jobs.put(job)

    def unwanted(self, job: Job, why: Ended) -> None:
        """It runs, and nobody waits for it any more."""

    # Whoever has worked

    def answer(self, job: Job, reply: Any) -> None:
        """Its work is over: what the handler returned, or an ``Exception``."""
        try:
            job.answer(reply)
            if job.after_reply is not None:
                for function in job.after_reply:
                    self._engine.call_later(function)
        except PysockError:  # this is a child, for the handler has forked: nobody waits here
            pass
        except Exception:
            log.exception("service %s: an answer is lost", self.title)

    # Life

    def start(self) -> None:
        """Make the workers, and wait until all of them can work.

        :raises PysockError: one can't.
        """
        raise NotImplementedError

    def close(self) -> None:
        """No request is begun any more; threads that are at one are left to themselves."""
        self.closing.set()
        self.jobs.close()
        self._end_workers()
        until = monotonic() + _PATIENCE
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - monotonic()))
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if hanging:
            log.warning("service %s: its handler hasn't returned in %s", self.title, ", ".join(hanging))

    def abandon(self) -> None:
        """In a forked child: its threads aren't here, its processes are the parent's."""
        self.closing = threading.Event()
        self.closing.set()
        self.jobs.abandon()

    def serves_here(self) -> bool:
        """Whether this thread is one of its own, whose end must not be waited for in it."""
        return threading.current_thread() in self._threads

    def _start_thread(self, work: Callable[[], None]) -> None:
        name = f"pysock-{self.title}-{len(self._threads) + 1}"
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _end_workers(self) -> None:
        """Those that don't end by themselves when there is nothing to take."""
