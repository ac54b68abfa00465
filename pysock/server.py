"""Server: services, hooks and a life cycle around one engine.

This file owns the order of things: master sockets are created, bound and made to listen, the loop runs, drains, and
everything made is undone. It never touches a client's bytes; the engine does.
"""

# ruff: noqa: PLC0415, PLW0603  # see _take_parts()

from __future__ import annotations

import _thread
import atexit
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from pysock._version import __version__
from pysock.base.lean import TYPE_CHECKING, cast
from pysock.errors import PysockError
from pysock.registration import Registration

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.access.rule import Rule, refuse_exposed
    from pysock.address import Address, AddressLike
    from pysock.base import forking, kinds
    from pysock.base import registry as running
    from pysock.base.clock import monotonic
    from pysock.base.faults import explains
    from pysock.base.green import refuse_green_threads
    from pysock.base.imported import refuse_while_imported
    from pysock.base.logs import server_log as log
    from pysock.clients import ClientTable
    from pysock.descriptors import check_descriptors
    from pysock.engine.choice import choose
    from pysock.engine.contract import Engine, EngineOptions, EngineStats
    from pysock.limits import Limits
    from pysock.master import MasterSocket
    from pysock.parameters import (
        checked_addresses,
        checked_framing,
        checked_grace,
        checked_limits,
        checked_linger,
        server_key,
    )
    from pysock.signals import stopping
    from pysock.states import ServerEvent, ServerState, next_server_state
    from pysock.wire.format import encode_welcome

#: How long after its grace :meth:`Server.stop` waits for a handler that doesn't return, in seconds.
PATIENCE: Final = 2.0

#: How long the interpreter's exit waits for handlers that don't return, in seconds, all servers together.
_PATIENCE_AT_EXIT: Final = 1.0


