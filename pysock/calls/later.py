"""A stream for whose connection has to be waited: what both kinds of clients have of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any


class Later(Unique):
    """It begins with its first piece.

    :param begin: makes the stream that it goes on with, and that one's first piece; ``None``: it has none.
    :param over: is called once, when nothing more will come.
    """

    def __init__(self, begin: Callable[[], Any], over: Callable[[], object] | None = None) -> None:
        self._begin: Callable[[], Any] | None = begin  # until it has begun
        self._over = over
        self._inner: Any = None

    def close(self) -> None:
        """Leave it: the server is told that nobody wants more, and what comes still is dropped."""
        self._begin = None
        over, self._over = self._over, None
        if self._inner is not None:
            self._inner.close()
        if over is not None:
            over()

    def __del__(self) -> None:
        if getattr(self, "_over", None) is not None:
            with suppress(Exception):
                self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'not begun' if self._inner is None else repr(self._inner)}>"
