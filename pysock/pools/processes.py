"""Workers that are processes: each has a Python of its own that knows the handler by its name.

The loop's own thread sends a request to one that is free, and the engine's poll tells it of the answer: so no other
thread has to wake for that. One for each process starts it, and another one when it has died: at once the first time,
later and later if the next ones don't live long. Whatever a process was at when it died fails.

They are started anew, never forked: what a child would have of this one are threads that aren't there and locks that
nobody lets go of.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from pysock.base import forking
from pysock.base.clock import monotonic
from pysock.base.imported import refuse_while_imported
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.errors import PysockError, RemoteError
from pysock.pools.channel import Exchange, FromWorker, answer_of, receive
from pysock.pools.jobs import Job
from pysock.pools.pool import Pool
from pysock.pools.target import check_target
from pysock.pools.worker import FORMER_PATH, PATH

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.contract import Engine

#: What the client is told whose request a process was at.
DIED: Final = "worker died"

#: A process that lived so long is replaced at once, in seconds; the first pause after one that didn't, and the longest.
_LIVED: Final = 5.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: How long a process that has nothing to do may take to end, in seconds.
_PATIENCE: Final = 0.5


class Processes(Pool):
    """Those of one service; see :class:`pysock.pools.pool.Pool`.

    :param target: the handler's name, as of :func:`pysock.pools.target.target_of`.
    :param kill: whether a worker whose request is late is to be killed.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[bytes], Any],
        target: str,
        size: int,
        most: int | None,
        kill: bool = False,
        finishes: bool = False,
    ) -> None:
        super().__init__(name, size, most, finishes)
        self._handler = handler
        self._target = target
        self._kill = kill
        self.processes: list[Process] = [Process(self, target) for _ in range(size)]
        self._free: list[Process] = []  # of the loop's thread; while there is one no job waits

    def start(self) -> None:
        """As :meth:`Pool.start`; all of them start at once."""
        refuse_while_imported()  # a module that starts its server at its top level, in a worker
        check_target(self._target, self._handler)
        for process in self.processes:
            process.start()
        for process in self.processes:
            process.await_start()
        for process in self.processes:
            self._start_thread(process.keep)

    def serve(self, engine: Engine) -> None:
        """It is this one that asks, and that watches them."""
        super().serve(engine)
        if self.closing.is_set():
            return
        for process in self.processes:
            process.begin(engine)

    # In the loop's thread

    def put(self, job: Job) -> None:
        """It may be begun: at once, if one is free."""
        if self._free:
            self.jobs.begin(job)
            self._free.pop().ask(job)
        else:
            super().put(job)

    def is_free(self, process: Process) -> None:
        """It can be asked."""
        job = self.jobs.next()
        if job is None:
            self._free.append(process)
        else:
            process.ask(job)

    def is_lost(self, process: Process) -> None:
        """It can't be asked any more."""
        if process in self._free:
            self._free.remove(process)

    def unwanted(self, job: Job, why: Ended) -> None:
        """It runs, and nobody waits for it any more."""
        if self._kill and why == Ended.LATE:
            for process in self.processes:
                process.kill(job)

    # The end

    def _end_workers(self) -> None:
        for process in self.processes:
            process.end()
        for process in self.processes:
            process.end_process(_PATIENCE)

    def abandon(self) -> None:
        """In a forked child."""
        super().abandon()
        for process in self.processes:
            process.abandon()


