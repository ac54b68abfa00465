"""Snapshot: what a page said at one moment; and Histogram: how long the requests of one service took.

Values only, without I/O. Snapshots are added, of several workers or of one after another.
"""

from __future__ import annotations

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, dataclass, replace
from pysock.engine.meter import BUCKETS, BUCKETS_AT, GONE, OK, OTHER, OUTCOMES, ROW, SUM, edge_of
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Final

#: What became of requests: the names of error codes, and these.
CODES: Final = {OK: "OK", **{int(code): code.name for code in ErrorCode}, OTHER: "OTHER", GONE: "GONE"}
#: The name of what has no service: requests for numbers that none has.
UNKNOWN: Final = "(unknown)"

#: What is as it is now; all other counters only grow.
GAUGES: Final = frozenset({"stamp_ns", "in_turn", "called", "output_bytes", "clients", "pending"})

EDGES: Final = tuple(map(edge_of, range(BUCKETS)))


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many requests took how long."""

    counts: tuple[int, ...]  #: by bucket: up to the edges of :data:`EDGES`, which are in seconds
    sum: float  #: seconds, of all

    @property
    def count(self) -> int:
        """Of how many."""
        return sum(self.counts)

    def up_to(self, seconds: float) -> int:
        """How many took so long at most, about: within a bucket they are taken to be spread evenly."""
        total, edge_before = 0, 0.0
        for count, edge in zip(self.counts, EDGES, strict=True):
            if edge > seconds:
                return total + int(count * (seconds - edge_before) / (edge - edge_before))
            total, edge_before = total + count, edge
        return total

    def quantile(self, share: float) -> float:
        """In how many seconds this share of them (0.99, say) was answered, about; 0 if there were none."""
        wanted, total, edge_before = share * self.count, 0, 0.0
        for count, edge in zip(self.counts, EDGES, strict=True):
            if count and total + count >= wanted:
                return edge_before + (edge - edge_before) * max(0.0, wanted - total) / count
            total, edge_before = total + count, edge
        return edge_before if total else 0.0

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.sum + other.sum)

    def __sub__(self, other: Histogram) -> Histogram:
        """What has come since the other one, of the same server."""
        counts = tuple(max(0, a - b) for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, max(0.0, self.sum - other.sum))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one server, or several, have counted."""

    pid: int  #: of its process; 0: of several
    version: str
    backend: str
    started: float  #: seconds since the epoch
    counters: Mapping[str, int]  #: see :data:`pysock.engine.meter.COUNTERS`
    #: By the names of the service and of what became of them (:data:`CODES`), those that there were.
    requests: Mapping[tuple[str, str], int]
    histograms: Mapping[str, Histogram]  #: by service, of those that had requests
    called: str = ""  #: the service whose handler was called last
    read_at: float = 0.0  #: seconds on the monotonic clock

    @property
    def stamp(self) -> float:
        """When the loop's last turn was over, in seconds on the monotonic clock; 0: it has made none yet."""
        return self.counters["stamp_ns"] / 1e9

    @property
    def in_turn(self) -> bool:
        """A turn was running: handlers, say."""
        return bool(self.counters["in_turn"])

    def age(self) -> float:
        """How many seconds before this was read the last turn was over: about one at most, as long as it lives."""
        return max(0.0, self.read_at - self.stamp) if self.stamp else 0.0

    def is_hung(self, after: float = 30.0) -> bool:
        """Whether no turn was over for so many seconds: a handler doesn't return, or the process is stopped."""
        return self.age() > after

    def retired(self) -> Snapshot:
        """The same of a server that is gone: what only grows stays, so that sums never go back."""
        kept = {name: 0 if name in GAUGES else number for name, number in self.counters.items()}
        return replace(self, pid=0, counters=kept, called="")

    def __add__(self, other: Snapshot) -> Snapshot:
        counters = _added(self.counters, other.counters)
        for name in ("stamp_ns", "in_turn", "called"):
            counters[name] = max(self.counters.get(name, 0), other.counters.get(name, 0))
        return replace(
            self,
            pid=0,
            counters=counters,
            requests=_added(self.requests, other.requests),
            histograms=_added(self.histograms, other.histograms),
            called="",
            read_at=max(self.read_at, other.read_at),
        )


def _added(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: a[key] + b[key] if key in a and key in b else a.get(key, b.get(key)) for key in {**a, **b}}


def snapshot_of(known: Mapping[str, Any], counters: Sequence[int], rows: memoryview) -> Snapshot:
    """Of a page's parts: what it says of its numbers, and these."""
    requests: dict[tuple[str, str], int] = {}
    histograms: dict[str, Histogram] = {}
    services: list[str] = known["services"]
    for name, row in _rows([*services, UNKNOWN], rows):
        for outcome, number in enumerate(row[:OUTCOMES]):
            if number:
                code = CODES.get(outcome, CODES[OTHER])
                requests[name, code] = requests.get((name, code), 0) + number
        histogram = Histogram(tuple(row[BUCKETS_AT : BUCKETS_AT + BUCKETS]), row[SUM] / 1e9)
        histograms[name] = histograms[name] + histogram if name in histograms else histogram
    by_name = dict(zip(known["counters"], counters, strict=False))
    called = by_name["called"]
    return Snapshot(
        pid=known["pid"],
        version=known["pysock"],
        backend=known["backend"],
        started=known["started"],
        counters=by_name,
        requests=requests,
        histograms=histograms,
        called=services[called] if called < len(services) else UNKNOWN,
        read_at=monotonic(),
    )


def _rows(names: list[str], rows: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Those in which something is counted."""
    nothing = bytes(8 * ROW)
    for number, name in enumerate(names):
        row = rows[number * ROW : (number + 1) * ROW]
        if row.cast("B") != nothing:
            yield name, row
