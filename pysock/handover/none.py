"""What a server has of hand-overs where it has none; and what it asks of them."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.contract import Engine
    from pysock.engine.rows import EngineStats


class Relays(Protocol):
    """As :class:`pysock.handover.relay.Relay`."""

    def begin(self) -> None:
        """Before anything is made."""

    def receive(self, engine: Engine) -> None:
        """All is made, and nobody is served yet."""

    def serve(self, engine: Engine) -> None:
        """It serves."""

    @property
    def took_over(self) -> int:
        """How many clients have come from the process before."""

    def counted(self, stats: EngineStats) -> EngineStats:
        """With what was counted there."""

    def end(self) -> None:
        """It ends."""


class NoRelay:
    """There is nothing to do."""

    took_over = 0

    def begin(self) -> None:
        """See above."""

    def receive(self, engine: Engine) -> None:
        """Likewise."""

    def serve(self, engine: Engine) -> None:
        """Likewise."""

    def counted(self, stats: EngineStats) -> EngineStats:
        """Likewise."""
        return stats

    def end(self) -> None:
        """Likewise."""


NO_RELAY: Final = NoRelay()
