"""How the coroutine of a handler begins before Python 3.12, which has no eager tasks.

A real task is made that has nothing to do yet, and is the loop's current one while the coroutine's first step runs.
Most coroutines have ended then, and the same task serves the next one. If this one waits for something, it is handed to
the task, which goes on with it in the loop's next pass; until then whoever cancels the task cancels what is waited for.

When that has ended, the task waits for the next one: to make a task costs as much as all else of a request. But one
that somebody has got hold of meanwhile, or changed, isn't used again: it ends, as whoever has it expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from sys import getrefcount, version_info
from weakref import getweakrefcount

from pysock.base.lean import TYPE_CHECKING
from pysock.tasks.call import Call, own_words
from pysock.tasks.starter import Starter

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.tasks.tasks import Tasks


#: So many tasks of a server wait at most.
_MOST_SPARES: Final = 128
#: Who knows of a task that waits, or that is in the last step of what it had: its seat, what wakes it or has woken it,
#: and what asks how many they are; in a step also asyncio, whose current one it is.
_WAITING, _IN_ITS_STEP = 3, 4
_enter, _leave = asyncio.tasks._enter_task, asyncio.tasks._leave_task  # documented, in "Extending"
_NONE = Context()
_COUNTS_CANCELS: Final = version_info >= (3, 11)


class Parked(Starter):
    """A starter by a task that waits for its coroutine."""

    __slots__ = ()

    def __call__(self, client: Any, request: Any) -> Any:
        """The reply, or the promise of one."""
        tasks = self._tasks
        if tasks.loop is None:
            raise tasks.over()
        coroutine, context = self.function(client, request), tasks.base.copy()
        seat = _free_one(tasks)
        try:
            awaited = seat.first_step(context, coroutine)
        except StopIteration as stop:
            value = stop.value
        except BaseException as error:
            seat.retire()
            raise own_words(error)  # noqa: B904  # it says so itself
        else:
            seat.take(context, coroutine, awaited)
            return tasks.defer(seat, seat.task, self)
        if seat.is_own(_WAITING):
            tasks.spares.append(seat)
        else:
            seat.retire()
        return value


def _free_one(tasks: Tasks) -> Seat:
    while tasks.spares:
        seat: Seat = tasks.spares.pop()
        if seat.is_free():
            return seat
        seat.retire()  # somebody has cancelled it: it ends by itself
    return Seat(tasks)


class Seat(Call):
    """What the task was made of: it has no coroutine until it is given one that has begun."""

    __slots__ = ("_awaited", "_context", "_gate", "_is_retired", "_loop", "_name", "_tasks", "task")

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(None)
        loop = tasks.loop
        assert loop is not None
        self._tasks = tasks
        self._loop: asyncio.AbstractEventLoop = loop
        self._context = _NONE
        self._awaited: Any = None  # what the first step has come to, and the task doesn't know of yet
        self._gate: asyncio.Future[None] | None = None  # for which the task waits meanwhile
        self._is_retired = False
        task: Any = asyncio.Task(self, loop=loop)
        self.task: Any = task
        task._log_destroy_pending = False  # a loop may end while it has nothing to do, or for good
        self._name: str = task.get_name()

    # For the handler that begins

    def is_free(self) -> bool:
        """Whether nobody has cancelled the task."""
        return not (self._gate.done() if self._gate is not None else self.task._must_cancel)

    def is_own(self, references: int) -> bool:
        """Whether nobody else has got hold of the task, or has changed it."""
        return getrefcount(self.task) == references and _is_unchanged(self.task) and self.task.get_name() is self._name

    def first_step(self, context: Context, coroutine: Any) -> Any:
        """To where the coroutine waits."""
        loop = self._loop
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave(loop, outer)
        _enter(loop, self.task)
        try:
            return context.run(coroutine.send, None)
        finally:
            _leave(loop, self.task)
            if outer is not None:
                _enter(loop, outer)

    def take(self, context: Context, coroutine: Any, awaited: Any) -> None:
        """Let the task go on with it, in the loop's next pass."""
        _mark(awaited, False)  # until then others may begin to wait for it, too
        self._context, self._coroutine, self._awaited = context, coroutine, awaited
        self._open()

    def retire(self) -> None:
        """Let the task end."""
        self._is_retired = True
        self._open()

    def _open(self) -> None:
        if self._gate is not None and not self._gate.done() and not self._loop.is_closed():
            self._gate.set_result(None)

    # For the task

    def send(self, value: Any) -> Any:
        """As of every coroutine."""
        if self._coroutine is None:
            return self._park()
        awaited = self._taken()
        return self._go_on(Call.send, value) if awaited is None else _to_be_awaited(awaited)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """As of every coroutine."""
        error = kind if value is None else value
        if self._coroutine is None:
            raise error
        awaited = self._taken()
        if awaited is not None and isinstance(error, asyncio.CancelledError) and awaited.cancel():
            return _to_be_awaited(awaited)
        return self._go_on(Call.throw, error)

    def _go_on(self, step: Callable[..., Any], what: Any) -> Any:
        try:
            return self._context.run(step, self, what)
        except StopIteration:
            self._forget()
            if not self._can_serve_again():
                raise
        gate = self._park()
        self._tasks.spares.append(self)
        return gate

    def _forget(self) -> None:
        self._begin_anew()
        self._context = _NONE

    def _can_serve_again(self) -> bool:
        tasks = self._tasks
        return tasks.loop is not None and len(tasks.spares) < _MOST_SPARES and self.is_own(_IN_ITS_STEP)

    def _taken(self) -> Any:
        """What the first step has come to, once."""
        awaited, self._awaited = self._awaited, None
        return awaited

    def _park(self) -> Any:
        if self._is_retired:
            raise StopIteration
        self._gate = self._loop.create_future()
        return _to_be_awaited(self._gate)

    def close(self) -> None:
        """As of every coroutine."""
        if self._coroutine is not None:
            self._coroutine.close()


def _is_unchanged(task: Any) -> bool:
    """Whether it is as it was made: asyncio alone has a weak reference to it."""
    return getweakrefcount(task) == 1 and task._callbacks is None and not (_COUNTS_CANCELS and task.cancelling())


def _to_be_awaited(future: Any) -> Any:
    """As the ``yield`` of a future's own ``__await__`` says."""
    _mark(future, True)
    return future


def _mark(future: Any, is_handed_over: bool) -> None:
    """Whether it is on its way to its task: meanwhile it refuses to be awaited by another."""
    with suppress(AttributeError):
        future._asyncio_future_blocking = is_handed_over
