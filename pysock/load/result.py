"""What a run measured, made of what the C code counted.

Latencies are those of an HDR histogram: less than 1 % off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pysock.engine.native.outcome import Outcome
from pysock.load.options import LoadOptions
from pysock.load.words import said_by_server

_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """In microseconds. ``percentiles`` are (percent, latency) pairs."""

    least: float
    mean: float
    percentiles: tuple[tuple[float, float], ...]
    most: float

    def as_dict(self) -> dict[str, float]:
        """Return the part of the JSON object."""
        middle = {f"p{percent:g}": value for percent, value in self.percentiles}
        return {"min": self.least, "mean": self.mean, **middle, "max": self.most}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What a run measured.

    :ivar seconds: from the first request to the end; in ``churn`` from the first connection.
    :ivar messages: requests that were answered, and well.
    :ivar errors: requests that were answered with an ERROR (framing pysock); the others have none.
    :ivar first_error: the words of the first of them.
    :ivar connections_per_second: opened and let in; in ``churn`` over the whole run, else until all of them were.
    :ivar bytes_per_second: of payload, in each direction.
    :ivar histogram: (longest latency in microseconds, how many) of each bucket that isn't empty, in order.
    :ivar client_core: which part of a core the generator needed, without the polling of ``linger`` and of an open
        loop's waits. Near 1 the figures are the generator's, not the server's.
    """

    options: LoadOptions
    seconds: float
    messages: int
    errors: int
    first_error: str
    connections_per_second: float
    latency: Latency
    histogram: tuple[tuple[float, int], ...]
    client_cpu_seconds: float
    client_core: float

    @property
    def messages_per_second(self) -> float:
        """Over the whole run."""
        return _per(self.messages, self.seconds)

    @property
    def bytes_per_second(self) -> float:
        """Over the whole run."""
        return self.messages_per_second * self.options.size

    def as_dict(self) -> dict[str, Any]:
        """Return what ``pysock bench --json`` prints."""
        options = self.options
        return {
            "address": str(options.address),
            "framing": options.framing,
            "connections": options.connections,
            "in_flight": options.in_flight,
            "size": options.size,
            "mode": options.mode,
            "rate": options.rate,
            "seconds": self.seconds,
            "messages": self.messages,
            "messages_per_second": self.messages_per_second,
            "bytes_per_second": self.bytes_per_second,
            "errors": self.errors,
            "connections_per_second": self.connections_per_second,
            "latency_us": self.latency.as_dict(),
            "histogram": [list(row) for row in self.histogram],
            "client_cpu_seconds": self.client_cpu_seconds,
            "client_core": self.client_core,
        }


def made_of(options: LoadOptions, outcome: Outcome, histogram: Sequence[tuple[int, int]]) -> LoadResult:
    """Return the figures in seconds, microseconds and ratios."""
    seconds, total = outcome.elapsed_ns / 1e9, sum(count for _, count in histogram)
    percentiles = tuple((percent, percentile(histogram, percent, outcome.max_ns) / 1e3) for percent in _PERCENTILES)
    return LoadResult(
        options=options,
        seconds=seconds,
        messages=outcome.messages,
        errors=outcome.errors,
        first_error=said_by_server(outcome) if outcome.errors else "",
        connections_per_second=_per(outcome.connections, seconds if options.churn else outcome.opening_ns / 1e9),
        latency=Latency(
            least=outcome.min_ns / 1e3,
            mean=_per(outcome.sum_ns, total) / 1e3,
            percentiles=percentiles,
            most=outcome.max_ns / 1e3,
        ),
        histogram=tuple((longest / 1e3, count) for longest, count in histogram),
        client_cpu_seconds=outcome.cpu_ns / 1e9,
        client_core=_core(outcome),
    )


def _core(outcome: Outcome) -> float:
    """The use of a core, without the share of polling.

    That is known by the wall's clock only, which went on while the thread was kept from running, in the rest as well.
    """
    awake = outcome.elapsed_ns - outcome.sleeping_ns
    useful = 1 - _per(outcome.polling_ns, awake) if outcome.polling_ns else 1.0
    return max(0.0, _per(outcome.cpu_ns, outcome.elapsed_ns) * useful)


def percentile(histogram: Sequence[tuple[int, int]], percent: float, most: int) -> int:
    """Return the latency that so many of a hundred don't exceed."""
    wanted, seen = sum(count for _, count in histogram) * percent / 100, 0
    for longest, count in histogram:
        seen += count
        if seen >= wanted:
            return min(longest, most)
    return 0


def _per(amount: float, divisor: float) -> float:
    return amount / divisor if divisor else 0.0
