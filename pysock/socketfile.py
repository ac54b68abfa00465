"""The life of a Unix socket's file: who may use it, whether an old one is stale, and its removal.

This file owns the decision to delete. Two rules:

1. Before ``bind()`` only a *stale* socket file is removed: a socket that refuses a connection. A live server's file,
   and anything that isn't a socket, is left alone.
2. After that only the file that *we* made is removed: device and inode are compared, and the process, so that neither
   a successor's file nor, from a forked child, the parent's one is lost.

A race remains between two servers that start at the same moment; the lock file that closes it is not built yet.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from pysock.address import Address
from pysock.engine import Sockets
from pysock.errors import AddressInUse
from pysock.logs import server_log as log

#: Only the owner may connect, unless the address says otherwise.
DEFAULT_MODE: Final = 0o600

_KINDS: Final = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
)


class SocketFile:
    """The file of one Unix socket address.

    :raises ValueError: the address names a user or a group that this machine doesn't have.
    """

    __slots__ = ("_address", "_group_id", "_made", "_mode", "_path", "_user_id")

    def __init__(self, address: Address) -> None:
        assert address.transport == "unix"
        self._address = address
        # The working directory may be another one when the file is to be removed.
        self._path = os.path.abspath(address.path)
        self._mode = DEFAULT_MODE if address.mode is None else address.mode
        self._user_id = _user_id(address)
        self._group_id = _group_id(address)
        self._made: tuple[int, int, int] | None = None

    def remove_stale(self, sockets: Sockets) -> bool:
        """Remove what a dead server left at the path; whether there was anything to remove.

        :raises AddressInUse: a live server listens there.
        :raises FileExistsError: something that isn't a socket is there.
        """
        try:
            mode = os.lstat(self._path).st_mode
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False  # bind() will say more about the last two
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(
                errno.EEXIST,
                f"{self._address}: {_kind(mode)} is at that path, not a socket; it was left alone:"
                " remove it yourself or choose another path",
            )
        if not self._is_stale():
            return False
        log.debug("unlink(%r): a stale socket file", self._path)
        try:
            sockets.unlink(self._path)
        except FileNotFoundError:
            return False
        return True

    def _is_stale(self) -> bool:
        """Whether nobody listens at the file; ``False`` also if it is gone by now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # Without waiting: a live server with a full backlog would hold us up, and answers EAGAIN instead.
            probe.setblocking(False)
            try:
                probe.connect(self._address.path)  # as written: the absolute form may be too long
            except ConnectionRefusedError:
                return True
            except FileNotFoundError:
                return False
            except PermissionError:
                raise PermissionError(
                    errno.EACCES,
                    f"{self._address}: there is a socket file that this process may not connect to, so whether a server"
                    " listens there is unknown; it was left alone: remove it yourself or choose another path",
                ) from None
            except OSError as error:
                # EAGAIN: its backlog is full. EPROTOTYPE: a datagram socket. Both are alive.
                if error.errno not in {errno.EAGAIN, errno.EPROTOTYPE}:
                    raise
        raise AddressInUse(f"{self._address}: a live server listens there; stop it or choose another path")

    def restrict(self, fd: int) -> None:
        """Before ``bind()``: give the socket its mode, from which Linux makes the mode of the file.

        So the file is never wider open than it should be, not for an instant. The umask can narrow it further, and
        other systems ignore it; :meth:`made` sets the exact mode.
        """
        os.fchmod(fd, self._mode)

    def made(self) -> None:
        """After ``bind()`` and before ``listen()``: remember the file as ours, then set its mode and owner.

        Until ``listen()`` the kernel refuses every connection, so nobody slips in before this is done.
        """
        found = os.lstat(self._path)
        self._made = (found.st_dev, found.st_ino, os.getpid())
        os.chmod(self._path, self._mode)
        if (self._user_id, self._group_id) != (-1, -1):
            try:
                os.chown(self._path, self._user_id, self._group_id, follow_symlinks=False)
            except PermissionError:
                raise PermissionError(
                    errno.EPERM,
                    f"{self._address}: this process may not give the socket file to that user or group; run it as"
                    " root, or choose a group that it is a member of",
                ) from None

    def remove(self, sockets: Sockets) -> bool:
        """After the socket is closed: remove the file, if it is still the one we made; whether that was so."""
        made, self._made = self._made, None
        if made is None:
            return False
        try:
            found = os.lstat(self._path)
            if made != (found.st_dev, found.st_ino, os.getpid()):
                return False
            log.debug("unlink(%r)", self._path)
            sockets.unlink(self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("the socket file %r couldn't be removed: %s", self._path, error)
            return False
        return True


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "something")


def _user_id(address: Address) -> int:
    user = address.user
    if user is None or user.isdecimal():
        return -1 if user is None else int(user)
    import pwd  # noqa: PLC0415  # only needed here, and slow where users come over the network

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"{address}: this machine has no user {user!r}; give a name or a number") from None


def _group_id(address: Address) -> int:
    group = address.group
    if group is None or group.isdecimal():
        return -1 if group is None else int(group)
    import grp  # noqa: PLC0415  # as above

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"{address}: this machine has no group {group!r}; give a name or a number") from None