class Process(Unique):
    """One of them, and those that take its place."""

    def __init__(self, pool: Processes, target: str) -> None:
        self._pool = pool
        self._target = target
        self._lock = threading.Lock()  # of the next three
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._started = 0.0
        self._pause = 0.0
        # In the loop's thread
        self._engine: Engine
        self._exchange: Exchange
        self._fd = -1
        self._sends = False  # a request, of which not all was taken yet
        self.job: Job | None = None
        #: Whoever keeps it is to look.
        self._lost = threading.Event()
        self._was_asked = False

    # The beginning of one

    def start(self) -> None:
        """Start a process, and don't wait for it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                if self._ended:
                    raise PysockError("the pool has ended")
                forking.own_socket(ours)
                self._process = self._spawn(theirs.fileno())
                self._socket = ours
        except BaseException:
            ours.close()
            raise
        self._started = monotonic()

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        flags = [flag for flag in subprocess._args_from_interpreter_flags() if flag not in {"-I", "-E"}]  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-m", "pysock.pools.worker", self._target, str(fd)]
        environment = os.environ | {PATH: os.pathsep.join(path or os.getcwd() for path in sys.path)}
        if PATH in os.environ:
            environment[FORMER_PATH] = os.environ[PATH]
        return subprocess.Popen(command, env=environment, pass_fds=[fd], stdin=subprocess.DEVNULL)  # noqa: S603  # our own command

    def await_start(self) -> None:
        """Wait until it has imported the handler.

        :raises PysockError: it couldn't.
        """
        sock = self._socket
        assert sock is not None
        try:
            error = answer_of(receive(sock))
            sock.setblocking(False)
        except (EOFError, OSError):
            error = self._how_it_ended()
        if isinstance(error, Exception):
            self.end_process(0.0)
            why = f"{type(error).__name__}: {error}" if isinstance(error.__cause__, FromWorker) else str(error)
            raise PysockError(f"a worker process can't import {self._target}: {why}") from error

    # In the loop's thread

    def begin(self, engine: Engine) -> None:
        """It has been started, and can be asked."""
        with self._lock:
            sock = self._socket
            if self._ended or sock is None:
                return
            self._engine, self._fd, self._exchange = engine, sock.fileno(), Exchange(sock)
            engine.watch(self._fd, self._go_on)
        self._pool.is_free(self)

    def ask(self, job: Job) -> None:
        """Have it run the handler."""
        self.job = job
        try:
            self._sends = not self._exchange.send(job.request)
            if self._sends:
                self._engine.watch(self._fd, self._go_on, writes=True)
        except OSError:
            self._is_lost()

    def _go_on(self) -> None:
        """It has room for more of the request, or has answered, or is gone."""
        try:
            if self._sends and self._exchange.go_on():
                self._sends = False
                self._engine.watch(self._fd, self._go_on)
            message = self._exchange.receive()
        except (EOFError, OSError):
            self._is_lost()
            return
        job = self.job
        if message is not None and job is not None:
            self.job = None
            self._pool.answer(job, answer_of(message))
            self._pool.is_free(self)

    def _is_lost(self) -> None:
        with suppress(OSError):
            self._engine.watch(self._fd, None)
        self._pool.is_lost(self)
        job, self.job = self.job, None
        self._was_asked = job is not None
        self._lost.set()
        if job is not None:
            self._pool.answer(job, RemoteError(DIED))

    def kill(self, job: Job) -> None:
        """If it is at this job: end it."""
        with self._lock:
            if self.job is job and self._process is not None:
                self._process.kill()

    # In a thread of its own

    def keep(self) -> None:
        """Have another one whenever it dies."""
        closing = self._pool.closing
        while self._lost.wait() and not closing.is_set():
            self._lost.clear()
            at = " while it was at a request" if self._was_asked else ""
            log.error("service %r: %s%s", self._pool.name, self._how_it_ended(), at)
            if self._renewed(closing):
                self._engine.call_later(lambda: self.begin(self._engine))

    def _renewed(self, closing: threading.Event) -> bool:
        """Whether there is another one; there is none after ``closing``."""
        while not closing.wait(self._next_pause()):
            self.end_process(0.0)
            try:
                self.start()
                self.await_start()
            except (OSError, PysockError) as error:
                if not closing.is_set():
                    log.error("service %r: no new worker process: %s", self._pool.name, error)
            else:
                return True
        return False

    def _next_pause(self) -> float:
        if monotonic() - self._started >= _LIVED:
            self._pause = 0.0
        pause = self._pause
        self._pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
        return pause

    def _how_it_ended(self) -> Exception:
        process = self._process
        if process is None:  # end() was quicker
            return PysockError("the pool has ended")
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)  # its end of the sockets is closed a moment before
        status = process.returncode
        if status is None:
            how = "closed its connection"
        else:
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return PysockError(f"worker process {process.pid} {how}")

    # The end

    def end(self) -> None:
        """End it: at once where it is at a request. The loop has ended."""
        with self._lock:
            self._ended = True
            self._lost.set()
            if self._socket is None or self._process is None:
                return
            if self.job is not None:
                self._process.kill()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def end_process(self, patience: float) -> None:
        """See to it that it has ended."""
        with self._lock:
            sock, process, self._process = self._socket, self._process, None
        if sock is None or process is None:
            return
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # who awaits its start may wait for it
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        sock.close()

    def abandon(self) -> None:
        """In a forked child: the process is the parent's; :mod:`pysock.base.forking` closes the socket."""
        self._lock = threading.Lock()
        self._process = self._socket = None
