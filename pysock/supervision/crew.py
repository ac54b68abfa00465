"""The workers of one service: they start together, follow each other when they die, and are replaced by new code.

This file owns who is there. A change - the first start is one, too - has three steps: as many workers as are wanted
start beside those that serve; when all of them have imported the program they are lent what it listens at; when all of
them serve, the old ones drain. Where one fails before that, all new ones go, and the old ones serve on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pysock.admin.services.served import SLOW
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, NamedTuple, Protocol
from pysock.base.unique import Unique
from pysock.supervision.inquiry import Inquiry
from pysock.supervision.ledger import Ledger
from pysock.supervision.listeners import Listeners
from pysock.supervision.member import Member, State
from pysock.supervision.pace import Pace
from pysock.supervision.recycling import Bounds, Recycling
from pysock.supervision.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

log: Final = logging.getLogger(__name__)

#: Exit codes: of wrong usage, and where the service never came to serve.
USAGE: Final = 2
NEVER_READY: Final = 3


class Plan(NamedTuple):
    """What a crew is to be.

    :ivar workers: how many at first.
    :ivar command: what starts one, behind the interpreter and before the number of its descriptor.
    :ivar arguments: what each is told of its program; JSON.
    :ivar grace: seconds for what was accepted to be answered, when one is to end.
    :ivar delay: seconds in which only health checks fail, when all are to.
    :ivar patience: seconds until a change that isn't the first is given up.
    :ivar hang_kill: seconds after which a worker that hangs is killed; ``None``: never.
    :ivar bounds: at which a worker is replaced.
    :ivar measured: whether the supervisor tells what they count.
    :ivar asked: whether the admin socket asks them.
    :ivar slowlog: how long a request takes that is in its slowlog, in seconds.
    """

    workers: int
    command: Sequence[str]
    arguments: dict[str, Any]
    grace: float
    delay: float
    patience: float
    hang_kill: float | None = None
    bounds: Bounds = Bounds()
    measured: bool = False
    asked: bool = False
    slowlog: float = SLOW


class News(Protocol):
    """Who is told of it."""

    def begins(self) -> None:
        """A change begins."""

    def settled(self, why_not: str) -> None:
        """It is over; with a text it was called off, and things are as before."""


class Crew(Unique):
    """That of one service.

    :ivar serving: those that serve, or follow one that did, by their numbers.
    :ivar coming: those of the change that is under way.
    :ivar leaving: those that are to end.
    :ivar failed: why the service never came to serve, and the exit code for that.
    """

    def __init__(self, plan: Plan, news: News) -> None:
        self._plan = plan
        self._news = news
        self.wanted: int = plan.workers
        self.rows: Rows = Rows(plan.workers)
        self.listeners: Listeners = Listeners()
        self.ledger: Ledger = Ledger(plan.measured)
        self.serving: dict[int, Member] = {}
        self.coming: dict[int, Member] = {}
        self.leaving: list[Member] = []
        self.failed: tuple[str, int] | None = None
        self._wants: tuple[str, ...] | None = None  # as of the workers that serve; None: there never was one
        self._due: dict[int, float] = {}  # when the next worker of a number starts
        self._pace: dict[int, Pace] = {}
        self._change_ends: float | None = None
        self._again = False  # another change was asked for
        self._replaced: Member | None = None  # the change under way is of this one alone
        self._why = ""  # for which bound
        self._recycling = Recycling(plan.bounds)
        self._stops = False
        self.is_lame: bool = False

    @property
    def members(self) -> Iterator[Member]:
        """All that are there."""
        yield from (*self.serving.values(), *self.coming.values(), *self.leaving)

    @property
    def backends(self) -> str:
        """The engines of those that serve; mostly one."""
        return "+".join(sorted({member.backend for member in self.serving.values() if member.backend}))

    @property
    def is_over(self) -> bool:
        """Whether it was to end, and nobody is there any more."""
        return self._stops and not any(self.members)

    # Commands

    def change(self) -> None:
        """Start all workers anew; or, if that can't be now, as soon as it can."""
        if self._stops:
            return
        if self.coming or self.rows.free < 2 * self.wanted:
            self._again = True
            return
        self._again = False
        self._news.begins()
        self._change_ends = None if self._wants is None else monotonic() + self._plan.patience
        try:
            for number in range(self.wanted):
                self.coming[number] = self._start(number)
        except OSError as error:
            self._call_off(f"a process can't be started: {error}", NEVER_READY)

    def _recycle(self) -> None:
        """Have one followed by a new one that serves first, if one is to be."""
        if self._stops or not self.rows.free:
            return
        found = self._recycling.first(self.serving.values())
        if found is None:
            return
        member, self._why, why = found
        log.info("%s is replaced: %s", member.name, why)
        self._change_ends = monotonic() + self._plan.patience
        self._replaced = member
        try:
            self.coming[member.number] = self._start(member.number)
        except OSError as error:
            self._call_off(f"a process can't be started: {error}", NEVER_READY)

    def scale(self, workers: int) -> None:
        """Have so many from now on."""
        most = self.rows.count // 4
        self.wanted = max(1, min(workers, most))
        if self.wanted < workers:
            log.warning("at most %d workers: more need a restart with another --workers", most)
        for member in self.members:
            member.line.say("workers", workers=self.wanted)
        self._fill()

    def stop(self, grace: float, delay: float) -> None:
        """Let all of them drain and end."""
        self._stops = True
        self._again = False
        self._due.clear()
        for member in self.members:
            member.stop(grace, delay)
        self._look()

    def kill(self) -> None:
        """End all of them now."""
        self._stops = True
        self._due.clear()
        for member in self.members:
            member.kill()

    # What members say

    def heard(self, member: Member, told: dict[str, Any]) -> None:
        """A message of one."""
        what = told["say"]
        if what == "failed":
            member.failed = told["why"], told["code"]
        elif what == "counted":
            member.requests = told["requests"]
        elif what == "lame":
            self._spread(member, told["lame"])
        elif what == "ends":
            member.accepts = False
            member.state = State.ENDING
        elif member.state is not State.ENDING:
            if what == "want":
                member.state, member.wants, member.limits = State.WAITING, tuple(told["addresses"]), told["limits"]
            elif what == "serves":
                member.state, member.backend, member.max_clients = State.SERVING, told["backend"], told["max_clients"]
        self._look()

    def ended(self, member: Member) -> None:
        """Its process has, and all that it said was heard."""
        member.line.close()
        member.accepts = False
        self.rows.give_back(member.row)
        self.ledger.retire(member)
        how = f"{member.name}: {member.how_it_ended()}"
        if member in self.leaving:
            self.leaving.remove(member)
        elif self.coming.get(member.number) is member:
            del self.coming[member.number]
            self._call_off(how, USAGE if member.failed and member.failed[1] == USAGE else NEVER_READY)
        else:
            del self.serving[member.number]
            if not self._stops:
                self._follow(member, how)
        self._look()

    def _follow(self, member: Member, how: str) -> None:
        pause = self._pace.setdefault(member.number, Pace()).next(monotonic() - member.started)
        self._due[member.number] = monotonic() + pause
        asked = member.state is State.ENDING and member.process.returncode == 0
        self.ledger.followed("hang" if member.is_killed_for_hanging else "ended" if asked else "died")
        log.log(logging.INFO if asked else logging.ERROR, "%s; the next one starts in %g seconds", how, pause)

    def lame(self, lame: bool) -> None:
        """Let health checks of all of them fail, or no longer."""
        self._spread(None, lame)

    def _spread(self, member: Member | None, lame: bool) -> None:
        self.is_lame = lame
        for other in self.members:
            if other is not member:
                other.line.say("lame", lame=lame)

    # What time brings

    def next_due(self) -> float | None:
        """When :meth:`tick` has something to do, by the clock of deadlines."""
        times = [member.kill_at for member in self.members if member.kill_at is not None]
        if not self.coming:
            if self._recycling.next_look is not None and not self._stops:
                times.append(self._recycling.next_look)
            times += self._due.values()
        elif self._change_ends is not None:
            times.append(self._change_ends)
        return min(times, default=None)

    def tick(self) -> None:
        """Do what is due."""
        now = monotonic()
        for member in self.members:
            if member.kill_at is not None and member.kill_at <= now:
                log.error("%s hasn't ended in its time: it is killed", member.name)
                member.kill()
        if self.coming:
            if self._change_ends is not None and self._change_ends <= now:
                self._call_off(f"the new workers didn't serve within {self._plan.patience:g} seconds", NEVER_READY)
            return
        if self._again:
            self.change()
            return
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start_alone(number)
        self._recycle()

    # A change

    def _start(self, number: int) -> Member:
        plan = self._plan
        told = {"workers": self.wanted, "rows": self.rows.count, "lame": self.is_lame, "grace": plan.grace,
                "slowlog": plan.slowlog, "arguments": plan.arguments}  # fmt: skip
        row = self.rows.take()
        try:
            inquiry = Inquiry() if plan.asked else None
            return Member(number, row, self.rows.fd, self.ledger.new_page(), inquiry, plan.command, told)
        except BaseException:
            self.rows.give_back(row)
            raise

    def _start_alone(self, number: int) -> None:
        try:
            self.serving[number] = self._start(number)
        except OSError as error:
            pause = self._pace.setdefault(number, Pace()).next(0.0)
            self._due[number] = monotonic() + pause
            log.error("worker %d can't be started: %s; the next try is in %g seconds", number, error, pause)

    def _look(self) -> None:
        """What follows from how far they have come."""
        states = {member.state for member in self.coming.values()}
        if self._stops:
            if not any(member.accepts for member in self.members):  # others are refused now, and don't wait in vain
                self.listeners.close()
        elif states == {State.WAITING}:
            self._open_for_all()
        elif states == {State.SERVING}:
            self._commit()
        for member in self.serving.values():
            if member.state is State.WAITING:
                self._open_for(member)

    def _open_for_all(self) -> None:
        first, *others = self.coming.values()
        try:
            for other in others:
                if other.wants != first.wants:
                    raise ValueError(
                        f"{other.name} wants to listen at {' '.join(other.wants)}, and {first.name} at"
                        f" {' '.join(first.wants)}: workers of one service listen at the same addresses"
                    )
            if self._replaced is not None and first.wants != self._wants:
                raise ValueError("the program now wants to listen elsewhere: reload the service, by SIGHUP")
            self.listeners.open(first.wants, first.limits)
        except (OSError, ValueError) as error:
            self._call_off(str(error), USAGE if isinstance(error, ValueError) else NEVER_READY)
            return
        for member in (first, *others):
            self._lend(member)

    def _open_for(self, member: Member) -> None:
        """For one that follows another."""
        if member.wants == self._wants:
            self._lend(member)
            return
        member.state = State.ENDING
        now = " ".join(member.wants)
        member.line.say("refused", why=f"the program now wants to listen at {now}: reload the service, by SIGHUP")

    def _lend(self, member: Member) -> None:
        told, fds = self.listeners.lent(member.wants)
        member.state, member.accepts = State.OPENING, True
        member.line.say("lent", fds, lent=told)

    def _commit(self) -> None:
        alone, self._replaced = self._replaced, None
        old = [member for number, member in self.serving.items() if alone is None or number in self.coming]
        others = {} if alone is None else self.serving
        self.serving, self.coming, self._change_ends = others | self.coming, {}, None
        self._wants = next(iter(self.serving.values())).wants
        self._due = {number: at for number, at in self._due.items() if alone is not None and number != alone.number}
        self.ledger.followed("reload" if alone is None else self._why, len(old))
        for member in old:
            self._dismiss(member)
        self.listeners.keep(self._wants)
        if alone is None:
            self._news.settled("")
        self._fill()

    def _call_off(self, why: str, code: int) -> None:
        for member in self.coming.values():
            self._dismiss(member)
        self.coming.clear()
        self._change_ends = None
        alone, self._replaced = self._replaced, None
        self.listeners.keep(self._wants or ())
        if self._wants is None:
            self._stops = True
            self.failed = why, code
        if alone is None:
            self._news.settled(why)
        elif not self._stops:
            log.error("%s isn't replaced, and serves on: %s", alone.name, why)
        self._fill()

    def _dismiss(self, member: Member) -> None:
        self.leaving.append(member)
        member.stop(self._plan.grace)

    def _fill(self) -> None:
        """As many as are wanted, unless a change is under way, which sees to that."""
        if self.coming or self._stops or self._wants is None:
            return
        for number in [number for number in self.serving if number >= self.wanted]:
            self._dismiss(self.serving.pop(number))
        self._due = {number: at for number, at in self._due.items() if number < self.wanted}
        for number in range(self.wanted):
            if number not in self.serving and number not in self._due:
                self._start_alone(number)
