"""The lock beside a socket file: who has it may remove the socket file, and make it.

This file owns ``PATH.lock``. Between the question whether a socket file is stale and its removal another server may
have started there; with the lock held over both, and for as long as the server listens, that can't be. PostgreSQL has a
lock file for each of its sockets, and for this reason (``Lock_AF_UNIX`` in pqcomm.c). The kernel lets go of ours when
its holder dies, however it dies.

Its holder removes it at the end, as the last thing done under the lock. Somebody may have opened it just before, and
get the lock of a file that has no name any more, while a third server makes a new one. So whoever gets the lock looks
whether the file at the path is still the one that is locked, and begins anew if not: nobody holds one unseen. One that
a killed server has left is taken over, and removed, by the next.

It is locked by ``flock()`` (man flock(2)), never written to and never read. One that isn't empty is another program's,
and stays.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.registry import HINT
from pysock.base.unique import Unique
from pysock.errors import AddressInUse
from pysock.files.place import Place, kind, same_file

if TYPE_CHECKING:
    from typing import Final

_MODE: Final = 0o600

#: O_NONBLOCK, so that a named pipe in its place doesn't hold us up.
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

#: How often to begin again because somebody else made or removed the file in the same moment.
_ATTEMPTS: Final = 100

#: What flock() looks like in /proc/locks: man proc_locks(5).
_OURS: Final = ["FLOCK", "ADVISORY", "WRITE"]


class LockFile(Unique):
    """The lock of one socket file, held until :meth:`close`.

    :param fd: of one that another process has passed on, which holds it and will :meth:`leave` it.
    :raises AddressInUse: somebody else holds it.
    :raises FileExistsError: something that isn't a file of this user's or root's has the lock file's name.
    :raises OSError: the lock file can't be made or locked.
    """

    __slots__ = ("_fd", "_open_file", "_path", "_process")

    def __init__(self, place: Place, fd: int = -1) -> None:
        self._process = os.getpid()
        self._path = _path(place)
        self._fd = _taken(place) if fd < 0 else fd
        self._open_file = file_of(self._fd)

    def close(self) -> None:
        """Remove the lock file, and let go of the lock. Called again it does nothing.

        In a forked child it only closes the child's copy of the descriptor, and the parent keeps the lock.
        """
        held = self.holds()
        fd, self._fd = self._fd, -1
        if not held:
            return
        try:
            if self._process == os.getpid():
                self._remove(fd)
                fcntl.flock(fd, fcntl.LOCK_UN)  # close() alone would leave it with the children that have a copy
        finally:
            os.close(fd)

    @property
    def fd(self) -> int:
        """The number of its descriptor."""
        return self._fd

    def leave(self) -> None:
        """Another process has it, too, and goes on holding it: close our descriptor, and no more."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and is_still(fd, self._open_file):
            os.close(fd)

    def holds(self) -> bool:
        """Whether the lock is held. If the program has closed its descriptor the kernel has let go of it: then it is
        taken again, unless somebody else has it by now or the file isn't there any more.
        """
        if self._fd < 0 or is_still(self._fd, self._open_file):
            return self._fd >= 0
        self._fd = self._again() if self._process == os.getpid() else -1  # the number is somebody else's
        return self._fd >= 0

    def _again(self) -> int:
        try:
            fd = os.open(self._path, _FLAGS)
        except OSError:
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_still(fd, self._open_file) and same_file(os.lstat(self._path), os.fstat(fd)):
                return fd
        except OSError:
            pass
        os.close(fd)
        return -1

    def _remove(self, fd: int) -> None:
        """It is in nobody's way if it can't be removed."""
        with suppress(OSError):
            ours = os.fstat(fd)
            if not ours.st_size and same_file(os.lstat(self._path), ours):
                log.debug("unlink(%r)", self._path)
                os.unlink(self._path)


