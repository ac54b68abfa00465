"""The page that all workers of a service share, and which rows of it are free.

This file owns its memory, which is a file without a name: each worker has the descriptor, and its engine writes its own
row. There are more rows than workers, since old and new ones serve beside each other for a while.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.seats import SEAT_BYTES, SeatRow, clear_seat, read_seat

if TYPE_CHECKING:
    from typing import Final

#: As many rows for each worker that is wanted at first, and so many at least.
_EACH: Final = 4
_FEWEST: Final = 32


class Rows(Unique):
    """Those of one service."""

    def __init__(self, workers: int) -> None:
        self._have(_nameless_file(), max(_FEWEST, _EACH * workers))

    @classmethod
    def taken_up(cls, fd: int, count: int, used: Iterable[int]) -> Rows:
        """Those that were there before.

        :param fd: of the page, which is the object's from now on.
        """
        found = cls.__new__(cls)
        found._have(fd, count)
        found._free.difference_update(used)
        return found

    def _have(self, fd: int, count: int) -> None:
        self.count: int = count
        self.fd: int = fd
        try:
            os.ftruncate(self.fd, self.count * SEAT_BYTES)
            self._page = mmap.mmap(self.fd, self.count * SEAT_BYTES)
        except BaseException:
            os.close(self.fd)
            raise
        self._free = set(range(self.count))

    @property
    def free(self) -> int:
        """How many are."""
        return len(self._free)

    def take(self) -> int:
        """One that is free.

        :raises OSError: there is none.
        """
        if not self._free:
            raise OSError(errno.EAGAIN, "too many workers that were replaced haven't ended yet")
        row = min(self._free)
        self._free.remove(row)
        return row

    def give_back(self, row: int) -> None:
        """Nobody writes to it any more."""
        clear_seat(self._page, row)
        self._free.add(row)

    def read(self, row: int) -> SeatRow:
        """What it says."""
        return read_seat(self._page, row)

    def age(self, row: int) -> float:
        """How long ago the loop of a worker that serves last came round, in seconds."""
        return monotonic() - self.read(row).turned_ns / 1e9

    def close(self) -> None:
        """Called again it does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._page.close()
            os.close(fd)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pysock-workers", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
