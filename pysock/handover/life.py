"""Whether the process at the other end still lives: by a descriptor that stands for it, so that its number can't be
given to another one meanwhile (pidfd_open(2)).
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed

if TYPE_CHECKING:
    from typing import Final

_IN_MS: Final = 1000


class Life(Unique):
    """That of one process.

    :raises HandoverFailed: nothing can be known of it.
    """

    def __init__(self, pid: int) -> None:
        self.fd: int = -1
        self._has_ended = False
        try:
            self.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._has_ended = True
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise HandoverFailed(
                f"the process {pid} can't be watched, so nobody would know if it dies: {why}"
            ) from None

    @property
    def has_ended(self) -> bool:
        """Whether it is dead. One that isn't waited for by its parent is, too."""
        return self.ends_within(0.0)

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most for its end, and say whether it has come."""
        if not self._has_ended and self.fd >= 0:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            self._has_ended = bool(poll.poll(seconds * _IN_MS))
        return self._has_ended

    def close(self) -> None:
        """Called again it does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
