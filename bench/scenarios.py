"""What is measured: the scenarios S1 to S12, as data.

They are those that the field accepts as fair for servers of small messages. Where a parameter differs from what is
usual, ``deviation`` says so, and the tables print it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

KIB, MIB = 1024, 1024 * 1024

#: S5 has rates that are shares of what this one can do, in a closed loop with as many connections.
CAPACITY_OF: Final = ("uvloop", "asyncio")
_TRANSPORTS: Final = {"unix": "Unix", "tcp": "TCP", "tls": "TLS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One measurement of a scenario.

    :ivar transport: ``"unix"``, ``"tcp"`` or ``"tls"``.
    :ivar rate: requests a second, in all; ``None``: a new one as each reply comes.
    :ivar share: the same as a part of the capacity of :data:`CAPACITY_OF`.
    :ivar churn: connect, one request, close.
    :ivar client_certs: over TLS: the server asks for certificates.
    :ivar same_core: server and client share a core.
    :ivar idle: connections that have made one request and are silent since.
    :ivar stuck: connections that send requests and read nothing; with ``broadcast`` they send nothing either.
    :ivar broadcast: what one client sends, the server sends to all connections.
    :ivar hog: a Python thread in the server burns the CPU.
    :ivar work_us: what the handler computes.
    :ivar by: who makes the load: ``"generator"``, ``"python"`` or ``"both"``.
    :ivar quick: whether the quick mode has it.
    :ivar headline: whether the summary and ``bench/README.md`` have it.
    """

    transport: str = "unix"
    connections: int
    in_flight: int = 1
    size: int = 64
    rate: float | None = None
    share: float | None = None
    churn: bool = False
    client_certs: bool = False
    same_core: bool = False
    idle: int = 0
    stuck: int = 0
    broadcast: bool = False
    hog: bool = False
    work_us: float = 0.0
    by: str = "generator"
    quick: bool = False
    headline: bool = False

    @property
    def published(self) -> bool:
        """Whether the tables of the pages have it, or the chart of S5 a point of its line."""
        return self.headline or self.quick or self.share is not None

    @property
    def title(self) -> str:
        """What tells it from the other loads of its scenario."""
        parts = [
            f"{_TRANSPORTS[self.transport]} {self.connections} x {self.in_flight}, {size(self.size)}",
            self.rate and f"{self.rate:,.0f} requests/s",
            self.share and f"{self.share:.0%} of uvloop's capacity",
            self.churn and "connect, request, close",
            self.client_certs and "client certificates",
            self.same_core and "one core for both",
            self.broadcast and "broadcasts",
            self.idle and f"{self.idle:,} idle",
            self.stuck and f"{self.stuck} doesn't read",
            self.hog and "a busy Python thread beside",
            self.work_us and f"handler takes {self.work_us:g} us",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Loads that ask one question.

    :ivar figure: the metric that answers it: what charts and summaries show.
    :ivar by_library: whether the tables with a column for each library have it.
    """

    id: str
    title: str
    figure: str = "messages_per_second"
    peers: tuple[str, ...]
    loads: tuple[Load, ...]
    deviation: str = ""
    by_library: bool = True


def size(count: int) -> str:
    """Write a number of bytes."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} B"


_C: Final = ("floor", "floor-polling", "engine-only")
_PYSOCK: Final = ("pysock", "pysock-linger0", "pysock-pure")
_UVLOOP: Final = ("uvloop", "uvloop-no-uring", "uvloop-buffered", "uvloop-streams")
_ASYNCIO: Final = ("asyncio", "asyncio-buffered", "asyncio-streams")
_EVERY: Final = (*_C, *_PYSOCK, *_UVLOOP, *_ASYNCIO, "gevent", "socketserver", "mp")
_SOME: Final = (*_C, *_PYSOCK, "uvloop", "asyncio", "gevent")
_OWN_CLIENTS: Final = (
    "py-floor",
    "py-pysock",
    "py-pysock-linger",
    "py-pysock-pure",
    "py-uvloop",
    "py-mp",
    "py-zmq-req",
    "py-zmq-dealer",
    "py-nng",
    "py-grpc",
)

_ONE: Final = Load(connections=1, by="both")
_LARGE: Final = Load(connections=8, size=100 * KIB)
_OPEN: Final = Load(connections=64)
_HERD: Final = Load(connections=64, size=KIB)
_CHURN: Final = Load(connections=32, churn=True)
_CROWD: Final = Load(connections=5000, size=KIB, broadcast=True)

SCENARIOS: Final = (
    Scenario(
        id="S1",
        title="ping-pong: one connection, one request in flight",
        figure="p50_us",
        peers=(*_EVERY, "pysock-cir", *_OWN_CLIENTS),
        loads=(
            replace(_ONE, quick=True, headline=True),
            replace(_ONE, size=KIB),
            replace(_ONE, size=16 * KIB),
            replace(_ONE, transport="tcp"),
            replace(_ONE, same_core=True, by="generator"),
        ),
        deviation="by time, not by a count of 200,000 round trips",
    ),
    Scenario(
        id="S2",
        title="many connections, small messages, one in flight each",
        peers=(*_EVERY, "pysock-cir"),
        loads=(
            Load(connections=4),
            Load(connections=8, headline=True),
            Load(connections=10, size=KIB),
            Load(connections=32, quick=True, headline=True),
            Load(connections=64, size=KIB),
            Load(connections=256),
            Load(transport="tcp", connections=10),
            Load(transport="tcp", connections=32, quick=True, headline=True),
            Load(transport="tcp", connections=64, size=KIB),
        ),
    ),
    Scenario(
        id="S3",
        title="pipelined: many requests in flight on each connection",
        peers=(*_EVERY, "pysock-cir", "pysock-batch", *_OWN_CLIENTS, "py-aio-pysock", "py-aio-streams"),
        loads=(
            Load(connections=4, in_flight=32),
            Load(connections=32, in_flight=16),
            Load(connections=64, in_flight=32),
            Load(connections=8, in_flight=256, quick=True, headline=True),
            Load(connections=5, in_flight=7, size=300),
            Load(connections=8, in_flight=4, size=4 * KIB),
            Load(connections=13, in_flight=2, size=20 * KIB),
            Load(connections=1, in_flight=100, by="python", headline=True),
            Load(connections=1, in_flight=1000, by="python", quick=True),
        ),
        deviation="Python clients: as many in flight as each can have; latencies are those of the batch, but for tasks",
    ),
    Scenario(
        id="S4",
        title="large messages",
        # Without py-floor: it sends while the frame still arrives, and a plain client doesn't read before that's sent.
        peers=(*_EVERY, *_OWN_CLIENTS[1:], "py-zmq-req-nocopy"),
        loads=(
            Load(connections=1, size=64 * KIB),
            replace(_LARGE, quick=True, headline=True),
            Load(connections=1, size=MIB, by="both"),
            Load(connections=8, size=MIB),
            replace(_LARGE, transport="tcp"),
            Load(transport="tcp", connections=1, size=MIB),
        ),
        deviation="with the system's socket buffers only, not with 4 MiB",
    ),
    Scenario(
        id="S5",
        title="tail latency at a fixed rate, counted from when a request was to be sent",
        figure="p99_us",
        peers=_SOME,
        loads=(
            replace(_OPEN, share=0.25),
            replace(_OPEN, share=0.5),
            replace(_OPEN, share=0.7, quick=True, headline=True),
            replace(_OPEN, share=0.9),
            replace(_OPEN, share=0.7, stuck=1),
            Load(connections=1, rate=500),
            Load(connections=1, rate=5000),
        ),
        deviation="arrivals are evenly spaced, not Poisson; for as long as the other scenarios, not 60 s",
    ),
    Scenario(
        id="S6",
        title="an idle herd beside 64 active connections",
        figure="idle_bytes",
        peers=(*_C, *_PYSOCK, "pysock-cir", "uvloop", "uvloop-streams", "asyncio", "asyncio-streams", "gevent"),
        loads=(replace(_HERD, idle=1000), replace(_HERD, idle=10_000, quick=True, headline=True)),
        deviation="resident memory of the server; the kernel's part isn't counted",
    ),
    Scenario(
        id="S7",
        title="churn: connect, one request, close",
        peers=(*_EVERY, "pysock-cir", *_OWN_CLIENTS),
        loads=(
            replace(_CHURN, quick=True, headline=True),
            replace(_CHURN, transport="tcp"),
            Load(connections=1, churn=True, by="python", quick=True),
        ),
        deviation="pysock with framing pysock does a CIR more; Python clients one after the other",
    ),
    Scenario(
        id="S8",
        title="the GIL and real handlers",
        peers=(*_SOME, "socketserver", "mp"),
        loads=(
            Load(connections=64, size=KIB),
            Load(connections=64, size=KIB, hog=True, quick=True, headline=True),
            Load(connections=8, in_flight=32, hog=True),
            Load(connections=64, size=KIB, work_us=20),
        ),
        deviation="the C servers have no Python thread beside them",
    ),
    Scenario(
        id="S9",
        title="kinds of handlers in an asyncio loop",
        peers=(
            "floor",
            "pysock",
            "pysock-pure",
            "pysock-def",
            "pysock-async",
            "pysock-waits",
            "uvloop",
            "uvloop-streams",
        ),
        loads=(
            Load(connections=32, quick=True, headline=True),
            Load(connections=8, in_flight=256, headline=True),
        ),
        by_library=False,
    ),
    Scenario(
        id="S10",
        title="handlers in threads and in processes",
        peers=(
            "floor",
            "pysock",
            "pysock-pure",
            "pysock-threads",
            "uvloop-threads",
            "pysock-processes",
            "uvloop-processes",
        ),
        loads=(
            Load(connections=8, in_flight=32, quick=True, headline=True),
            Load(connections=1, headline=True),
        ),
        deviation="workers share the server's core",
        by_library=False,
    ),
    Scenario(
        id="S11",
        title="broadcasts: what one client says, all get, one after the other",
        figure="p99_us",
        peers=("floor", *_PYSOCK, "uvloop", "asyncio"),
        loads=(
            replace(_CROWD, connections=500),
            replace(_CROWD, quick=True, headline=True),
            replace(_CROWD, stuck=1, headline=True),
        ),
        deviation="the clients are in Python and slower than the servers: latencies are theirs, too",
    ),
    Scenario(
        id="S12",
        title="TLS 1.3",
        peers=("tls-floor", "pysock", "pysock-ssl", "pysock-pure", "uvloop", "asyncio"),
        loads=(
            Load(transport="tls", connections=1),
            Load(transport="tls", connections=32, quick=True, headline=True),
            Load(transport="tls", connections=8, in_flight=256, headline=True),
            Load(transport="tls", connections=8, size=100 * KIB, headline=True),
            Load(transport="tls", connections=64, size=KIB, hog=True, headline=True),
            Load(transport="tls", connections=32, churn=True, client_certs=True, headline=True),
        ),
        deviation="each connection of a churn is greeted anew; the C server has no Python thread beside it",
        by_library=False,
    ),
)


#: Which loads each mode has.
MODES: Final[dict[str, Callable[[Load], bool]]] = {
    "full": lambda load: True,
    "published": lambda load: load.published,
    "quick": lambda load: load.quick,
}


def chosen(ids: list[str], mode: str) -> tuple[Scenario, ...]:
    """Those that are asked for (none: all), and of their loads those of the mode."""
    wanted = [scenario for scenario in SCENARIOS if not ids or scenario.id in ids]
    return tuple(replace(scenario, loads=tuple(filter(MODES[mode], scenario.loads))) for scenario in wanted)