class Server(Registration):
    """A server: one loop, one client table, any number of addresses. It runs once.

    A server that was started lives until it is stopped, whether or not the program keeps a reference to it; at the exit
    of the interpreter those that still run in the background are stopped at once, also those that :meth:`serve_forever`
    runs in a daemon thread of the program's. In a forked child it is closed, without a word to its clients and without
    harm to the parent's; whoever uses it there gets a :class:`PysockError`.

    :param addresses: where to listen, as texts, :class:`Address` or the ``Path`` of a socket file; at least one.
    :param framing: how bytes are cut into messages: ``"pysock"``, ``"u32"``, ``"line"`` or ``"raw"``.
    :param backend: ``"auto"``, ``"native"`` or ``"pure"``.
    :param name: of this server, for logs, for the name of its thread, and for the socket file where an address is
        ``unix:`` without a path and a name of its own.
    :param limits: what a client may cost; by default ``Limits()``.
    :param linger: how long to poll without sleeping before a wait. By default up to 20 microseconds, where that pays: a
        few milliseconds with polling are held against a few without, now and then, and it goes on if requests then come
        so much faster, or cost so much less, that it is worth the processor time of its thread. A number of seconds is
        obeyed without such trials, unless nothing is found; 0 switches polling off, 1 is the most. While another Python
        thread computes it is ten times as long, for a sleep costs a switch interval then.
    :param allow: who may connect to the Unix sockets (an error where there are none): ``{"uid": ..., "gid": ...}`` with
        numbers or names, one or several, of users and of groups (a peer's own or supplementary ones; of a peer in more
        than 256 the pure engine knows its own alone); a function ``allow(peer) -> bool``, called with ``(pid, uid,
        gid)``; or ``"anyone"``, to leave it to the file's permissions (an abstract name has none, so there it is an
        error). It opens no file: whom it names the socket file's mode must let in, too (``?mode=0666``, or a group). By
        default the permissions are left to decide where an address sets them (``mode``, ``user``, ``group``), and at
        the file of an inherited socket (``fd://N``), whose maker has set them; elsewhere the user who runs the server,
        and root. Others, and peers whose user the system doesn't tell, are refused before a byte of theirs is read.
    :param authkey: a secret that clients must prove to know, as the server does to them (HMAC-SHA256, without sending
        it). Nothing is encrypted. Only with the framing ``"pysock"``.
    :param insecure: listen also where other machines can connect, without an ``authkey``.
    :raises ValueError: a parameter is wrong; the message says which, and what would be right.
    :raises ImportError: the native engine was asked for and isn't installed.
    """

    def __init__(
        self,
        *addresses: AddressLike,
        framing: kinds.FramingName = "pysock",
        backend: kinds.BackendName = "auto",
        name: str | None = None,
        limits: Limits | None = None,
        linger: float | None = None,
        allow: kinds.Allow | None = None,
        authkey: bytes | None = None,
        insecure: bool = False,
    ) -> None:
        _take_parts()
        log.prepare()
        rule = Rule(allow)
        wanted = checked_addresses(addresses, rule)
        self.name = name
        self.limits: Limits = checked_limits(limits)
        self._wanted = wanted
        self._framing = checked_framing(framing)
        self._backend = choose(backend)
        self._linger = checked_linger(linger)
        self._rule = rule
        self._key = None if authkey is None else server_key(authkey, self._framing)
        self._insecure = insecure
        self._clients = ClientTable(self.limits.max_payload)
        super().__init__(self._framing, self._clients)
        self._masters: list[MasterSocket] = []
        self._engine: Engine | None = None
        self._last_stats: EngineStats | None = None
        self._state = ServerState.NEW
        self._cancelled = False
        #: The thread that must not wait for the end, because the end is its own work.
        self._owner: int | None = None
        #: The process that runs it.
        self._process: int | None = None
        #: In a forked child, where the server is the parent's: what to say to whoever uses it.
        self._elsewhere: str | None = None
        # Re-entrant, because a signal handler may call stop() while its own thread is inside start().
        self._lock = threading.RLock()
        # Held while the loop runs. A bare lock can be waited for in a signal handler, which an Event can't.
        self._running = threading.Lock()
        forking.own(self)

    # What is going on

    @property
    def clients(self) -> ClientTable:
        """The table of connected clients, alive."""
        return self._clients

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the ports that the kernel chose; before the start, what was asked for."""
        masters = self._masters
        return tuple(master.address for master in masters) if masters else self._wanted

    def listen_at(self, *addresses: AddressLike) -> None:
        """Listen at these addresses instead of those that it was made with; at least one.

        :raises ValueError: an address is wrong.
        :raises PysockError: it runs, or has run, already.
        """
        with self._lock:
            if self._state is not ServerState.NEW:
                raise PysockError("this server runs, or has run, already: it can't listen elsewhere any more")
            self._wanted = checked_addresses(addresses, self._rule)

    @property
    def state(self) -> ServerState:
        """How far it has come."""
        return self._state

    @property
    def backend(self) -> str:
        """The name of its engine."""
        return self._backend.name

    def stats(self) -> dict[str, int]:
        """The counters since the start, by name; those of the end once it is closed."""
        engine, last = self._engine, self._last_stats
        if last is None:
            last = EngineStats(*[0] * len(EngineStats._fields)) if engine is None else engine.stats()
        return last._asdict()

    # Life

    def start(self) -> None:
        """Listen, and serve in a background thread. Returns when clients can connect.

        :raises ValueError: other machines can connect to an address, and there is no ``authkey``, nor ``insecure``; or
            an inherited socket has an abstract name, and the rule is ``allow="anyone"``; or all inherited ones are
            TCP, and there is a rule.
        :raises OSError: an address can't be used; nothing made is left behind. Mostly one of its subclasses:
            :class:`AddressInUse`, ``FileNotFoundError``, ``PermissionError`` ...
        :raises PysockError: it runs, or has run, already; or this is a sub-interpreter without daemon threads; or
            threads are green ones here (gevent, eventlet), among which it would never return.
        """
        refuse_green_threads(self.backend)
        with _explained_where_there_are_no_daemons():
            thread = threading.Thread(
                target=self._run_in_background, name=f"pysock-{self.name or 'server'}", daemon=True
            )

        def launch() -> None:
            try:
                with _explained_where_there_are_no_daemons():
                    thread.start()
            except BaseException:  # Ctrl-C, say: the loop may run already, and must not lose its engine under its feet
                self._call_off(thread)
                raise
            self._owner = thread.ident

        self._open(launch)

    def serve_forever(self, *, grace: float = 10.0) -> None:
        """Listen, and serve in this thread until :meth:`stop`.

        In the main thread SIGTERM and SIGINT (Ctrl-C) do the same as ``stop(grace)``, and this method then returns
        normally. A second signal ends it at once, with ``SystemExit(143)`` or ``KeyboardInterrupt``; where a handler
        doesn't return, that is logged 2 seconds after the grace.

        :raises OSError: as :meth:`start`.
        :raises PysockError: as :meth:`start`.
        """
        refuse_while_imported()
        grace = checked_grace(grace)
        # The handlers come first: whoever sees the server listen may send a signal at once.
        with stopping(lambda: self._signalled(grace)) as wake_by:
            try:
                engine = self._open()
            except _Cancelled:
                return
            wake_by(engine.wakeup_fd)
            try:
                engine.run()
            finally:
                wake_by(-1)  # before the engine closes it and its number gets another meaning
                self._end()
            self._check_here()

    def stop(self, grace: float = 10.0) -> None:
        """Drain and end: no new connections or requests, GOAWAY to the clients, what was accepted is answered, close.

        After ``grace`` seconds it ends regardless. It waits for the end, except in the loop's own thread (in a
        handler, or in a signal handler under :meth:`serve_forever`). A handler that doesn't return can't be ended:
        then it is logged, and this method returns 2 seconds after the grace. Called again it can only shorten the time.
        In a forked child it does nothing: the server is the parent's.
        """
        grace = checked_grace(grace)
        if self._process not in (None, os.getpid()):
            return  # a child that Python knows nothing of: C code called fork()
        with self._lock:
            engine = self._engine
            if self._state is ServerState.NEW:
                self._advance(ServerEvent.CLOSE)
            if self._state is ServerState.CLOSED:
                return
            if engine is None:
                self._cancelled = True  # a hook or a signal handler inside start(), in its own thread
                return
        with suppress(OSError):  # the loop wasn't woken, and will notice by itself
            engine.stop(grace)
        if self._owner != threading.get_ident():
            self._wait(grace + PATIENCE)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Server{name} {self._state.name} {' '.join(map(str, self.addresses))} ({self.backend})>"

    # The steps

    def _open(self, launch: Callable[[], None] = lambda: None) -> Engine:
        """Everything up to SERVING, and ``launch()``; what was made is undone if one of them fails."""
        mine = False
        try:
            with self._lock:
                self._check_here()
                if self._state is not ServerState.NEW:
                    what = "has ended: make a new Server" if self._state is ServerState.CLOSED else "runs already"
                    raise PysockError(f"this server {what}")
                mine = True
                engine = self._prepare()
            # Without the lock: the loop may run before this ends, and a handler may want to stop it.
            launch()
        except BaseException:
            if mine:
                self._end()
            raise
        return engine

    def _prepare(self) -> Engine:
        self._owner, self._process = threading.get_ident(), os.getpid()
        try:
            check_descriptors(self.limits)
            self._listen()
            with explains(" and ".join(map(str, self.addresses)), "making the server's loop"):
                self._engine = engine = self._make_engine()
            self._clients.serve(engine, self.addresses)
            # Before anybody can see it serve: whoever does may end the interpreter at once.
            self._running.acquire()
            running.add(self)
            self._warn_of_no_service()
            self._advance(ServerEvent.SERVE)
            if self._cancelled:
                raise _Cancelled("the server was stopped while it was starting")
        except BaseException:
            self._end()
            raise
        return engine

    def _listen(self) -> None:
        # All are made before the first is touched, so that a wrong user or group leaves nothing behind.
        self._masters = [MasterSocket(address.named(self.name), self._backend) for address in self._wanted]
        inherited = [master for master in self._masters if master.address.transport == "fd"]
        made = [master for master in self._masters if master.address.transport != "fd"]
        for master in inherited:
            master.adopt()
        self._rule.refuse_tcp_alone((master.address, master.fd) for master in self._masters)
        for master in made:
            master.remove_stale()
            master.create()
        self._advance(ServerEvent.CREATE if made else ServerEvent.ADOPT)
        _share_ports(made)
        for master in made:
            master.bind()
        if made:
            self._advance(ServerEvent.BIND)
        if self._key is None and not self._insecure:
            for master in self._masters:
                refuse_exposed(master.address, master.fd)
        for master in made:
            backlog = master.address.backlog or self.limits.backlog
            master.listen(backlog, vanish_timeout=self.limits.vanish_timeout, stall=self.limits.output_timeout)
        self._rule.warn_unreachable(master.address for master in made)
        if made:
            self._advance(ServerEvent.LISTEN)

    def _warn_of_no_service(self) -> None:
        if not any(service.handler for service in self._services.table()):
            log.warning(
                "%r has no service, so that no request can be answered: register one before the start, with"
                " @server.service",
                self,
            )

    def _make_engine(self) -> Engine:
        options = EngineOptions(
            framing=self._framing,
            limits=self.limits,
            linger=self._linger,
            services=self._services.table(),
            callbacks=self._hooks.callbacks(self._drain, self._rule, self._key),
            welcome=encode_welcome(
                self.limits.max_payload, self.limits.max_in_flight, self._services.numbers(), f"pysock/{__version__}"
            ),
            watch_disconnects=self._hooks.watch_disconnects,
            access=self._rule.access,
        )
        engine = self._backend.engine(options)
        try:
            for master in self._masters:
                engine.add_master(master.fd, self._rule.checks(master.address, master.fd), master.prepared)
                master.advance(ServerEvent.SERVE)
        except BaseException:
            engine.close()
            raise
        return engine

    def _run_in_background(self) -> None:
        assert self._engine is not None
        self._owner = threading.get_ident()
        try:
            self._engine.run()
            self._check_here()
        except BaseException:
            # Nobody would see it: this thread has no caller.
            log.critical("%r ended because of an exception", self, exc_info=True)
        finally:
            self._end()

    def _call_off(self, thread: threading.Thread) -> None:
        """End the loop of a thread that may have begun."""
        assert self._engine is not None
        with suppress(OSError):
            self._engine.stop(0)
        with suppress(RuntimeError):  # it has not begun
            thread.join()

    def _interrupt(self, grace: float) -> None:
        """``stop`` for a signal's handler: it takes no lock and writes no log."""
        if self._engine is None:
            self._cancelled = True
        else:
            with suppress(OSError):  # as in stop()
                self._engine.stop(grace)

    def _signalled(self, grace: float) -> None:
        """At the first signal: :meth:`stop`, whose waiting is another thread's, for this one may be in a handler."""
        self._interrupt(grace)
        if self._engine is None:
            return  # nothing runs yet, and so there is nothing to wait for
        # Not a threading.Thread: that one's start takes locks, which the code that was interrupted may hold.
        with suppress(RuntimeError, MemoryError):
            _thread.start_new_thread(self._wait, (grace + PATIENCE,))

    def _drain(self) -> None:
        """In the loop's thread: no new connections."""
        try:
            self._advance(ServerEvent.DRAIN)
        finally:
            self._close_masters()

    def _end(self) -> None:
        """Undo everything, in whatever state things are. Called again it does nothing."""
        if self._state is ServerState.CLOSED:
            return
        with ExitStack() as steps:  # last things first; whatever one of them raises, the others are taken
            steps.callback(self._no_longer_running)
            steps.callback(self._advance, ServerEvent.CLOSE)
            steps.callback(self._close_engine)
            steps.callback(running.discard, self)
            steps.callback(self._close_masters)

    def _close_engine(self) -> None:
        if self._engine is None:
            return
        try:
            self._last_stats = self._engine.stats()
        finally:
            self._engine.close()

    def _no_longer_running(self) -> None:
        """A signal, or an exit in a hook, may have come: who waits in stop() mustn't wait in vain."""
        if self._running.locked():
            self._running.release()

    def _check_here(self) -> None:
        if self._elsewhere is not None:
            raise PysockError(self._elsewhere)

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, the server is the parent's. No hook hears of it."""
        self._lock, self._running = threading.RLock(), threading.Lock()
        if self._state in {ServerState.NEW, ServerState.CLOSED}:
            return
        self._state = next_server_state(self._state, ServerEvent.CLOSE)
        self._elsewhere = f"this server {why}"
        running.discard(self)
        if self._engine is not None:
            self._engine.abandon()
        self._engine = cast(Engine, forking.Elsewhere(self._elsewhere))
        self._clients.serve(self._engine, self.addresses)

    def _close_masters(self) -> None:
        with ExitStack() as steps:
            for master in reversed(self._masters):
                steps.callback(_close, master)

    def _wait(self, seconds: float) -> None:
        if self._running.acquire(timeout=seconds):
            self._running.release()
        elif self._state is not ServerState.CLOSED:
            log.error("%r didn't end in %g seconds: a handler hasn't returned", self, seconds)

    def _advance(self, event: ServerEvent) -> None:
        old, self._state = self._state, next_server_state(self._state, event)
        log.info("%s: %s -> %s", self.name or "server", old.name, self._state.name)
        self._hooks.state_changed(old, self._state)


