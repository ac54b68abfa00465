"""A directory that is no node's: it learns who is where as a node does, and nobody learns of it."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory import telling
from pysock.cluster.directory.machine import Directory
from pysock.cluster.directory.messages import MessageKind
from pysock.cluster.directory.words import HEARTBEAT

if TYPE_CHECKING:
    from typing import Final

#: Nobody shows itself to who isn't there: so it listens until each node must have said that it lives.
_LISTENED: Final = HEARTBEAT + 0.4


class Observer(Directory):
    """See the head of this file. Whoever drives it has to hear what is for the node of its epoch."""

    settled_after = _LISTENED

    def goodbye(self) -> None:
        """Nobody would miss it."""

    def _tell(self, now: float) -> None:
        """It tells itself alone, so that it knows whether it still hears."""
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT
            self._send(self.epoch, MessageKind.HEARTBEAT, telling.heartbeat(self.own, self.info, hello=False))
