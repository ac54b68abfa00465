"""What the doctor's checks look at: the server, and what the system says of its process.

This file owns where that is read, so that each check is a function of these facts and of nothing else.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, NamedTuple, dataclass

if TYPE_CHECKING:
    from typing import Final

    from pysock.server import Server

#: So long the threads of the process are watched, in seconds.
_WATCHED: Final = 0.3


class Finding(NamedTuple):
    """What a check has found.

    :ivar text: a sentence: what is so, and what comes of it.
    :ivar remedy: another one: what to do.
    """

    text: str
    remedy: str


class Busy(NamedTuple):
    """How much of one processor threads took, while they were watched: from 0 to 1."""

    loop: float | None  # the server's own; None: it isn't known, or doesn't run
    others: float  # the busiest of the others of Python's


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """About one server, and its process.

    :ivar stuck_for: see :class:`pysock.admin.services.state.Pulse`.
    :ivar environ: the environment.
    :ivar proc: where ``/proc`` is.
    :ivar now: seconds since the epoch.
    """

    server: Server
    busy: Busy
    stuck_for: float
    environ: Mapping[str, str]
    proc: str
    now: float

    def number(self, path: str) -> int | None:
        """The number in this file below ``/proc``; ``None``: there is none."""
        with suppress(OSError, ValueError), open(f"{self.proc}/{path}", encoding="ascii") as file:
            return int(file.read())
        return None

    def text(self, path: str) -> str:
        """What is in it; nothing, if it can't be read."""
        with suppress(OSError), open(f"{self.proc}/{path}", encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""


def gathered(server: Server, stuck_for: Callable[[], float]) -> Facts:
    """The facts as they are now. It takes a third of a second, for the threads have to be watched."""
    return Facts(
        server=server,
        busy=watched(server),
        stuck_for=stuck_for(),
        environ=os.environ,
        proc="/proc",
        now=time.time(),
    )


def watched(server: Server, seconds: float = _WATCHED) -> Busy:
    """How busy the threads are. Linux tells how long each was on a processor (proc(5), ``schedstat``)."""
    before, began = _on_processor(), monotonic()
    time.sleep(seconds)
    after, span = _on_processor(), monotonic() - began
    shares = {thread: (ns - before[thread]) / 1e9 / span for thread, ns in after.items() if thread in before}
    names = {thread.ident: thread.native_id for thread in threading.enumerate()}
    loop = shares.pop(names.get(server._running.owner), None)
    shares.pop(threading.get_native_id(), None)
    ours = [share for thread, share in shares.items() if thread in names.values()]
    return Busy(loop, max(ours, default=0.0))


def _on_processor() -> dict[int | None, int]:
    found: dict[int | None, int] = {}
    for thread in threading.enumerate():
        with suppress(OSError, ValueError), open(f"/proc/self/task/{thread.native_id}/schedstat", "rb") as file:
            found[thread.native_id] = int(file.read().split()[0])
    return found
