"""What a server answers to health checks: the code of a PONG. It owns what the numbers mean, and no rule of frames."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from typing import Final

#: New clients are welcome.
SERVING: Final = 0
#: Those that are there are served, and new ones should go elsewhere: it is lame, or stops.
DRAINING: Final = int(ErrorCode.SHUTTING_DOWN)


class Health:
    """That of one engine, which its connections ask for the code of each PONG.

    :ivar code: one of the two above. Any thread may read it.
    """

    __slots__ = ("_drains", "_lame", "code")

    def __init__(self) -> None:
        self._lame = self._drains = False
        self.code: int = SERVING

    def lame(self, lame: bool) -> None:
        """Whether new clients should go elsewhere."""
        self._lame = lame
        self.code = DRAINING if self._drains or lame else SERVING

    def drain(self) -> None:
        """It stops, whatever is said later."""
        self._drains = True
        self.code = DRAINING


def state_of(code: int) -> str:
    """For people and programs: ``"serving"`` or ``"draining"``; what isn't known wants no new clients either."""
    return "serving" if code == SERVING else "draining"
