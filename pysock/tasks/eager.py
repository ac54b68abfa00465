"""How the coroutine of a handler begins, from Python 3.12 on: as an eager task, whose first step runs at once."""

from __future__ import annotations

import asyncio

from pysock.base.lean import TYPE_CHECKING
from pysock.tasks.call import Call
from pysock.tasks.starter import Starter

if TYPE_CHECKING:
    from typing import Any


class Eager(Starter):
    """A starter by eager tasks."""

    __slots__ = ()

    def __call__(self, client: Any, request: Any) -> Any:
        """The reply, or the promise of one."""
        tasks = self._tasks
        if tasks.loop is None:
            raise tasks.over()
        call = Call(self.function(client, request))
        task = asyncio.Task(call, loop=tasks.loop, eager_start=True, context=tasks.base.copy())  # type: ignore[call-arg]
        return call.outcome() if call.done else tasks.defer(call, task, self)
