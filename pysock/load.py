"""The load generator: many connections that send requests to an echo server, check the replies and time them.

It is part of the native engine, and works against any server of the framing, pysock's or not. This file owns the
options, the result and the words of everything that can go wrong; ``csrc/load/`` does the work, in a thread of its own
without the GIL.

Latencies are those of an HDR histogram: less than 1 % off. In an open loop they count from the moment at which the
request was to be sent, so that a server that stalls can't hide it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pysock.address import Address, AddressLike, as_address
from pysock.base.unique import Unique
from pysock.connecting import explained
from pysock.engine import REINSTALL, SocketAddress
from pysock.errors import PysockError
from pysock.files.place import reachable
from pysock.wire.format import ErrorCode, Framing, encode_cir

if TYPE_CHECKING:
    from pysock.engine.native.load import NativeLoad

FRAMINGS: Final = tuple(framing.name.lower() for framing in Framing)

#: As in ``csrc/load/load.h``.
MOST_CONNECTIONS: Final = 1_000_000
MOST_IN_FLIGHT: Final = 65_536
LARGEST: Final = 256 * 1024 * 1024

#: Seconds between two looks for signals.
_SLICE: Final = 0.1
_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class LoadError(PysockError):
    """The run failed: the server answered wrongly, or not at all."""


class Failure(IntEnum):
    """Why it failed: ``enum ps_load_failure``."""

    WELL = 0
    CONNECT = 1
    SYSTEM = 2
    HUNG_UP = 3
    STALLED = 4
    REFUSED = 5
    CHALLENGED = 6
    NOT_PYSOCK = 7
    NO_SERVICE = 8
    TOO_LARGE = 9
    WRONG_KIND = 10
    WRONG_ID = 11
    WRONG_LENGTH = 12
    WRONG_BYTES = 13
    UNASKED = 14
    GIVEN_UP = 15
    SHUTTING_DOWN = 16


class Outcome(NamedTuple):
    """What the C code tells of a run: ``ps_load_result``. Times are in nanoseconds."""

    connections: int
    messages: int
    errors: int
    elapsed_ns: int
    opening_ns: int
    cpu_ns: int
    polling_ns: int
    sleeping_ns: int
    min_ns: int
    max_ns: int
    sum_ns: int
    position: int
    expected: int
    got: int
    failure: int
    error: int
    code: int
    text: str


class Progress(NamedTuple):
    """How far a run is."""

    connections: int
    messages: int
    errors: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What to send, how and for how long.

    :ivar in_flight: requests of each connection that are with the server at once.
    :ivar size: of a request, in bytes, without what the framing adds.
    :ivar duration: seconds; or
    :ivar count: requests, in all.
    :ivar rate: requests a second, of all connections, evenly spaced (an open loop); ``None``: a new request as each
        reply comes (a closed loop).
    :ivar churn: open a connection, send one request, read the reply, close, again and again.
    :ivar linger: seconds to poll without sleeping before a wait.
    :ivar service: of the framing pysock; by default the unnamed one.
    :ivar stall: seconds without any reply after which the run fails.
    :raises ValueError: for anything that makes no sense.
    """

    address: Address
    framing: str = "pysock"
    connections: int = 1
    in_flight: int = 1
    size: int = 64
    duration: float | None = None
    count: int | None = None
    rate: float | None = None
    churn: bool = False
    linger: float = 0.0
    service: str = ""
    stall: float = 5.0

    def __post_init__(self) -> None:
        if self.framing not in FRAMINGS:
            raise ValueError(f"unknown framing {self.framing!r}: choose one of {', '.join(FRAMINGS)}")
        self._check_ranges()
        if (self.duration is None) == (self.count is None):
            raise ValueError("give either a duration or a count")
        if self.churn and self.in_flight != 1:
            raise ValueError("with churn each connection has one request: in_flight must be 1")
        if self.churn and self.rate is not None:
            raise ValueError("churn goes as fast as it can: it takes no rate")
        if self.framing == "raw" and not self.size:
            raise ValueError("an empty message can't be seen in the framing 'raw': the size must be at least 1")
        if self.service and self.framing != "pysock":
            raise ValueError(f"only the framing 'pysock' has services, {self.framing!r} has none")
        if "\0" in self.service:
            raise ValueError("the name of a service has no NUL")

    def _check_ranges(self) -> None:
        _check_range("connections", self.connections, 1, MOST_CONNECTIONS)
        _check_range("in_flight", self.in_flight, 1, MOST_IN_FLIGHT)
        _check_range("size", self.size, 0, LARGEST)
        _check_range("count", self.count, 1, 2**62)
        _check_range("duration", self.duration, 0.001, 86_400)
        _check_range("rate", self.rate, 0.001, 1e9)
        _check_range("linger", self.linger, 0, 1)
        _check_range("stall", self.stall, 0.001, 86_400)

    @property
    def mode(self) -> str:
        """``closed``, ``open`` or ``churn``."""
        return "churn" if self.churn else "closed" if self.rate is None else "open"


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}, not {value!r}")


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


