"""A server as a service of systemd's: what is told of one that runs in this process.

This file owns the thread that tells it. It says that the service works as long as the server's loop does: it has the
loop call something, and waits for that before it says so again, so that a handler that doesn't return ends the words.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from pysock.base import forking
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.fdstore.store import Store
from pysock.states import ServerState
from pysock.supervision.notify import Notifier, notifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.server import Server

#: How long it may take until what couldn't be said is said again, in seconds.
_AGAIN: Final = 1.0
#: While it drains: how often it is said that it may take so much longer, in seconds. It ends by itself, at its grace.
_EXTEND_EVERY: Final = 2.5
_EXTEND: Final = 10.0


def notify_systemd(server: Server) -> bool:
    """Tell systemd, or who else set ``$NOTIFY_SOCKET``, how a server is: sd_notify(3). Before its start.

    ``READY=1`` when it serves, ``STOPPING=1`` when it begins to end, and ``EXTEND_TIMEOUT_USEC=`` as long as it drains;
    with ``WatchdogSec=`` ``WATCHDOG=1`` at least twice in that time while its loop comes round. The variables are taken
    out of the environment. ``pysock serve`` does this by itself.

    :returns: ``False`` if there is nobody to tell: then nothing is done.
    :raises PysockError: the server has been started.
    """
    return unit_of(server) is not None


def unit_of(server: Server) -> Unit | None:
    """As :func:`notify_systemd`."""
    if server.state is not ServerState.NEW:
        raise PysockError("this server runs, or has run, already: tell systemd of it before it starts")
    found = notifier()
    return None if found is None else Unit(server, found)


class Unit(Unique):
    """One server, as its service manager sees it."""

    def __init__(self, server: Server, tell: Notifier) -> None:
        self._server = server
        self._tell = tell
        self._news = threading.Event()
        self._is_alive = True  # the loop has come round since it was last said
        self._ends = self._ended = False
        self._elsewhere = False  # a forked child
        forking.own(self)
        server.on_state(self._changed)
        server._running.lameness.watch(self._lame)

    def reload(self, work: Callable[[], str]) -> None:
        """Say that it loads something again, while ``work()`` does; its value is what is told of how that went."""
        self._tell.reloading()
        failed = work()
        self._tell.ready(failed or self._status())

    @property
    def store(self) -> Store:
        """Where descriptors outlive this process."""
        return Store(self._tell.where)

    def stops(self) -> None:
        """Say that it is about to end, and may take a while."""
        self._stopping()

    # In the thread that changes it: the words may not wait

    def _changed(self, _old: ServerState, new: ServerState) -> None:
        if new is ServerState.SERVING:
            self._tell.ready(self._status())
            threading.Thread(target=self._watch, name="pysock-systemd", daemon=True).start()
        elif new is ServerState.DRAINING:
            self._stopping()
        elif new is ServerState.CLOSED:
            self._ended = True
            self._news.set()

    def _lame(self) -> None:
        if self._server._running.lameness.ends:
            self._stopping()
        elif self._server.state is ServerState.SERVING:
            self._tell.say(STATUS=self._status())

    def _stopping(self) -> None:
        if not self._ends:
            self._ends = True
            self._tell.stopping("stopping")
            self._news.set()

    def _status(self) -> str:
        where = " ".join(map(str, self._server.addresses))
        return f"serving on {where}" + (", lame: new clients should go elsewhere" if self._server.is_lame else "")

    # In a thread of its own

    def _watch(self) -> None:
        every = min(_AGAIN, (self._tell.watchdog or _AGAIN) / 2)
        since = _EXTEND_EVERY
        while not self._ended and not self._elsewhere:
            self._tell.say_again()
            if self._tell.watchdog is not None:
                self._beat()
            since += every
            if self._ends and since >= _EXTEND_EVERY:
                self._tell.extend(_EXTEND)
                since = 0.0
            self._news.wait(every)
            self._news.clear()
        if not self._elsewhere:
            self._tell.say_again()
            self._tell.close()

    def _beat(self) -> None:
        if not self._is_alive:
            return
        self._tell.alive()
        self._is_alive = False
        with suppress(PysockError, OSError):  # it is about to end
            self._server.call_soon(self._came_round)

    def _came_round(self) -> None:
        self._is_alive = True

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, and no service."""
        self._elsewhere = True
        self._tell.close()
