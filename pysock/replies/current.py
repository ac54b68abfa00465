"""``pysock.current()``: which request a handler runs for, how long its client still waits, and what is to be done after
the reply. It costs a request nothing unless it is asked.

A handler in the loop's own thread asks the engine, which knows whom it has called; one that is suspended, its task.
Where neither is at hand, as in a worker, it is in a context variable, :data:`HELD`, set by whoever has called the
handler; and in a task from the moment on when it was asked for, so that those which that one begins have it as well.
"""

from __future__ import annotations

import sys
from _weakref import ref
from collections.abc import Callable
from contextvars import ContextVar

from pysock.base import registry
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.logs import server_log as log
from pysock.engine.rows import Current
from pysock.errors import Cancelled, RemoteError, RequestTimeout
from pysock.states import ConnectionState
from pysock.wire import texts
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    import asyncio
    from typing import Any, Final

    from pysock.data import DataSocket
    from pysock.running import Running


class Request:
    """A request whose handler runs: what :func:`pysock.current` returns.

    :ivar client: the client that has sent it.
    :ivar request_id: its number on the wire, as in the log; 0 in a framing without ids.
    :ivar service: the name of the service, ``""`` for the unnamed one.
    :ivar wants_reply: whether its client waits for a reply, or has sent it by ``notify``.
    :ivar deadline: when its client stops waiting, on the clock of :func:`time.monotonic`; ``None``: it hasn't said.
    """

    __slots__ = ("_call_after", "_is_unwanted", "client", "deadline", "request_id", "service", "wants_reply")

    def __init__(
        self,
        client: DataSocket,
        service: str,
        row: Current,
        call_after: Callable[[Callable[[], object]], object],
        is_unwanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.client: DataSocket = client
        self.service: str = service
        self.request_id: int = row.request_id
        self.wants_reply: bool = row.wants_reply
        self.deadline: float | None = row.deadline or None
        self._call_after = call_after
        self._is_unwanted = is_unwanted

    def remaining(self) -> float | None:
        """How many seconds its client still waits, at least 0; ``None``: it hasn't said."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more: the client has cancelled it or left, or its deadline has passed.

        What a client has sent while a handler runs in the loop's own thread is read when that has returned: there only
        the deadline is seen.
        """
        return self.remaining() == 0 or self._is_unwanted() or self.client.state is ConnectionState.CLOSED

    def check(self) -> None:
        """Go on only if somebody waits: for the middle of a long computation.

        :raises Cancelled: the client has cancelled it, or left. A handler lets it through.
        :raises RemoteError: the deadline has passed. The same.
        """
        if self.remaining() == 0:
            raise RemoteError(texts.TOO_LATE, ErrorCode.DEADLINE_PASSED)
        if self.cancelled:
            raise Cancelled(texts.CANCELLED)

    def after_reply(self, function: Callable[[], object]) -> None:
        """Call this in the loop's thread when the handler has returned and its reply is on its way. What it raises is
        logged.
        """

        def call() -> None:
            try:
                function()
            except Exception:
                log.exception("what was to be done after the reply of service %r failed: %r", self.service, function)

        self._call_after(call)


class Holder(Protocol):
    """What makes one when it is asked for."""

    def current(self) -> Request:
        """The request."""


class Nobody:
    """That a task is no handler's, which isn't looked for again. Contexts are copied to other tasks: it says nothing of
    those.
    """

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = ref(task)

    def is_here(self) -> bool:
        """Whether it is that task which runs."""
        task = self._task()
        return task is not None and task is _task_here()


#: The request whose handler runs in this context, where that isn't the engine's to know; or that there is none.
HELD: Final[ContextVar[Request | Holder | Nobody]] = ContextVar("pysock_request")


def current() -> Request:
    """The request whose handler runs here, or in whose task this is, or in one that it has begun since it asked.

    :raises LookupError: none does; or it is a batch, which is of several.
    """
    found = _find()
    if found is None:
        raise LookupError(
            "no handler of one request runs here: pysock.current() is for handlers, but not for those of a batch"
        )
    return found


def _find() -> Request | None:
    """The same, for whoever asks at each call and mostly isn't in a handler."""
    held = HELD.get(None)
    if isinstance(held, Nobody):
        if held.is_here():
            return None
    elif held is not None:
        return held if isinstance(held, Request) else held.current()
    servers = [server._running for server in registry.servers()]
    for running in servers:
        found = _in_turn(running) or _in_task(running)
        if found is not None:
            return found
    task = _task_here()
    if task is not None and not any(running.tasks is not None and running.tasks.here() for running in servers):
        HELD.set(Nobody(task))
    return None


def _task_here() -> asyncio.Task[Any] | None:
    """The task that runs here. Where nobody has imported asyncio there is none."""
    current_task = getattr(sys.modules.get("asyncio"), "current_task", None)
    try:
        return None if current_task is None else current_task()
    except RuntimeError:  # no loop runs
        return None


def _in_turn(running: Running) -> Request | None:
    """A handler in the loop's own thread, or the first step of one that is async."""
    engine, tasks = running.engine, running.tasks
    row = None if engine is None else engine.current()
    if engine is None or row is None:
        return None
    client, service = running.clients.obtain(row.client_id), running.services.name(row.service)
    task = None if tasks is None else tasks.here()
    if tasks is None or task is None:
        return Request(client, service, row, engine.call_later)

    def after(function: Callable[[], object]) -> None:
        """It may wait for something before it ends."""
        goes_on = tasks.work_of(task) is not None
        task.add_done_callback(lambda _: function()) if goes_on else function()

    request = Request(
        client,
        service,
        row,
        lambda function: engine.call_later(lambda: after(function)),
        lambda: (work := tasks.work_of(task)) is not None and work.unwanted,
    )
    HELD.set(request)
    return request


def _in_task(running: Running) -> Request | None:
    """A later step of one that is async."""
    engine, tasks = running.engine, running.tasks
    task = None if tasks is None else tasks.here()
    if engine is None or tasks is None or task is None:
        return None
    work = tasks.work_of(task)
    row = None if work is None else engine.waiting(work.handle)
    if work is None or row is None:
        return None
    client, service = running.clients.obtain(row.client_id), running.services.name(row.service)
    request = Request(
        client, service, row, lambda function: task.add_done_callback(lambda _: function()), lambda: work.unwanted
    )
    HELD.set(request)
    return request


def shortened(seconds: float | None) -> float | None:
    """The time for a call of a client that a handler makes: no more than there is for the handler. ``None``: no end.

    :raises RequestTimeout: there is none left.
    """
    if HELD.get(None) is None and not registry.are_any():
        return seconds
    request = _find()
    left = None if request is None else request.remaining()
    if left == 0:
        raise RequestTimeout("nobody waits any more for the handler that makes this call: its deadline has passed")
    return seconds if left is None or (seconds is not None and seconds < left) else left
