"""Why a client's connection has ended, so that none ends in silence."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Literal

    How = Literal["left", "goodbye", "timed out", "lost", "refused"]


class Ended(NamedTuple):
    """How a connection ended, and the reason in words.

    ``how`` is ``"left"`` (this side closed it), ``"goodbye"`` (the server said so, with its reason), ``"timed out"``
    (one side heard nothing for too long), ``"lost"`` (it broke), or, of a client that connects again, ``"refused"``.
    """

    how: How
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.how}: {self.reason}" if self.reason else self.how


def of_goodbye(reason: str) -> Ended:
    """What a server's goodbye means."""
    return Ended("timed out" if reason == texts.IDLE else "goodbye", reason)
