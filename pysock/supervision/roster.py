"""What other threads of the supervisor's process are told of its workers: who is there, and whether they serve.

This file owns that picture: the supervisor's own thread makes a new one each turn, and nobody changes one that is
there. What it says to HAProxy's agent-check and to ``/readyz`` is here, too.
"""

from __future__ import annotations

from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.health.agent import weight
from pysock.supervision.member import Member, State

if TYPE_CHECKING:
    from typing import Final

    from pysock.supervision.crew import Crew

#: Of a worker whose loop hasn't come round for so long nobody says that it serves, in seconds.
HUNG_AFTER: Final = 30.0
#: The third field of /proc/PID/stat of a process that was stopped by a signal, or by who traces it.
_STOPPED: Final = "Tt"


class Now(NamedTuple):
    """How it is.

    :ivar wanted: how many workers.
    :ivar members: all that are there, those that serve first.
    :ivar lame: no new clients are wanted.
    :ivar stops: all of them are to end.
    """

    wanted: int = 0
    members: tuple[Member, ...] = ()
    lame: bool = False
    stops: bool = False


class Roster(Unique):
    """That of one service."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.now: Now = Now()

    def note(self, *, stops: bool) -> None:
        """In the supervisor's own thread: how it is now."""
        crew = self._crew
        self.now = Now(crew.wanted, tuple(crew.members), crew.is_lame, stops)

    def close(self) -> None:
        """Nobody is there any more."""
        self.now = Now(stops=True)

    def serving(self) -> list[Member]:
        """Who serves, and isn't stopped."""
        return [member for member in self.now.members if member.state is State.SERVING and self.is_well(member)]

    def age(self, member: Member) -> float:
        """How long ago its loop came round, in seconds."""
        return self._crew.rows.age(member.row)

    def clients(self, member: Member) -> int:
        """How many it has."""
        return self._crew.rows.read(member.row).clients

    def is_well(self, member: Member) -> bool:
        """Whether its loop comes round."""
        return self.age(member) <= HUNG_AFTER and not is_stopped(member.process.pid)

    def why_not_ready(self) -> str:
        """Empty: it is."""
        now = self.now
        if now.stops:
            return "the service stops"
        if now.lame:
            return "the service drains: new clients should go elsewhere"
        return "" if self.serving() else "no worker serves"

    def agent_line(self) -> str:
        """For HAProxy's agent-check: as of one server, which has the places and the clients of all that serve."""
        now = self.now
        if now.stops:
            return "drain"
        serving = self.serving()
        if not serving:
            return "down"
        if now.lame:
            return "drain"
        clients = sum(map(self.clients, serving))
        return weight(clients, sum(member.max_clients for member in serving))


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP, say, has stopped this process; ``False`` also where nobody can know."""
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in _STOPPED
    return False
