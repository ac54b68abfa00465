"""What is exposed, and under which names: families of Prometheus, made of what servers have counted.

Names and labels are data here. Nothing unbounded is a label: no id, name or address of a client. Sums over several
workers are one sample; what only makes sense for each has the label ``worker``.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from pysock.base.lean import TYPE_CHECKING, NamedTuple, dataclass
from pysock.engine.meter import CAME, LEFT
from pysock.errors import PysockError
from pysock.metrics.snapshot import EDGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, TypeAlias

    from pysock.metrics.snapshot import Histogram, Snapshot

    #: Behind the family's name, the labels, the value.
    Sample: TypeAlias = tuple[str, Mapping[str, str], float]

#: Without a turn of its loop for so long a worker isn't up, in seconds.
HUNG_AFTER: Final = 30.0
#: What the unnamed service is called.
UNNAMED: Final = "(unnamed)"

#: Up to where the buckets that are exposed go, in seconds.
BOUNDS: Final = tuple(float(f"{step}e{power}") for power in range(-6, 2) for step in (1, 2.5, 5))


class Family(NamedTuple):
    """Samples of one name and one meaning.

    :ivar name: without what stands behind it in a sample (``_total``, ``_bucket``, ``_info`` ...).
    :ivar kind: ``"counter"``, ``"gauge"``, ``"histogram"`` or ``"info"``.
    """

    name: str
    help: str
    kind: str
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class Source:
    """One server whose numbers are exposed: a worker, say."""

    read: Callable[[], Snapshot | None]  #: of its page: ``page.read``; what that raises is taken for ``None``
    worker: str = ""  #: the label of what is its own; empty: there is none
    up: bool = True  #: whether it lives, as far as whoever started it knows
    there: bool = True  #: ``False``: it is gone for good, and only its part of the sums is told


class Reading(NamedTuple):
    """What one source has said."""

    labels: Mapping[str, str]
    snapshot: Snapshot | None
    is_up: bool
    is_there: bool = True


def readings(sources: Iterable[Source], hung_after: float = HUNG_AFTER) -> list[Reading]:
    """What they say now."""
    return [_reading(source, hung_after) for source in sources]


def _reading(source: Source, hung_after: float) -> Reading:
    try:
        snapshot = source.read()
    except (OSError, PysockError, ValueError):  # one that can't be read doesn't hide the others
        snapshot = None
    is_up = source.up and snapshot is not None and not snapshot.is_hung(hung_after)
    return Reading({"worker": source.worker} if source.worker else {}, snapshot, is_up, source.there)


# --- the counters ---

#: Causes for which connections are refused, by their counters, and the labels.
REFUSED: Final = {
    "refused_full": "full",
    "refused_peer": "peer",
    "refused_crowd": "crowd",
    "refused_late": "late",
    "refused_access": "access",
    "refused_proof": "proof",
    "tls_failures": "tls",
    "refused_no_tls": "no_tls",
    "refused_only_tls": "only_tls",
    "refused_header": "header",
    "refused_untrusted": "untrusted",
}
#: For which clients are dropped.
DROPPED: Final = {
    "violations": "violation",
    "frames_late": "frame_late",
    "outputs_full": "output_full",
    "outputs_stalled": "output_stalled",
    "pushes_full": "pushes_full",
    "idle": "idle",
    "no_memory": "no_memory",
}
#: What else is noted.
TROUBLES: Final = {
    "too_large": "too_large",
    "accept_failures": "accept",
    "send_failures": "send",
    "tls_truncated": "tls_truncated",
}
#: What others say already, or what isn't for others.
NOT_SHOWN: Final = frozenset(
    ("stamp_ns", "in_turn", "called", "accepted", "refused", "disconnected", "requests", "errors", "timeouts")
) | {"over_limit"}


class Shown(NamedTuple):
    """A family of counters."""

    name: str
    help: str
    kind: str
    of: Mapping[str, Mapping[str, str]]  #: counters, and the labels of each
    each: bool = False  #: whether each worker's is shown
    unit: float = 1  #: by which they are divided
    native: bool = False  #: whether only the native engine knows it


def _by(label: str, names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {counter: {label: value} for counter, value in names.items()}


_NS: Final = 1e9
SHOWN: Final = (
    Shown("pysock_clients", "Clients that are connected and let in.", "gauge", {"clients": {}}, each=True),
    Shown("pysock_pending", "Connections that aren't let in yet.", "gauge", {"pending": {}}, each=True),
    Shown(
        "pysock_connections",
        "Connections accepted.",
        "counter",
        _by("transport", {f"came_{how}": how for how in CAME}),
    ),
    Shown("pysock_established", "Connections that were let in.", "counter", {"established": {}}),
    Shown(
        "pysock_disconnects",
        "Clients that were let in and are gone, by the reason.",
        "counter",
        _by("reason", {f"left_{why}": why for why in LEFT}),
    ),
    Shown("pysock_refused", "Connections that weren't let in, by the cause.", "counter", _by("cause", REFUSED)),
    Shown("pysock_dropped", "Connections that were closed for a cause.", "counter", _by("cause", DROPPED)),
    Shown("pysock_troubles", "What else went wrong, by the cause.", "counter", _by("cause", TROUBLES)),
    Shown("pysock_pushes", "Messages pushed to clients.", "counter", {"pushes": {}}),
    Shown(
        "pysock_pushes_dropped",
        "Messages that weren't sent, for too many waited for their client.",
        "counter",
        {"pushes_dropped": {}},
    ),
    Shown("pysock_received_bytes", "Bytes received of clients.", "counter", {"bytes_in": {}}),
    Shown("pysock_sent_bytes", "Bytes sent to clients.", "counter", {"bytes_out": {}}),
    Shown("pysock_output_bytes", "Bytes that wait to be sent.", "gauge", {"output_bytes": {}}, each=True),
    Shown(
        "pysock_loop_busy_seconds",
        "Time in which the loop worked, handlers included.",
        "counter",
        {"busy_ns": {}},
        each=True,
        unit=_NS,
    ),
    Shown(
        "pysock_gil_wait_seconds",
        "Time in which the loop waited for Python's GIL. Native engine only.",
        "counter",
        {"outside_ns": {}},
        each=True,
        unit=_NS,
        native=True,
    ),
)


def _shown(shown: Shown, found: Iterable[Reading]) -> Family:
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, snapshot, _, is_there in found:
        if snapshot is None or (shown.native and snapshot.backend != "native") or (shown.each and not is_there):
            continue
        for counter, own in shown.of.items():
            key = tuple({**own, **(labels if shown.each else {})}.items())
            sums[key] = sums.get(key, 0) + snapshot.counters.get(counter, 0) / shown.unit
    suffix = "_total" if shown.kind == "counter" else ""
    return Family(shown.name, shown.help, shown.kind, [(suffix, dict(key), value) for key, value in sums.items()])


# --- what each service has ---


def _requests(found: Iterable[Snapshot]) -> Family:
    sums: dict[tuple[str, str], int] = {}
    for snapshot in found:
        for (name, code), number in snapshot.requests.items():
            key = name or UNNAMED, code
            sums[key] = sums.get(key, 0) + number
    samples: list[Sample] = [("_total", {"service": name, "code": code}, n) for (name, code), n in sums.items()]
    return Family("pysock_requests", "Requests, by service and what became of them.", "counter", samples)


def _times(found: Iterable[Snapshot]) -> Family:
    sums: dict[str, Histogram] = {}
    for snapshot in found:
        for name, histogram in snapshot.histograms.items():
            key = name or UNNAMED
            sums[key] = sums[key] + histogram if key in sums else histogram
    samples: list[Sample] = []
    for name, histogram in sums.items():
        samples += _histogram({"service": name}, histogram)
    meaning = "Time from when the loop got a request until it had the answer."
    return Family("pysock_request_seconds", meaning, "histogram", samples)


def _cuts() -> list[tuple[int, float]]:
    """Of each bound: in which of the page's buckets it lies, and which part of that is below."""
    cuts = []
    for bound in BOUNDS:
        bucket = sum(edge <= bound for edge in EDGES)
        before = EDGES[bucket - 1] if bucket else 0.0
        cuts.append((bucket, (bound - before) / (EDGES[bucket] - before)))
    return cuts


