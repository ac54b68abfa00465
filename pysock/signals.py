"""SIGTERM and SIGINT while a server runs in the main thread: the first drains, the second ends at once.

This file owns the process's handlers for the time of the ``with`` statement, and puts back what was there before; also
in a child that is forked meanwhile, which is no server and ends of a signal as any process does. And what becomes of
servers that still run when the interpreter exits.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pysock.base import registry
from pysock.base.clock import monotonic
from pysock.base.forking import own
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: How long the interpreter's exit waits for handlers that don't return, in seconds, all servers together.
_PATIENCE_AT_EXIT: Final = 1.0


class _Handlers(Unique):
    """Ours in the place of those of before."""

    def __init__(self, stop: Callable[[bool], None]) -> None:
        self._stop = stop
        self._came = False
        self._taken: list[tuple[int, Any]] = []
        self._fd = -1
        self._installed = False

    def install(self) -> None:
        self._fd = signal.set_wakeup_fd(-1)  # the only way to ask for it
        signal.set_wakeup_fd(self._fd)
        taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._taken = [(number, signal.signal(number, self._handle)) for number in taken]
        self._installed = True
        own(self)

    def put_back(self) -> None:
        """Called again it does nothing."""
        if not self._installed:
            return
        self._installed = False
        for number, handler in self._taken:
            # None: it wasn't installed from Python, so it can't be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd)

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`. The thread that has forked is the child's main thread."""
        self.put_back()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # No logging here: the main thread may be inside a write to the same stream.
        if self._came:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self._came = True
        self._stop(number == signal.SIGTERM)


def _handles_signals() -> bool:
    """Whether this is the main thread of the main interpreter: Python gives signals to no other."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1))
    except ValueError:  # a sub-interpreter's main thread
        return False
    return True


@contextmanager
def stopping(stop: Callable[[bool], None]) -> Iterator[Callable[[int], None]]:
    """Call ``stop(patient)`` at the first signal: after SIGTERM there may be a delay, who types Ctrl-C wants none. A
    second one raises ``KeyboardInterrupt`` (SIGINT) or ``SystemExit(143)`` (SIGTERM) inside whatever runs then.

    Outside of the main thread nothing is done, because Python gives no signals to other threads. A signal that is
    being ignored, as SIGINT in a shell's background job, stays ignored.

    The value is a function to call with the descriptor that a signal shall write a byte to, to end the loop's wait.
    """
    if not _handles_signals():
        yield lambda _: None
        return

    def wake_by(fd: int) -> None:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

    handlers = _Handlers(stop)
    handlers.install()
    try:
        yield wake_by
    finally:
        handlers.put_back()


# Those in daemon threads must end before Python's own structures do, else the thread would block for ever in the middle
# of its work.
@atexit.register
def stop_background() -> None:
    """At the interpreter's exit: all are told before one is waited for, so that a handler that doesn't return costs its
    server's wait once for all.
    """
    still_there = [server._running for server in registry.servers()]
    for running in still_there:
        running.interrupt(0)
        if running.attached is not None:
            running.attached.end_at_exit()
    deadline = monotonic() + _PATIENCE_AT_EXIT
    for running in still_there:
        running.wait(max(0.0, deadline - monotonic()))


class Cancelled(PysockError):
    """A server was stopped while it was starting."""
