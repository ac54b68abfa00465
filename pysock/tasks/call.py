"""One call of an async handler, as the coroutine that its task drives.

It steps the handler's coroutine, and what that returns or raises becomes the request's answer at once: no callback of
the task's is needed for that. The task's own result is ``None``, so that nobody has to retrieve it. In C the same is
done by ``csrc/python/call.c``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.tasks.reply import Reply


_SHOWN: Final = frozenset({"__name__", "__qualname__", "cr_await", "cr_code", "cr_frame", "cr_running"})


class CancelledError(Exception):  # its name is what a client is told
    """In the place of an :class:`asyncio.CancelledError` that the handler raised, which is no ``Exception``."""


def own_words(error: BaseException) -> BaseException:
    """The exception, as it can be told of."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    told = CancelledError(*error.args)
    told.__cause__ = error
    return told


class Call(Unique):
    """What a task is given in the place of the handler's coroutine."""

    __slots__ = ("_coroutine", "deferred", "done", "error", "value")

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        #: Whether it has returned, or raised; then what.
        self.done: bool = False
        self.value: Any = None
        self.error: BaseException | None = None
        #: Who is told of it, once the handler has waited for something.
        self.deferred: Reply | None = None

    def outcome(self) -> Any:
        """What the handler returned.

        :raises BaseException: what it raised.
        """
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise own_words(error)
        finally:
            del error  # its traceback holds this frame

    def _begin_anew(self) -> None:
        """Nothing has been begun, and nothing come of it: its task may serve another request."""
        self._coroutine, self.done, self.value, self.error = None, False, None, None

    def _ends(self, value: Any, error: BaseException | None) -> None:
        self.done, self.value, self.error = True, value, error
        if self.deferred is not None:
            deferred, self.deferred = self.deferred, None
            deferred.settle(self)

    def send(self, value: Any) -> Any:
        """Go on to where the handler waits next."""
        return self._step(self._coroutine.send, value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """As ``send``; where it waits, this is raised."""
        return self._step(self._coroutine.throw, kind if value is None else value)

    def _step(self, step: Callable[[Any], Any], what: Any) -> Any:
        deferred = self.deferred
        if deferred is None:  # the first one, in a turn of the engine's, which looks at the clock itself
            return self._take(step, what)
        began = monotonic()
        try:
            return self._take(step, what)
        finally:
            deferred.step_took(monotonic() - began)
            del deferred  # it has the task, of which who counts the references is told next

    def _take(self, step: Callable[[Any], Any], what: Any) -> Any:
        try:
            return step(what)
        except StopIteration as stop:
            self._ends(stop.value, None)
        except asyncio.CancelledError as error:
            self._ends(None, error)
            raise
        except Exception as error:
            self._ends(None, error)
        except BaseException as error:  # it leaves the loop, and so the handler that began it
            self._ends(None, error)
            raise
        raise StopIteration

    def close(self) -> None:
        """The task won't go on."""
        self._coroutine.close()

    def __iter__(self) -> Generator[Any, None, None]:
        return self  # as much of one as an await needs

    __await__ = __iter__

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        """What shows where it is: in a task's repr and stack, and in 3.14's ``python -m asyncio pstree``."""
        if name in _SHOWN:
            return getattr(self._coroutine, name)
        raise AttributeError(name)


Coroutine.register(Call)
