"""Bytes in a file without a name that nobody can change any more: so its descriptor stands for them in another process
(memfd_create(2), F_ADD_SEALS of fcntl(2)).
"""

from __future__ import annotations

import fcntl
import os

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

_SEALS: Final = sum(getattr(fcntl, f"F_SEAL_{name}", 0) for name in ("SEAL", "SHRINK", "GROW", "WRITE"))


def sealed(data: bytes) -> int:
    """A file with these bytes; its descriptor is the caller's."""
    file = os.memfd_create("pysock-handover", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def read_sealed(file: int) -> bytearray:
    """What is in it.

    :raises ValueError: it isn't sealed, or can't be read.
    """
    try:
        if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("the file of a message isn't sealed")
        data = bytearray(os.fstat(file).st_size)
        view = memoryview(data)
        at = 0
        while at < len(data):
            came = os.preadv(file, [view[at:]], at)
            if not came:
                raise ValueError("the file of a message is shorter than it says")
            at += came
    except OSError as error:
        raise ValueError(f"the file of a message can't be read: {os.strerror(error.errno or 0)}") from None
    return data
