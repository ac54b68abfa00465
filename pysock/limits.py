"""The limits of a server, all finite. The engines enforce them; this file owns their names and defaults."""

from __future__ import annotations

import resource
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, dataclass, field, field_names
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: Descriptors that are kept for the process itself: listening sockets, logs, the standard streams.
RESERVED_DESCRIPTORS: Final = 64

#: The default of ``max_clients``, where there are descriptors enough.
DEFAULT_MAX_CLIENTS: Final = 10_000

#: A client id has 24 bits for the slot of its client, and a slot is taken a little longer than its client is there.
MOST_CLIENTS: Final = 16_000_000

#: A length on the wire is 32 bits. This bound leaves room for the header in every sum of sizes.
LARGEST_PAYLOAD: Final = 2**31 - 1

#: Seconds: 30 days. The engines' deadlines are reckoned in milliseconds of 32 bits, which wrap around after 49.
LONGEST_TIMEOUT: Final = 30 * 24 * 3600

#: The default of ``vanish_timeout``, also of clients, in seconds.
VANISH_TIMEOUT: Final = 60.0

#: The default of ``stream_window``, also of clients.
STREAM_WINDOW: Final = 256 * 1024

#: The limits that may be ``None``: there is none then.
_NEVER: Final = frozenset(("idle_timeout", "vanish_timeout", "max_clients_per_uid", "max_clients_per_ip"))

#: How the names of those end that are times.
_IN_SECONDS: Final = ("_timeout", "_seconds")


class Slow(IntEnum):
    """What a server does where too many pushes wait for a client; ``enum ps_slow`` in C."""

    DISCONNECT = 0
    DROP_NEW = 1
    DROP_OLD = 2


class CutDefault(int):
    """A default that the limit of descriptors has cut, to be told from the same number said by somebody."""


def default_max_clients() -> int:
    """Return the default of ``max_clients``: 10,000, or what the limit of descriptors leaves."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DEFAULT_MAX_CLIENTS
    room = soft - RESERVED_DESCRIPTORS
    return DEFAULT_MAX_CLIENTS if room >= DEFAULT_MAX_CLIENTS else CutDefault(max(1, room))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may cost. At a limit the client concerned is refused or closed; nobody else notices.

    Where handlers hold the loop up, nobody is late for that: the loop has looked at what came, or could be sent, eight
    times before a deadline is over, and so the deadline may take longer. None is longer than 30 days.

    :param max_clients: connections at once, at most 16 million. Default: 10,000, or what ``RLIMIT_NOFILE`` allows
        less 64.
    :param max_clients_per_uid: connections at once of one user on Unix sockets; ``None``: only ``max_clients`` counts.
    :param max_clients_per_ip: connections at once from one IPv4 address, or from one IPv6 network of 64 bits (which one
        machine may have all of, RFC 6177), over TCP; ``None``: only ``max_clients`` counts.
    :param max_pending_cir: connections whose CIR has not been accepted yet. When full, the one that has waited
        longest is dropped, so that a crowd of silent clients can't keep the door shut.
    :param cir_timeout: seconds from accept to an accepted CIR, or to the end of one that was refused.
    :param max_cir_bytes: bytes of a CIR's payload.
    :param max_payload: bytes of one request or reply. A larger request gets ERROR 3 and is skipped.
    :param frame_timeout: seconds for a whole frame, from its first byte to its last (not an inactivity timer).
    :param max_in_flight: requests of one client that wait for their reply; then that client isn't read. Nor is it while
        those that wait for a batch have 64 MiB or more together.
    :param stream_window: bytes of one stream that are on their way to a client at most; it may want fewer.
    :param max_asks: requests of the server to one client (``DataSocket.request``) that wait for their answer; one more
        is an error.
    :param output_pause: bytes of unsent replies at which a client isn't read any more; before it is let in: any.
    :param output_drop: bytes of unsent replies at which a client is dropped.
    :param push_soft: bytes of pushes that may wait for a client for any time, each counted with 64 bytes more.
    :param push_soft_seconds: how long more of them may wait, until the client is dropped, or pushes are
        (``Server(slow=...)``).
    :param push_hard: bytes of pushes, counted likewise, at which that happens at once; but one push may always wait.
    :param output_timeout: seconds without progress of waiting output until a client is dropped.
    :param idle_timeout: seconds without a byte from a client until it is dropped; ``None`` is never.
    :param vanish_timeout: seconds without an answer of the other end's machine, after which the kernel gives a TCP
        connection up (a cable was pulled): it asks after half of them. ``None`` is never. Where
        ``output_timeout`` is longer, a connection with unsent replies has that.
    :param backlog: connections the kernel keeps for us until they are accepted (capped by ``somaxconn``).
    :raises ValueError: for a value out of range.
    """

    max_clients: int = field(default_factory=default_max_clients)
    max_clients_per_uid: int | None = None
    max_clients_per_ip: int | None = None
    max_pending_cir: int = 1024
    cir_timeout: float = 5.0
    max_cir_bytes: int = 4096
    max_payload: int = 16 * 1024 * 1024
    frame_timeout: float = 30.0
    max_in_flight: int = 1024
    stream_window: int = STREAM_WINDOW
    max_asks: int = 64
    output_pause: int = 1024 * 1024
    output_drop: int = 64 * 1024 * 1024
    push_soft: int = 8 * 1024 * 1024
    push_soft_seconds: float = 10.0
    push_hard: int = 32 * 1024 * 1024
    output_timeout: float = 10.0
    idle_timeout: float | None = None
    vanish_timeout: float | None = VANISH_TIMEOUT
    backlog: int = 4096

    def __post_init__(self) -> None:
        for name in field_names(self):
            value = getattr(self, name)
            if value is None and name in _NEVER:
                continue
            number, most = ((int, float), LONGEST_TIMEOUT) if name.endswith(_IN_SECONDS) else (int, LARGEST_PAYLOAD)
            if name == "max_clients":
                most = MOST_CLIENTS
            if not isinstance(value, number) or isinstance(value, bool):
                raise TypeError(f"Limits.{name} takes a number, not {value!r}")
            if not 0 < value <= most:
                raise ParameterError(
                    name, f"must be more than 0 and at most {most}, not {value}", name=f"Limits.{name}"
                )
        for large, small in (("output_drop", "output_pause"), ("push_hard", "push_soft")):
            if getattr(self, large) < getattr(self, small):
                raise ParameterError(large, f"must not be less than {small}", name=f"Limits.{large}")
