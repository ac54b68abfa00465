"""What the load generator is asked for, and whether that makes sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pysock.address import Address
from pysock.errors import ParameterError
from pysock.wire.framing import FRAMING_BY_NAME

FRAMINGS: Final = tuple(FRAMING_BY_NAME)

#: As in ``csrc/load/load.h``.
MOST_CONNECTIONS: Final = 1_000_000
MOST_IN_FLIGHT: Final = 65_536
LARGEST: Final = 256 * 1024 * 1024


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
            raise ParameterError(
                "framing", f"unknown framing {self.framing!r}: choose one of {', '.join(FRAMINGS)}", name=""
            )
        if self.address.transport == "tls":
            problem = f"{self.address}: the load generator speaks no TLS: measure at an address tcp:// or unix:"
            raise ParameterError("address", problem, name="")
        self._check_ranges()
        if (self.duration is None) == (self.count is None):
            raise ParameterError("duration", "give either a duration or a count", name="")
        if self.churn and self.in_flight != 1:
            raise ParameterError("in_flight", "must be 1 with churn: each connection has one request then")
        if self.churn and self.rate is not None:
            raise ParameterError("rate", "churn goes as fast as it can: it takes no rate", name="")
        if self.framing == "raw" and not self.size:
            raise ParameterError("size", "must be at least 1: an empty message can't be seen in the framing 'raw'")
        if self.service and self.framing != "pysock":
            raise ParameterError("service", f"needs the framing 'pysock': {self.framing!r} has no services")
        if "\0" in self.service:
            raise ParameterError("service", "the name of a service has no NUL", name="")

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
        raise ParameterError(name, f"must be from {least:g} to {most:g}, not {value!r}")
