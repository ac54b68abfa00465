"""Services of a cluster: functions that any node may call, of which one node that has it runs each call.

They run in the server's loop, as its handlers do; an async one in a task there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from pysock.base.functions import checked_function, is_async
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.cluster.directory.messages import MessageKind, Tag
from pysock.engine.guards import type_name
from pysock.errors import FrameTooLarge, ParameterError, RemoteError
from pysock.wire import texts
from pysock.wire.error_text import composed, remote_error
from pysock.wire.format import ErrorCode, Malformed
from pysock.wire.service_name import encoded_name

if TYPE_CHECKING:
    from typing import Any

    from pysock.cluster.bus.contract import Bus, Heard, Subscription
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.receiving import Answer, Receiving
    from pysock.cluster.subjects import Subjects
    from pysock.running import Running


class Registered:
    """The services of one node, by name."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., Any]] = {}

    def add(self, name: str, handler: Callable[..., Any]) -> None:
        """Add one.

        :raises ParameterError: there is one of this name, or can't be.
        :raises TypeError: the handler can't be called.
        """
        encoded_name(name, "name")
        if not name:
            raise ParameterError("name", "must be the name of a service: those of a cluster have one each")
        if name in self.handlers:
            raise ParameterError("name", f"the cluster's service {name!r} is registered already", name="")
        checked_function("handler", handler, "handler(node, request)", None)
        self.handlers[name] = handler

    @property
    def has_async(self) -> bool:
        """Whether one needs an asyncio loop."""
        return any(map(is_async, self.handlers.values()))


class Services(Unique):
    """Those of a node that runs.

    :param largest: how many bytes an answer may have.
    """

    def __init__(
        self,
        handlers: dict[str, Callable[..., Any]],
        directory: Directory,
        receiving: Receiving,
        running: Running,
        largest: Callable[[], int],
    ) -> None:
        self._handlers = handlers
        self._directory = directory
        self._receiving = receiving
        self._running = running
        self._largest = largest
        self._subscribed: list[Subscription] = []

    def begin(self, bus: Bus, subjects: Subjects) -> None:
        """From now on calls come."""
        for name in self._handlers:
            heard = partial(self._heard, name)
            self._subscribed.append(bus.subscribe(subjects.service(name), heard, queue=True))

    def end(self) -> None:
        """They are for others now."""
        while self._subscribed:
            self._subscribed.pop().end()

    def _heard(self, name: str, heard: Heard) -> None:
        """In the bus's thread."""
        message, answer = self._directory.decoded(heard.payload), heard.answer
        if message is None or answer is None or message.kind != MessageKind.CALL:
            return
        try:
            caller = message.text(Tag.CALLER)
        except Malformed:
            self._directory.foreign += 1
            return
        over = partial(self._receiving.failed, RemoteError(texts.SHUTTING_DOWN, ErrorCode.SHUTTING_DOWN), answer)
        self._receiving.in_loop(partial(self._call, name, caller, message.body, answer), answer, over)

    def _call(self, name: str, caller: str, request: bytes, answer: Answer) -> None:
        """In the loop."""
        handler, tasks = self._handlers[name], self._running.tasks
        if is_async(handler) and tasks is not None:
            tasks.run_hook(self._await, name, handler, caller, request, answer)
            return
        timed = self._running.hooks.held_up.timed(f"the cluster's service {name!r}", handler)
        try:
            self._answer(copy_context().run(timed, caller, request), answer)
        except Exception as error:
            self._fail(name, handler, caller, error, answer)

    async def _await(self, name: str, handler: Callable[..., Any], caller: str, request: bytes, answer: Answer) -> None:
        try:
            self._answer(await handler(caller, request), answer)
        except Exception as error:
            self._fail(name, handler, caller, error, answer)

    def _answer(self, reply: Any, answer: Answer) -> None:
        payload = b"" if reply is None else bytes(checked(reply, self._largest(), "the bus, for an answer"))
        self._receiving.done(answer, payload)

    def _fail(self, name: str, handler: object, caller: str, error: Exception, answer: Answer) -> None:
        if not isinstance(error, RemoteError):
            log.error("the cluster's service %r failed for node %r: %r", name, caller, handler, exc_info=error)
            code = ErrorCode.PAYLOAD_TOO_LARGE if isinstance(error, FrameTooLarge) else ErrorCode.HANDLER_FAILED
            text = str(error) if isinstance(error, FrameTooLarge) else composed(type_name(error), str(error))
            error = remote_error(code, 0, text.encode("utf-8", "replace"))
        self._receiving.failed(error, answer)
