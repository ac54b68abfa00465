"""Processes of an experiment: a function that runs in a fork of this one, and what the kernel tells of a process.

A fork of a warm interpreter is there within milliseconds. The experiments themselves have no threads and no running
server, so that forking is safe, and a child closes what isn't its own.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from lab.experiment import Failed, Missing

#: For an answer of a process of ours on a busy machine; one that takes longer hangs.
PATIENCE = 30.0

_PR_SET_PDEATHSIG, _PR_SET_PTRACER = 1, 0x59616D61

_prctl = ctypes.CDLL(None).prctl
_TICK = os.sysconf("SC_CLK_TCK")


class _Ended(NamedTuple):
    """The last that a child sends: what its function returned, or raised."""

    value: Any = None
    error: Exception | None = None


class Child:
    """``function(channel, *arguments)`` in a process of its own. It dies with its parent, or when told to.

    What the function returns, or raises, comes out of :meth:`result`. Both sides may use ``channel`` before that.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.channel, theirs = Pipe()
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _settle(theirs)
                _run(theirs, function, arguments)
            finally:
                os._exit(0)
        theirs.close()

    def receive(self, timeout: float = PATIENCE) -> Any:
        """The next object that it sends. If it has failed instead, that is raised."""
        if not self.channel.poll(timeout):
            raise Failed(f"process {self.pid} said nothing for {timeout:g} s")
        try:
            item = self.channel.recv()
        except (EOFError, ConnectionResetError):
            raise Failed(f"process {self.pid} is gone (exit code {self.wait()})") from None
        if isinstance(item, _Ended) and item.error is not None:
            raise item.error
        return item

    def send(self, item: Any) -> None:
        self.channel.send(item)

    def result(self, timeout: float = PATIENCE) -> Any:
        """What the function returned; then the process is gone."""
        ended = self.receive(timeout)
        if not isinstance(ended, _Ended):
            raise Failed(f"process {self.pid} said {ended!r}, and was to end")
        self.wait()
        return ended.value

    def signal(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for it."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.wait()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, negative for a signal."""
        deadline, pause = time.monotonic() + timeout, 0.0001
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise Failed(f"process {self.pid} didn't end within {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self.channel.close()


def _settle(channel: Connection) -> None:
    """Make a fork a process of its own: its signals, and none of the parent's descriptors."""
    gc.freeze()  # nothing of the parent's is ever collected here, and so nothing closed twice
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))  # strace may attach to it, whatever Yama thinks
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fd = channel.fileno()
    os.closerange(3, fd)
    os.closerange(fd + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _run(channel: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        ended = _Ended(function(channel, *arguments))
    except (Failed, Missing) as error:
        ended = _Ended(error=error)
    except BaseException as error:
        ended = _Ended(error=Failed(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
    with suppress(OSError):
        channel.send(ended)


def raise_descriptors(wanted: int) -> None:
    """Let this process and its children have so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Missing(f"a process can have {hard} descriptors here, and it takes {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """Bytes of memory that are a process's own: anonymous and resident."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as line:
        fields = line.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def set_apart(pid: int) -> None:
    """Give a process a processor of its own, where there are two: this one and its children to come keep off it.

    An experiment's clients are on the server's machine, and no server can help what they take from its processor.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(0, others)
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {first})


def give_way() -> None:
    """Run only while nobody else wants to (SCHED_IDLE, see sched(7)): as one that has a machine of its own."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE, pause: float = 0.005) -> Any:
    """The first true value of ``condition()``."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)
    return value