class Load(Unique):
    """One run. ``result`` is there when it ended, also by ``stop`` or Ctrl-C; not when it failed.

    :raises ImportError: without the extension.
    """

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.result: LoadResult | None = None
        self._driver = _driver()
        self._running: NativeLoad | None = None
        self._lock = threading.Lock()  # of what may be stopped: nothing that is freed already
        self._stopped = False

    def run(self, on_progress: Callable[[Progress], None] | None = None, interval: float = 0.1) -> LoadResult:
        """Do it. Meanwhile ``on_progress`` is called in this thread, every ``interval`` seconds.

        :raises LoadError: the server answered wrongly, or not at all.
        :raises OSError: no connection.
        :raises KeyboardInterrupt: at Ctrl-C, after it was stopped.
        """
        with reachable(self.options.address) as targets:
            for target in targets:
                outcome = self._run_at(target, on_progress, interval)
                # The next address of the host, if nobody listens at this one.
                if outcome.failure != Failure.CONNECT or outcome.connections:
                    break
        if outcome.failure != Failure.WELL:
            raise _explain(outcome, self.options)
        assert self.result is not None
        if not (outcome.messages or outcome.errors or self._stopped):
            raise LoadError(f"{self.options.address}: nothing was answered in {self.result.seconds:.3g} seconds")
        return self.result

    def stop(self) -> None:
        """End it now; from any thread."""
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.stop()

    def _run_at(
        self, target: SocketAddress, on_progress: Callable[[Progress], None] | None, interval: float
    ) -> Outcome:
        cir = encode_cir() if self.options.framing == "pysock" else b""
        running = self._driver(self.options, target, cir)
        with self._lock:
            self._running = running
            if self._stopped:
                running.stop()
        try:
            if on_progress is None:
                while running.run(_SLICE):  # so that Python can look after its signals in between
                    pass
            else:
                _run_in_thread(running, on_progress, interval)
        finally:
            outcome = self._finish(running)
        return outcome

    def _finish(self, running: NativeLoad) -> Outcome:
        running.stop()  # at Ctrl-C it isn't over yet
        running.run()
        outcome, histogram = running.outcome(), running.histogram()
        with self._lock:
            self._running = None
        running.close()
        if outcome.failure == Failure.WELL:
            self.result = _result(self.options, outcome, histogram)
        return outcome


def run_load(address: AddressLike, **options: Any) -> LoadResult:
    """Run the load generator against a server that echoes; ``options`` are those of :class:`LoadOptions`."""
    return Load(LoadOptions(address=as_address(address), **options)).run()


