"""Workers that hang: their loop hasn't come round for long, and nobody is served there.

This file owns what is said of one, once for each time it hangs, and its end where that is wanted. The loop itself
writes when it turns, so a thread beside it that is well proves nothing. What it is at is asked of the worker's own
thread for the supervisor, which may have no answer: where the loop keeps the GIL, or the whole process was stopped.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import tempfile
from collections.abc import Iterable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.supervision.member import Member, State

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.server import Server
    from pysock.supervision.rows import Rows

log: Final = logging.getLogger(__name__)

#: A loop that hasn't come round for so long hangs, in seconds.
AFTER: Final = 30.0
#: How long its worker has to say what it is at.
_ANSWER: Final = 1.0
#: It is looked at so often in that time.
_LOOKS: Final = 6
#: The longest stack that is told of, in characters: less than a message of the line.
_LONGEST: Final = 32 * 1024


class Hangs(Unique):
    """Those of one service.

    :param kill: seconds after which one that hangs is killed; ``None``: never.
    """

    def __init__(self, rows: Rows, kill: float | None) -> None:
        self._rows = rows
        self._kill = kill
        self._after = AFTER if kill is None else min(AFTER, kill)
        self._asked: dict[Member, float] = {}  # what they are at, and when
        self._told: set[Member] = set()
        self.next_look: float = monotonic()  #: by the clock of deadlines

    def look(self, members: Iterable[Member]) -> None:
        """At all of them, if it is time to."""
        now = monotonic()
        if now < self.next_look:
            return
        hanging = {
            member: age
            for member in members
            if member.state is State.SERVING and (age := self._rows.age(member.row)) >= self._after
        }
        self._asked = {member: at for member, at in self._asked.items() if member in hanging}
        self._told &= hanging.keys()
        for member, age in hanging.items():
            self._look_at(member, age, now)
        self.next_look = now + (_ANSWER / 2 if self._asked.keys() - self._told else self._after / _LOOKS)

    def _look_at(self, member: Member, age: float, now: float) -> None:
        if member not in self._asked:
            self._asked[member] = now
            member.line.say("hangs")
        elif now - self._asked[member] >= _ANSWER:
            self._tell(member, "it doesn't say at what: it keeps the GIL, or was stopped")
        if self._kill is not None and age >= self._kill + 2 * _ANSWER:
            member.failed = f"it hung for {age:.0f} seconds, and was killed (--hang-kill)", 1
            member.is_killed_for_hanging = True
            member.kill()

    def heard(self, member: Member, told: dict[str, Any]) -> None:
        """What one that was asked is at."""
        if member in self._asked:
            service = f"in service {told['service']!r}" if told["service"] is not None else "in no service's handler"
            self._tell(member, f"{service}\n{told['stack']}")

    def _tell(self, member: Member, at: str) -> None:
        if member not in self._told:
            self._told.add(member)
            log.error("%s hangs: its loop hasn't come round for %.0f seconds, %s",
                      member.name, self._rows.age(member.row), at)  # fmt: skip


def stack_of(server: Server | None) -> tuple[str | None, str]:
    """Which service's handler runs in a server's loop, if one does, and the stacks of all threads of this process."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        text = file.read(_LONGEST)
    return (None if server is None else _service(server)), text


def _service(server: Server) -> str | None:
    running = server._running
    codes = {getattr(one.handler, "__code__", None): one.name for one in running.services.table(None)}
    frame = sys._current_frames().get(running.owner or 0)
    found = None
    while frame is not None:  # the outermost one is the loop's own call
        found = codes.get(frame.f_code, found)
        frame = frame.f_back
    return found
