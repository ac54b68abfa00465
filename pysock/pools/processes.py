"""Workers that are processes: each has a thread here that asks it, and a Python of its own that knows the handler by
its name.

They are started anew, never forked: what a child would have of this one are threads that aren't there and locks that
nobody lets go of. One that dies fails the request that it was at, and is replaced: at once the first time, later and
later if the next ones don't live long.
"""

from __future__ import annotations

import operator
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
from pysock.errors import ParameterError, PysockError, RemoteError
from pysock.pools.channel import REPLY, FromWorker, answer_of, receive, send
from pysock.pools.jobs import Job
from pysock.pools.worker import FORMER_PATH, PATH

if TYPE_CHECKING:
    from typing import Any, Final

#: What the client is told whose request a process was at.
DIED: Final = "worker died"

#: A process that lived so long is replaced at once, in seconds; the first pause after one that didn't, and the longest.
_LIVED: Final = 5.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: How long a process that has nothing to do may take to end, in seconds.
_PATIENCE: Final = 0.5


def target_of(handler: Callable[..., Any]) -> str:
    """``MODULE:NAME``, by which another process can import it.

    :raises ValueError: it can't be imported.
    """
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        why = "it isn't a function of a module"
    elif "<" in name:
        why = "it is a lambda, or made inside another function"
    elif module == "__main__":
        why = "it is in the program's main module, which is no module there"
    else:
        return f"{module}:{name}"
    problem = f": worker processes import the handler, and can't import {handler!r}: {why}"
    raise ParameterError("processes", f"{problem}; make it a plain function of a module of its own", name="processes=")


def check_target(target: str, handler: Callable[..., Any]) -> None:
    """Look whether that is still the name of the handler, now that its module is there as a whole.

    :raises PysockError: it isn't.
    """
    module, _, name = target.partition(":")
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if found is not handler:
        raise PysockError(
            f"worker processes would import {target}, and that isn't the handler {handler!r}, but {found!r}: give the"
            " handler a name of its own in its module"
        )


class Process(Unique):
    """A worker of a pool of processes."""

    def __init__(self, name: str, handler: Callable[[bytes], Any], target: str) -> None:
        self._name = name
        self._handler = handler
        self._target = target
        self._lock = threading.Lock()  # of the next five
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_killed = False  # for being late
        self._job: Job | None = None
        self._started = 0.0
        self._pause = 0.0
        self._is_dead = False

    # The beginning of one

    def start(self) -> None:
        """Start a process, and don't wait for it."""
        refuse_while_imported()  # a module that starts its server at its top level, in a worker
        check_target(self._target, self._handler)
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                if self._ended:
                    raise PysockError("the pool has ended")
                forking.own_socket(ours)
                self._process = self._spawn(theirs.fileno())
                self._socket, self._is_dead, self._is_killed = ours, False, False
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
        except (EOFError, OSError):
            error = self._how_it_ended()
        if isinstance(error, Exception):
            self._end_process(0.0)
            why = f"{type(error).__name__}: {error}" if isinstance(error.__cause__, FromWorker) else str(error)
            raise PysockError(f"a worker process can't import {self._target}: {why}") from error

    # Work

    def answer(self, job: Job) -> Any:
        """Have the process run the handler."""
        sock = self._socket
        with self._lock:
            self._job = job
        try:
            assert sock is not None
            send(sock, REPLY[:0], job.request)
            reply = answer_of(receive(sock))
        except (EOFError, OSError):
            self._is_dead = True
            if not self._ended:
                log.error("service %r: %s while it was at a request", self._name, self._how_it_ended())
            return RemoteError(DIED)
        finally:
            with self._lock:
                self._job = None
        return reply

    def renew(self, closing: threading.Event) -> None:
        """If the process is dead: have another one."""
        while self._is_dead and not closing.wait(self._next_pause()):
            self._end_process(0.0)
            try:
                self.start()
                self.await_start()
            except (OSError, PysockError) as error:
                if not closing.is_set():
                    log.error("service %r: no new worker process: %s", self._name, error)
                self._is_dead = True

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

    def kill(self, job: Job) -> None:
        """If it is at this job: end it."""
        with self._lock:
            if self._job is job and self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """End it: at once where it is at a request."""
        with self._lock:
            self._ended = True
            if self._socket is None or self._process is None:
                return
            if self._job is not None:
                self._process.kill()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def await_end(self) -> None:
        """See to it that it has ended."""
        self._end_process(_PATIENCE)

    def _end_process(self, patience: float) -> None:
        with self._lock:
            sock, process, self._process = self._socket, self._process, None
        if sock is None or process is None:
            return
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # its thread here may wait for it
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