def _run_in_thread(running: NativeLoad, on_progress: Callable[[Progress], None], interval: float) -> None:
    """So that showing the progress takes no time from the run.

    Without it there is no thread: in a process that has only one the kernel's calls cost a little less.
    """
    worker = threading.Thread(target=running.run, name="pysock-load", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(interval)
            on_progress(running.progress())
    finally:
        running.stop()
        worker.join()


def _driver() -> type[NativeLoad]:
    try:
        from pysock.engine.native.load import NativeLoad  # noqa: PLC0415  # part of the extension
    except ModuleNotFoundError as error:
        if error.name != "pysock._engine":
            raise
        raise ImportError(
            "the load generator is part of the native engine, which isn't installed: install it again to see why it"
            f" wasn't built, with {REINSTALL}"
        ) from error
    return NativeLoad


# The result


def _result(options: LoadOptions, outcome: Outcome, histogram: Sequence[tuple[int, int]]) -> LoadResult:
    seconds, total = outcome.elapsed_ns / 1e9, sum(count for _, count in histogram)
    percentiles = tuple((percent, _percentile(histogram, percent, outcome.max_ns) / 1e3) for percent in _PERCENTILES)
    return LoadResult(
        options=options,
        seconds=seconds,
        messages=outcome.messages,
        errors=outcome.errors,
        first_error=_words(outcome) if outcome.errors else "",
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


def _percentile(histogram: Sequence[tuple[int, int]], percent: float, most: int) -> int:
    """The latency that so many of a hundred don't exceed."""
    wanted, seen = sum(count for _, count in histogram) * percent / 100, 0
    for longest, count in histogram:
        seen += count
        if seen >= wanted:
            return min(longest, most)
    return 0


def _per(amount: float, divisor: float) -> float:
    return amount / divisor if divisor else 0.0


# What went wrong


def _explain(outcome: Outcome, options: LoadOptions) -> Exception:
    number = -outcome.error
    if outcome.failure == Failure.CONNECT:
        return explained(OSError(number, os.strerror(number)), options.address)
    if outcome.failure == Failure.SYSTEM:
        more = f"; {options.connections} connections need a higher limit, see ulimit -n" * (number == errno.EMFILE)
        return OSError(number, f"{options.address}: {os.strerror(number)}{more}")
    return LoadError(f"{options.address}: {_TEXTS[Failure(outcome.failure)](outcome, options)}")


def _words(outcome: Outcome) -> str:
    """What the server said."""
    if outcome.text:
        return outcome.text
    names = [code.name.lower().replace("_", " ") for code in ErrorCode if code == outcome.code]
    return names[0] if names else f"error {outcome.code}"


def _stalled(outcome: Outcome, options: LoadOptions) -> str:
    if not outcome.connections:
        return f"no connection was let in within {options.stall:g} seconds{_hint(options)}"
    if outcome.connections < options.connections:
        return f"only {outcome.connections} of {options.connections} connections were let in{_hint(options)}"
    return f"no reply came for {options.stall:g} seconds{_hint(options)}"


def _hint(options: LoadOptions) -> str:
    return f"; does a server listen there that echoes in the framing {options.framing!r}?"


_TEXTS: Final[dict[Failure, Callable[[Outcome, LoadOptions], str]]] = {
    Failure.HUNG_UP: lambda _outcome, options: f"the server closed a connection before it answered{_hint(options)}",
    Failure.STALLED: _stalled,
    Failure.REFUSED: lambda outcome, _options: f"the server refused a connection: {outcome.text}",
    Failure.CHALLENGED: lambda _outcome, _options: "the server wants an auth key, which this version can't give",
    Failure.NOT_PYSOCK: lambda _outcome, options: f"the answer to the CIR isn't pysock's protocol{_hint(options)}",
    Failure.NO_SERVICE: lambda outcome, options: (
        f"the server has no service {options.service!r}; it has {outcome.text or 'none with a name'}"
    ),
    Failure.TOO_LARGE: lambda outcome, options: (
        f"the server takes at most {outcome.expected} bytes in a request, not {options.size}"
    ),
    Failure.WRONG_KIND: lambda outcome, _options: f"the server sent a frame of kind {outcome.got:#04x}, not a reply",
    Failure.WRONG_ID: lambda outcome, _options: f"a reply has the id {outcome.got}, which no request in flight has",
    Failure.WRONG_LENGTH: lambda _outcome, options: f"a reply isn't as long as its request{_hint(options)}",
    Failure.WRONG_BYTES: lambda outcome, options: (
        f"a reply isn't what was sent: its byte {outcome.position} is {outcome.got:#04x}, not {outcome.expected:#04x}"
        f"{_hint(options)}"
    ),
    Failure.UNASKED: lambda _outcome, options: f"more bytes came back than were sent{_hint(options)}",
    Failure.GIVEN_UP: lambda outcome, _options: f"the server gave up a connection: {_words(outcome)}",
    Failure.SHUTTING_DOWN: lambda outcome, _options: f"the server is shutting down: {outcome.text}",
}
