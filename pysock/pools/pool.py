"""A pool: the workers of one service, each a thread, and what the engine calls in the place of the handler.

The loop hands a request over and goes on. A worker takes it, when a worker is free and it is its turn; what the handler
made of it is the request's answer, from the worker's thread. Whatever a handler raises ends here, as in the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.logs import WARNING, Seldom
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.errors import Overloaded, PysockError
from pysock.pools.jobs import Job, Jobs

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.data import DataSocket
    from pysock.engine.contract import Engine

#: How long the end of a pool waits for workers that have nothing to do, in seconds.
_PATIENCE: Final = 0.2


class Worker(Protocol):
    """Where handlers run: called in one thread, but for ``kill`` and ``end``."""

    def start(self) -> None:
        """Begin to make what it needs."""

    def await_start(self) -> None:
        """Wait until it can work.

        :raises PysockError: it can't.
        """

    def answer(self, job: Job) -> Any:
        """Run the handler: what it returned, or an ``Exception``."""

    def renew(self, closing: threading.Event) -> None:
        """After a job: be ready for the next one, however long that takes; but not after ``closing``."""

    def kill(self, job: Job) -> None:
        """If it is at this job: end it, where that can be done."""

    def end(self) -> None:
        """It has nothing to do any more, whatever it does now. It doesn't wait."""

    def await_end(self) -> None:
        """Wait for that, for a moment."""

    def abandon(self) -> None:
        """In a forked child: forget what is the parent's."""


class Pool(Unique):
    """Those of one service.

    :param name: of the service.
    :param most: how many requests may wait; ``None``: any number.
    :param kill: whether a worker whose request is late is to be killed.
    :param finishes: whether what a client that has left has asked for is begun all the same.
    """

    def __init__(
        self, name: str, workers: Sequence[Worker], most: int | None, kill: bool = False, finishes: bool = False
    ) -> None:
        self.name: str = name
        self.finishes: bool = finishes
        self.title: str = repr(name) if name else "(unnamed)"
        self.jobs: Jobs = Jobs(most)
        self._workers = workers
        self._kill = kill
        self._closing = threading.Event()
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
        return Job(self, client, request, row)

    def _tell_overloaded(self) -> None:
        self._overloaded.tell(self.title, self.jobs.most or 0, len(self._workers))

    def unwanted(self, job: Job, why: Ended) -> None:
        """It runs, and nobody waits for it any more."""
        if self._kill and why == Ended.LATE:
            for worker in self._workers:
                worker.kill(job)

    # The workers' threads

    def _work(self, worker: Worker) -> None:
        while (job := self.jobs.take()) is not None:
            answer = worker.answer(job)
            try:
                job.answer(answer)
                if job.after_reply is not None:
                    self._do_after(job.after_reply)
            except PysockError:  # this is a child, for the handler has forked: nobody waits here
                pass
            except Exception:
                log.exception("service %s: an answer is lost", self.title)
            del job, answer  # they may be large, and the next one may be long in coming
            worker.renew(self._closing)

    def _do_after(self, functions: list[Callable[[], object]]) -> None:
        for function in functions:
            self._engine.call_later(function)

    # Life

    def start(self) -> None:
        """Make the workers, and wait until all of them can work.

        :raises PysockError: one can't.
        """
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            worker.await_start()
        for number, worker in enumerate(self._workers, 1):
            name = f"pysock-{self.title}-{number}"
            thread = threading.Thread(target=self._work, args=(worker,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """No request is begun any more; workers that are at one are left to themselves."""
        self._closing.set()
        self.jobs.close()
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.await_end()
        until = monotonic() + _PATIENCE
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - monotonic()))
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if hanging:
            log.warning("service %s: its handler hasn't returned in %s", self.title, ", ".join(hanging))

    def abandon(self) -> None:
        """In a forked child: its threads aren't here, its processes are the parent's."""
        self._closing = threading.Event()
        self._closing.set()
        self.jobs.abandon()
        for worker in self._workers:
            worker.abandon()

    def serves_here(self) -> bool:
        """Whether this thread is one of its workers'."""
        return threading.current_thread() in self._threads
