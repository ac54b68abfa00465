"""Who a connection comes from, whether they may come in, and how many they have.

All of it happens before a byte is read, from what the kernel says of the other end; what a client says of itself counts
for nothing here.
"""

from __future__ import annotations

import socket

from pysock.access.networks import is_in
from pysock.access.peers import groups_of, peer_of
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.causes import Cause

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    from pysock.engine.proxies import Proxies
    from pysock.engine.pure.core import Core

#: Whence a connection comes, what counts as one: a user, or a network address in bytes.
Origin: TypeAlias = int | bytes

#: The beginning of an IPv4 address that is mapped into IPv6 (RFC 4291, 2.5.5.2).
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Newcomer(NamedTuple):
    """What is known of a connection before it is let through the door."""

    credentials: tuple[int, int, int] | None  # None where nobody wants to know
    origin: Origin | None  # None where there is no limit for it


class Origins:
    """How many connections each user and each address has, where that has a limit. All in O(1)."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: dict[Origin, int] = {}

    def taken(self, origin: Origin) -> int:
        """How many connections they have."""
        return self._taken.get(origin, 0)

    def take(self, origin: Origin) -> None:
        """One more."""
        self._taken[origin] = self._taken.get(origin, 0) + 1

    def leave(self, origin: Origin) -> None:
        """One less. Who has none isn't remembered."""
        left = self._taken[origin] - 1
        if left:
            self._taken[origin] = left
        else:
            del self._taken[origin]


class Door:
    """The rule of access, and the limits by user and by address."""

    def __init__(self, core: Core) -> None:
        self._origins = core.origins
        self._ask = core.callbacks.allow
        self._uids, self._gids = core.options.access
        self._per_uid = core.limits.max_clients_per_uid
        self._per_ip = core.limits.max_clients_per_ip

    def judge(
        self, sock: socket.socket, peer: Any, *, checked: bool, proxies: Proxies | None
    ) -> tuple[Newcomer, Cause | None]:
        """Who it is; and why they may not come in, or ``None``.

        :param peer: the address over TCP, ``None`` over a Unix socket.
        :param checked: the rule of access holds for this master socket, if it is a Unix socket.
        :param proxies: it must be one of these; how many its client has is seen when that is known.
        """
        tcp = peer is not None
        newcomer = self._over_tcp(peer[0]) if tcp else self._over_unix(sock, checked)
        if not tcp and newcomer.credentials is not None and not self._may_connect(sock, newcomer.credentials, checked):
            return newcomer, Cause.ACCESS
        if proxies is not None:
            trusted = not tcp or is_in(_packed(peer[0]), proxies.networks)
            return newcomer._replace(origin=None), None if trusted else Cause.UNTRUSTED
        most = self._per_ip if tcp else self._per_uid
        full = most is not None and newcomer.origin is not None and self._origins.taken(newcomer.origin) >= most
        return newcomer, Cause.PEER if full else None

    def _over_tcp(self, host: str) -> Newcomer:
        return Newcomer((-1, -1, -1), None if self._per_ip is None else network_of(host))

    def _over_unix(self, sock: socket.socket, checked: bool) -> Newcomer:
        if not checked and self._per_uid is None:
            return Newcomer(None, None)
        credentials = peer_of(sock)
        return Newcomer(credentials, None if self._per_uid is None else credentials[1])

    def _may_connect(self, sock: socket.socket, credentials: tuple[int, int, int], checked: bool) -> bool:
        _, uid, gid = credentials
        if uid == -1:  # whom the system doesn't tell nobody can judge, nor count
            return False
        if not checked:
            return True
        if self._ask is not None:
            return bool(self._ask(*credentials))
        if uid in self._uids or gid in self._gids:
            return True
        return bool(self._gids) and not self._gids.isdisjoint(groups_of(sock))


def network_of(host: str) -> bytes:
    """What counts as one address: an IPv4 address, also where it is mapped into IPv6; the first 64 bits of an IPv6
    address, for a machine commonly has all that begin with them (RFC 6177).
    """
    address = _packed(host)
    if len(address) == 4:
        return address
    return address[12:] if address.startswith(_MAPPED) else address[:8]


def _packed(host: str) -> bytes:
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
