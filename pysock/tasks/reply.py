"""The answer of a handler that waits for something.

In C the call itself is what the engine keeps, see ``csrc/python/call.c``.
"""

from __future__ import annotations

import asyncio

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.deferral import Deferred, Ended
from pysock.engine.guards import type_name
from pysock.tasks.call import Call
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any

    from pysock.tasks.tasks import Origin, Tasks


class Reply(Deferred):
    """What is returned to the engine in the place of the reply."""

    __slots__ = ("_tasks", "origin", "task")

    def __init__(self, tasks: Tasks, task: asyncio.Task[Any], origin: Origin) -> None:
        super().__init__(tasks.lock)
        self._tasks = tasks
        self.task: asyncio.Task[Any] = task
        self.origin: Origin = origin

    @property
    def handle(self) -> int:
        """Of the request that waits for it."""
        return self._handle

    @property
    def unwanted(self) -> bool:
        """Nobody waits for it any more."""
        return self.why is not None

    def ended(self, why: Ended) -> bool:
        """Nobody waits for it any more, and its task may be told so; it goes on to its own end."""
        self._tasks.ended(self, why)
        return True

    def step_took(self, seconds: float) -> None:
        """A step has taken so long."""
        if seconds >= self._tasks.long:
            self._tasks.held_up(self.origin.function, seconds)

    def settle(self, call: Call) -> None:
        """The handler has returned, or raised."""
        self._tasks.running.discard(self)
        error, call.error = call.error, None
        if error is None:
            self.answer(_reply_of(call.value))
        elif isinstance(error, Exception):
            self.answer(error)
        elif self.why is not None:
            self.answer(None)
        else:
            self._tasks.ended_itself(self, error)


def _reply_of(value: Any) -> Any:
    """What was returned; of an exception that wasn't raised, what is said of all that aren't bytes."""
    if not isinstance(value, BaseException):
        return value
    return TypeError(texts.NOT_BYTES % (type_name(value), ""))
