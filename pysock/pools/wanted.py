"""What a service may be given of workers: looked at when it is registered, also where it wants none."""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any


class Wanted(NamedTuple):
    """What ``@server.service`` was given of workers; as it is, none."""

    threads: int | None = None
    processes: int | None = None
    queue: int | None = None
    kill: bool = False

    @property
    def any(self) -> bool:
        """Whether there are to be workers."""
        return self.threads is not None or self.processes is not None

    @property
    def call(self) -> str:
        """How the handler is called, for messages."""
        return "handler(client, request)" if self.processes is None else "handler(request)"

    def check(self, handler: Callable[..., Any], coroutine: bool) -> None:
        """Look at it.

        :param coroutine: what the handler returns is to be awaited.
        :raises ValueError: it can't be.
        """
        if coroutine:
            self._refuse_coroutines(handler)
        if self.threads is not None and self.processes is not None:
            problem = "and processes= exclude each other: a service has one kind of workers"
            raise ParameterError("threads", problem, name="threads=")
        for name in ("threads", "processes", "queue"):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ParameterError(name, f"must be a whole number of at least 1, not {number!r}", name=f"{name}=")
        if self.queue is not None and not self.any:
            raise ParameterError("queue", "is of workers: say threads= or processes= as well", name="queue=")
        if self.kill and self.processes is None:
            raise ParameterError("kill", "is of worker processes: say processes= as well", name="kill=")

    def _refuse_coroutines(self, handler: Callable[..., Any]) -> None:
        for name in ("threads", "processes"):
            if getattr(self, name) is not None:
                problem = f"is for plain functions: the handler {handler!r} is an async one, which runs in a loop"
                raise ParameterError(name, problem, name=f"{name}=")


#: The handler runs in the loop.
NO_WORKERS = Wanted()
