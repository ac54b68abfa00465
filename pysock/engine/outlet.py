"""The way out of a client's connection in somebody else's loop: what both engines' outlets are."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: Payloads up to this are copied behind their header.
SMALL: Final = 16 * 1024
#: From so many bytes on what is gathered doesn't wait for the end of the pass.
FULL: Final = 64 * 1024
#: Requests that follow each other within so many seconds, and this fraction of their timeout, may have one deadline.
SHARED: Final = 0.001
PARTS: Final = 16


class Outlet(Protocol):
    """The requests of one connection: each gets a number and is packed; whoever owns the socket takes what is gathered.

    A number isn't used again as long as it is in ``waiting`` or in ``unwanted``, and the two together are in flight.
    """

    def __init__(
        self,
        *,
        waiting: dict[int, Any],
        unwanted: set[int],
        gathered: Callable[[bool], None],
        deadline: Callable[[float, int], list[Any]],
        window: int,
        largest: int,
        timed: bool,
        after: int = 0,
    ) -> None:
        """All by their names.

        :param waiting: who waits, by number.
        :param unwanted: the numbers of those who don't wait any more, and whose answer hasn't come.
        :param gathered: is called when something was gathered after nothing; with ``True``: it is to be sent at once.
        :param deadline: is called with a moment and a number; returns a list of the moment, and of the first and last
            number it is for. The last one may be set here.
        :param window: so many are in flight at most.
        :param largest: payloads over this aren't ordinary.
        :param timed: the server is told the deadlines.
        :param after: the number before the first one.
        """

    def submit(self, waiter: Any, service: int, payload: Any, seconds: float | None) -> int:
        """Gather a request, and enter who waits for it. Its number; 0: it isn't an ordinary one, nothing was done."""

    def next_id(self) -> int:
        """A number for what is sent otherwise."""

    def take(self) -> bytes:
        """What was gathered since this was last called."""
