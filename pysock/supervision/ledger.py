"""What the workers of a service have counted, all of them, also those that are gone; and how often one was followed.

This file owns the pages of metrics: the supervisor makes one for each worker, so that it can read it without asking,
also of one that hangs. When a worker has ended, what it has counted is kept, for its number: no sum ever goes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, replace
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.metrics import Family, Page, Source
from pysock.supervision.member import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from pysock.metrics import Snapshot
    from pysock.supervision.member import Member
    from pysock.supervision.roster import Roster

#: Why a worker was followed by another one.
WHYS: Final = ("died", "hang", "ended", "reload", "requests", "rss", "age")
#: Where one counts something that others may see.
_COUNTS: Final = frozenset((State.SERVING, State.ENDING))


class Ledger(Unique):
    """That of one service.

    :param is_kept: whether workers are measured; the restarts are counted anyway.
    :ivar gone: what those have counted that have ended, by their numbers.
    :ivar restarts: how many were followed by another, by why.
    """

    def __init__(self, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.gone: dict[int, Snapshot] = {}
        self.restarts: dict[str, int] = dict.fromkeys(WHYS, 0)
        self._lock = threading.Lock()  # a page isn't closed while another thread reads it

    def new_page(self) -> Page | None:
        """For a worker that is to start.

        :raises OSError: there are no descriptors left.
        """
        return Page.new() if self._is_kept else None

    def followed(self, why: str) -> None:
        """A worker was."""
        self.restarts[why] += 1

    def retire(self, member: Member) -> None:
        """It has ended: keep what it has counted."""
        if member.page is None:
            return
        with self._lock:
            last = _read(member)
            member.page.close()
            if last is not None:
                kept = self.gone.get(member.number)
                self.gone[member.number] = last.retired() if kept is None else kept + last.retired()

    # In any thread

    def sources(self, roster: Roster) -> list[Source]:
        """One for each worker that there is, or should be; and one for all others that there were."""
        now = roster.now
        by_number: dict[int, list[Member]] = {number: [] for number in range(now.wanted)}
        for member in now.members:
            by_number.setdefault(member.number, []).append(member)
        found = [
            Source(self._reader(number, members), str(number), up=any(_is_up(member, roster) for member in members))
            for number, members in sorted(by_number.items())
        ]
        others = [self._reader(number, []) for number in sorted(self.gone.keys() - by_number.keys())]
        return [*found, *(Source(read, there=False, up=False) for read in others)]

    def families(self, roster: Roster) -> Iterable[Family]:
        """What is told of the workers themselves."""
        yield Family("pysock_workers", "How many workers there are to be.", "gauge", [("", {}, roster.now.wanted)])
        restarts = [("_total", {"why": why}, float(count)) for why, count in self.restarts.items()]
        yield Family("pysock_worker_restarts", "Workers that were followed by another, by why.", "counter", restarts)  # type: ignore[arg-type]

    def _reader(self, number: int, members: list[Member]) -> Callable[[], Snapshot | None]:
        return lambda: self._sum(number, members)

    def _sum(self, number: int, members: Iterable[Member]) -> Snapshot | None:
        """What those of one number have counted, those that are gone among them."""
        with self._lock:
            total, gone = None, self.gone.get(number)
            for member in members:  # the newest that serves is the first one
                last = _read(member)
                if last is not None:
                    total = last if total is None else _added(total, last)
        if total is None or gone is None:
            return gone if total is None else total
        return _added(total, gone)


def _added(newest: Snapshot, other: Snapshot) -> Snapshot:
    return replace(newest + other, pid=newest.pid, called=newest.called)


def _is_up(member: Member, roster: Roster) -> bool:
    return member.state in _COUNTS and roster.is_well(member)


def _read(member: Member) -> Snapshot | None:
    if member.page is not None and member.page.fd >= 0:
        with suppress(OSError, PysockError, ValueError):  # it is of another version, say
            return member.page.read()
    return None
