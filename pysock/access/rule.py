"""Who may connect: by the credentials that the kernel reports of a Unix socket's peer, and over TCP by where from.

This file owns the rule of a server's ``allow=``, and the refusal to listen where other machines could connect to a
server that asks nobody who they are. The engines apply the rule, before they read a byte.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping

from pysock.access.peers import group_ids, user_ids
from pysock.access.sans import asking, named
from pysock.access.unmapped import unmapped_groups, unmapped_users
from pysock.address import NETWORK, Address
from pysock.base.borrowed import borrowed
from pysock.base.functions import checked_function, settled
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR, Seldom
from pysock.base.logs import server_log as log
from pysock.data import Peer
from pysock.engine.contract import NO_ACCESS, Access
from pysock.errors import KEEP_OTHERS_OUT, ParameterError

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.access.sans import Judge
    from pysock.wire.proxy.facts import ProxyHeader

#: What ``allow=`` says to let in every peer that the kernel lets connect.
ANYONE: Final = "anyone"

_WHAT: Final = 'allow= takes {"uid": ..., "gid": ..., "san": ..., "cn": ...}, a function of a peer, or "anyone"'


class Rule:
    """What ``allow=`` of a server says.

    :raises TypeError: it is none of the things it can be, or an async function.
    :raises ValueError: it names an unknown user or group, or nobody at all.
    """

    def __init__(self, allow: Any) -> None:
        #: The names in certificates of clients behind a proxy, of which they must have one; ``None``: nobody asks.
        self.names: frozenset[str] | None = None
        if isinstance(allow, Mapping) and "cn" in allow:
            self.names = _names(allow["cn"])
            allow = {key: value for key, value in allow.items() if key != "cn"} or None
        self._by_san = isinstance(allow, Mapping) and "san" in allow
        #: Of Unix sockets it says nothing.
        self._default = allow is None or (self._by_san and set(allow) == {"san"})
        self._anyone = isinstance(allow, str) and allow == ANYONE
        #: Asked about each peer, if it isn't ``None``.
        self.ask: Callable[[int, int, int], bool] | None = None
        #: Who may come in where nobody is asked.
        self.access: Access = NO_ACCESS
        #: Asked about each client that speaks TLS, if it isn't ``None``.
        self.judge_tls: Judge | None = named(allow["san"]) if self._by_san else None
        if self._default:
            self.access = Access(uids=frozenset((os.geteuid(), 0)))
        elif callable(allow):
            instead = "it must be a plain one, which says whether the peer may come in"
            checked_function("allow= function", allow, "allow(peer)", instead)
            self.ask = _asking(allow)
            self.judge_tls = asking(allow)
        elif isinstance(allow, Mapping):
            self.access = _listed(allow)
        elif not self._anyone:
            raise TypeError(f"{_WHAT}, not {allow!r}")
        self._named = self.access
        self.access = Access(self.access.uids - unmapped_users(), self.access.gids - unmapped_groups())

    def admits(self, header: ProxyHeader | None) -> bool:
        """Whether somebody may come in through a proxy, which says this of him; ``None``: it is the proxy itself."""
        tls = None if header is None else header.ssl
        return self.names is None or (tls is not None and tls.verified and tls.cn in self.names)

    def checks(self, address: Address, fd: int) -> bool:
        """Whether the peers of this master socket are held against the rule.

        Without an ``allow=`` they are where nothing else says who may connect: at a socket file of the default mode,
        and at an abstract name, which has no permissions at all (unix(7)). At an inherited socket file it is its maker
        who has said it, as systemd does by ``SocketMode=``.

        :raises ValueError: it is an abstract name, and the rule is ``"anyone"``.
        """
        transport = _transport(address, fd)
        self.refuse_open_name(address, transport)
        if self._anyone or transport in NETWORK:
            return False
        if not self._default or transport == "abstract":
            return True
        return address.transport == "unix" and _has_default_mode(address)

    def refuse_open_name(self, address: Address, transport: str) -> None:
        """Raise where neither the rule nor the kernel would keep anybody out.

        :raises ValueError: it is an abstract name, and the rule is ``"anyone"``.
        """
        if self._anyone and transport == "abstract":
            raise ParameterError(
                "allow",
                f'{address}: an abstract name has no permissions, so allow="anyone" would let in every user of this'
                ' machine: name users or groups, allow={"uid": ..., "gid": ...}, or give a function of a peer',
                name="",
            )

    def refuse_unverified(self, address: Address, asks: str) -> None:
        """Raise where names in certificates are asked for, and no certificate is.

        :param asks: how certificates are looked at there.
        :raises ValueError: they aren't.
        """
        if self._by_san and asks == "none":
            problem = (
                f'{address}: allow={{"san": ...}} names clients by their certificates, and this server asks for none:'
                " give its TLS ca=, with the CA that they come from"
            )
            raise ParameterError("allow", problem, name="")

    def refuse_tcp_alone(self, sockets: Iterable[tuple[Address, int]]) -> None:
        """Raise where an ``allow=`` would be about nobody.

        :param sockets: all that the server listens at; a descriptor is only looked at where the address is ``fd://``,
            and a negative one is of a socket that isn't known yet.
        :raises ValueError: none of them is a Unix socket, or one for TLS or behind a proxy where it is about that.
        """
        sockets = list(sockets)
        if self.names is not None and not any(address.proxy for address, _ in sockets):
            raise ParameterError(
                "allow",
                'has "cn", the name that a proxy has found in its client\'s certificate, and no address of this server'
                " is reached through one (?proxy=v2)",
                name="allow=",
            )
        if self._default and not self._by_san:
            return
        transports = {_transport(address, fd) for address, fd in sockets}
        if self._by_san and "tls" not in transports:
            problem = 'names clients by "san", in a certificate, and this server has no address tls://HOST:PORT'
            raise ParameterError("allow", problem, name="allow=")
        if self._default or (self.ask is not None and "tls" in transports):
            return
        if transports <= NETWORK:
            raise ParameterError(
                "allow",
                "is about Unix sockets, and this server has none: over TCP nobody's user is known; there let in those"
                ' who prove to have a key, with authkey=, or over TLS a certificate, with {"san": ...}',
                name="allow=",
            )

    def warn_unreachable(self, addresses: Iterable[Address]) -> None:
        """Log it where the rule names somebody who can't be told apart, or whom the kernel doesn't let connect, so that
        it would never be asked.
        """
        if self._named != self.access:
            log.warning(
                "nobody is let in as user or group %s: in this user namespace those who aren't mapped into it have that"
                " number, too (user_namespaces(7))",
                " or ".join(map(str, (self._named.uids - self.access.uids) | (self._named.gids - self.access.gids))),
            )
        out_of_reach = [str(address) for address in addresses if self._is_out_of_reach(address)]
        if out_of_reach:
            log.warning(
                "allow= lets in users or groups that the socket file's mode 0600 keeps out of %s: open the file, for"
                " example with unix:/PATH?mode=0666, or with ?mode=0660&group=GROUP",
                " and ".join(out_of_reach),
            )

    def _is_out_of_reach(self, address: Address) -> bool:
        if address.transport != "unix" or address.mode is not None or self._default:
            return False
        owner = user_ids(address.user or os.geteuid(), "user")
        return bool(self._named.uids - owner - {0, os.geteuid()} or self._named.gids - {os.getegid()})


def refuse_exposed(address: Address, fd: int) -> None:
    """Raise unless only this machine can connect to a bound socket.

    :raises ValueError: other machines can.
    """
    with borrowed(fd) as handle:
        if handle.family == socket.AF_UNIX:
            return
        host = handle.getsockname()[0]
    from ipaddress import ip_address  # noqa: PLC0415  # takes a while to import, and only TCP servers need it

    found = ip_address(host.partition("%")[0])
    if not (getattr(found, "ipv4_mapped", None) or found).is_loopback:
        problem = f"{address}: other machines can connect there, and this server lets in whoever does"
        raise ParameterError("insecure", problem, name="", advice=KEEP_OTHERS_OUT)


def _transport(address: Address, fd: int) -> str:
    """That of the address; of an inherited socket, what the socket itself is."""
    if address.transport != "fd" or fd < 0:
        return address.transport
    with borrowed(fd) as handle:
        if handle.family != socket.AF_UNIX:
            return "tcp"
        # The name is bytes if it is abstract, else text; comparing the two is an error under python -bb.
        return "abstract" if os.fsencode(handle.getsockname()).startswith(b"\0") else "unix"


def _has_default_mode(address: Address) -> bool:
    return address.mode is None and address.user is None and address.group is None


def _names(names: Any) -> frozenset[str]:
    found = frozenset([names] if isinstance(names, str) else names if isinstance(names, Iterable) else [names])
    if not found or not all(isinstance(name, str) and name for name in found):
        problem = f'allow={{"cn": ...}} takes the common name of a certificate, or several, not {names!r}'
        raise ParameterError("allow", problem, name="")
    return found


def _listed(allow: Mapping[str, Any]) -> Access:
    if not allow or not set(allow) <= {"uid", "gid", "san"}:
        raise ParameterError("allow", f"{_WHAT}, not {dict(allow)!r}", name="")
    return Access(
        uids=user_ids(allow["uid"]) if "uid" in allow else frozenset(),
        gids=group_ids(allow["gid"]) if "gid" in allow else frozenset(),
    )


def _asking(allow: Callable[[Peer], Any]) -> Callable[[int, int, int], bool]:
    failed = Seldom(log, ERROR, "allow= failed for %r, which was refused")
    users, groups = unmapped_users(), unmapped_groups()

    def ask(pid: int, uid: int, gid: int) -> bool:
        # Who isn't mapped into this user namespace must not pass for the user of that number.
        peer = Peer(pid, -1 if uid in users else uid, -1 if gid in groups else gid)
        try:
            return bool(settled(allow(peer)))
        except Exception:
            failed.tell(peer, traceback=True)
            return False

    return ask
