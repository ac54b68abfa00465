"""Where a socket file is: its directory, held open, and the ways to reach what is in it.

This file owns the trust in a directory, and the way around the 107 bytes that a Unix socket's path may have
(``sun_path``, man unix(7)). A longer one is reached through a descriptor of its directory, as
``/proc/self/fd/N/NAME``; that is Linux's alone.

Who can write to a directory can replace what is in it. So a server makes no socket in one that anybody can write to,
unless its sticky bit keeps the files of each from the others. And a directory that was chosen for the user must be the
user's own: for the server, who makes it, as for the client, who would else talk to whoever was there first.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pysock.address import PATH_BYTES_MAX, Address
from pysock.base.aliases import SocketAddress
from pysock.base.faults import explained_fault
from pysock.base.forms import from_the_root
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.files.own_directory import choices

if TYPE_CHECKING:
    from typing import Final

#: Linux's view of this process's descriptors (man proc_pid_fd(5)).
_DESCRIPTORS: Final = "/proc/self/fd"

#: A descriptor that only stands for a place in the tree needs no permission to read what is there (man open(2)).
_PLACE: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC

_KINDS: Final = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class UnsafeDirectory(PermissionError):
    """Somebody else may have put the socket file into its directory, or may replace it there."""


class Pin(NamedTuple):
    """One file, whatever becomes of its name."""

    status: os.stat_result
    #: A path that leads to this very file, where the system has such paths; else the usual one.
    path: str
    #: Whether that path is a link of the kernel's own, to be followed; no other is.
    is_link: bool


class Place(Unique):
    """The directory of a server's socket file, held open until :meth:`close`, and the file's name.

    A directory that was chosen for the user is made if it isn't there.

    :raises UnsafeDirectory: others could replace the socket file.
    :raises OSError: there is no such directory, or it can't be used.
    """

    __slots__ = ("_open_file", "address", "directory", "fd", "name", "path")

    def __init__(self, address: Address) -> None:
        self.address: Address = address
        self.path: str = from_the_root(address.socket_file)
        self.directory: str
        self.name: str
        self.directory, self.name = os.path.split(self.path)
        if not address.path:
            _make_own(address, self.directory)
        try:
            self.fd: int = _open_directory(address, self.directory)
        except UnsafeDirectory:
            raise
        except OSError as error:
            raise self._out_of_reach(error) from error
        self._open_file = file_of(self.fd)
        try:
            _refuse_writable_by_anybody(address, self.directory, os.fstat(self.fd))
            self._look()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the directory. Called again it does nothing."""
        fd, self.fd = self.fd, -1
        if is_still(fd, self._open_file):
            os.close(fd)

    def reach(self) -> str:
        """The path by which to ``bind()``: the usual one if it fits, else one through the directory's descriptor.

        :raises OSError: it is too long, and there is no ``/proc``.
        """
        return _fitting(self.address, self.path, self.fd)

    def status(self, name: str) -> os.stat_result | None:
        """What ``lstat()`` says about a file of this directory; ``None`` if there is none."""
        with suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        return None

    @contextmanager
    def pin(self, name: str | None = None) -> Iterator[Pin | None]:
        """What has this name now, by default the socket file's; ``None`` if nothing has.

        It is never what a symbolic link there points to.
        """
        name = name or self.name
        if not _has_descriptors():
            found = self.status(name)
            yield None if found is None else Pin(found, os.path.join(self.directory, name), is_link=False)
            return
        fd = -1
        with suppress(FileNotFoundError):
            fd = os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=self.fd)
        if fd < 0:
            yield None
            return
        try:
            yield Pin(os.fstat(fd), _by_descriptor(fd), is_link=True)
        finally:
            os.close(fd)

    def explained(self, error: OSError) -> OSError:
        """The same error with words that name the address and say what to do."""
        number = error.errno or 0
        advice = {
            errno.ENOENT: f"the directory {self.directory} doesn't exist; create it or choose another path",
            errno.ENOTDIR: f"{self.directory} isn't a directory; choose another path",
            errno.EACCES: f"this process may not create files in {self.directory}; change its mode or choose another"
            " path",
            errno.EROFS: f"{self.directory} is on a read-only file system; choose another path",
            errno.ELOOP: f"{self.directory} has too many symbolic links in it; choose another path",
        }.get(number)
        # OSError chooses its subclass by the number: FileNotFoundError, PermissionError ...
        return (
            OSError(number, f"{self.address}: {advice}")
            if advice
            else explained_fault(error, self.address, "making the socket file")
        )

    def _look(self) -> None:
        """A directory that only stands for a place is opened also by who may not go into it."""
        try:
            self.status(self.name)
        except OSError as error:
            raise self._out_of_reach(error) from error

    def _out_of_reach(self, error: OSError) -> OSError:
        """As :meth:`explained`, where nothing was to be made yet."""
        if error.errno != errno.EACCES:
            return self.explained(error)
        return PermissionError(
            errno.EACCES,
            f"{self.address}: this process may not search {self.directory}, or a directory above it; let its user do so"
            " (chmod +x), run it as another one, or choose another path",
        )


