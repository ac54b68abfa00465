"""A child of this process that something before us has started: what this process was before it ran anew.

This file owns its end: only we are told of it, as of any other child.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from pysock.base.unique import Unique


class Child(Unique):
    """As much of ``subprocess.Popen`` as a supervisor needs.

    :ivar returncode: as of that; ``None``: it hasn't ended, as far as we know.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Look whether it has ended."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else was told of it
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self.poll() is None:  # else the number may be another process's
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
