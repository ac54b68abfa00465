"""What other threads and signals want of the loop: a queue of commands, and a pipe that ends its wait.

A pipe and not an eventfd, because ``signal.set_wakeup_fd`` writes single bytes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from pysock.base.forking import close_quietly
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import tell_unraisable
from pysock.base.unique import Unique
from pysock.engine.said import too_much_queued

if TYPE_CHECKING:
    from typing import Final

#: What other threads may have queued for a loop that is busy, in bytes.
_BYTES_MAX: Final = 64 * 1024 * 1024
#: What a command costs besides its payload, roughly.
_OVERHEAD: Final = 256


class Commands(Unique):
    """The commands of one engine. ``read_fd`` is for the loop's poll."""

    def __init__(self) -> None:
        self.read_fd: int
        self.wakeup_fd: int
        self.read_fd, self.wakeup_fd = os.pipe()  # closed on exec (PEP 446)
        try:
            os.set_blocking(self.read_fd, False)
            os.set_blocking(self.wakeup_fd, False)
        except OSError:
            os.close(self.read_fd)
            os.close(self.wakeup_fd)
            raise
        self._open_file = file_of(self.read_fd)  # of both ends
        self.queue: list[Callable[[], object]] = []
        self._bytes = 0
        self._woken = False
        self._lock = threading.RLock()

    def post(self, command: Callable[[], object], size: int | None = None) -> bool:
        """Let the loop's thread do this. ``False`` if there is no loop any more.

        :param size: bytes of payload that wait with it; without it the command is taken whatever waits already.
        :raises OSError: too much waits already (ENOBUFS), or the loop can't be woken. It won't do it.
        """
        cost = _OVERHEAD + (size or 0)
        with self._lock:
            if self.wakeup_fd < 0:
                return False
            if size is not None and self.queue and self._bytes + cost > _BYTES_MAX:
                raise too_much_queued()
            self.queue.append(command)  # before the loop wakes, which takes it only when this lock is free
            try:
                if not self._woken:
                    if not self._may_write():
                        raise OSError(errno.EBADF, "the program has closed the descriptors of this server")
                    self._write()
            except OSError:
                self.queue.pop()
                raise
            self._woken = True
            self._bytes += cost
        return True

    def wake(self) -> None:
        """End the loop's wait. Where the pipe isn't ours any more it will find that out by itself."""
        with self._lock:
            if self._may_write():
                self._write()

    def are_open(self) -> bool:
        """Whether the number of the end that is read still stands for the pipe: the program may have closed it."""
        return is_still(self.read_fd, self._open_file)

    def _may_write(self) -> bool:
        return is_still(self.wakeup_fd, self._open_file)

    def _write(self) -> None:
        # A pipe that is full wakes as well.
        with suppress(BlockingIOError):
            os.write(self.wakeup_fd, b"\0")

    def on_event(self, _bits: int) -> None:
        """Empty the pipe; the commands are for the end of the turn."""
        if not self.are_open():
            return
        with suppress(BlockingIOError):
            while len(os.read(self.read_fd, 4096)) == 4096:
                pass

    def run(self) -> None:
        """Do what has been posted up to now."""
        with self._lock:
            self._woken = False
            commands, self.queue = self.queue, []
            self._bytes = 0
        for command in commands:
            command()

    def abandon(self) -> None:
        """In a forked child: close the copy of the pipe. Who has the lock may not be here."""
        self._lock = threading.RLock()
        self.queue = []
        for fd in self.forget():
            close_quietly(fd)

    def forget(self) -> tuple[int, ...]:
        """Have no pipe any more; what is to be closed of it."""
        fds = self.read_fd, self.wakeup_fd
        ours = tuple(fd for fd in fds if is_still(fd, self._open_file))
        self.read_fd = -1
        self.wakeup_fd = -1
        return ours

    def close(self) -> None:
        """Close the pipe; from now on nothing is taken."""
        with self._lock:
            fds = self.forget()
            self.queue.clear()
        for fd in fds:
            with suppress(OSError):  # Linux has freed the number, whatever it says (close(2))
                os.close(fd)


def told_if_it_fails(function: Callable[[], object]) -> None:
    """Call it; what it raises is told to :data:`sys.unraisablehook`."""
    try:
        function()
    except Exception as error:
        tell_unraisable(error)