@contextmanager
def reachable(address: Address) -> Iterator[list[SocketAddress]]:
    """For clients: what to connect to in turn, as :meth:`Address.resolve` says it, as long as the context lasts.

    :raises UnsafeDirectory: the directory that was chosen for the user is somebody else's.
    :raises OSError: what ``Address.resolve`` raises; or the socket file's directory can't be opened.
    """
    if address.transport != "unix" or (address.path and _fits(address.path)):
        yield address.resolve(listening=False)
        return
    path = from_the_root(address.socket_file)
    directory = os.path.dirname(path)
    try:
        fd = _open_directory(address, directory)
    except UnsafeDirectory:
        raise
    except OSError as error:
        what = f"the directory {directory} can't be opened ({error.strerror})"
        asked = "is the server running"
        hint = f"{asked}, and is the path right?" if address.path else f"{asked}? {choices(address.name)}"
        raise OSError(error.errno, f"{address}: {what}; {hint}") from error
    try:
        yield [(socket.AF_UNIX, _fitting(address, path, fd))]
    finally:
        os.close(fd)


def kind(mode: int) -> str:
    """What a file is, in words."""
    return next((name for test, name in _KINDS if test(mode)), "something")


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether the two are of one file, under whatever names."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


# Directories


def _make_own(address: Address, directory: str) -> None:
    try:
        os.mkdir(directory, 0o700)
        if stat.S_IMODE(os.lstat(directory).st_mode) != 0o700:  # the umask takes even from the owner
            os.chmod(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        text = f"the directory {directory} can't be made ({error.strerror}); look at XDG_RUNTIME_DIR, or write a path"
        raise OSError(error.errno, f"{address}: {text}") from error


def _open_directory(address: Address, directory: str) -> int:
    if address.path:
        return os.open(directory, _PLACE | os.O_DIRECTORY)
    try:
        fd = os.open(directory, _PLACE | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise UnsafeDirectory(errno.EACCES, _not_own(address, directory, "it isn't a real directory")) from None
        raise
    try:
        _refuse_not_own(address, directory, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_not_own(address: Address, directory: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        problem = f"it belongs to uid {status.st_uid}, and this process has uid {os.geteuid()}"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        problem = f"its mode is {stat.S_IMODE(status.st_mode):04o}, open to others; chmod it to 0700"
    else:
        return
    raise UnsafeDirectory(errno.EACCES, _not_own(address, directory, problem))


def _not_own(address: Address, directory: str, problem: str) -> str:
    return (
        f"{address}: {directory} can't be trusted with the socket file: {problem}; look who made it and remove it, or"
        " write a path, for example unix:/run/demo.sock"
    )


def _refuse_writable_by_anybody(address: Address, directory: str, status: os.stat_result) -> None:
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise UnsafeDirectory(
            errno.EACCES,
            f"{address}: anybody may write to {directory}, and replace the socket file there; take that right away"
            " (chmod o-w), set the sticky bit (chmod +t), or choose another directory",
        )


# Paths


def _fits(path: str) -> bool:
    return len(os.fsencode(path)) <= PATH_BYTES_MAX


def _fitting(address: Address, path: str, directory_fd: int) -> str:
    if _fits(path):
        return path
    if _has_descriptors():
        return _by_descriptor(directory_fd, os.path.basename(path))
    if _fits(address.path):  # a relative one goes, where its absolute form doesn't
        return address.path
    raise OSError(
        errno.ENAMETOOLONG,
        f"{address}: a path of more than {PATH_BYTES_MAX} bytes (sun_path, see man unix(7)) needs {_DESCRIPTORS}, which"
        " isn't there; mount /proc or choose a shorter path",
    )


def _has_descriptors() -> bool:
    return sys.platform == "linux" and os.path.isdir(_DESCRIPTORS)


def _by_descriptor(fd: int, name: str = "") -> str:
    return f"{_DESCRIPTORS}/{fd}/{name}" if name else f"{_DESCRIPTORS}/{fd}"
