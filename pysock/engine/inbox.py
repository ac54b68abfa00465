"""What came on a client's link and nobody had asked for: bounded, and what is thrown away for that is counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import Kind

if TYPE_CHECKING:
    from typing import Any, Final

#: Frames that are kept; then the oldest go, for the sake of those who never look.
INBOX_MAX: Final = 65536

_PUSH: Final = int(Kind.PUSH)


class Inbox(deque["Any"]):
    """Frames, or the tuples that become frames, oldest first. Made as ``Inbox((), INBOX_MAX)``."""

    #: Pushes that were thrown away, because it was full.
    dropped: int = 0

    def append(self, frame: Any) -> None:
        """Put it last. Where there is no room the first one goes."""
        if len(self) == self.maxlen and self[0][0] == _PUSH:
            self.dropped += 1
        super().append(frame)

    def extend(self, frames: Iterable[Any]) -> None:
        """Put them last, one after the other."""
        for frame in frames:
            self.append(frame)

    def take_dropped(self) -> int:
        """How many pushes were thrown away since this was last asked."""
        dropped, self.dropped = self.dropped, 0
        return dropped
