"""What a server is told before it starts: its services and its hooks, and who is told of it.

This file owns the decorators, and the rule that nothing can be registered once the server has been started: the
engine gets its tables at birth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING, overload
from pysock.base.unique import Unique
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any, Literal, TypeVar

    from pysock.base import kinds
    from pysock.base.kinds import BatchHandler, Handler, ProcessHandler, StreamHandler
    from pysock.data import DataSocket
    from pysock.directory.rows import ClientRow, LeftClient
    from pysock.hooks import Hooks
    from pysock.metrics.page import Page
    from pysock.services import Services
    from pysock.states import DisconnectReason, ServerState

    F = TypeVar("F", bound=Callable[..., Any])
    One = TypeVar("One", bound=Handler)
    Alone = TypeVar("Alone", bound=ProcessHandler)
    Streaming = TypeVar("Streaming", bound=StreamHandler)
    Batch = TypeVar("Batch", bound=BatchHandler)
    ConnectHook = TypeVar("ConnectHook", bound=Callable[[DataSocket], "bool | None"])
    DisconnectHook = TypeVar("DisconnectHook", bound=Callable[[DataSocket, DisconnectReason], Any])
    JoinHook = TypeVar("JoinHook", bound=Callable[[DataSocket, ClientRow], Any])
    LeaveHook = TypeVar("LeaveHook", bound=Callable[[DataSocket, LeftClient], Any])
    OutHook = TypeVar("OutHook", bound=Callable[[DataSocket], "bytes | None"])
    InHook = TypeVar("InHook", bound=Callable[[DataSocket, bytes], Any])
    StateHook = TypeVar("StateHook", bound=Callable[[ServerState, ServerState], Any])


class Registration(Unique, ABC):
    """The part of :class:`pysock.Server` that registers."""

    _instead = "make a new Server"

    def __init__(self, services: Services, hooks: Hooks) -> None:
        self._services = services
        self._hooks = hooks

    @property
    @abstractmethod
    def state(self) -> ServerState:
        """How far the server has come."""

    def measure(self, metrics: kinds.Metrics = True) -> None:
        """Be one that was made with ``metrics=``.

        :raises ValueError: it is nothing that could be.
        :raises PysockError: it runs, or has run, already.
        """
        if self.state.name != "NEW":
            raise PysockError("this server runs, or has run, already: it can't be measured any more")
        self._services.measure(metrics)

    def log_access(self, what: str) -> None:
        """Be one that was made with ``access_log=``.

        :raises ValueError: it is nothing that could be.
        :raises PysockError: it runs, or has run, or has an access log already.
        """
        from pysock.accesslog.log import AccessLog  # noqa: PLC0415  # few servers have one
        from pysock.accesslog.wanted import checked_wanted  # noqa: PLC0415  # likewise

        wanted = checked_wanted(what)
        if self.state.name != "NEW" or self._hooks.access_log is not None:
            raise PysockError("this server runs, or has run, or has an access log already")
        self._hooks.access_log = AccessLog(wanted, self._services, self._hooks.noticing)

    @property
    def metrics(self) -> Page | None:
        """Where it counts for those who look from outside; ``None``: nowhere. Its ``read()`` says what there is."""
        return self._services.page

    @overload
    def service(self, name: One, /) -> One: ...
    @overload
    def service(
        self,
        name: str | None = None,
        /,
        *,
        kind: Literal["async"] | None = None,
        on_leave: Literal["cancel", "finish"] = "cancel",
        endless: bool = False,
        threads: int | None = None,
        queue: int | None = None,
        idempotent: bool = False,
    ) -> Callable[[One], One]: ...
    @overload
    def service(
        self,
        name: str | None = None,
        /,
        *,
        kind: Literal["stream"],
        on_leave: Literal["cancel", "finish"] = "cancel",
        endless: bool = False,
        threads: int | None = None,
        queue: int | None = None,
        idempotent: bool = False,
    ) -> Callable[[Streaming], Streaming]: ...
    @overload
    def service(
        self,
        name: str | None = None,
        /,
        *,
        processes: int,
        queue: int | None = None,
        kill: bool = False,
        on_leave: Literal["cancel", "finish"] = "cancel",
        endless: bool = False,
        idempotent: bool = False,
    ) -> Callable[[Alone], Alone]: ...
    def service(
        self,
        name: Any = None,
        /,
        *,
        kind: Literal["async", "stream"] | None = None,
        on_leave: Literal["cancel", "finish"] = "cancel",
        endless: bool = False,
        threads: int | None = None,
        processes: int | None = None,
        queue: int | None = None,
        kill: bool = False,
        idempotent: bool = False,
    ) -> Any:
        """Register a handler: ``@server.service`` for the unnamed service, ``@server.service("name")`` for a named one.

        The handler is called as ``handler(client, request)`` with a :class:`DataSocket` and ``bytes``, and returns
        the reply, any bytes-like object or ``None``. The decorator returns it unchanged. It may be an ``async def``,
        which runs as a task of its own in an asyncio loop: the one that ``async with server`` is in, else one of the
        server's.

        A generator, or an async one, answers by a stream: each bytes-like object that it yields is a piece of the
        reply, sent at once, and what it returns is the last one. It goes on as fast as its client takes the pieces, and
        is closed where nobody wants more of them.

        Context variables (:mod:`contextvars`) that handlers set are seen by the later handlers of the same client, and
        by nobody else: the first starts with a copy of the context that the loop runs in. What is async, a batch and
        each hook have a fresh copy.

        :param kind: ``"async"``: what the handler returns is awaited, though it isn't an ``async def``; ``"stream"``:
            it is an iterator of the pieces of the reply, though the handler isn't a generator.
        :param on_leave: what becomes of an async handler's task, or of a request that waits for workers, when the
            client has left: it is cancelled, or it goes on to its end. That of a request without a reply (``notify``)
            always does. The same of a stream, but for one that the loop itself runs, which is always ended.
        :param endless: it may never end by itself: it is ended as soon as the server begins to stop, and not when the
            grace is over.
        :param threads: run the handler in so many threads of this service's own, while the loop goes on. It is called
            in the same way, may use its client and the server as in the loop, and has a fresh copy of the context in
            which the server was started.
        :param processes: run it in so many processes, each a Python of its own that imports the handler's module. It is
            called as ``handler(request)``.
        :param queue: how many requests may wait for the workers, 1024 by default. The clients take turns; who comes
            when all places are taken is answered by an :class:`~pysock.errors.Overloaded`.
        :param kill: end a worker process whose request is past its deadline, and start another one.
        :param idempotent: a request may be run twice, which clients are told: those that connect again send one once
            more of which nobody knows whether it was run.
        :raises ValueError: the name is registered already or can't be one, or the framing has no names; or the workers
            can't be: none, threads and processes at once, an ``async def``, or a handler for ``processes`` that
            can't be imported by its name; or the framing has no streams.
        :raises PysockError: the server has been started.
        """
        from pysock.pools.wanted import Wanted  # noqa: PLC0415  # for who registers, and not at import

        workers = Wanted(threads, processes, queue, kill)
        how = {"kind": kind, "on_leave": on_leave, "endless": endless, "idempotent": idempotent}
        return self._register(name, {**how, "wanted": workers})

    @overload
    def batch_service(self, name: Batch, /) -> Batch: ...
    @overload
    def batch_service(
        self, name: str | None = None, /, *, max_batch: int = 1024, max_wait: float = 0.0
    ) -> Callable[[Batch], Batch]: ...
    def batch_service(self, name: Any = None, /, *, max_batch: int = 1024, max_wait: float = 0.0) -> Any:
        """Register a handler for all requests that are ready in one turn, from all clients, in one call.

        It is called as ``handler(clients, requests)`` with two lists, and returns one reply for each, in order.

        :param max_batch: at most so many requests in one call.
        :param max_wait: seconds to hold requests back for more to come.
        :raises ValueError: as for :meth:`service`.
        :raises PysockError: the server has been started.
        """
        return self._register(name, {"batch": True, "max_batch": max_batch, "max_wait": max_wait})

    def on_connect(self, hook: ConnectHook) -> ConnectHook:
        """Register ``hook(client)``, asked about each client before it is let in.

        Returning ``None`` or ``True`` lets it in, ``False`` refuses it, and so does raising
        ``ConnectionRefused("why")``, which tells the client why. What the hook sends to the client follows its
        admission. With several hooks all of them must let it in. One that closes the client refuses it.
        """
        return self._add_hook(self._hooks.on_connect, hook, "hook(client)")

    def on_join(self, hook: JoinHook) -> JoinHook:
        """Register ``hook(client, row)``, called in the loop right after a client was let in.

        The row is its :class:`ClientRow`. From the call on the client is in the table and gets each broadcast, and no
        other handler or hook runs before it: between what the hook sends and what the loop sends later nothing is
        missed or comes twice. It can't refuse the client, but close it.
        """
        return self._add_hook(self._hooks.on_join, hook, "hook(client, row)")

    def on_leave(self, hook: LeaveHook) -> LeaveHook:
        """Register ``hook(client, left)``, called when a client that was let in is gone, after ``on_disconnect``.

        ``left`` is a :class:`LeftClient`: its last row, the reason and the time, as ``server.clients.left()`` keeps it.
        """
        return self._add_hook(self._hooks.on_leave, hook, "hook(client, left)")

    def on_disconnect(self, hook: DisconnectHook) -> DisconnectHook:
        """Register ``hook(client, reason)``, called when a client that was let in is gone.

        ``reason`` is a :class:`~pysock.states.DisconnectReason`, equal to its text: ``"left"``, ``"timed out"`` ... The
        hook may be an ``async def``, which runs as a task in the loop of async handlers.
        """
        return self._add_hook(self._hooks.on_disconnect, hook, "hook(client, reason)", None)

    def on_handover_out(self, hook: OutHook) -> OutHook:
        """Register ``hook(client)``, called where this server hands its clients over to the process that follows, for
        each client whose ``data`` isn't plain: it returns bytes that say what is kept of it, or ``None``.

        Without such bytes that client doesn't move: it is told to connect again. It runs in the loop's thread.
        """
        return self._add_hook(self._hooks.on_handover_out, hook, "hook(client)")

    def on_handover_in(self, hook: InHook) -> InHook:
        """Register ``hook(client, written)``, called where a client comes from the process before: it sets
        ``client.data`` from what ``on_handover_out`` returned there. If it raises, nobody moves.
        """
        return self._add_hook(self._hooks.on_handover_in, hook, "hook(client, written)")

    def on_state(self, hook: StateHook) -> StateHook:
        """Register ``hook(old, new)``, called with two :class:`ServerState` after each change.

        It runs in whichever thread made the change.
        """
        return self._add_hook(self._hooks.on_state, hook, "hook(old, new)")

    def _register(self, name: Any, options: dict[str, Any]) -> Any:
        self._check_new("services")
        if name is not None and not isinstance(name, str):
            self._services.add(None, name, **options)  # used as a bare decorator: it is the handler
            return name

        def decorate(handler: F) -> F:
            self._check_new("services")
            self._services.add(name, handler, **options)
            return handler

        return decorate

    def _add_hook(self, hooks: list[Any], hook: F, call: str, instead: str | None = "hooks are plain functions") -> F:
        self._check_new("hooks")
        from pysock.base.functions import checked_function  # noqa: PLC0415  # it is there, since services need it

        checked_function("hook", hook, call, instead)
        hooks.append(hook)
        return hook

    def _check_new(self, what: str) -> None:
        if self.state.name != "NEW":
            raise PysockError(f"{what} must be registered before the server is started; this one is {self.state.name}")
