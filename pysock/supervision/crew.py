"""The workers of one service: they start together, follow each other when they die, and are replaced by new code.

This file owns who is there. A change - the first start is one, too - has three steps: as many workers as are wanted
start beside those that serve; when all of them have imported the program they are lent what it listens at; then each
takes over the clients of the one before it, which ends. Where one fails before that, all new ones go, and the old ones
serve on; where one fails then, that is so for its number. A cold change moves no clients: when all of the new ones
serve, the old ones drain.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.supervision.inquiry import Inquiry
from pysock.supervision.ledger import Ledger
from pysock.supervision.listeners import Listeners
from pysock.supervision.member import GOODBYE, Member, State
from pysock.supervision.pace import Pace
from pysock.supervision.passing import Passings
from pysock.supervision.plan import NEVER_READY, USAGE, News, Plan
from pysock.supervision.recycling import Recycling
from pysock.supervision.rows import Rows
from pysock.supervision.starting import new_member
from pysock.tls.tickets import SharedKeys

if TYPE_CHECKING:
    from typing import Any, Final

log: Final = logging.getLogger(__name__)


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
        self._again: bool | None = None  # another change was asked for, a cold one or not
        self._passings = Passings(plan.grace, plan.patience)
        self._remain: list[str] = []  # why some of the old ones weren't replaced
        self._replaced: Member | None = None  # the change under way is of this one alone
        self._why = "reload"  # or for which bound
        self._recycling = Recycling(plan.bounds)
        self._tickets = SharedKeys()
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

    def change(self, cold: bool = False) -> None:
        """Start all workers anew; or, if that can't be now, as soon as it can.

        :param cold: no clients move.
        """
        if self._stops:
            return
        if self.coming or self.rows.free < 2 * self.wanted:
            self._again = cold
            return
        self._again = None
        self._news.begins()
        self._change_ends = None if self._wants is None else monotonic() + self._plan.patience
        self._come({number: None if cold else self.serving.get(number) for number in range(self.wanted)})

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
        self._come({member.number: member})

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
        self._again = None
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
        elif what == "greets":
            if self.coming.get(member.number) is member:  # and no one of a change that was called off
                self._passings.greets(member)
        elif what == "lame":
            self.lame(told["lame"], member)
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
            self._missed(how, USAGE if member.failed and member.failed[1] == USAGE else NEVER_READY)
        else:
            del self.serving[member.number]
            if not self._stops:
                is_overtaken = member.number in self.coming and self._passings.concerns(member)
                (self._overtaken if is_overtaken else self._follow)(member, how)
        self._look()

    def _missed(self, how: str, code: int) -> None:
        """One of those that were to come has ended before it served."""
        if not self._passings.began:
            self._call_off(how, code)
            return
        self._remain.append(how)
        if not self.coming:
            self._settle()

    def _follow(self, member: Member, how: str) -> None:
        pause = self._pace.setdefault(member.number, Pace()).next(monotonic() - member.started)
        self._due[member.number] = monotonic() + pause
        self._tell_end(member, f"{how}; the next one starts in {pause:g} seconds")

    def _overtaken(self, member: Member, how: str) -> None:
        """Who was to take over from it is there: that one follows it, with clients or without."""
        if self._passings.began and member.why_ended == "ended":
            self.ledger.followed(self._why)  # it has handed over, and the other one will say so
            return
        self._tell_end(member, f"{how}; one that comes already follows it")
        if not self._passings.began:  # nothing was offered: another one begins with nobody
            self._passings.done(member)
            self._dismiss(self.coming.pop(member.number))
            self._come({member.number: None})

    def _tell_end(self, member: Member, text: str) -> None:
        why = member.why_ended
        self.ledger.followed(why)
        log.log(logging.INFO if why == "ended" else logging.ERROR, "%s", text)

    def lame(self, lame: bool, said_by: Member | None = None) -> None:
        """Let health checks of all of them fail, or no longer."""
        self.is_lame = lame
        for other in self.members:
            if other is not said_by:
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
        self._tickets.go_on()
        for member in self.members:
            if member.kill_at is not None and member.kill_at <= now:
                log.error("%s hasn't ended in its time: it is killed", member.name)
                member.kill()
        if self.coming:
            if self._change_ends is not None and self._change_ends <= now:
                self._call_off(f"the new workers didn't serve within {self._plan.patience:g} seconds", NEVER_READY)
            return
        if self._again is not None:
            self.change(self._again)
            return
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start_alone(number)
        self._recycle()

    # A change

    def _start(self, number: int, old: Member | None = None) -> Member:
        """One of this number, which takes over from the old one."""
        plan = self._plan
        row = self.rows.take()
        told = {"worker": number, "row": row, "workers": self.wanted, "rows": self.rows.count, "lame": self.is_lame,
                "grace": plan.grace, "slowlog": plan.slowlog, "patience": plan.patience,
                "arguments": plan.arguments, "tickets": self._tickets.told()}  # fmt: skip
        try:
            inquiry = Inquiry.new() if plan.asked else None
            takes = self._passings.begin(old)
            return new_member(plan.command, self.rows.fd, self.ledger.new_page(), inquiry, takes, told)
        except BaseException:
            self.rows.give_back(row)
            raise

    def _come(self, numbers: dict[int, Member | None]) -> None:
        """Have new ones come, each of whom takes over from the old one, if there is one."""
        try:
            for number, old in numbers.items():
                self.coming[number] = self._start(number, old)
        except OSError as error:
            self._call_off(f"a process can't be started: {error}", NEVER_READY)

    def _start_alone(self, number: int) -> None:
        try:
            self.serving[number] = self._start(number)
        except OSError as error:
            pause = self._pace.setdefault(number, Pace()).next(0.0)
            self._due[number] = monotonic() + pause
            log.error("worker %d can't be started: %s; the next try is in %g seconds", number, error, pause)

    def _look(self) -> None:
        """What follows from how far they have come."""
        for member in [
            one for one in self.coming.values() if one.state is State.SERVING and self._passings.concerns(one)
        ]:
            self._follow_on(member)
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
                other.check_wants(first)
            if self._replaced is not None and first.wants != self._wants:
                raise ValueError("the program now wants to listen elsewhere: reload the service, by SIGHUP")
            self.listeners.open(first.wants, first.limits)
        except (OSError, ValueError) as error:
            self._call_off(str(error), USAGE if isinstance(error, ValueError) else NEVER_READY)
            return
        for member in (first, *others):
            self._lend(member)
        self._passings.opened()

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

    def _follow_on(self, member: Member) -> None:
        """It has the clients of the old one, which ends by itself."""
        self._passings.done(member)
        if (old := self._replace(member)) is not None:
            self.leaving.append(old)
            old.leaves(self._plan.grace + GOODBYE)
        if not self.coming:
            self._settle()

    def _commit(self) -> None:
        """All of them serve beside the old ones, whose turn to go it is."""
        for member in list(self.coming.values()):
            if (old := self._replace(member)) is not None:
                self._dismiss(old)
        self._settle()

    def _replace(self, member: Member) -> Member | None:
        """-> whom it follows."""
        old = self.serving.get(member.number)
        if old is not None:
            self.ledger.followed(self._why)
        self.serving[member.number] = self.coming.pop(member.number)
        self._due.pop(member.number, None)
        return old

    def _settle(self) -> None:
        """The change is over."""
        alone, self._replaced, self._why = self._replaced, None, "reload"
        remain, self._remain = "; ".join(self._remain), []
        partly = self._passings.began
        self._passings.end()
        self._change_ends = None
        if not remain or partly:
            self._wants = next((one.wants for one in self.serving.values() if one.wants), self._wants)
        self.listeners.keep(self._wants or ())
        if alone is None:
            self._news.settled(remain, partly)
        elif remain and not self._stops:
            log.error("%s isn't replaced, and serves on: %s", alone.name, remain)
        self._fill()

    def _call_off(self, why: str, code: int) -> None:
        for member in self.coming.values():
            self._dismiss(member)
        self.coming.clear()
        if self._wants is None:
            self._stops = True
            self.failed = why, code
        self._remain.append(why)
        self._settle()

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
