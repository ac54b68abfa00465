"""Whether a descriptor's number still stands for the file that we opened.

A program may close all descriptors under a server that runs (``os.closerange()``, as daemons do). The numbers are then
given to what is opened next. So what owns one remembers which file it was, and closes the number only if it still is
that: device and inode tell (man inode(7)), and each socket and each pipe has an inode of its own.
"""

from __future__ import annotations

import os


def file_of(fd: int) -> tuple[int, int] | None:
    """The file that a number stands for; ``None`` if it stands for none."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_still(fd: int, file: tuple[int, int] | None) -> bool:
    """Whether the number stands for the file that it stood for once."""
    return fd >= 0 and file is not None and file_of(fd) == file
