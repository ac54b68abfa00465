"""The tasks of one server: what its async handlers and hooks began and didn't finish at once.

This file owns the references to them, for a loop has none that count; and what becomes of each: its answer, its end
when nobody waits for it any more, and the end of them all.
"""

from __future__ import annotations

import asyncio
import sys
from _thread import RLock
from collections.abc import Callable
from contextvars import Context, copy_context

from pysock.base.functions import described, makes_coroutines
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.errors import RemoteError
from pysock.tasks.call import Call, own_words
from pysock.tasks.reply import Reply
from pysock.tasks.stream import Streamer
from pysock.wire import texts
from pysock.wire.format import ErrorCode

if sys.version_info >= (3, 12):
    from pysock.tasks.eager import Eager as Starter
else:
    from pysock.tasks.parked import Parked as Starter

if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    from pysock.failures import HeldUp

    class Origin(Protocol):
        """Who has begun it."""

        @property
        def function(self) -> Callable[..., Any]:
            """The handler, or hook."""

        @property
        def stays(self) -> bool:
            """Whether it isn't cancelled when its client has left."""

    class Work(Protocol):
        """What goes on in a task."""

        @property
        def task(self) -> asyncio.Task[Any]:
            """Where it runs."""

        @property
        def origin(self) -> Origin:
            """Of what it is a call."""

        @property
        def handle(self) -> int:
            """Of the request that waits for it; 0: none does."""

        @property
        def unwanted(self) -> bool:
            """Nobody waits for it any more."""

        def answer(self, reply: Any, /) -> object:
            """Answer its request."""


#: How long tasks that were cancelled are waited for at the end of the server, in seconds.
PATIENCE: Final = 2.0
#: After so many seconds it is told that a task goes on that was cancelled.
_GOES_ON: Final = 5.0


