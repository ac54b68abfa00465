"""The directory: rows that say who is connected, what each has done and waits for, and who has gone, and why.

The engines know clients by numbers; this file owns what a program gets to see of a row. A row is made when it is looked
at, so that a snapshot of ten thousand clients costs the loop next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING, NamedTuple, overload
from pysock.base.unique import Unique
from pysock.engine.proxies import VIA_UNIX
from pysock.engine.rows import ClientInfo, Gone
from pysock.states import DISCONNECT_REASONS, ConnectionState, DisconnectReason

if TYPE_CHECKING:
    from typing import Final

_STATES: Final = {int(state): state for state in ConnectionState}
#: What ``_make`` of a NamedTuple calls, which takes twice as long.
_new: Final = tuple.__new__


class ClientRow(NamedTuple):
    """One client, as it was at one moment.

    :ivar id: its number in ``server.clients``.
    :ivar name: as the client calls itself; it proves nothing.
    :ivar software: likewise, ``"pysock/0.1"``.
    :ivar transport: ``"unix"`` or ``"tcp"``.
    :ivar address: over TCP the client's ``host:port``, else the server's address; through a proxy, as that says.
    :ivar pid: of the process at the other end of a Unix socket; ``None`` where it isn't known, as the next two.
    :ivar uid: its user.
    :ivar gid: its group.
    :ivar state: where the connection is in its life.
    :ivar connected_at: when it was accepted, in seconds since the epoch.
    :ivar idle_since: when its last bytes were read.
    :ivar requests: how many it has sent.
    :ivar in_flight: how many of them have no answer yet.
    :ivar bytes_in: from the client, headers included.
    :ivar bytes_out: to the client.
    :ivar frames_in: from the client; requests, and what else the framing has.
    :ivar frames_out: to the client.
    :ivar output_waiting: bytes that the kernel hasn't taken yet.
    :ivar pushes_dropped: that it didn't get, because too many waited.
    :ivar groups: that it is in.
    :ivar via: the address of the proxy that it came through; ``None``: it came through none.
    """

    id: int
    name: str
    software: str
    transport: str
    address: str
    pid: int | None
    uid: int | None
    gid: int | None
    state: ConnectionState
    connected_at: float
    idle_since: float
    requests: int
    in_flight: int
    bytes_in: int
    bytes_out: int
    frames_in: int
    frames_out: int
    output_waiting: int
    pushes_dropped: int
    groups: tuple[str, ...]
    via: str | None = None


class LeftClient(NamedTuple):
    """A client that went.

    :ivar row: as it was in its last moment.
    :ivar reason: why it went.
    :ivar left_at: when, in seconds since the epoch.
    """

    row: ClientRow
    reason: DisconnectReason
    left_at: float


def row_of(info: ClientInfo, groups: tuple[str, ...], reached: Callable[[int], str]) -> ClientRow:
    """The row, of what an engine says.

    :param reached: gives the address of a master socket.
    """
    (
        client_id, _fd, state, name, software, master, address, pid, uid, gid, connected_at, idle_since, requests,
        bytes_in, bytes_out, frames_in, frames_out, in_flight, queued, dropped, via, _header,
    ) = info  # fmt: skip
    known = uid != -1
    proxy = (reached(master) if via == VIA_UNIX else via) if via else None
    return _new(
        ClientRow,
        (
            client_id, name, software, "tcp" if address and address[0] != "u" else "unix", address or reached(master),
            pid if known else None, uid if known else None, gid if known else None, _STATES[state], connected_at,
            idle_since, requests, in_flight, bytes_in, bytes_out, frames_in, frames_out, queued, dropped, groups, proxy,
        ),
    )  # fmt: skip


def left_of(gone: Gone, groups: tuple[str, ...], reached: Callable[[int], str]) -> LeftClient:
    """The same of one that went."""
    return LeftClient(row_of(gone.row, groups, reached), DISCONNECT_REASONS[gone.reason], gone.at)


class Snapshot(Unique, Sequence[ClientRow]):
    """Who was connected at one moment, oldest first: a sequence of :class:`ClientRow`. It doesn't change.

    :ivar taken_at: when, in seconds since the epoch.
    """

    __slots__ = ("_groups", "_reached", "_rows", "taken_at")

    def __init__(
        self, rows: Sequence[ClientInfo], groups: Mapping[int, tuple[str, ...]], reached: Callable[[int], str]
    ) -> None:
        self._rows = rows
        self._groups = groups
        self._reached = reached
        self.taken_at: float = time.time()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ClientRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClientRow]: ...
    def __getitem__(self, index: int | slice) -> ClientRow | list[ClientRow]:
        found = self._rows[index]
        return self._made(found) if isinstance(found, ClientInfo) else list(map(self._made, found))

    def __iter__(self) -> Iterator[ClientRow]:
        return map(self._made, self._rows)

    def _made(self, info: ClientInfo) -> ClientRow:
        return row_of(info, self._groups.get(info[0], ()), self._reached)

    def __repr__(self) -> str:
        few = ", ".join(f"{shown(row.id)} {row.name!r}" for row in self[:3])
        return f"<Snapshot of {len(self)}: {few}{', ...' if len(self) > 3 else ''}>"
