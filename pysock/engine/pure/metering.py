"""Requests of a server that is measured, counted by service, outcome and time, for the pure engine:
``csrc/base/meter.c`` has the same rules.

A server that isn't measured pays nothing: one that is has wrappers in the place of its handlers, and around its turns.

What one client asks of one service in a row, within a turn, is a run: of that the first is timed, and then each 8th
with the seven before it, of which each is taken to have lasted as long as the mean; unless one of them must have lasted
far longer than those before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.meter import (
    BUCKETS_AT,
    BUSY,
    CALLED,
    CAME_AT,
    GONE,
    IN_TURN,
    LEFT_AT,
    OK,
    OUTPUT,
    ROW,
    STAMP,
    STATS_AT,
    SUM,
    bucket_of,
    outcome_of,
)
from pysock.engine.pure import look
from pysock.engine.pure.reply import may_be_for_later

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.meter import Meter
    from pysock.engine.pure.core import Core

    Handler = Callable[[Any, Any], Any]

#: As :data:`pysock.base.clock.monotonic`, in nanoseconds.
_now: Final = partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)

#: Of a run, each so manieth is timed; what stands out by so many nanoseconds isn't spread over the others.
_STAMP: Final = 8
_STANDS_OUT: Final = 64 * 1024
#: So often, in seconds, the counters are written: all clients are looked at for that.
_EVERY: Final = 0.05


class Metering(Unique):
    """What one engine counts, and where."""

    def __init__(self, core: Core, meter: Meter) -> None:
        self._core = core
        self._meter = meter
        self._rows: dict[int, list[int]] = {}
        self._dirty: set[int] = set()
        self._services = len(meter.rows) // ROW - 1
        self.failures: int = 0  # of requests that were answered later, so far
        self._busy = 0
        self._began = 0
        self._published = 0.0
        self._is_untold = False
        self.came: list[int] = [0, 0, 0]
        self.left: list[int] = [0] * (STATS_AT - LEFT_AT)
        # The run: whose, of what, in which turn; since when its last requests weren't looked at the clock for.
        self._who: object = None
        self._service = -1
        self._turn = 0.0
        self._since = self._mean = self._pending = self._most = 0
        self._was_counted = False  # the last one

    # --- requests that are served at once ---

    def measured(self, service: int, handler: Handler) -> Handler:
        """The handler, and what it takes is counted."""
        core = self._core

        def call(client: Any, request: Any) -> Any:
            if client is not self._who or service != self._service or core.now != self._turn:
                self._run(client, service)
            self._was_counted = False
            reply = handler(client, request)
            if type(reply) is not bytes and reply is not None and may_be_for_later(reply):
                self._break()
                return reply
            self._was_counted = True
            self._pending += 1
            if self._pending >= self._most:
                self._stamp()
            return reply

        return call

    def _run(self, client: object, service: int) -> None:
        now = _now() if self._turn == self._core.now else self._began
        self._run_over(now)
        self._who, self._service, self._turn = client, service, self._core.now
        self._since, self._most = now, 1
        self._meter.counters[CALLED] = service

    def _stamp(self) -> None:
        now = _now()
        self._count_pending(now - self._since, every=True)
        self._since, self._most = now, _STAMP

    def _run_over(self, now: int) -> None:
        self._count_pending(now - self._since, every=False)
        self._who, self._mean = None, 0

    def _break(self) -> None:
        """The last one failed, or is answered later."""
        self._run_over(_now())

    def _count_pending(self, took: int, every: bool) -> None:
        times, mean, service = self._pending, self._mean, self._service
        if not times:
            return
        self._pending = 0
        if mean and took > mean * times + _STANDS_OUT:
            self.count(service, OK, took - mean * (times - 1))
            if times > 1:
                self.count(service, OK, mean, times - 1)
            return
        each = took // times if every else min(mean or took, took // times)
        self.count(service, OK, each, times)
        if every:
            self._mean = each

    # --- all others ---

    def failed(self, service: int, code: int) -> None:
        """A request is answered by this error: one that is served now, or was put off."""
        began = self._core.began
        if began is not None:
            self.failures += 1
            self.count(service, outcome_of(code), _since(began))
        elif self._was_counted:  # what its handler returned can't be sent
            self._was_counted = False
            self._break()
            self._row(service)[OK] -= 1
            self.note(service, code)
        else:
            took = _now() - self._since
            before = min(took, self._mean * self._pending)
            self._count_pending(before, every=False)
            self._who = None
            self.count(service, outcome_of(code), took - before)

    def answered(self, service: int, began: float) -> None:
        """One that was put off is answered well."""
        self.count(service, OK, _since(began))

    def answered_batch(self, service: int, took: int, answered: int, failures: int, gone: int) -> None:
        """So many requests that waited for one another are answered, some of them by errors; others nobody waited for.

        :param failures: how many there had been before.
        """
        well = answered - (self.failures - failures)
        if well:
            self.count(service, OK, max(0, took), well)
        for _ in range(gone):
            self.gone(service)

    def note(self, service: int, code: int) -> None:
        """A request is answered by this error without having been served."""
        self._row(service)[outcome_of(code)] += 1

    def gone(self, service: int) -> None:
        """Nobody has waited for the answer."""
        self._row(service)[GONE] += 1

    def count(self, service: int, outcome: int, each: int, times: int = 1) -> None:
        """So many requests ended so, each after so many nanoseconds."""
        row = self._row(service)
        row[outcome] += times
        row[SUM] += each * times
        row[BUCKETS_AT + bucket_of(each)] += times

    def _row(self, service: int) -> list[int]:
        service = min(service, self._services)
        self._dirty.add(service)
        row = self._rows.get(service)
        if row is None:
            row = self._rows[service] = [0] * ROW
        return row

    # --- what others see ---

    def around(self, turn: Callable[[Any], None]) -> Callable[[Any], None]:
        """The turn, and what it did is told of."""

        def measured(events: Any) -> None:
            self._began = _now()
            self._meter.counters[IN_TURN] = 1
            try:
                turn(events)
            finally:
                self.publish()

        return measured

    def waiting(self, wait: Callable[[float | None], Any]) -> Callable[[float | None], Any]:
        """Waiting for events: not for long while something isn't told of."""

        def measured(timeout: float | None) -> Any:
            if self._is_untold and (timeout is None or timeout > _EVERY):
                timeout = _EVERY
            return wait(timeout)

        return measured

    def publish(self, everything: bool = False) -> None:
        """A turn is over."""
        now, counters = _now(), self._meter.counters
        self._run_over(now)
        self._busy += now - self._began
        seconds = now / 1e9
        self._is_untold = not everything and seconds - self._published < _EVERY
        if not self._is_untold:
            self._published = seconds
            self._write_rows()
            counters[BUSY] = self._busy
            self._write_stats(counters)
        counters[STAMP], counters[IN_TURN] = now, 0

    def _write_rows(self) -> None:
        rows = self._meter.rows
        for service in self._dirty:
            at = service * ROW
            for place, number in enumerate(self._rows[service], at):
                rows[place] = number
        self._dirty.clear()

    def _write_stats(self, counters: memoryview) -> None:
        core = self._core
        stats = look.stats(core)
        counters[OUTPUT] = sum(row.queued for row in core.table.rows.values())
        values = [*stats[:-1], *stats.causes]
        for first, numbers in ((CAME_AT, self.came), (LEFT_AT, self.left), (STATS_AT, values)):
            for place, number in enumerate(numbers, first):
                counters[place] = number

    def forget(self) -> None:
        """In a forked child: the memory is the parent's, too."""
        counters, rows = (memoryview(bytearray(each.nbytes)).cast("Q") for each in self._meter)
        self._meter = self._meter._replace(counters=counters, rows=rows)


def _since(began: float) -> int:
    return max(0, _now() - int(began * 1e9))
