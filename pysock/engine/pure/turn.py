"""The pure-Python engine: the same contract, the same bytes on the wire, no compiler.

This file is the turn: wait, read, dispatch, send. What it drives has a file each:

- ``core``: what the parts share; ``table``: the client table; ``poll``: waiting; ``timers``, ``lateness``: deadlines
- ``commands``: what other threads leave to the loop; ``push``: what they and handlers may do; ``look``: what they see
- ``accept``: master sockets, ``listener`` each; ``door``: who may come in; ``causes``: limits and faults, counted
- ``connection``, ``framed``, ``plain``: data sockets, ``ending``: how they end, ``transport``: their bytes, ``output``
- ``current``: which request a handler runs for; ``reply``: what it made of it; ``waiting``: requests without an answer
- ``client``: the client's end; ``sockets``: sockets used by hand; ``guest``: turns in a loop of the program's
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import sleep

from pysock.base.aliases import Buffer, Ids
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR
from pysock.causes import Cause
from pysock.engine.contract import Backend, EngineOptions
from pysock.engine.linger import Linger
from pysock.engine.pure import look
from pysock.engine.pure.accept import Masters
from pysock.engine.pure.client.inlet import PureInlet
from pysock.engine.pure.client.link import PureLink
from pysock.engine.pure.client.outlet import PureOutlet
from pysock.engine.pure.commands import Commands, told_if_it_fails
from pysock.engine.pure.core import Core
from pysock.engine.pure.current import current
from pysock.engine.pure.ending import bury, look_at_numbers, no_memory_for, spare_others
from pysock.engine.pure.guest import NOT_WATCHED, Events, Guest
from pysock.engine.pure.lateness import Lateness
from pysock.engine.pure.moving.engine import MovingEngine
from pysock.engine.pure.poll import READ
from pysock.engine.pure.push import Pushes
from pysock.engine.pure.sockets import PureSockets
from pysock.engine.pure.transport import keep_heap
from pysock.engine.pure.waiting.outside import Outside
from pysock.engine.rows import ClientInfo, Current, EngineStats, Gone
from pysock.engine.said import TEXT_DESCRIPTORS_LOST
from pysock.errors import PysockError
from pysock.states import ConnectionState, DisconnectReason

if TYPE_CHECKING:
    from typing import Any, Final

_SLEEP_MAX: Final = 1.0  #: The longest wait, in seconds: then it looks whether its descriptors are still its own.
#: After a turn for which there was no memory, so that the loop doesn't spin until there is some, in seconds.
_PAUSE_MEMORY: Final = 0.01


class PureEngine(MovingEngine):
    """One server's loop and client table; see :class:`pysock.engine.contract.Engine`."""

    def __init__(self, options: EngineOptions) -> None:
        self._core = core = Core(options)
        try:
            self._commands = Commands()
        except OSError:
            core.poller.close()
            raise
        self._pushes = pushes = Pushes(core, self._commands)
        self.push: Callable[[int, Buffer], bool] = pushes.push
        self.push_to: Callable[[Ids, Buffer], int] = pushes.push_to
        self.broadcast: Callable[[Buffer], int] = pushes.broadcast
        self.lame: Callable[[bool], None] = core.health.lame
        self.find: Callable[[str], int | None] = core.table.find
        self.stats: Callable[[], EngineStats] = lambda: look.stats(core)
        self.info: Callable[[int], ClientInfo | None] = lambda client_id: look.info(core, client_id)
        self.rows: Callable[..., list[ClientInfo]] = lambda among=None: look.rows(core, among)
        self.gone: Callable[..., list[Gone]] = lambda most=1000: look.gone(core, most)
        self.ask: Callable[[int, bytes, int], bool] = pushes.ask
        self.disconnect: Callable[..., bool] = pushes.disconnect
        self._masters = Masters(core)
        wait, turn = core.measured(core.poller.wait, self._whole_turn)
        self._turn = self._masters.around(turn)
        self.add_master: Callable[..., None] = self._masters.add
        self.tls_of: Callable[[int], Any] = lambda client_id: look.tls(core, client_id)
        self.reload_tls: Callable[[Any], None] = lambda _tls: None  # the contexts have changed themselves
        core.are_open = self.are_open
        self._linger = Linger(wait, options.linger, core.requests)
        self._batches = list(core.batches.values())
        self._lateness = Lateness(core)
        self._running = self._lateness.running
        self._deferrals = deferrals = core.deferrals
        self._told, self._due, self._ready_streams = deferrals.told, deferrals.due, core.streams.ready
        self.waiting: Callable[[int], Current | None] = deferrals.waiting
        self.watch: Callable[..., None] = core.watch
        self.notice: Callable[..., None] = core.notice
        self._stop_at: float | None = None
        self._draining = self._closed = self._has_run = self._has_ended = False
        self._guest = Guest(core, self._pushes, self)
        self.wants_turn: Callable[[], None] = lambda: None  # as Engine.wants_turn of the contract: it is set later
        outside = Outside(core, self._commands, self._pushes, self._guest, lambda: self.wants_turn())  # noqa: PLW0108
        self.answer: Callable[[int, Any], bool] = outside.answer
        self.send_more: Callable[[int, Any], int] = outside.send_more

    # --- the loop ---

    @property
    def wakeup_fd(self) -> int:
        """Where a byte ends the loop's wait."""
        return self._commands.wakeup_fd

    def run(self) -> None:
        """Serve until ``stop``."""
        self._claim()
        try:
            self._open()
            while self.goes_on():
                self.turn_if_possible(self._wait)
        except OSError:
            if self._core.has_poll():
                raise
        finally:
            self._end()

    def _claim(self) -> None:
        """Only one thread runs it, once."""
        with self._core.table.lock:
            if self._has_run:
                raise PysockError(f"this loop {'has run: make a new server' if self._has_ended else 'runs already'}")
            self._has_run, self._pushes.loop = True, get_ident()

    def _open(self) -> None:
        core, commands = self._core, self._commands
        core.now = monotonic()
        keep_heap()
        core.on_event[commands.read_fd] = commands.on_event
        core.poller.change(commands.read_fd, 0, READ)
        self._masters.start()

    def goes_on(self) -> bool:
        """Whether another turn is wanted."""
        core = self._core
        return not core.lost and (not self._draining or bool(core.table.rows and not self._is_over()))

    # --- the loop is the program's: guest.py ---

    def begin(self) -> None:
        if self.poll_fd < 0:
            raise PysockError(NOT_WATCHED)
        self._claim()
        self._guest.begin()
        try:
            self._open()
        except BaseException:
            self._masters.stop()  # the descriptors are the caller's, who closes them
            raise

    @property
    def poll_fd(self) -> int:
        return self._core.poller.fd

    def turn(self) -> float:
        return self._guest.turn()

    def end(self) -> None:
        self._guest.end()
        self._end()
        self._guest.raise_error()

    def _is_over(self) -> bool:
        """Whether a drain has had its time."""
        return self._stop_at is not None and self._core.now >= self._stop_at

    def turn_if_possible(self, wait: Callable[[], Events]) -> None:
        """What was ready and couldn't be looked at for want of memory is told of again in the next turn."""
        try:
            self._turn(wait())
        except (MemoryError, SystemError):  # the latter where CPython itself forgets to say so, as in socket.accept()
            with suppress(MemoryError):
                self._core.note(Cause.NO_MEMORY)
            sleep(_PAUSE_MEMORY)

    def are_open(self) -> bool:
        """Whether the descriptors are ours. If the program has closed them the loop ends, and touches none of them: the
        numbers may be somebody else's by now.
        """
        core = self._core
        if not core.lost and not self._closed and not self._commands.are_open():
            core.lose()
            self._masters.forget()
            self._commands.forget()
            core.callbacks.log(ERROR, TEXT_DESCRIPTORS_LOST)
        return not core.lost

    def _whole_turn(self, events: Events) -> None:
        core = self._core
        core.now = monotonic()
        if core.ready:
            self._go_on()
        self._dispatch(events)
        if self._commands.queue:
            self._commands.run()
        if any(self._running):
            self._lateness.expire(len(events))
        for batch in self._batches:
            batch.run()
        if self._told or self._due or self._ready_streams:
            self._deferrals.attend()
        if self._masters.resume_at is not None or core.send_again_at is not None:
            self._try_again()
        if core.causes.rest_at is not None and core.causes.rest_at <= core.now:
            core.causes.tell_rest(core.now)
        if self._stop_at is not None and not self._masters.lets_in_first(self._stop_at):
            self._drain()
        if core.dirty or core.dead:
            self._clean_up()
        self._lateness.work_done()

    def _wait(self) -> list[tuple[int, int]]:
        events = self._linger.wait(timeout := self.timeout())
        if not events and timeout == _SLEEP_MAX:
            self.are_open()
        return events

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        on_event = self._core.on_event
        for fd, bits in events:
            handle = on_event.get(fd)
            if handle is not None:
                try:
                    handle(bits)
                except MemoryError:
                    no_memory_for(handle)
        if self._core.shakes:
            self._core.shakes.pop()()

    def timeout(self) -> float:
        """How long a wait may last, in seconds."""
        core = self._core
        if core.ready or core.dirty or self._told or self._ready_streams or self._commands.queue:
            return 0
        ends = self._lateness.next_ends()
        if (due := self._deferrals.next_due()) is not None:
            ends.append(due)
        if self._batches:
            ends += [due for batch in self._batches if (due := batch.due()) is not None]
        if self._masters.resume_at is not None:
            ends.append(self._masters.resume_at)
        if core.send_again_at is not None:
            ends.append(core.send_again_at)
        if core.causes.rest_at is not None:
            ends.append(core.causes.rest_at)
        if self._stop_at is not None:
            ends.append(self._stop_at if self._draining else min(self._stop_at, self._masters.leave_by()))
        return min(max(0.0, min(ends) - monotonic()), _SLEEP_MAX) if ends else _SLEEP_MAX

    def _try_again(self) -> None:
        """To accept, and to send, which failed for want of something."""
        core = self._core
        if self._masters.resume_at is not None:
            self._masters.resume_if_due()
        if core.send_again_at is None or core.send_again_at > core.now:
            return
        starved, core.starved, core.send_again_at = core.starved, [], None
        for output in starved:
            output.starved = False
            spare_others(output, output.flush)
            output.settle()

    def _go_on(self) -> None:
        ready, self._core.ready = self._core.ready, {}
        for connection in ready:
            spare_others(connection, connection.go_on)

    def _clean_up(self) -> None:
        """The end of the turn: what was queued is sent, what is closed is freed."""
        core = self._core
        if core.dirty:
            dirty, core.dirty = core.dirty, {}
            for connection in dirty:
                spare_others(connection, connection.flush)
                connection.settle()
        if core.dead and self._told:
            self._deferrals.tell()  # whoever works for a client that has gone just now
        while core.dead:
            bury(core.dead.popleft())

    # --- the end ---

    def stop(self, grace: float) -> None:
        """Begin to drain."""
        end = monotonic() + max(0.0, grace)
        if self._stop_at is None or end < self._stop_at:
            self._stop_at = end
        self._commands.wake()

    def _drain(self) -> None:
        """Drain, once; then see if the grace is over."""
        core = self._core
        assert self._stop_at is not None
        if not self._draining:
            if not self.are_open():
                return
            self._draining = core.drains = True
            core.health.drain()
            self._masters.stop()
            core.callbacks.draining()
            self.stand_aside()
            look_at_numbers(core)
            self._answer_everything()
            for connection in self.here():
                if connection.protocol.state < ConnectionState.DRAINING:
                    spare_others(connection, connection.last_read)
                    core.streams.wind_up(connection)
            core.streams.end_endless()
            self._clean_up()
        if core.now >= self._stop_at or monotonic() >= self._stop_at:
            self._deferrals.tell()  # each is told what happened first
            for connection in self.here():
                if self._deferrals.cut_short(connection):
                    connection.flush()
                connection.lost(DisconnectReason.SERVER_STOPPING)
            self._deferrals.tell()

    def _answer_everything(self) -> None:
        """Whole requests that have been read already are answered."""
        for connection in self.here():
            connection.finish_input()
        for batch in self._batches:
            batch.run(everything=True)

    def _end(self) -> None:
        """Close everything, whatever happened. The exception that came first is the one that counts."""
        core = self._core
        core.has_poll()
        self.set_aside()
        if not self._draining:
            self._draining = True
            self._masters.stop()
            with suppress(BaseException):
                core.callbacks.draining()
        with suppress(BaseException):
            self._deferrals.tell()
        for connection in list(core.table.rows.values()):
            with suppress(BaseException):
                self._deferrals.cut_short(connection)
            with suppress(BaseException):
                connection.flush_at_last()
                connection.lost(DisconnectReason.SERVER_STOPPING)
        with suppress(BaseException):
            self._deferrals.tell()
        while core.dead:
            with suppress(BaseException):
                bury(core.dead.popleft())
        with suppress(BaseException):
            core.publish_last()
            core.causes.tell_rest(core.now)
        self._pushes.loop, self._has_ended = None, True

    def close(self) -> None:
        """Free everything."""
        if not self._closed:
            self._core.has_poll()
            self._closed = True
            self.set_aside()  # it may never have run
            self._commands.close()
            for close in (self._masters.close, self._core.poller.close):
                with suppress(OSError):
                    close()

    def abandon(self) -> None:
        """In a forked child."""
        if not self._closed and not self._commands.are_open():
            self._core.lose()
            self._masters.forget()
        self._draining = self._closed = True
        self._commands.abandon()
        self._masters.abandon()
        self._core.abandon()

    # --- for others: look.py, push.py ---

    def client_ids(self) -> list[int]:
        return list(self._core.table.clients)

    def client_count(self) -> int:
        return len(self._core.table.clients)

    def attach(self, client_id: int) -> bool:
        return look.attach(self._core, client_id)

    def select(self, uid: int | None, name: str | None, among: Ids | None, but: int) -> Ids:
        return look.select(self._core, uid, name, among, but)

    def current(self) -> Current | None:
        return current(self._core) if get_ident() == self._pushes.loop else None

    def call_later(self, function: Callable[[], object]) -> bool:
        return self._commands.post(lambda: told_if_it_fails(function))


BACKEND: Final = Backend("pure", frozenset(), PureEngine, PureSockets(), PureLink, PureInlet, PureOutlet)