def serve(address: AddressLike | Iterable[AddressLike], handler: kinds.Handler, **options: Any) -> None:
    """Serve one handler at an address, or at several, until SIGTERM or Ctrl-C.

    :param handler: the unnamed service, called as ``handler(client, request)``.
    :param options: what :class:`Server` takes: ``framing``, ``limits``, ``allow``, ``authkey`` ...
    """
    _take_parts()
    addresses = [address] if isinstance(address, (str, Address, os.PathLike)) else list(address)
    server = Server(*addresses, **options)
    server.service()(handler)  # always as a handler: a text would be taken for a name otherwise
    server.serve_forever()


_parts_taken = False


def _take_parts() -> None:
    """Import what a server runs on, when the first one is made: a program that only has the name pays nothing, and one
    that has a Server can give up its rights, or its root directory, with nothing left to import.
    """
    global _parts_taken
    global forking, running, Rule, refuse_exposed, Address, AddressLike, ClientTable, monotonic
    global check_descriptors, Engine, EngineOptions, EngineStats, choose, explains, refuse_green_threads
    global refuse_while_imported, Limits, log, MasterSocket, encode_welcome, stopping, ServerEvent
    global ServerState, next_server_state, checked_addresses, checked_framing, checked_grace, checked_limits
    global checked_linger, server_key
    if _parts_taken:
        return
    from pysock.access.rule import Rule, refuse_exposed
    from pysock.address import Address, AddressLike
    from pysock.base import forking
    from pysock.base import registry as running
    from pysock.base.clock import monotonic
    from pysock.base.faults import explains
    from pysock.base.green import refuse_green_threads
    from pysock.base.imported import refuse_while_imported
    from pysock.base.logs import server_log as log
    from pysock.clients import ClientTable
    from pysock.descriptors import check_descriptors
    from pysock.engine.choice import choose
    from pysock.engine.contract import Engine, EngineOptions, EngineStats
    from pysock.limits import Limits
    from pysock.master import MasterSocket
    from pysock.parameters import (
        checked_addresses,
        checked_framing,
        checked_grace,
        checked_limits,
        checked_linger,
        server_key,
    )
    from pysock.signals import stopping
    from pysock.states import ServerEvent, ServerState, next_server_state
    from pysock.wire.format import encode_welcome

    _parts_taken = True


