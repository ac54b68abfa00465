"""Several threads in one link: who reads, who writes, and who waits.

One of the calls reads, and hands the others their answers; one at a time writes, from the first byte of a frame to its
last. Who neither reads nor writes sleeps, until it has what it wanted, or the role it waits for is free. A call that
only listens gives the reading to any other while it sleeps in the kernel: so a request beside it costs what it costs
alone. It takes the reading back by itself, a moment later.

There is no lock: a signal's exception could come between taking it and the ``try``. Python looks for signals, and lets
other threads in, where a function is entered and where one of C returns; so steps in which nothing is called can't be
torn apart.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from pysock.base.deadlines import time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.link import BUSY
from pysock.engine.pure.client.call import Call
from pysock.engine.pure.client.waiter import SHARE_NAP
from pysock.errors import PysockError, RequestTimeout
from pysock.wire.format import Frame

if TYPE_CHECKING:
    from typing import Final

#: The longest sleep: a signal's exception may have come where the one that was to wake us was about to.
_NAP: Final = 0.05


class Share(Unique):
    """The calls of one link that run."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}  # by thread
        self.reader: Call | None = None
        self.writer: Call | None = None
        self._turn = 0  # how often somebody began to read

    def join(self, call: Call) -> None:
        """Before anything else, within the ``try`` whose ``finally`` gives all back, without a call.

        :raises PysockError: this thread is in a call already, below a signal's handler.
        """
        ident = threading.get_ident()
        if ident in self.calls:
            raise PysockError(BUSY)
        call.thread = ident
        self.calls[ident] = call

    def pass_on(self) -> None:
        """Some call is over. Wake one that may read now; who listens wakes by itself, unless it has waited for long."""
        if not self.calls:
            return
        sleeping = [other for other in tuple(self.calls.values()) if other.sleeps]
        waiting = [other for other in sleeping if not other.listens and not other.drains]
        waiting += [other for other in sleeping if other.listens and not other.naps]
        if self.reader is None and waiting:
            _rouse(waiting[0])
        for other in sleeping:
            if other.drains:
                _rouse(other)

    def is_empty(self) -> bool:
        """Whether nobody is inside."""
        return not self.calls

    def is_quiet(self, call: Call) -> bool:
        """Whether the others only listen, or wait for the end as well."""
        return all(other is call or other.listens or other.drains for other in tuple(self.calls.values()))

    def rouse_all(self) -> None:
        """Let everybody look again."""
        for other in tuple(self.calls.values()):
            _rouse(other)

    def take_reading(self, call: Call) -> bool:
        """Whether it reads, from now on at least."""
        reader = self.reader
        if reader is call:
            return True
        if reader is not None and not (reader.dozes and not call.listens):
            return False
        self.reader = call
        self._turn += 1
        return True

    def take_writing(self, call: Call) -> bool:
        """Whether it writes, until :meth:`written`."""
        if self.writer is None:
            self.writer = call
        return self.writer is call

    def written(self, call: Call) -> None:
        """It is at the end of a frame."""
        self.writer = None
        for other in tuple(self.calls.values()) if len(self.calls) > 1 else ():
            if other.unsent or other.rest:
                _rouse(other)

    def hand(self, frame: Frame) -> bool:
        """To the call whose answer it is, if that goes on still."""
        for other in tuple(self.calls.values()):
            if other.take(frame):
                if not other.missing or other.unsent:
                    _rouse(other)
                return True
        return False

    def is_awaited(self, frame: Frame) -> bool:
        """Whether it has the id of a request that some call waits for."""
        return any(frame.request_id in other.unanswered() for other in tuple(self.calls.values()))

    def tell(self) -> None:
        """Something came that nobody had asked for."""
        for other in tuple(self.calls.values()):
            if other.listens:
                other.missing = 0
                _rouse(other)

    def sleep(self, call: Call, end: float | None) -> None:
        """Until it is woken, or for a while.

        :raises RequestTimeout: ``end`` has come.
        """
        left = time_left(end)
        if left == 0:
            raise RequestTimeout("the server didn't answer in time")
        if call.wake is None:
            wake = threading.Lock()
            wake.acquire()
            call.wake = wake
        call.naps = call.listens and call.turn != self._turn
        call.turn = self._turn
        nap = SHARE_NAP if call.naps else _NAP
        call.sleeps = True
        if not call.news and (self.reader is not None or call.drains):
            call.wake.acquire(timeout=nap if left is None else min(left, nap))
        call.sleeps = False


def _rouse(call: Call) -> None:
    call.news = True
    if call.sleeps:
        call.sleeps = False
        with suppress(RuntimeError):  # it woke by itself, and was woken; and sleeps again
            call.wake.release()
