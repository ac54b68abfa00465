"""The life of a Unix socket's file: who may use it, whether an old one is stale, and its removal.

This file owns the decision to delete. Three rules:

1. Nothing is removed or made without the lock beside it (lock.py), so that of several servers that start at one
   path one wins.
2. Before ``bind()`` only a *stale* socket file is removed: a socket that refuses a connection. A live server's file,
   and anything that isn't a socket, is left alone, and so is what has taken its place in the meantime.
3. After that only the file that *we* made is removed: device and inode are compared, and the process, so that neither
   a successor's file nor, from a forked child, the parent's one is lost.
"""

from __future__ import annotations

import errno
import os
import stat

from pysock.access.peers import owner_ids
from pysock.address import Address
from pysock.base.faults import explained_fault
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.sockets import Sockets
from pysock.errors import AddressInUse
from pysock.files.lock import LockFile
from pysock.files.place import Pin, Place, kind, same_file
from pysock.files.probe import Finding, probe

if TYPE_CHECKING:
    from typing import Final

#: Only the owner may connect, unless the address says otherwise.
DEFAULT_MODE: Final = 0o600


class SocketFile(Unique):
    """The file of one Unix socket address.

    :raises ValueError: the address names a user or a group that this machine doesn't have.
    """

    __slots__ = ("_address", "_group_id", "_lock", "_made", "_mode", "_place", "_process", "_user_id", "path")

    def __init__(self, address: Address) -> None:
        assert address.transport == "unix"
        self._address = address
        #: Absolute, for the working directory may be another one when the file is to be removed. Known once claimed.
        self.path: str = ""
        self._mode = DEFAULT_MODE if address.mode is None else address.mode
        self._user_id, self._group_id = owner_ids(address)
        self._place: Place | None = None
        self._lock: LockFile | None = None
        self._made: os.stat_result | None = None
        self._process = 0

    @classmethod
    def taken_over(cls, address: Address, lock: int) -> SocketFile:
        """The file that another process has made at this address, and passed on.

        :param lock: the descriptor of its lock, which is the object's from now on.
        :raises OSError: the directory can't be used, see :class:`pysock.files.place.Place`.
        """
        try:
            file, place = cls(address), Place(address)
        except BaseException:
            os.close(lock)
            raise
        file._place, file._lock, file.path = place, LockFile(place, lock), place.path
        file._made, file._process = place.status(place.name), os.getpid()
        place.close()  # the lock stays
        return file

    @property
    def lock_fd(self) -> int:
        """The number of its lock's descriptor; -1: it has none."""
        return -1 if self._lock is None else self._lock.fd

    def leave(self) -> None:
        """It is another process's now, with the lock: nothing of it is removed here."""
        self._made = None
        if self._lock is not None:
            self._lock.leave()

    def claim(self) -> Place:
        """Open the directory and take the lock, unless that is done. The path is ours then, until :meth:`remove`.

        :raises AddressInUse: another server holds the lock.
        :raises FileExistsError: something that isn't a socket is at the path, or no lock file of ours where that goes.
        :raises OSError: the directory can't be used, see :class:`pysock.files.place.Place`.
        """
        if self._place is None:
            place = Place(self._address)
            try:
                with place.pin() as found:
                    self._refuse_no_socket(found)  # before a lock file is made beside what isn't ours at all
                self._lock = LockFile(place)
            except BaseException:
                place.close()
                raise
            self._place, self.path = place, place.path
        return self._place

    def remove_stale(self, sockets: Sockets) -> bool:
        """Remove what a dead server left at the path; whether there was anything to remove.

        :raises AddressInUse: a live server listens there, or is about to.
        :raises OSError: as :meth:`claim`; or it isn't to be found out whether a server lives there.
        """
        place = self.claim()
        try:
            with place.pin() as found:
                self._refuse_no_socket(found)
                return found is not None and self._is_stale(found) and self._unlink(sockets, found.status)
        except BaseException:
            self._release()
            raise

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
        place = self.claim()
        made = place.status(place.name)  # takes no descriptor: whatever fails from here on, the file is known
        if made is not None and stat.S_ISSOCK(made.st_mode):
            self._made, self._process = made, os.getpid()
        with place.pin() as found:
            if self._made is None or found is None or not same_file(found.status, self._made):
                raise OSError(
                    errno.ESTALE,
                    f"{self._address}: the socket file was taken away as soon as it was made; choose a directory that"
                    " nobody else clears up",
                )
            self._set_mode(found)
            self._set_owner(found)
            self._check(found)
        place.close()  # the lock stays

    def remove(self, sockets: Sockets) -> bool:
        """After the socket is closed: remove the file, if it is still the one we made, then let go of the lock.

        Whether it was removed is returned.
        """
        made, self._made = self._made, None
        try:
            return made is not None and self._is_ours() and self._unlink(sockets, made)
        except OSError as error:
            why = explained_fault(error, self._address, "removing the socket file").strerror
            log.warning("the socket file %r couldn't be removed: %s", self.path, why)
            return False
        finally:
            self._release()

    def _is_ours(self) -> bool:
        return self._process == os.getpid() and self._lock is not None and self._lock.holds()

    def _release(self) -> None:
        place, self._place = self._place, None
        lock, self._lock = self._lock, None
        try:
            if lock is not None:
                lock.close()
        finally:
            if place is not None:
                place.close()

    def _refuse_no_socket(self, found: Pin | None) -> None:
        if found is not None and not stat.S_ISSOCK(found.status.st_mode):
            raise FileExistsError(
                errno.EEXIST,
                f"{self._address}: {kind(found.status.st_mode)} is at that path, not a socket; it was left alone:"
                " remove it yourself or choose another path",
            )

    def _is_stale(self, found: Pin) -> bool:
        try:
            finding = probe(found.path)
        except PermissionError:
            raise PermissionError(
                errno.EACCES,
                f"{self._address}: there is a socket file that this process may not connect to, so whether a server"
                " listens there is unknown; it was left alone: remove it yourself or choose another path",
            ) from None
        except FileNotFoundError:
            return False
        if finding is not Finding.STALE:
            raise AddressInUse(
                f"{self._address}: a live server listens there ({finding.value}); stop it or choose another path"
            )
        return True

    def _unlink(self, sockets: Sockets, status: os.stat_result) -> bool:
        """Remove the file if it is this one."""
        try:
            if not same_file(os.lstat(self.path), status):
                return False
            log.debug("unlink(%r)", self.path)
            sockets.unlink(self.path)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise PermissionError(
                error.errno,
                f"{self._address}: this process may not remove the socket file {self.path} (of uid {status.st_uid});"
                " remove it yourself or choose another path",
            ) from None
        return True

    def abandon(self) -> None:
        """In a forked child: the file and the lock are the parent's."""
        self._made = None
        self._release()

    def _set_mode(self, found: Pin) -> None:
        if stat.S_IMODE(found.status.st_mode) == self._mode:
            return
        try:
            os.chmod(found.path, self._mode, follow_symlinks=found.is_link)
        except NotImplementedError:
            raise OSError(
                errno.ENOTSUP,
                f"{self._address}: without /proc the socket file's mode can't be set against the umask; mount it, or"
                " start with another umask",
            ) from None

    def _set_owner(self, found: Pin) -> None:
        if (self._user_id, self._group_id) == (-1, -1):
            return
        try:
            os.chown(found.path, self._user_id, self._group_id, follow_symlinks=found.is_link)
        except PermissionError:
            raise PermissionError(
                errno.EPERM,
                f"{self._address}: this process may not give the socket file to that user or group; run it as"
                " root, or choose a group that it is a member of",
            ) from None

    def _check(self, found: Pin) -> None:
        now = os.stat(found.path, follow_symlinks=found.is_link)
        wanted = [(now.st_uid, self._user_id), (now.st_gid, self._group_id), (stat.S_IMODE(now.st_mode), self._mode)]
        if any(want not in {-1, have} for have, want in wanted):
            raise PermissionError(
                errno.EPERM,
                f"{self._address}: the file system gave the socket file another mode or owner than was asked for;"
                " choose a path on another one, such as /run",
            )