@contextmanager
def _explained_where_there_are_no_daemons() -> Iterator[None]:
    """Around the making and the start of a thread: since Python 3.12 the one is refused, before it was the other."""
    try:
        yield
    except RuntimeError as error:
        if "subinterpreter" not in str(error) and "(sub)interpreter" not in str(error):
            raise  # the system has no more threads, say
        raise PysockError(
            "start() needs a daemon thread, and this sub-interpreter allows none: call serve_forever() of a new Server"
            " here, or start it in the main interpreter"
        ) from error


class _Cancelled(PysockError):
    """The server was stopped while it was starting."""


def _share_ports(masters: list[MasterSocket]) -> None:
    """Where one has a port for IPv4, another may have it for IPv6."""
    shared = {master.address.port for master in masters if master.takes_ipv4} - {0}
    for master in masters:
        if master.address.port in shared:
            master.leave_ipv4()


def _close(master: MasterSocket) -> None:
    try:
        master.close()
    except OSError as error:  # the descriptor is gone all the same, and the others must be closed too
        log.warning("closing %r: %s", master, error)


# Those in daemon threads must end before Python's own structures do, else the thread would block for ever in the middle
# of its work.
@atexit.register
def _stop_background() -> None:
    if not _parts_taken:
        return  # none was ever made
    # All are told before one is waited for: a handler that doesn't return costs its server's wait, once for all.
    still_there = running.servers()
    for server in still_there:
        server._interrupt(0)
    deadline = monotonic() + _PATIENCE_AT_EXIT
    for server in still_there:
        server._wait(max(0.0, deadline - monotonic()))