def _taken(place: Place) -> int:
    for _ in range(_ATTEMPTS):
        fd = _open(place)
        if fd < 0:
            continue
        try:
            _check(fd, place)
            _lock(fd, place)
            if _is_there(fd, place):
                log.debug("flock(%d, %r)", fd, _path(place))
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise AddressInUse(
        f"{place.address}: the lock file {_path(place)} can't be had: others make and remove it all the time"
    )


def _open(place: Place) -> int:
    """A descriptor of the lock file, made if need be; -1 if something was in the way that won't be next time."""
    name = _name(place)
    try:
        with suppress(FileNotFoundError):
            return os.open(name, _FLAGS, dir_fd=place.fd)
    except OSError as error:
        if _mended(place):
            return -1
        raise _explained(error, place) from error
    try:
        fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=place.fd)
    except FileExistsError:
        return -1
    except OSError as error:
        raise place.explained(error) from error
    try:
        os.fchmod(fd, _MODE)  # the umask takes even from the owner, who must be able to open it next time
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mended(place: Place) -> bool:
    """Whether the file was ours without a right for us, because its maker hasn't set its mode yet or died before."""
    with place.pin(_name(place)) as found:
        if found is None or not found.is_link or not stat.S_ISREG(found.status.st_mode):
            return False
        if found.status.st_uid != os.geteuid() or found.status.st_mode & stat.S_IRUSR:
            return False
        os.chmod(found.path, _MODE)
        return True


def _check(fd: int, place: Place) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise _in_the_way(kind(found.st_mode), place)
    if found.st_uid not in {0, os.geteuid()}:
        raise _in_the_way(f"a file of uid {found.st_uid}", place)


def _lock(fd: int, place: Place) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who, advice = _holder(fd)
        raise AddressInUse(
            f"{place.address}: {who} holds the lock {_path(place)}; {advice} or choose another path"
        ) from None
    except OSError as error:
        # Going on without it would be a server whose socket the next one can take away.
        raise OSError(
            error.errno,
            f"{place.address}: the lock file {_path(place)} can't be locked ({os.strerror(error.errno or 0)}); choose a"
            " path on a file system with flock(), such as /run",
        ) from error


def _is_there(fd: int, place: Place) -> bool:
    """Whether the file that was locked still has the name, for else the lock is worth nothing."""
    found = place.status(_name(place))
    return found is not None and same_file(found, os.fstat(fd))


def _holder(fd: int) -> tuple[str, str]:
    """Who took the lock, as far as Linux tells (man proc_locks(5)), and what to do about it."""
    found = os.fstat(fd)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError), open("/proc/locks", "rb") as locks:
        # "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; as bytes: unmapped.py says why
        rows = [line.decode().split() for line in locks]
        process = next((row[4] for row in rows if row[1:4] == _OURS and row[5] == place), None)
        if process == str(os.getpid()):
            return f"another server of this process ({process})", f"{HINT}: stop it"
        if process:
            return f"another server (process {process})", "stop it"
    return "another server", "stop it"


def _explained(error: OSError, place: Place) -> OSError:
    found = place.status(_name(place))
    if found is not None and not stat.S_ISREG(found.st_mode):  # ELOOP, EISDIR, ENXIO ...
        return _in_the_way(kind(found.st_mode), place)
    if found is not None and error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionError(
            error.errno,
            f"{place.address}: this process may not open the lock file {_path(place)} (of uid {found.st_uid}, mode"
            f" {stat.S_IMODE(found.st_mode):04o}); {_ADVICE}",
        )
    return place.explained(error)


def _in_the_way(what: str, place: Place) -> OSError:
    return FileExistsError(
        errno.EEXIST, f"{place.address}: {what} is in place of the lock file {_path(place)}; {_ADVICE}"
    )


_ADVICE: Final = "it was left alone: remove it yourself if no server runs there, or choose another path"


def _name(place: Place) -> str:
    return f"{place.name}.lock"


def _path(place: Place) -> str:
    return f"{place.path}.lock"
