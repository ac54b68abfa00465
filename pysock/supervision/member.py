"""A worker, as its supervisor sees it: a process, the line to it, and how far it has come.

This file owns what is known of it, and its end. How it starts is in :mod:`pysock.supervision.starting`.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from enum import Enum

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    import subprocess
    from typing import Any, Final, TypeAlias

    from pysock.metrics import Page
    from pysock.supervision.anew.child import Child
    from pysock.supervision.inquiry import Inquiry
    from pysock.supervision.line import Line

    Process: TypeAlias = "subprocess.Popen[bytes] | Child"

#: How long after its grace a worker may take to end, in seconds: longer than a server waits for a handler.
PATIENCE: Final = 6.0
#: For clients that couldn't move with the others to hear that, in seconds.
GOODBYE: Final = 10.0


class State(Enum):
    """How far it has come."""

    STARTING = "starting"  # it imports the program
    WAITING = "waiting"  # for what it wants to listen at
    OPENING = "opening"  # it has that
    SERVING = "serving"
    ENDING = "ending"


class Member(Unique):
    """One of them.

    :param number: that of its place, which its successors have after it.
    :param row: that of its row in the page that all share.
    :param page: where its metrics are, if they are wanted; it is this object's from now on.
    :param inquiry: by which it is asked for the admin socket, if there is one.
    :ivar wants: what its program calls the addresses that it wants.
    :ivar limits: of those.
    :ivar accepts: clients may come to it.
    :ivar requests: how many it had served when it was asked last.
    :ivar max_clients: how many clients it takes, as it told.
    :ivar is_killed_for_hanging: it didn't come round, and had to go.
    :ivar failed: why it couldn't serve, and with which exit code it ends; as it told.
    :ivar kill_at: it is killed then.
    """

    def __init__(
        self, number: int, row: int, process: Process, line: Line, page: Page | None, inquiry: Inquiry | None
    ) -> None:
        self.number = number
        self.row = row
        self.process = process
        self.line = line
        self.page = page
        self.inquiry = inquiry
        self.state: State = State.STARTING
        self.wants: tuple[str, ...] = ()
        self.limits: dict[str, Any] = {}
        self.backend: str = ""
        self.accepts: bool = False
        self.requests: int = 0
        self.max_clients: int = 0
        self.is_killed_for_hanging: bool = False
        self.failed: tuple[str, int] | None = None
        self.kill_at: float | None = None
        self.started: float = monotonic()

    @property
    def name(self) -> str:
        """For the log."""
        return f"worker {self.number} (process {self.process.pid})"

    def check_wants(self, other: Member) -> None:
        """:raises ValueError: the other one wants to listen elsewhere."""
        if self.wants != other.wants:
            raise ValueError(
                f"{self.name} wants to listen at {' '.join(self.wants)}, and {other.name} at {' '.join(other.wants)}:"
                " workers of one service listen at the same addresses"
            )

    def stop(self, grace: float, delay: float = 0.0) -> None:
        """Let it drain and end; also called again, and then in a shorter time."""
        self.state = State.ENDING
        end = monotonic() + grace + delay + PATIENCE
        self.kill_at = end if self.kill_at is None else min(end, self.kill_at)
        self.line.say("stop", grace=grace, delay=delay)

    def leaves(self, seconds: float) -> None:
        """It ends by itself, in so many seconds."""
        self.state, self.accepts = State.ENDING, False
        self.kill_at = monotonic() + seconds + PATIENCE

    def kill(self) -> None:
        """End it now."""
        self.state = State.ENDING
        self.kill_at = None
        self.process.kill()

    @property
    def has_ended(self) -> bool:
        """Whether it has: then it is no more than its exit status."""
        return self.process.poll() is not None

    @property
    def why_ended(self) -> str:
        """When it has: for a hang, because it was to, or because it died."""
        asked = self.state is State.ENDING and self.process.returncode == 0
        return "hang" if self.is_killed_for_hanging else "ended" if asked else "died"

    def how_it_ended(self) -> str:
        """In words."""
        if self.failed is not None:
            return self.failed[0]
        status = self.process.returncode or 0
        if status >= 0:
            return f"it ended with status {status}"
        with suppress(ValueError):
            name = signal.Signals(-status).name
            return f"it was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"it was ended by signal {-status}"
