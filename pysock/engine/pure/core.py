"""What the parts of one pure engine share: its options, its table, its deadlines, and the lists of who needs attention.

It does nothing by itself: ``turn.py`` runs the turn, the connections carry it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, field_names
from pysock.base.logs import ERROR, tell_unraisable
from pysock.base.unique import Unique
from pysock.causes import Cause
from pysock.engine.contract import Callbacks, EngineOptions, Service
from pysock.engine.guards import guarded
from pysock.engine.heldup import HeldUp
from pysock.engine.pure.causes import Causes
from pysock.engine.pure.commands import told_if_it_fails
from pysock.engine.pure.door.access import Origins
from pysock.engine.pure.poll import READ, WRITE, NoPoller, Poller, new_poller
from pysock.engine.pure.table import Rows
from pysock.engine.pure.timers import Deadlines
from pysock.engine.pure.waiting.batch import Batch
from pysock.engine.pure.waiting.deferred import Deferrals, Deferred
from pysock.engine.pure.waiting.served import Serving
from pysock.engine.pure.waiting.streams import Streams
from pysock.engine.rows import EngineStats
from pysock.engine.said import TEXT_DESCRIPTORS_LOST
from pysock.wire.health import Health
from pysock.wire.rules import Rules

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from pysock.engine.meter import Meter
    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.metering import Metering
    from pysock.engine.pure.output import Output
    from pysock.limits import Limits

    Wait: TypeAlias = Callable[[float | None], list[tuple[int, int]]]
    Turn: TypeAlias = Callable[[list[tuple[int, int]]], None]

#: Bytes read from one client a turn: nobody waits long for a busy neighbour.
READ_MAX = 64 * 1024
#: The same from a client that sends frames larger than that.
LARGE_READ_MAX = 256 * 1024
#: Requests of one client that are served in a row. In 64 KiB there may be thousands, and each takes a microsecond or
#: more here: a neighbour with one request at a time would wait for all of them. The rest is for the next turn.
ROW_MAX = 128
#: After the kernel had no memory for what was to be sent, in seconds.
_PAUSE_SEND = 0.02


class Counts:
    """The plain counters of :class:`EngineStats`. The loop's thread alone writes them.

    Requests and bytes are here those of connections that are gone; the others have their own.
    """

    __slots__ = EngineStats._fields[:-1]

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> int: ...

        def __setattr__(self, name: str, value: int) -> None: ...


def measuring(core: Core, meter: Meter) -> Metering:
    """Who counts for that memory."""
    from pysock.engine.pure.metering import Metering  # noqa: PLC0415  # few servers are measured

    return Metering(core, meter)


class Core(Unique):
    """The middle of one engine."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        limits = options.limits
        self.limits: Limits = limits
        given = {name: getattr(options.callbacks, name) for name in field_names(Callbacks)}
        self.callbacks: Callbacks = guarded(_callback_failed, **given)
        self.max_payload: int = limits.max_payload
        services = options.services
        self.health: Health = Health()
        self.rules: Rules = Rules(
            limits.max_payload,
            limits.max_cir_bytes,
            frozenset(number for number, service in enumerate(services) if service.handler is not None),
            self.callbacks.challenge,
            self.callbacks.prove,
            limits.stream_window,
            self.health,
        )
        self._read_services(services)
        self.held_up: HeldUp = HeldUp(options, self.handlers, self.streaming, lambda: self.now)
        self.deferrals: Deferrals = Deferrals(self)
        self.drains: bool = False  # a stop has been asked for: what was read is served, whatever its client waits for
        self.table: Rows = Rows()
        self.counts: Counts = Counts()
        self.causes: Causes = Causes(self.callbacks.noted, self.callbacks.log)
        self.origins: Origins = Origins()
        self.poller: Poller | NoPoller = new_poller()
        #: By descriptor: what is called with the bits of an event.
        self.on_event: dict[int, Callable[[int], None]] = {}
        self._watched: dict[int, int] = {}  # in it, what others have us watch: for what
        self._make_deadlines(limits)
        #: Who must be flushed or settled at the end of the turn, has input to go on with, is closed and not freed yet.
        self.dirty: dict[Output, None] = {}
        self.ready: dict[Connection, None] = {}
        self.dead: deque[Connection] = deque()
        #: Whose output is to be tried again at a certain time: their sockets are writable, so waiting would spin.
        self.starved: list[Output] = []
        self.send_again_at: float | None = None
        self.now: float = 0.0  # of this turn, on the monotonic clock
        #: When the requests came that are answered now, if not in this turn.
        self.began: float | None = None
        self.descriptor_freed: Callable[[], None] = lambda: None
        #: Whether the descriptors are ours; the program may close them under the loop. Then they are forgotten.
        self.are_open: Callable[[], bool] = lambda: True
        self.lost: bool = False
        self.logged_no_service = False

    def _make_deadlines(self, limits: Limits) -> None:
        #: The one step of a TLS handshake that is made in this turn, if there is one.
        self.shakes: list[Callable[[], None]] = []
        #: Of those that move, the deadlines that stand still: what is left of them, in seconds, by kind.
        self.still: dict[Connection, dict[int, float]] = {}
        self.moved_in: int = 0
        self.moved_out: int = 0
        self.cirs: Deadlines[Connection] = Deadlines(limits.cir_timeout)
        self.frames: Deadlines[Connection] = Deadlines(limits.frame_timeout)
        self.outputs: Deadlines[Output] = Deadlines(limits.output_timeout)
        self.slow: Deadlines[Output] = Deadlines(limits.push_soft_seconds)  # who is over push_soft
        self.idles: Deadlines[Connection] = Deadlines(limits.idle_timeout or 0.0)

    def _read_services(self, services: Sequence[Service]) -> None:
        meter = self.options.meter
        #: Who counts more than the counters, for those who look from outside; or nobody does.
        self.metering: Metering | None = None if meter is None else measuring(self, meter)
        #: Since somebody wants to know of requests that are over.
        self.serving: Serving | None = None
        #: By service number, what is called at once; and those that answer in batches.
        self.handlers: dict[int, Callable[[Any, Any], Any]] = {}
        self.batches: dict[int, Batch] = {}
        #: Those whose reply is a stream, and those that may never end by themselves.
        self.streaming: dict[int, Callable[[Any, Any], Any]] = {}
        self.streams: Streams = Streams(self)
        self.endless: set[int] = {number for number, service in enumerate(services) if service.endless}
        for number, service in enumerate(services):
            if service.handler is not None and service.batch:
                self.batches[number] = Batch(self, number, service)
            elif service.handler is not None:
                of_its_kind = self.streaming if service.streams else self.handlers
                metering = self.metering
                of_its_kind[number] = metering.measured(number, service.handler) if metering else service.handler

    def failed(self, client_id: int, service: int, request_id: int, error: Exception) -> tuple[int, bytes, bool]:
        """Ask the facade about a failure: code and text of the ERROR, and whether the work was started."""
        self.counts.errors += 1
        began = self.now if self.began is None else self.began
        answer = self.callbacks.failed(client_id, service, request_id, began, error)
        if self.metering is not None:
            self.metering.failed(service, answer[0])
        return answer

    def not_served(self, service: int, code: int) -> None:
        """A request has got an ERROR instead of being served."""
        self.counts.errors += 1
        if self.metering is not None:
            self.metering.note(service, code)

    def nobody_waited(self, service: int, was_answered: bool) -> None:
        """The client of a request that was put off has gone."""
        if self.metering is not None and not was_answered:
            self.metering.gone(service)

    def fates(self) -> tuple[int, int]:
        """How many have failed so far, and how many were put off: before an answer to one that was."""
        return self.counts.errors, self.deferrals.last

    def answered(self, record: Deferred, before: tuple[int, int], reply: Any, kept: Any) -> None:
        """One that was put off, at ``began``, is answered: unless it was put off once more."""
        errors, last = self.fates()
        if last != before[1]:
            return
        if self.metering is not None and errors == before[0] and self.began is not None:
            self.metering.answered(record.service, self.began)
        if self.serving is not None:
            self.serving.answered(record, reply, errors > before[0], kept)

    def measured(self, wait: Wait, turn: Turn) -> tuple[Wait, Turn]:
        """How it waits and turns, if it is measured."""
        metering = self.metering
        return (wait, turn) if metering is None else (metering.waiting(wait), metering.around(turn))

    def publish_last(self) -> None:
        """The loop has ended."""
        if self.metering is not None:
            self.metering.publish(everything=True)

    def note(self, cause: Cause) -> None:
        """A limit was reached, or a fault met."""
        self.causes.note(cause, self.now)

    def requests(self) -> int:
        """How many there were so far. In the loop's thread only, which alone changes the table."""
        return self.counts.requests + sum(row.requests for row in self.table.rows.values())

    def starve(self, output: Output) -> None:
        """The kernel is short of memory: try again a little later."""
        self.starved.append(output)
        self.causes.note_later(Cause.SEND, self.now)
        if self.send_again_at is None:
            self.send_again_at = self.now + _PAUSE_SEND

    def watch(self, fd: int, ready: Callable[[], object] | None, writes: bool = False) -> None:
        """As :meth:`pysock.engine.contract.Engine.watch`."""
        old, new = self._watched.pop(fd, 0), 0 if ready is None else READ | WRITE * writes
        if old != new:
            self.poller.change(fd, old, new)
        self.on_event.pop(fd, None)
        if ready is not None:
            self._watched[fd] = new
            self.on_event[fd] = lambda _bits: told_if_it_fails(ready)

    def notice(self, seconds: float | None, every: int = 0, most: int = 8) -> None:
        """As :meth:`pysock.engine.contract.Engine.notice`."""
        if self.serving is None and self.callbacks.served is not None:
            self.serving = Serving(self, self.callbacks.served)
            self.held_up.wrap(self.serving.noticed)
        if self.serving is not None:
            self.serving.want(seconds, every, most)

    def lose(self) -> None:
        """The descriptors aren't ours any more: no number is closed, and nothing is written to one."""
        if not self.lost:
            self.lost = True
            self.poller = NoPoller(self.poller)
            for connection in list(self.table.rows.values()):
                connection.sock.detach()

    def has_poll(self) -> bool:
        """As ``are_open``; and if only the poll's descriptor isn't ours, that is forgotten alone, and the loop ends."""
        if self.are_open() and not self.poller.is_ours():
            self.poller = NoPoller(self.poller)
            self.callbacks.log(ERROR, TEXT_DESCRIPTORS_LOST)
            return False
        return not self.lost

    def abandon(self) -> None:
        """In a forked child: forget everybody and everything."""
        with suppress(OSError):
            self.poller.close()
        for connection in self.table.abandon():
            connection.abandon()
        for batch in self.batches.values():
            batch.forget()
        self.deferrals.forget()
        self.streams.ready.clear()
        for deadlines in (self.cirs, self.frames, self.outputs, self.idles, self.slow):
            deadlines.ends.clear()
        for part in (self.on_event, self._watched, self.dirty, self.ready, self.dead, self.still):
            part.clear()
        self.starved, self.send_again_at = [], None
        self.causes.forget()
        if self.metering is not None:
            self.metering.forget()


def _callback_failed(_name: str, error: Exception) -> None:
    """The contract says that it raises nothing that the facade could foresee: nobody but the interpreter is left to
    tell.
    """
    tell_unraisable(error)