class Tasks(Unique):
    """Those of one server."""

    def __init__(self, types: tuple[Any, Any] | None, delays: HeldUp) -> None:
        """``types``: as :attr:`pysock.engine.contract.Backend.tasks`; ``delays``: is told of steps that take long."""
        self._types = types
        #: Of how many seconds it is told; and by what: with the handler, and the seconds.
        self.long: float = delays.least
        self.held_up: Callable[[Callable[..., Any], float], None] = delays.step
        self._starters: list[Any] = []  # in C
        self.loop: asyncio.AbstractEventLoop | None = None
        #: What the context of each task is a copy of.
        self.base: Context = Context()
        self.patience: float = PATIENCE  # at the end
        #: Of all replies: they are given in one thread, and a lock of each would be a tenth of what it takes.
        self.lock: RLock = RLock()
        #: What goes on.
        self.running: set[Work] = set()
        #: Of each that was cancelled, when it is told that it goes on.
        self._cancelled: dict[Work, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Before Python 3.12: tasks that wait for a coroutine.
        self.spares: list[Any] = []

    def begin(self, loop: asyncio.AbstractEventLoop, wants_turn: Callable[[], None]) -> None:
        """From now on handlers can be called: in this thread, where this loop runs, and in a copy of this context.

        :param wants_turn: as :attr:`pysock.engine.contract.Engine.wants_turn`.
        """
        self.loop, self.base = loop, copy_context()
        for starter in self._starters:
            starter.begin(loop, self.base, wants_turn)

    def starter(self, function: Callable[..., Any], stays: bool, streams: bool = False) -> Callable[[Any, Any], Any]:
        """Of an async handler one that returns the reply, or the promise of one.

        :param stays: it isn't cancelled when its client has left.
        :param streams: its reply is a stream.
        """
        if streams:
            return Streamer(function, self, stays)
        function = function if makes_coroutines(function) else _awaiting(function)
        plain = Starter(function, self, stays)
        if self._types is None:
            return plain
        enter, leave = asyncio.tasks._enter_task, asyncio.tasks._leave_task
        starter: Callable[[Any, Any], Any] = self._types[1](
            plain, stays, function, self, self.running, asyncio.Task, own_words, enter, leave
        )
        self._starters.append(starter)
        return starter

    def over(self) -> RemoteError:
        """What is raised in the place of a handler that can't begin any more."""
        return RemoteError(texts.SHUTTING_DOWN, ErrorCode.SHUTTING_DOWN)

    def here(self) -> asyncio.Task[Any] | None:
        """The task of a handler, if one runs here."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs
            return None
        types = Call if self._types is None else (Call, self._types[0])
        return task if task is not None and isinstance(task.get_coro(), types) else None

    def work_of(self, task: asyncio.Task[Any]) -> Work | None:
        """What a request waits for, in this task of a handler."""
        call: Any = task.get_coro()
        work = call.deferred if isinstance(call, Call) else call
        return work if work in self.running else None

    def defer(self, call: Call, task: asyncio.Task[Any], origin: Origin) -> Reply:
        """The promise of the answer of a call that waits for something."""
        reply = Reply(self, task, origin)
        call.deferred = reply
        self.running.add(reply)
        return reply

    def run_hook(self, hook: Callable[..., Any], *arguments: Any) -> None:
        """Begin an async hook."""
        if self.loop is None or self.loop.is_closed():
            log.error(
                "the hook %r can't run any more: its loop has ended; it was to be called with %r", hook, arguments
            )
            return
        task = self.base.copy().run(self.loop.create_task, _hooked(hook, arguments))
        work = _Hook(hook, task)
        self.running.add(work)
        task.add_done_callback(lambda _: self.running.discard(work))

    # The end

    def ended(self, work: Work, why: int) -> None:
        """Nobody waits for its answer any more."""
        if why != Ended.GONE or not work.origin.stays:
            self._cancel(work)

    def ended_itself(self, work: Work, error: BaseException) -> None:
        """It has raised what is no ``Exception``, though somebody waits for it.

        A cancel may be the handler's own doing, or that of the program, whose loop ends. With that the server ends, a
        moment later: then it is for the engine to say so. Whatever else leaves the loop, whose end answers all.
        """
        if isinstance(error, asyncio.CancelledError) and self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon(work.answer, own_words(error))

    def _cancel(self, work: Work) -> None:
        loop = self.loop
        if loop is None or loop.is_closed() or work not in self.running or work in self._cancelled:
            return
        self._cancelled[work] = loop.time() + _GOES_ON
        work.task.add_done_callback(lambda _: self._cancelled.pop(work, None))
        work.task.cancel()
        if self._timer is None:
            self._timer = loop.call_later(_GOES_ON, self._tell)

    def _tell(self) -> None:
        """Of those that go on."""
        assert self.loop is not None
        self._timer, now = None, self.loop.time()
        for work, due in list(self._cancelled.items()):
            if due > now:
                self._timer = self.loop.call_at(due, self._tell)
                return
            del self._cancelled[work]
            if work in self.running:
                log.warning("%s goes on, %g seconds after it was cancelled", _name(work), _GOES_ON)

    async def end(self) -> None:
        """The engine has ended, and has cancelled those of handlers: wait for them. One that goes on is logged."""
        try:
            if self.running:
                works = {work.task: work for work in self.running}
                _, left = await asyncio.wait(list(works), timeout=self.patience)
                for task in left:
                    log.error("%s goes on, though its server has ended", _name(works[task]))
                    self._cancel(works[task])
        finally:
            self.close()

    def close(self) -> None:
        """Nothing begins any more, and no answer matters."""
        self.loop = None
        for starter in self._starters:
            starter.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.spares:
            self.spares.pop().retire()

    def abandon(self) -> None:
        """The loop has ended without them: they will never go on, and Python is not to complain of each."""
        self.close()
        for work in self.running:
            work.task._log_destroy_pending = False  # type: ignore[attr-defined]


class _Hook:
    """One that runs."""

    __slots__ = ("function", "handle", "origin", "stays", "task", "unwanted")

    def __init__(self, function: Callable[..., Any], task: asyncio.Task[Any]) -> None:
        self.function: Callable[..., Any] = function
        self.task: asyncio.Task[Any] = task
        self.origin: Origin = self
        self.stays: bool = True
        self.handle: int = 0
        self.unwanted: bool = False

    def answer(self, reply: Any, /) -> None:
        """Nobody waits for one."""


def _name(work: Work) -> str:
    function = work.origin.function
    return described(getattr(function, "__wrapped__", function))


def _awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """An async function, of one that returns something to be awaited."""

    async def call(client: Any, request: Any) -> Any:
        result = function(client, request)
        return await result if hasattr(type(result), "__await__") else result

    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call


async def _hooked(hook: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        await hook(*arguments)
    except Exception:
        log.exception("the hook %r failed; it was called with %r", hook, arguments)
