"""What ``pysock top`` shows: how much a server has done between two looks at it, in numbers.

Values only, without I/O and without a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pysock.metrics.snapshot import EDGES, Histogram

#: So many clients are told of, those with the most requests first.
NOISIEST: Final = 10
#: What became well of a request.
_OK: Final = "OK"

_NOTHING: Final[Mapping[str, Any]] = {"requests": {}, "buckets": {}, "sum": 0.0}


class Look(NamedTuple):
    """What a server said at one moment."""

    stats: Mapping[str, Any]
    #: Rows of its clients by their ids; ``None``: they are too many to compare.
    clients: Mapping[str, Mapping[str, Any]] | None


def between(before: Look, after: Look) -> dict[str, Any]:
    """What happened between the two, by the second where it is a number of events."""
    seconds = max(1e-6, after.stats["at"] - before.stats["at"])
    old, new = before.stats, after.stats
    return {
        "at": new["at"],
        "seconds": round(seconds, 3),
        "clients": new["counters"]["clients"],
        "per_second": {
            name: max(0.0, (number - old["counters"].get(name, 0)) / seconds)
            for name, number in new["counters"].items()
            if name not in {"clients", "pending"}
        },
        "workers": {
            number: _worker(old.get("workers", {}).get(number), one, seconds)
            for number, one in new.get("workers", {}).items()
        },
        "busy": _share("busy_ns", old, new, seconds),
        "outside": _share("outside_ns", old, new, seconds),
        "services": {
            name: _service(old["services"].get(name, _NOTHING), service, seconds)
            for name, service in new["services"].items()
        },
        "noisiest": None if after.clients is None else _noisiest(before.clients or {}, after.clients, seconds),
    }


def _share(name: str, old: Mapping[str, Any], new: Mapping[str, Any], seconds: float) -> float | None:
    """Of the time between: how much of it the loop did that; of several loops, each, on average."""
    if name not in new["loop"]:
        return None
    loops = max(1, len(new.get("workers", ())))
    share: float = (new["loop"][name] - old["loop"].get(name, 0)) / 1e9 / seconds / loops
    return min(1.0, max(0.0, share))


def _worker(old: Mapping[str, Any] | None, new: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """One of several; of one that is new, what it has done since it began."""
    before = old if old is not None and old["pid"] == new["pid"] else {"counters": {}, "loop": {}}
    requests = new["counters"].get("requests", 0) - before["counters"].get("requests", 0)
    return {
        "pid": new["pid"],
        "clients": new["counters"]["clients"],
        "requests": max(0, requests) / seconds,
        "busy": _share("busy_ns", before, new, seconds),
        "stuck_for": new["stuck_for"],
    }


def _service(old: Mapping[str, Any], new: Mapping[str, Any], seconds: float) -> dict[str, float]:
    served = {code: number - old["requests"].get(code, 0) for code, number in new["requests"].items()}
    times = _histogram(new) - _histogram(old)
    return {
        "requests": max(0, sum(served.values())) / seconds,
        "errors": max(0, sum(number for code, number in served.items() if code != _OK)) / seconds,
        "p50": times.quantile(0.5),
        "p99": times.quantile(0.99),
    }


def _histogram(service: Mapping[str, Any]) -> Histogram:
    buckets = service["buckets"]
    return Histogram(tuple(buckets.get(str(number), 0) for number in range(len(EDGES))), service["sum"])


def _noisiest(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    rows = []
    for number, row in new.items():
        was = old.get(number, {})
        rates = {name: (row[name] - was.get(name, 0)) / seconds for name in ("requests", "bytes_in", "bytes_out")}
        rows.append({**row, **rates})
    rows.sort(key=lambda row: (row["requests"], row["bytes_in"] + row["bytes_out"]), reverse=True)
    return rows[:NOISIEST]
