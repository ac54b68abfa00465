"""What was counted before the hand-over is counted on: counters only grow, whoever serves."""

from __future__ import annotations

from collections.abc import Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.causes import COUNTERS
from pysock.engine.rows import NO_STATS, EngineStats

if TYPE_CHECKING:
    from typing import Any, Final

#: These are of now, and no counters.
_OF_NOW: Final = ("clients", "pending")


def encoded(stats: EngineStats) -> list[bytes]:
    """Each counter that counted something, by its name: a newer side may have more, an older one fewer."""
    counters = stats.by_name().items()
    return [count.to_bytes(8, "little") + name.encode() for name, count in counters if count and name not in _OF_NOW]


def decoded(values: Iterable[bytes]) -> EngineStats:
    """The same; those that aren't known here are left out."""
    found = {value[8:].decode(errors="replace"): int.from_bytes(value[:8], "little") for value in values}
    causes = tuple(found.get(name, 0) for name in COUNTERS)
    known = {name: found.get(name, 0) for name in EngineStats._fields if name not in {*_OF_NOW, "causes"}}
    return NO_STATS._replace(**known, causes=causes)


def added(now: EngineStats, before: EngineStats) -> EngineStats:
    """Both together; ``before`` has nothing of now."""
    if before is NO_STATS:
        return now
    causes = tuple(map(sum, zip(now.causes, before.causes, strict=True)))
    *numbers, _ = map(_sum, zip(now, before, strict=True))
    return EngineStats._make([*numbers, causes])


def _sum(both: tuple[Any, Any]) -> Any:
    return both[0] + both[1]
