"""Running: one server's loop, its states, and everything that is undone at its end.

This file owns the order of things: what a server was given is looked at, its master sockets listen, the loop runs in a
thread of its own or in the caller's, drains, and everything made is undone. It never touches a client's bytes; the
engine does.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

from pysock import parameters
from pysock.access.rule import Rule
from pysock.base import forking, registry
from pysock.base.daemons import daemon, explained_without_daemons
from pysock.base.faults import explains
from pysock.base.green import refuse_green_threads
from pysock.base.imported import refuse_while_imported
from pysock.base.lean import TYPE_CHECKING, cast
from pysock.base.logs import server_log as log
from pysock.base.span import Span
from pysock.base.unique import Unique
from pysock.clients import ClientTable
from pysock.descriptors import check_descriptors
from pysock.engine.contract import Engine, EngineOptions
from pysock.engine.rows import NO_STATS, EngineStats
from pysock.errors import PysockError
from pysock.handover.none import NO_RELAY, Relays
from pysock.health.lame import Lameness
from pysock.hooks import Hooks
from pysock.listening import Listening
from pysock.services import Services
from pysock.signals import Cancelled, stopping
from pysock.states import ServerEvent, ServerState, next_server_state

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Final

    from pysock.address import AddressLike
    from pysock.attached import Attached
    from pysock.base import kinds
    from pysock.engine.contract import Backend
    from pysock.limits import Limits
    from pysock.server import Server
    from pysock.tasks.tasks import Tasks
    from pysock.wire.auth import ServerProof
    from pysock.wire.format import Framing

#: How long after its grace a stop waits for a handler that doesn't return, in seconds.
PATIENCE: Final = 2.0


class Running(Unique):
    """What :class:`pysock.Server` runs on; its parameters are that one's. It runs once."""

    _instead = "make a new Server"

    def __init__(
        self,
        server: Server,
        addresses: Iterable[AddressLike],
        *,
        framing: str,
        backend: str,
        limits: Limits | None,
        linger: float | None,
        allow: kinds.Allow | None,
        authkey: bytes | None,
        insecure: bool,
        expose: str,
        loop: kinds.Loop,
        names: kinds.Names = "any",
        slow: str = "disconnect",
        tls: kinds.TLS | None = None,
        tls_driver: kinds.TLSDriver = "auto",
        advertise: kinds.Advertise | None = None,
    ) -> None:
        log.prepare()
        self._server = server
        self.name: str | None = server.name
        self.relay: Relays = NO_RELAY
        self.attached: Attached | None = None  # where it is in a loop of the program's
        self.tasks: Tasks | None = None  # of async handlers and hooks, if there are any
        self.limits: Limits = parameters.checked_limits(limits)
        self.rule: Rule = Rule(allow)
        guarded = authkey is not None or insecure
        self.listening: Listening = Listening(addresses, self.rule, backend, self.limits, guarded, tls, tls_driver)
        self.framing: Framing = parameters.checked_framing(framing)
        self._linger, self._loop = parameters.checked_linger(linger), parameters.checked_loop(loop)
        self._own_loop: AbstractEventLoop | None = None  # made, in which nobody serves yet
        self._slow = parameters.checked_slow(slow)
        self.proof: ServerProof | None = None if authkey is None else parameters.server_proof(authkey, self.framing)
        self.clients: ClientTable = ClientTable(self.limits.max_payload)
        self.services: Services = Services(self.framing)
        self.services.advertise(advertise, self.listening, self.clients, self.limits.max_clients)
        self.hooks: Hooks = Hooks(self.clients, self.services, parameters.checked_expose(expose))
        self.hooks.unique = parameters.checked_names(names, self.framing)
        self.hooks.asking.bound(self.limits, lambda: self.owner)
        self.engine: Engine | None = None
        self._last_stats: EngineStats | None = None
        self.state: ServerState = ServerState.NEW
        self.lameness: Lameness = Lameness(self, server.name or "server")
        self._cancelled = False
        self.owner: int | None = None  # the thread that must not wait for the end: that is its own work
        self._process: int | None = None  # that runs it
        self._elsewhere: str | None = None  # in a forked child: what to say to whoever uses it
        # Re-entrant, because a signal handler may call stop() while its own thread is inside start().
        self._lock = threading.RLock()
        self.runs: Span = Span()  # the loop, until all is undone
        forking.own(self)

    def listen_at(self, addresses: Iterable[AddressLike]) -> None:
        """As :meth:`pysock.Server.listen_at`."""
        with self._lock:
            if self.state is not ServerState.NEW:
                raise PysockError("this server runs, or has run, already: it can't listen elsewhere any more")
            self.listening.listen_at(addresses)

    @property
    def backend(self) -> Backend:
        """Its engine."""
        return self.listening.backend

    def stats(self) -> EngineStats:
        """The counters as they are, or as they were at the end."""
        engine, last = self.engine, self._last_stats
        return self.relay.counted(last or (NO_STATS if engine is None else engine.stats()))

    # Life

    def start(self) -> None:
        """As :meth:`pysock.Server.start`."""
        refuse_green_threads(self.backend.name)
        thread = daemon(self._run_in_background, f"pysock-{self._server.name or 'server'}")

        def launch() -> None:
            self._make_loop()
            try:
                with explained_without_daemons():
                    thread.start()
            except BaseException:  # Ctrl-C, say: the loop may run already, and must not lose its engine under its feet
                self._call_off(thread)
                raise
            self.owner = thread.ident

        self.open(launch)

    def serve_forever(self, grace: float, delay: float = 0.0) -> None:
        """As :meth:`pysock.Server.serve_forever`."""
        refuse_while_imported()
        if self._is_async:
            from pysock.tasks.ownloop import refuse_inner  # noqa: PLC0415  # it brings asyncio

            refuse_inner()
        grace, delay = parameters.checked_grace(grace), parameters.checked_grace(delay, "drain_delay")
        # The handlers come first: whoever sees the server listen may send a signal at once.
        with stopping(lambda patient: self._signalled(grace, delay if patient else 0)) as wake_by:
            try:
                engine = self.open(self._make_loop)
            except Cancelled:
                return
            if self.tasks is None:  # else the loop, or its guardian within a second, looks for signals
                wake_by(engine.wakeup_fd)
            try:
                self._serve(engine)
            finally:
                wake_by(-1)  # before the engine closes it and its number gets another meaning
                self.end()
            self.check_here()

    def stop(self, grace: float, delay: float = 0.0) -> None:
        """As :meth:`pysock.Server.stop`."""
        grace, delay = parameters.checked_grace(grace), parameters.checked_grace(delay, "drain_delay")
        if self._process not in (None, os.getpid()):
            return  # a child that Python knows nothing of: C code called fork()
        if delay and self.state is ServerState.SERVING:
            self.lameness.end(delay, grace)
            return
        with self._lock:
            engine = self.engine
            if self.state is ServerState.NEW:
                self._advance(ServerEvent.CLOSE)
            if self.state is ServerState.CLOSED:
                return
            if engine is None:
                self._cancelled = True  # a hook or a signal handler inside start(), in its own thread
                return
        with suppress(OSError):  # the loop wasn't woken, and will notice by itself
            engine.stop(grace)
        if self.owner != threading.get_ident() and not self.services.works_here():
            self.wait(grace + (PATIENCE if self.tasks is None else 2 * PATIENCE))  # tasks have as long to end

    def interrupt(self, grace: float) -> None:
        """``stop`` for a signal's handler: it takes no lock and writes no log."""
        if self.engine is None:
            self._cancelled = True
        else:
            with suppress(OSError):  # as in stop()
                self.engine.stop(grace)

    def wait(self, seconds: float) -> None:
        """Wait for the end; where it doesn't come in time, that is logged."""
        if not self.runs.wait(seconds) and self.state is not ServerState.CLOSED:
            log.error("%r didn't end in %g seconds: a handler hasn't returned", self._server, seconds)

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, the server is the parent's. No hook hears of it."""
        self._lock, self.runs = threading.RLock(), Span()
        self.lameness.abandon()
        if self.state in {ServerState.NEW, ServerState.CLOSED}:
            return
        self.state = next_server_state(self.state, ServerEvent.CLOSE)
        self._elsewhere = f"this server {why}"
        registry.discard(self._server)
        if self.attached is not None:
            self.attached.abandon()
        self.services.abandon_workers()
        if self.engine is not None:
            self.engine.abandon()
        self.engine = cast(Engine, forking.Elsewhere(self._elsewhere))
        self.clients.abandon(self.engine)
        self.hooks.serve(self.engine)

    # The beginning

    def open(self, launch: Callable[[], None] = lambda: None) -> Engine:
        """Everything up to SERVING, and ``launch()``; what was made is undone if one of them fails."""
        mine = False
        try:
            with self._lock:
                self.check_here()
                if self.state is not ServerState.NEW:
                    what = "has ended: make a new Server" if self.state is ServerState.CLOSED else "runs already"
                    raise PysockError(f"this server {what}")
                mine = True
                engine = self._prepare()
            # Without the lock: the loop may run before this ends, and a handler may want to stop it.
            launch()
            self.relay.serve(engine)
        except BaseException:
            if mine:
                self.end()
            raise
        return engine

    def _prepare(self) -> Engine:
        self.owner, self._process = threading.get_ident(), os.getpid()
        try:
            check_descriptors(self.limits)
            self.relay.begin()
            self.services.start_workers()  # before anybody can connect: it may take a while
            self.listening.open(self._server.name, self._advance)
            addresses = self.listening.addresses
            self.clients.speaks_tls = any(self.listening.tls)
            with explains(" and ".join(map(str, addresses)), "making the server's loop"):
                self.engine = engine = self._make_engine()
            self.lameness.tell_engine()
            self.clients.serve(engine, addresses)
            self.hooks.begin(engine)
            # Before anybody can see it serve: whoever does may end the interpreter at once.
            self.runs.begin()
            registry.add(self._server)
            self.services.warn_if_none(self._server)
            self.relay.receive(engine)
            self._advance(ServerEvent.SERVE)
            if self._cancelled:
                raise Cancelled("the server was stopped while it was starting")
        except BaseException:
            self.end()
            raise
        return engine

    def _make_engine(self) -> Engine:
        if self._is_async:
            from pysock.tasks.tasks import Tasks  # noqa: PLC0415  # it brings asyncio

            self.tasks = self.hooks.tasks = Tasks(self.backend.tasks, self.hooks.held_up)
        options = EngineOptions(
            framing=self.framing,
            limits=self.limits,
            linger=self._linger,
            services=self.services.table(None if self.tasks is None else self.tasks.starter),
            callbacks=self.hooks.callbacks(self._drain, self.rule, self.proof),
            welcome=self.services.welcome(self.limits),
            watch_disconnects=self.hooks.watch_disconnects,
            access=self.rule.access,
            slow=self._slow,
            held_up=self.hooks.held_up.least,
            **self.listening.engine_options,
            meter=self.services.meter(self.backend.name),
        )
        engine = self.backend.engine(options)
        try:
            self.listening.hand_to(engine)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def _is_async(self) -> bool:
        return self.services.has_async or self.hooks.has_async

    def _make_loop(self) -> None:
        """For async handlers, before anybody serves: whoever starts the server is told that there can't be one."""
        if self.tasks is not None:
            from pysock.tasks.ownloop import made  # noqa: PLC0415  # it brings asyncio

            self._own_loop = made(self._loop)

    def _serve(self, engine: Engine) -> None:
        """To the end, in this thread."""
        loop, self._own_loop = self._own_loop, None  # a forked child that forgets the server must not end it
        if loop is None:
            engine.run()
        else:
            from pysock.tasks.ownloop import serve  # noqa: PLC0415  # it brings asyncio

            serve(self, self._server, loop)

    def _run_in_background(self) -> None:
        assert self.engine is not None
        self.owner = threading.get_ident()
        try:
            self._serve(self.engine)
            self.check_here()
        except BaseException:
            # Nobody would see it: this thread has no caller.
            log.critical("%r ended because of an exception", self._server, exc_info=True)
        finally:
            self.end()

    def check_here(self) -> None:
        """Raise in a forked child, where it is the parent's."""
        if self._elsewhere is not None:
            raise PysockError(self._elsewhere)

    # The end

    def _call_off(self, thread: threading.Thread) -> None:
        """End the loop of a thread that may have begun."""
        assert self.engine is not None
        with suppress(OSError):
            self.engine.stop(0)
        with suppress(RuntimeError):  # it has not begun
            thread.join()

    def _signalled(self, grace: float, delay: float) -> None:
        """At the first signal: :meth:`stop`, whose waiting is another thread's, for this one may be in a handler."""
        if self.lameness.end_soon(delay, grace):
            return
        self.interrupt(grace)
        if self.engine is None:
            return  # nothing runs yet, and so there is nothing to wait for
        # Not a threading.Thread: that one's start takes locks, which the code that was interrupted may hold.
        with suppress(RuntimeError, MemoryError):
            _thread.start_new_thread(self.wait, (grace + PATIENCE,))

    def _drain(self) -> None:
        """In the loop's thread: no new connections."""
        try:
            self._advance(ServerEvent.DRAIN)
        finally:
            self.listening.close()
            self.clients.ask_no_more()

    def end(self) -> None:
        """Undo everything, in whatever state things are. Called again it does nothing."""
        if self.state is ServerState.CLOSED:
            return
        with ExitStack() as steps:  # last things first; whatever one of them raises, the others are taken
            steps.callback(self.runs.end)  # a signal, or an exit in a hook, may have come: nobody waits in vain
            steps.callback(self._advance, ServerEvent.CLOSE)
            steps.callback(self.services.end_workers)
            steps.callback(self.clients.ask_no_more)
            steps.callback(self._close_engine)
            if self._own_loop is not None:
                steps.callback(self._own_loop.close)
            steps.callback(registry.discard, self._server)
            steps.callback(self.listening.close)
            steps.callback(self.relay.end)

    def _close_engine(self) -> None:
        if self.engine is None:
            return
        try:
            self.hooks.end()
            self._last_stats = self.engine.stats()
        finally:
            self.engine.close()

    def _advance(self, event: ServerEvent) -> None:
        old, self.state = self.state, next_server_state(self.state, event)
        log.info("%s: %s -> %s", self._server.name or "server", old.name, self.state.name)
        self.hooks.state_changed(old, self.state)
