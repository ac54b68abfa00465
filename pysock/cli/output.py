"""The standard descriptors of a command that was started without some of them."""

from __future__ import annotations

import os


def occupy_standard_descriptors() -> None:
    """Keep what we open from getting the number of a standard descriptor that is closed: a socket would get the output
    of whoever writes there.
    """
    for number in range(3):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # POSIX: the lowest number that is free


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
