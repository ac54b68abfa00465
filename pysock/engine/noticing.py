"""Who is told of requests that are over: the engine has one callback for all of them.

This file owns what the engine is asked for, so that everybody gets what he wants, and nobody what only others do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.rows import Served
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.contract import Engine


class Listener(Unique):
    """One of them.

    :param told: called in the loop's thread with a request, and how many of those that were wanted have been left out
        since the last one.
    """

    def __init__(self, told: Callable[[Served, int], None]) -> None:
        self.told: Callable[[Served, int], None] = told
        self.slow: float | None = None  # requests that take so many seconds are; None: none is
        self.every: int = 0  # each so manieth of the others; 0: none
        self.most: int = 0  # and so many of them a turn
        self.until: int = 0  # so many come until the next one

    def takes(self, request: Served, skipped: int, every: int) -> bool:
        """Whether this is one of his, where the engine tells of each so manieth."""
        if request.sampled and self.every:
            self.until -= (1 + skipped) * every
            if self.until <= 0:
                self.until = self.every
                return True
        return self.slow is not None and request.ended - request.began >= self.slow


class Noticing(Unique):
    """That of one server."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._listeners: list[Listener] = []
        self._every = 0

    def serve(self, engine: Engine) -> None:
        """From now on it is this one that tells."""
        self._engine = engine
        if self._listeners:
            with suppress(PysockError):  # in a forked child
                self._ask()

    def want(self, listener: Listener, slow: float | None, every: int = 0, most: int = 8) -> None:
        """From now on this one gets what takes so many seconds, and each so manieth of all, but at most so many of
        these a turn. Any thread may.
        """
        listener.slow, listener.every, listener.most = slow, every, most
        if listener not in self._listeners:
            self._listeners.append(listener)
        if self._engine is not None:
            self._ask()

    def _ask(self) -> None:
        slow = [one.slow for one in self._listeners if one.slow is not None]
        sampling = [one for one in self._listeners if one.every]
        self._every = min((one.every for one in sampling), default=0)
        most = max((one.most for one in sampling), default=0)
        assert self._engine is not None
        self._engine.notice(min(slow, default=None), self._every, most)

    def tell(self, request: tuple[Any, ...], skipped: int) -> None:
        """The engine's callback."""
        served = Served._make(request)
        for listener in self._listeners:
            if listener.takes(served, skipped, self._every):
                listener.told(served, skipped)
