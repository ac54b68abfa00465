"""Waiting for one socket, until it is ready or a deadline has come: the client's end waits so."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from math import ceil

from pysock.base.clock import monotonic
from pysock.base.deadlines import time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.linger import Linger
from pysock.errors import RequestTimeout

if TYPE_CHECKING:
    from typing import Final

#: The longest sleep, in milliseconds: poll() takes an int.
_SLEEP_MAX: Final = 3_600_000
#: The same where signals are handled: one that comes just before the sleep doesn't end it.
_NAP: Final = 50
#: For a role that another thread has, in seconds.
SHARE_NAP: Final = 0.001


class Waiter(Unique):
    """The bits are those of ``select.poll``.

    :param linger: how long to poll before a sleep, and ``done``: how much was done so far: see ``linger.py``.
    """

    def __init__(self, sock: socket.socket, linger: float | None, done: Callable[[], int]) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._waits_for = select.POLLIN
        self._poll.register(sock, select.POLLIN)
        self._linger = Linger(self._ready, linger, done)

    def is_ready(self, bits: int) -> bool:
        """Whether it is ready for this now."""
        self._wait_for(bits)
        return bool(self._poll.poll(0))

    def wait(self, bits: int, end: float | None) -> int:
        """Wait until it is ready for this; what it is ready for.

        :raises RequestTimeout: it isn't until ``end``.
        """
        self._wait_for(bits)
        while True:
            ready = self._linger.wait(time_left(end))
            if ready:
                return ready[0][1]
            if end is not None and monotonic() >= end:
                raise RequestTimeout("the server didn't answer in time")

    def _wait_for(self, bits: int) -> None:
        if bits != self._waits_for:
            self._waits_for = 0  # an exception that comes in between leaves it unknown
            self._poll.modify(self._sock, bits)
            self._waits_for = bits

    def _ready(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout == 0:
            return self._poll.poll(0)
        longest = _NAP if threading.current_thread() is threading.main_thread() else _SLEEP_MAX
        return self._poll.poll(longest if timeout is None else min(ceil(timeout * 1000), longest))


def wait_to_write(sock: socket.socket, end: float | None) -> None:
    """Wait until the kernel takes more, while another thread reads, who may end: not for long.

    :raises RequestTimeout: it doesn't until ``end``.
    """
    left = time_left(end)
    if left == 0:
        raise RequestTimeout("the server didn't answer in time")
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll(SHARE_NAP * 1000)


def sooner(end: float | None) -> float:
    """A role is free before its next owner knows: so long at most is it waited for by who can't sleep for it."""
    nap = monotonic() + SHARE_NAP
    return nap if end is None else min(end, nap)
