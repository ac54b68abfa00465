"""Which program a process runs: what Linux says of it, when somebody asks."""

from __future__ import annotations

import os
import time

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: A process that began so long after its connection, in seconds, is another one that has got its number: proc(5).
_SLACK: Final = 1.0
#: Of /proc/PID/stat, counted from behind the name of the program: when it began, in ticks since the machine did.
_STARTTIME: Final = 19


def program_of(pid: int, since: float) -> str | None:
    """The path of the program that this process runs.

    :param since: when it connected, in seconds since the epoch.
    :return: ``None``: it has ended, it is somebody else's, or the system doesn't tell.
    """
    if pid <= 0:
        return None
    try:
        path = os.readlink(f"/proc/{pid}/exe")
        with open(f"/proc/{pid}/stat", "rb") as file:  # behind it: whose number this has become, is told here
            began = int(file.read().rpartition(b")")[2].split()[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError, ValueError, IndexError):
        return None
    return path if age + _SLACK > time.time() - since else None
