"""What a crew of workers is to be, and who is told how its changes went."""

from __future__ import annotations

from pysock.admin.services.served import SLOW
from pysock.base.lean import TYPE_CHECKING, NamedTuple, Protocol
from pysock.supervision.recycling import Bounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

#: Exit codes: of wrong usage, and where the service never came to serve.
USAGE: Final = 2
NEVER_READY: Final = 3


class Plan(NamedTuple):
    """What a crew is to be.

    :ivar workers: how many at first.
    :ivar command: what starts one, behind the interpreter and before the number of its descriptor.
    :ivar arguments: what each is told of its program; JSON.
    :ivar grace: seconds for what was accepted to be answered, when one is to end.
    :ivar delay: seconds in which only health checks fail, when all are to.
    :ivar patience: seconds until a change that isn't the first is given up.
    :ivar hang_kill: seconds after which a worker that hangs is killed; ``None``: never.
    :ivar bounds: at which a worker is replaced.
    :ivar measured: whether the supervisor tells what they count.
    :ivar asked: whether the admin socket asks them.
    :ivar slowlog: how long a request takes that is in its slowlog, in seconds.
    """

    workers: int
    command: Sequence[str]
    arguments: dict[str, Any]
    grace: float
    delay: float
    patience: float
    hang_kill: float | None = None
    bounds: Bounds = Bounds()
    measured: bool = False
    asked: bool = False
    slowlog: float = SLOW


class News(Protocol):
    """Who is told of it."""

    def begins(self) -> None:
        """A change begins."""

    def settled(self, why_not: str, partly: bool) -> None:
        """It is over; with a text it was called off, and things are as before; or it was made in part."""
