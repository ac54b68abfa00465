"""What an engine tells of itself: the row of a client, the counters, and the request that a handler runs for."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.causes import COUNTERS

if TYPE_CHECKING:
    from typing import Any, Final


class ClientInfo(NamedTuple):
    """One row of the client table."""

    client_id: int
    fd: int
    state: int
    name: str
    software: str  # as it says itself
    master: int  # index of the master socket, in the order of add_master
    address: str  # the peer: "host:port" over TCP, "" over a Unix socket; or as a proxy says, then also "unix:PATH"
    pid: int  # of the peer on a Unix socket; -1 where unknown, like the next two
    uid: int
    gid: int
    connected_at: float  # seconds since the epoch
    idle_since: float  # likewise: when its last bytes were read
    requests: int
    bytes_in: int
    bytes_out: int
    frames_in: int
    frames_out: int
    in_flight: int  # requests whose reply isn't written yet
    queued: int  # bytes of replies the kernel hasn't taken yet
    pushes_dropped: int = 0  # that it didn't get, because too many waited
    via: str = ""  # the proxy that it came through: "host:port", or "unix:"; "": none
    header: bytes = b""  # what is kept of the header that this has sent; in one row, not in many


class Gone(NamedTuple):
    """A client that went."""

    row: ClientInfo  # of its last moment
    reason: int  # an index in DISCONNECT_REASONS
    at: float  # seconds since the epoch


class EngineStats(NamedTuple):
    """Counters since the start; the first two are of now."""

    clients: int  # let in, and still connected
    pending: int  # connected, and not let in yet
    accepted: int  # connections accepted by the master sockets
    established: int  # of them, let in
    refused: int  # CIRs refused, and connections over max_clients
    disconnected: int  # clients that were let in and are gone
    requests: int  # whole SRMs of clients, served or not
    errors: int  # requests that failed: answered by an ERROR, or by nothing
    pushes: int
    timeouts: int  # connections closed at a deadline
    over_limit: int  # connections closed over a limit
    bytes_in: int
    bytes_out: int
    causes: tuple[int, ...]  # how often each Cause was met

    def by_name(self) -> dict[str, int]:
        """Each counter under its own name; those of the causes have theirs from :data:`COUNTERS`."""
        counters: dict[str, Any] = self._asdict()
        return counters | dict(zip(COUNTERS, counters.pop("causes"), strict=True))


class Current(NamedTuple):
    """A request whose handler runs."""

    client_id: int
    request_id: int  # 0 in a framing without ids
    service: int
    deadline: float  # on the monotonic clock; 0: none is known
    wants_reply: bool


class Served(NamedTuple):
    """A request that is over. Times are seconds on the monotonic clock."""

    client_id: int  # 0: it isn't known
    service: int  # -1: it isn't known
    came: float  # when it was read, or a little before
    began: float  # when its handler was called, or a little before
    ended: float
    size: int  # of the request, in bytes; -1: it isn't known
    reply_size: int  # likewise
    failed: bool
    #: It is one of so many, and it isn't known which of them took so long; 0: none of a client's requests did.
    among: int
    kept: Any  # what the engine has kept of one that was answered later; else ``None``
    sampled: bool = False  # it was its turn, however quick it was


#: Before anything has happened.
NO_STATS: Final = EngineStats._make([*[0] * (len(EngineStats._fields) - 1), (0,) * len(COUNTERS)])
