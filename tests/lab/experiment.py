"""What an experiment is: a name, one line about it, and a function that tries something and returns what it saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Failed(AssertionError):
    """What must always hold did not; the text says what was seen, and how to see it again."""


class Missing(Exception):
    """What the experiment needs isn't here; the text says what it is. With PYSOCK_REQUIRE_TOOLS=1 that is a failure."""


@dataclass(frozen=True)
class Scale:
    """How much of it: the quick form or the full one, and the seed of everything random."""

    full: bool
    seed: int
    say: Callable[[str], Any] = field(default=lambda text: None)  # progress, in a few words

    def of(self, quick: Any, full: Any) -> Any:
        """The one or the other."""
        return full if self.full else quick

    def random(self, *about: object) -> random.Random:
        """Chance that is the same in every run with this seed."""
        return random.Random(f"{self.seed} {about}")


class Experiment(NamedTuple):
    """``run(scale)`` returns one line with the figures that were seen, and raises :class:`Failed` otherwise.

    It runs in a process of its own, which may start others: whatever is left of them at the end is killed.
    """

    name: str  # e.g. "faults/native/unix": what --only matches, from its beginning
    title: str
    run: Callable[[Scale], str]
    #: Seconds after which it hangs and is ended, in the quick form and in the full one.
    deadline: tuple[float, float] = (600.0, 6 * 3600.0)
    #: It measures time, or needs the whole machine: nothing else may run beside it, whatever --jobs says.
    alone: bool = False


def check(condition: object, text: str) -> None:
    """Raise :class:`Failed` unless it holds."""
    if not condition:
        raise Failed(text)


def per_engine(
    name: str,
    title: str,
    run: Callable[[Scale, str, str], str],
    *,
    engines: Sequence[str] = ("native", "pure"),
    transports: Sequence[str] = ("unix", "tcp"),
    **options: Any,
) -> list[Experiment]:
    """The same experiment ``run(scale, engine, transport)`` on each engine and each transport."""

    def bound(engine: str, transport: str) -> Callable[[Scale], str]:
        return lambda scale: run(scale, engine, transport)

    return [
        Experiment(f"{name}/{engine}/{transport}", title, bound(engine, transport), **options)
        for engine in engines
        for transport in transports
    ]
