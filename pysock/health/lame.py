"""Lame: a server that serves as before, and tells health checks that new clients should go elsewhere.

This file owns the flag, and the time between it and a stop: whoever sends clients is to know before the server says
goodbye. It is no state of the server's: it accepts, and answers.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.states import ServerState

if TYPE_CHECKING:
    from pysock.running import Running


class Lameness(Unique):
    """That of one server."""

    _instead = "make a new Server"

    def __init__(self, running: Running, name: str) -> None:
        self._running = running
        self._name = name
        self.is_lame: bool = False
        self.ends: bool = False  # it will stop, after a delay
        self._watching: list[Callable[[], object]] = []
        # Re-entrant, because a signal handler may call lame() while its own thread is inside.
        self._lock = threading.RLock()

    def set(self, lame: bool) -> None:
        """As :meth:`pysock.Server.lame`, or ``resume``."""
        running = self._running
        running.check_here()
        with self._lock:
            if not lame and (self.ends or running.state in {ServerState.DRAINING, ServerState.CLOSED}):
                what = "has ended" if running.state is ServerState.CLOSED else "is about to end"
                raise PysockError(f"this server {what}: it can't resume")
            if self.is_lame == lame:
                return
            self.is_lame = lame
            engine = running.engine
            if engine is not None:
                engine.lame(lame)
        # In the loop's thread: this one may be in a signal handler, inside a write to the log.
        tell = partial(self._tell, lame)
        with suppress(OSError):
            if engine is None or not engine.call_later(tell):
                tell()

    def _tell(self, lame: bool) -> None:
        log.info("%s: %s", self._name, _TOLD[lame])
        self._running.clients.lame(lame)
        self._tell_watching()

    def watch(self, tell: Callable[[], object]) -> None:
        """Call this whenever it has changed, or is about to end; in any thread."""
        self._watching.append(tell)

    def _tell_watching(self) -> None:
        for tell in self._watching:
            tell()

    def tell_engine(self) -> None:
        """There is one now, which knows of nothing."""
        with self._lock:
            if self._running.engine is not None:
                self._running.engine.lame(self.is_lame)

    def end(self, delay: float, grace: float) -> None:
        """Lame for so long, then stop. It waits for the end, but in the loop's own thread, or in a worker's."""
        self.announce()
        running = self._running
        if running.owner == threading.get_ident() or running.services.works_here():
            _thread.start_new_thread(self._end_after, (delay, grace))
        else:
            self._end_after(delay, grace)

    def end_soon(self, delay: float, grace: float) -> bool:
        """The same for a signal's handler, by another thread; ``False``: there can't be one, or nothing runs yet."""
        if not delay or self._running.state is not ServerState.SERVING:
            return False
        # Not a threading.Thread: that one's start takes locks, which the code that was interrupted may hold.
        with suppress(RuntimeError, MemoryError):
            _thread.start_new_thread(self.end, (delay, grace))
            return True
        return False

    def announce(self) -> None:
        """It will stop, so that it can't resume any more."""
        self.ends = True
        self.set(True)
        self._tell_watching()  # also where it was lame before

    def _end_after(self, delay: float, grace: float) -> None:
        self._running.runs.wait(delay)  # until then, or its end
        self._running.stop(grace)

    def abandon(self) -> None:
        """In a forked child: who holds the lock may not be here."""
        self._lock = threading.RLock()


_TOLD = {True: "lame: health checks fail, clients are served on", False: "no longer lame"}
