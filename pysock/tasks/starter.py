"""A handler that the engine can call, made of one that is async: what both ways to begin it share."""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pysock.tasks.tasks import Tasks


class Starter:
    """Called with a client and a request it returns the reply, or the promise of one.

    :ivar function: the async handler.
    :ivar stays: it isn't cancelled when its client has left.
    """

    __slots__ = ("_tasks", "function", "stays")

    def __init__(self, function: Callable[[Any, Any], Any], tasks: Tasks, stays: bool) -> None:
        self._tasks: Tasks = tasks
        self.function: Callable[[Any, Any], Any] = function
        self.stays: bool = stays
