"""When a client connects again, and what of its requests is sent again: tables, and numbers. Nothing here waits.

What a connection attempt fails with is either over by itself, sooner or later, or it is for good, as a wrong key is:
that is raised and not tried again. Whoever isn't in a table is for good, since to hide it would help nobody.
"""

from __future__ import annotations

import errno
import random
import socket

from pysock.base.lean import TYPE_CHECKING, dataclass
from pysock.errors import BusDown, ConnectionLost, ConnectionRefused, ParameterError, RequestTimeout
from pysock.wire.format import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from pysock.address import Address

#: Refusals of a server that may let the same client in a moment later.
PASSING_REFUSALS: Final = frozenset((Refusal.SERVER_FULL, Refusal.SHUTTING_DOWN, Refusal.CIR_TOO_LATE))

#: What the system says where nobody listens yet, or any more, or where something is short for the moment.
PASSING_ERRORS: Final = frozenset(
    (
        *(errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED),
        *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    )
)

#: Waits by default, first and longest, in seconds: on this machine, and over a network.
NEAR: Final = (0.01, 2.0)
FAR: Final = (0.1, 10.0)

#: How often a request of which nobody knows whether it was run is sent again, where it may be run twice.
AGAIN_MAX: Final = 3

#: Doubling on would not end otherwise.
_DOUBLINGS_MAX: Final = 40


def is_passing(error: BaseException) -> bool:
    """Whether a failed attempt to connect is worth another one."""
    if isinstance(error, ConnectionRefused):
        return error.code in PASSING_REFUSALS
    if isinstance(error, (ConnectionLost, RequestTimeout)):  # within the handshake
        return True
    if isinstance(error, BusDown):
        return not error.for_good
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    return isinstance(error, OSError) and error.errno in PASSING_ERRORS


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a client waits before it connects again: at random between 0 and a span that doubles with each failure.

    So many clients of one server don't all come at the same moment. ``None`` is 0.01 and 2 seconds on Unix sockets, 0.1
    and 10 where an address is TCP.

    :param first: seconds of the first span.
    :param longest: seconds that no span is longer than.
    :raises ValueError: one isn't more than 0, or the first is the longer one.
    """

    first: float | None = None
    longest: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("first", self.first), ("longest", self.longest)):
            if value is None:
                continue
            if isinstance(value, bool) or not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise ParameterError(name, f"must be a number of seconds over 0, not {value!r}", name=f"Backoff.{name}")
        if self.first is not None and self.longest is not None and self.first > self.longest:
            raise ParameterError("longest", "must not be less than first", name="Backoff.longest")

    def spans(self, addresses: Iterable[Address]) -> Spans:
        """The same, for clients of these addresses."""
        transports = {address.transport for address in addresses}
        near = bool(transports) and transports <= {"unix", "abstract"}
        first, longest = NEAR if near else FAR
        first = first if self.first is None else float(self.first)
        longest = max(first, longest) if self.longest is None else float(self.longest)
        return Spans(min(first, longest), longest)


class Spans:
    """The spans of one client, by the number of failures in a row."""

    __slots__ = ("_first", "_longest", "_uniform")

    def __init__(self, first: float, longest: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._first = first
        self._longest = longest
        self._uniform = uniform

    def span(self, failures: int) -> float:
        """The longest wait after so many."""
        return min(self._longest, float(self._first * 2 ** min(failures, _DOUBLINGS_MAX)))

    def wait(self, failures: int) -> float:
        """One, at random."""
        return self._uniform(0.0, self.span(failures))


def checked_reconnect(reconnect: bool | Backoff) -> Backoff | None:
    """Return how it waits; ``None``: it doesn't connect again.

    :raises TypeError: it is neither a truth value nor a Backoff.
    """
    if reconnect is True:
        return Backoff()
    if reconnect is False or reconnect is None:
        return None
    if not isinstance(reconnect, Backoff):
        raise TypeError(f"reconnect= takes True or a pysock.Backoff, not {reconnect!r}")
    return reconnect


def checked_wait(wait: float | None) -> float:
    """Return how long a client waits for a server that isn't there yet.

    :raises ValueError: it is no number of seconds from 0 on.
    """
    if wait is None:
        return 0.0
    if not isinstance(wait, (int, float)) or isinstance(wait, bool) or not wait >= 0:
        raise ParameterError("wait", f"must be 0 or more seconds, not {wait!r}")
    return float(wait)


class Bucket:
    """What keeps clients from sending everything twice to a server that can't do it once: repeats take a token each,
    answers bring a tenth of one, and from half of the tokens on nothing is repeated.
    """

    __slots__ = ("tokens",)

    MOST: Final = 10.0
    BACK: Final = 0.1

    def __init__(self) -> None:
        self.tokens: float = self.MOST

    def take(self) -> bool:
        """Take one for a repeat, if there may be one."""
        if self.tokens - 1 < self.MOST / 2:
            return False
        self.tokens -= 1
        return True

    def answered(self) -> None:
        """A request had its answer."""
        if self.tokens < self.MOST:
            self.tokens = min(self.MOST, self.tokens + self.BACK)
