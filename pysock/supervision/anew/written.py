"""What a supervisor has, as JSON and descriptors: for the one that runs in its process after it.

This file owns the form. The descriptors are copies: what they were copied from is closed as ever, and whoever is at the
other end of one notices nothing.
"""

from __future__ import annotations

import os
import socket

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.metrics import Histogram, Page, Snapshot
from pysock.supervision.anew.child import Child
from pysock.supervision.inquiry import Inquiry
from pysock.supervision.line import Line
from pysock.supervision.member import Member, State
from pysock.supervision.rows import Rows
from pysock.tls.tickets import SharedKeys

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.supervision.crew import Crew
    from pysock.supervision.ledger import Ledger

#: Of a member, what is written down as it is.
_AS_IT_IS: Final = ("number", "row", "limits", "backend", "accepts", "requests", "max_clients", "started", "kill_at",
                    "is_killed_for_hanging")  # fmt: skip


class Kept(Unique):
    """Copies of descriptors.

    :ivar fds: which there are.
    """

    def __init__(self) -> None:
        self.fds: list[int] = []

    def copy(self, fd: int) -> int:
        """-> of this one; -1 where there is none."""
        if fd < 0:
            return -1
        self.fds.append(os.dup(fd))
        return self.fds[-1]

    def close(self) -> None:
        """They weren't needed."""
        for fd in self.fds:
            os.close(fd)


# What is written


def crew_written(crew: Crew, kept: Kept) -> dict[str, Any]:
    """While no change is under way. The listening sockets aren't its own any more then.

    :raises OSError: there are too few descriptors left: then all is as before.
    """
    return {
        "planned": crew._plan.workers,
        "wanted": crew.wanted,
        "wants": crew._wants,
        "lame": crew.is_lame,
        "tickets": crew._tickets.told(),
        "rows": {"count": crew.rows.count, "fd": kept.copy(crew.rows.fd)},
        "serving": [_member_written(member, kept) for member in crew.serving.values()],
        "leaving": [_member_written(member, kept) for member in crew.leaving],
        "listeners": crew.listeners.written(kept.copy),
        "ledger": _ledger_written(crew.ledger),
    }


def let_go(crew: Crew) -> None:
    """What was copied is closed; the workers are whoever's who reads what was written."""
    for member in crew.members:
        member.line.close()
        if member.page is not None:
            member.page.close()
        member.process.returncode = 0  # nobody is told of its end here
    crew.serving.clear()
    crew.leaving.clear()


def _member_written(member: Member, kept: Kept) -> dict[str, Any]:
    return {name: getattr(member, name) for name in _AS_IT_IS} | {
        "pid": member.process.pid,
        "state": member.state.value,
        "wants": member.wants,
        "failed": member.failed,
        "line": kept.copy(member.line.fileno()),
        "page": -1 if member.page is None else kept.copy(member.page.fd),
        "inquiry": -1 if member.inquiry is None else kept.copy(member.inquiry.fileno()),
        "asked": 0 if member.inquiry is None else member.inquiry.asked,
    }


def _ledger_written(ledger: Ledger) -> dict[str, Any]:
    return {
        "restarts": ledger.restarts,
        "gone": {number: _snapshot_written(one) for number, one in ledger.gone.items()},
    }


def _snapshot_written(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "version": snapshot.version,
        "backend": snapshot.backend,
        "started": snapshot.started,
        "counters": dict(snapshot.counters),
        "requests": [[*key, number] for key, number in snapshot.requests.items()],
        "histograms": {name: [one.counts, one.sum] for name, one in snapshot.histograms.items()},
    }


# What is read


def crew_read(crew: Crew, told: dict[str, Any]) -> None:
    """Have what is written down; in the place of what a new one has."""
    crew.wanted = told["wanted"] if told["planned"] == crew._plan.workers else crew._plan.workers
    crew._wants = tuple(told["wants"])
    crew.is_lame = told["lame"]
    crew._tickets = SharedKeys.taken_up(told["tickets"])
    members = [_member_read(one) for one in (*told["serving"], *told["leaving"])]
    crew.rows.close()
    crew.rows = Rows.taken_up(told["rows"]["fd"], told["rows"]["count"], {member.row for member in members})
    crew.serving = {member.number: member for member in members[: len(told["serving"])]}
    crew.leaving = members[len(told["serving"]) :]
    crew.listeners.take_up(told["listeners"], members[0].limits["backlog"] if members else 0)
    crew.ledger.restarts |= told["ledger"]["restarts"]
    crew.ledger.gone = {int(number): _snapshot_read(one) for number, one in told["ledger"]["gone"].items()}


def _member_read(told: dict[str, Any]) -> Member:
    inquiry = None if told["inquiry"] < 0 else Inquiry.taken_up(told["inquiry"], told["asked"])
    page = None if told["page"] < 0 else Page(told["page"])
    line = Line(socket.socket(fileno=told["line"]))
    member = Member(told["number"], told["row"], Child(told["pid"]), line, page, inquiry)
    for name in _AS_IT_IS:
        setattr(member, name, told[name])
    member.state, member.wants = State(told["state"]), tuple(told["wants"])
    member.failed = None if told["failed"] is None else tuple(told["failed"])
    return member


def _snapshot_read(told: dict[str, Any]) -> Snapshot:
    requests = {(name, code): number for name, code, number in told["requests"]}
    histograms = {name: Histogram(tuple(counts), total) for name, (counts, total) in told["histograms"].items()}
    return Snapshot(0, told["version"], told["backend"], told["started"], told["counters"], requests, histograms)