_CUTS: Final = _cuts()
_LE: Final = tuple(map(repr, BOUNDS))


def _histogram(labels: Mapping[str, str], histogram: Histogram) -> list[Sample]:
    counts = histogram.counts
    up_to = [0, *accumulate(counts)]
    below = [up_to[bucket] + int(counts[bucket] * part) for bucket, part in _CUTS]
    samples: list[Sample] = [("_bucket", {**labels, "le": le}, number) for le, number in zip(_LE, below, strict=True)]
    samples.append(("_bucket", {**labels, "le": "+Inf"}, up_to[-1]))
    samples.append(("_count", labels, up_to[-1]))
    samples.append(("_sum", labels, histogram.sum))
    return samples


# --- the workers ---


def _workers(found: Iterable[Reading]) -> Iterable[Family]:
    up: list[Sample] = [("", labels, float(is_up)) for labels, _, is_up, _ in found]
    yield Family("pysock_worker_up", "1 if its loop has come round lately.", "gauge", up)
    ages: list[Sample] = [("", labels, snapshot.age()) for labels, snapshot, *_ in found if snapshot and snapshot.stamp]
    yield Family("pysock_loop_age_seconds", "How long ago the loop came round last.", "gauge", ages)


def _build(found: Iterable[Snapshot]) -> Family:
    """One sample for each kind of them that there is."""
    kinds = {(snapshot.version, snapshot.backend) for snapshot in found}
    samples: list[Sample] = [("_info", {"version": version, "backend": backend}, 1) for version, backend in kinds]
    return Family("pysock_build", "What it is.", "info", sorted(samples, key=str))


def families(found: Iterable[Reading]) -> list[Family]:
    """All of them that have samples, always in the same order."""
    return [family for family in every(list(found)) if family.samples]


def every(found: list[Reading]) -> list[Family]:
    """All of them; of no reading only their names."""
    snapshots = [reading.snapshot for reading in found if reading.snapshot]
    of_workers = [
        *_workers([reading for reading in found if reading.is_there]),
        *(_shown(each, found) for each in SHOWN),
    ]
    return [_build(snapshots), *of_workers, _requests(snapshots), _times(snapshots)]
