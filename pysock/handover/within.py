"""Something is to be done in a server's loop by a thread beside it, which waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import HandoverFailed, PysockError

if TYPE_CHECKING:
    from typing import TypeVar

    from pysock.engine.contract import Engine

    T = TypeVar("T")


class _Asked:
    """It is done once, or never if nobody waits any more."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._is_over = False
        self._done = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        try:
            self.result = self._function()
        except BaseException as error:  # whoever waits has it
            self.error = error
        finally:
            self._done.set()

    def comes_within(self, seconds: float) -> bool:
        if self._done.wait(seconds):
            return True
        with self._lock:
            began, self._is_over = self._is_over, True
        return began and self._done.wait()


def within(engine: Engine, function: Callable[[], T], patience: float) -> T:
    """Call it in the loop's thread, and return what it returns, or raise what it raises.

    :param patience: seconds for it to begin; where they are over it isn't called any more.
    :raises HandoverFailed: there is no loop any more, or it doesn't come round.
    """
    asked = _Asked(function)
    try:
        is_there = engine.call_later(asked)
    except (OSError, PysockError) as error:
        raise HandoverFailed(f"the server's loop can't be reached: {error}") from error
    if not is_there:
        raise HandoverFailed("the server has ended")
    if not asked.comes_within(patience):
        raise HandoverFailed(f"the server's loop didn't come round for {patience:g} seconds: a handler hasn't returned")
    if asked.error is not None:
        raise asked.error
    return asked.result  # type: ignore[return-value]
