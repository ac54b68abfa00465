"""Who is at the other end of a Unix socket, and users and groups by name or number.

This file owns the words "user" and "group": what somebody may write for one, and the numbers that the kernel knows them
by. What it says of a peer is what the kernel noted at the connect() (at the server's listen(), for a client that asks):
unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable

from pysock.access.unmapped import unmapped_users
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import OTHER_SERVER_UID, ParameterError, advised

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    from pysock.address import Address

#: How users or groups may be given: a number, a name, or several of these.
Ids: TypeAlias = int | str | Iterable[int | str]

#: The last number means "nobody" to the kernel, as in chown(2) and setresuid(2).
_LARGEST_ID: Final = 2**32 - 2
_UNKNOWN: Final = (-1, -1, -1)

# struct ucred of Linux: pid_t, uid_t, gid_t.
_CREDENTIALS: Final = struct.Struct("iII")
_PEERCRED: Final[int | None] = getattr(socket, "SO_PEERCRED", None)
#: Linux, asm-generic/socket.h; the module socket has no name for it.
_PEERGROUPS: Final = getattr(socket, "SO_PEERGROUPS", 59)
#: The most that getsockopt() of the module socket takes: 256 groups.
_BUFFER: Final = 1024

# struct xucred of macOS, unix(4): version, user, number of groups, groups; the first group is the primary one.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED: Final = struct.Struct("IIhxx16I")


def user_ids(users: Ids, parameter: str = "allow") -> frozenset[int]:
    """Return the numbers of users, which are the value of this parameter or in it.

    :raises ValueError: there is no such user, a number is out of range, or none is given at all.
    :raises TypeError: one is neither a number nor a name.
    """
    return _ids("user", users, _user_named, parameter)


def group_ids(groups: Ids) -> frozenset[int]:
    """Return the numbers of groups; raises what :func:`user_ids` does."""
    return _ids("group", groups, _group_named, "allow")


def owner_ids(address: Address) -> tuple[int, int]:
    """Return the numbers of the user and the group whose a socket file shall be; -1 leaves it to who makes it.

    :raises ValueError: there is no such user or group, or a number is out of range.
    """
    of = f"{address}: "
    user = -1 if address.user is None else _id("user", address.user, _user_named, "user", of)
    group = -1 if address.group is None else _id("group", address.group, _group_named, "group", of)
    return user, group


def peer_of(sock: socket.socket) -> tuple[int, int, int]:
    """Return process, user and group at the other end of a Unix socket; -1 for what the system doesn't tell."""
    try:
        if _PEERCRED is not None:
            pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEERCRED, _CREDENTIALS.size))
            return pid, _known(uid), _known(gid)
        _, uid, _, gid, *_ = _XUCRED.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
        pid = int.from_bytes(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4), sys.byteorder)
        return pid, _known(uid), _known(gid)
    except (OSError, struct.error):
        return _UNKNOWN


def groups_of(sock: socket.socket) -> frozenset[int]:
    """Return the supplementary groups of the process at the other end of a Unix socket.

    None are known where the system doesn't tell, or where there are more than 256.
    """
    try:
        if _PEERCRED is not None:
            raw = sock.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _BUFFER)
            return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))
        _, _, count, *groups = _XUCRED.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
        return frozenset(groups[:count])
    except (OSError, struct.error):
        return frozenset()


def expected_server(address: Address, server_uid: Ids | None) -> frozenset[int] | None:
    """Return who a server may run as; ``None`` if that doesn't matter.

    An abstract name has no permissions, so anybody may have taken it before the server did: there the default is this
    process's own user, and root.

    :raises ValueError: the address isn't a Unix socket's, or what :func:`user_ids` says.
    """
    if server_uid is None:
        return frozenset((os.geteuid(), 0)) - unmapped_users() if address.transport == "abstract" else None
    if address.transport not in {"unix", "abstract"}:
        raise ParameterError("server_uid", f"goes with a Unix socket, not with {address}: use authkey there")
    return user_ids(server_uid, "server_uid") - unmapped_users()


def check_server(sock: socket.socket, address: Address, expected: frozenset[int]) -> None:
    """Look who listens at the other end of a connected Unix socket.

    :raises PermissionError: it is none of the users expected.
    """
    uid = peer_of(sock)[1]
    if uid not in expected:
        who = f"user {uid}" if uid >= 0 else "a user that the system doesn't tell"
        if uid in unmapped_users():
            who += " or as one who isn't mapped into this user namespace"
        wanted = " or ".join(map(str, sorted(expected))) or "anybody who can be told apart here"
        problem = f"{address}: the server there runs as {who}, not as {wanted}; nothing was sent"
        error = PermissionError(errno.EPERM, f"{problem} {OTHER_SERVER_UID}")
        raise advised(error, problem, OTHER_SERVER_UID)


def _known(number: int) -> int:
    return number if number <= _LARGEST_ID else -1


def _ids(what: str, given: Any, named: Callable[[str], int], parameter: str) -> frozenset[int]:
    several = [given] if isinstance(given, (int, str)) else given
    if isinstance(several, (bytes, bytearray)) or not isinstance(several, Iterable):
        raise TypeError(f"a {what} is a number or a name, not {given!r}")
    found = frozenset(_id(what, one, named, parameter) for one in several)
    if not found:
        raise ParameterError(parameter, f"no {what} is given at all; give a number or a name", name="")
    return found


def _id(what: str, one: Any, named: Callable[[str], int], parameter: str, of: str = "") -> int:
    """The number of one; ``of`` is what an error begins with."""
    if isinstance(one, str) and not (one.isascii() and one.isdecimal()):
        try:
            return named(one)
        except (KeyError, ValueError):  # ValueError: a NUL in it
            problem = f"{of}this machine has no {what} {one!r}; give a name or a number"
            raise ParameterError(parameter, problem, name="") from None
    if isinstance(one, bool) or not isinstance(one, (int, str)):
        raise TypeError(f"a {what} is a number or a name, not {one!r}")
    number = int(one)
    if not 0 <= number <= _LARGEST_ID:
        problem = f"{of}the number of a {what} is from 0 to {_LARGEST_ID}, not {number}"
        raise ParameterError(parameter, problem, name="")
    return number


def _user_named(name: str) -> int:
    import pwd  # noqa: PLC0415  # only needed here, and slow where users come over the network

    return pwd.getpwnam(name).pw_uid


def _group_named(name: str) -> int:
    import grp  # noqa: PLC0415  # as above

    return grp.getgrnam(name).gr_gid
