"""The supervisor of a service with workers: one process that keeps its number, obeys signals, and never serves.

This file owns the process's signals, and the one wait for all that can happen: a signal, a message, a process that has
ended, a time that has come. It imports nothing of the program, so no change of that can harm it.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.supervision.anew.again import Written, hold_signals, let_signals, why_not
from pysock.supervision.anew.written import Kept, crew_read, crew_written, let_go
from pysock.supervision.crew import Crew
from pysock.supervision.hangs import Hangs
from pysock.supervision.member import Member, State
from pysock.supervision.orders import Orders, Wish, Wishes
from pysock.supervision.plan import Plan
from pysock.supervision.reopening import reopen
from pysock.supervision.roster import Roster

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import Address
    from pysock.supervision.ledger import Ledger
    from pysock.supervision.notify import Notifier

log: Final = logging.getLogger(__name__)

#: While a service manager is told: how often what couldn't be said is said again, in seconds.
_AGAIN: Final = 1.0
#: While all drain: how often it is told that it may take so much longer.
_EXTEND_EVERY: Final = 2.5
_EXTEND: Final = 10.0
#: A loop that is idle comes round once a second: one that hasn't for so long hangs, at the least.
_OLD: Final = 2.5


class Supervisor(Unique):
    """That of this process.

    :param say: called once with where the service listens, when it does; what it raises ends all.
    :param tell: the service manager, if there is one.
    :param told: what the supervisor before has written down, whose process this is.
    :ivar anew: what there is to be told: this one has ended for another in its process.
    :ivar roster: for other threads: who is there.
    :ivar orders: by which they have it do something.
    :ivar failed: why the service never came to serve, and the exit code for that.
    """

    def __init__(self, plan: Plan, say: Callable[[str], object], tell: Notifier | None = None,
                 told: dict[str, Any] | None = None) -> None:  # fmt: skip
        self._plan = plan
        self._say = say
        self._opens: list[Callable[[], object]] = []
        self._tell = tell
        self._crew = Crew(plan, self)
        self.is_taken_up: bool = told is not None
        if told is not None:
            crew_read(self._crew, told["crew"])
        self.anew: Written | None = None
        self._is_anew_wanted = False
        self._hangs = Hangs(self._crew.rows, plan.hang_kill)
        self.roster: Roster = Roster(self._crew)
        self._deaf: set[Member] = set()  # the line to them has ended, and they haven't
        self._code = 0
        self._unwritten: Exception | None = None
        self._said = told is not None
        self._stops = False
        self._next_tick = self._next_extend = 0.0
        self._woken, self._wakes = socket.socketpair()
        self.orders: Orders = Orders(self._wake)
        self._wishes = Wishes()
        self._obeys: dict[int, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._stop(143, plan.delay),
            signal.SIGINT: lambda: self._stop(130, 0.0),
            signal.SIGQUIT: self._quit,
            signal.SIGHUP: self._crew.change,
            signal.SIGTTIN: lambda: self._crew.scale(self._crew.wanted + 1),
            signal.SIGTTOU: lambda: self._crew.scale(self._crew.wanted - 1),
            signal.SIGUSR1: self._reopen,
            signal.SIGUSR2: self._want_anew,
            signal.SIGCHLD: lambda: None,
        }

    @property
    def failed(self) -> tuple[str, int] | None:
        """See the class."""
        return self._crew.failed

    @property
    def ledger(self) -> Ledger:
        """What its workers have counted."""
        return self._crew.ledger

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the service listens."""
        return self._crew.listeners.addresses

    def on_open(self, call: Callable[[], object]) -> None:
        """Call this once, in its own thread, when the service listens; what it raises ends all."""
        self._opens.append(call)

    def run(self) -> int:
        """To the end; in the main thread. The value is the exit code: 0, or 130 after Ctrl-C.

        What ``say`` has raised is raised here.
        """
        former = self._take_signals()
        try:
            if self.is_taken_up:
                self._go_on()
            self._crew.change()
            while not self._crew.is_over and self.anew is None:
                self._turn()
        finally:
            self._end(former)
        if self._unwritten is not None:
            raise self._unwritten
        return self._code

    # News of the crew

    def begins(self) -> None:
        """A change does."""
        self._wishes.begins()
        if self._said:
            log.info("new workers start, and follow the old ones when all are ready to serve")
            if self._tell is not None:
                self._tell.reloading()

    def settled(self, why_not: str, partly: bool) -> None:
        """It is over."""
        what = "not all workers were replaced" if partly else "nothing was changed, the old workers serve on"
        self._wishes.settled(f"{what}: {why_not}" if why_not else "")
        if why_not:
            if self._said and not self._stops:
                log.error("%s: %s", what, why_not)
                self._ready(f"serving on with {'some ' if partly else 'the '}old workers: {why_not}")
            return
        where = " ".join(map(str, self._crew.listeners.addresses))
        if self._said:
            log.info("new workers serve, the old ones end")
        else:
            self._said = True
            workers = f"{self._crew.wanted} worker{'s' if self._crew.wanted != 1 else ''}"
            try:
                for opens in self._opens:
                    opens()
                self._say(f"serving on {where} ({self._crew.backends} engine, {workers})")
            except Exception as error:  # it can't be said, say
                self._unwritten = error
                self._quit()
        self._ready(f"serving on {where}")

    def _ready(self, status: str) -> None:
        if self._tell is not None and not self._stops:
            self._tell.ready(status)

    # Orders

    def lame(self, lame: bool) -> None:
        """Let health checks fail, or no longer."""
        self._crew.lame(lame)

    def scale(self, workers: int) -> tuple[int, int]:
        """-> how many there were to be, and are."""
        was = self._crew.wanted
        self._crew.scale(workers)
        return was, self._crew.wanted

    def reload(self, wish: Wish, cold: bool) -> None:
        """Replace all workers, whose clients move unless it is a cold change; the wish is told of how that went."""
        self._wishes.add(wish)
        self._crew.change(cold)
        if self._stops:
            self._wishes.end()

    def _wake(self) -> None:
        """In any thread."""
        with suppress(OSError):
            self._wakes.send(b"\0")

    # Signals

    def _take_signals(self) -> tuple[int, dict[int, Any]]:
        self._wakes.setblocking(False)
        self._woken.setblocking(False)
        fd = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        wanted = [number for number in self._obeys if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, _noted) for number in wanted}
        let_signals(self._obeys)  # the one before has had them wait
        return fd, former

    def _reopen(self) -> None:
        log.info("SIGUSR1: log files are opened anew, those of the workers' programs; pysock writes to standard error")
        reopen()
        for member in self._crew.members:
            member.line.say("reopen")

    def _want_anew(self) -> None:
        self._is_anew_wanted = True

    def _go_on(self) -> None:
        log.info("the supervisor runs anew, with the workers of the one before")
        for opens in self._opens:
            opens()
        self._bury()  # nobody takes over from who has ended meanwhile

    def _leave(self) -> None:
        """For another one in this process, if there can be one."""
        self._is_anew_wanted = False
        if why := why_not():
            log.error("the supervisor doesn't run anew, nothing was changed: %s", why)
            return
        kept = Kept()
        try:
            state = {"crew": crew_written(self._crew, kept), "fds": kept.fds}
        except OSError as error:
            kept.close()
            log.error("the supervisor doesn't run anew, nothing was changed: %s", error)
            return
        hold_signals(self._obeys)
        let_go(self._crew)
        self.anew = Written(state, self._tell.environ() if self._tell is not None else {})

    def _stop(self, code: int, delay: float) -> None:
        """The first one drains, another one ends all at once."""
        if self._stops:
            self._code = code
            self._crew.kill()
            return
        self._stops = True
        self._wishes.end()
        self._code = code if code == 130 else 0
        if self._tell is not None:
            self._tell.stopping("stopping")
        self._crew.stop(self._plan.grace, delay)

    def _quit(self) -> None:
        self._stops = True
        self._crew.kill()

    # One turn

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        heard = {m.line.fileno(): m for m in self._crew.members if m not in self._deaf}
        for fd in heard:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(self._patience()):
            if fd == self._woken.fileno():
                self._obey()
            elif heard[fd] in self._crew.members:
                self._hear(heard[fd])
        self.orders.carry_out()
        self._bury()
        self._crew.tick()
        self._hangs.look(self._crew.members)
        self.roster.note(stops=self._stops)
        self._tell_manager()
        if self._is_anew_wanted and not self._crew.coming and not self._stops:
            self._leave()

    def _patience(self) -> float:
        """How long nothing need be done, in milliseconds."""
        due = (self._crew.next_due(), self._next_tick if self._tell else None, self._hangs.next_look)
        return max(0.0, min(at for at in due if at is not None) - monotonic()) * 1000 + 1

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            for number in self._woken.recv(4096):
                if number in self._obeys:
                    self._obeys[number]()

    def _hear(self, member: Member) -> None:
        """All that it has said."""
        try:
            while (message := member.line.hear()) is not None:
                if message[0]["say"] == "stack":
                    self._hangs.heard(member, message[0])
                else:
                    self._crew.heard(member, message[0])
            self._deaf.add(member)
        except BlockingIOError:
            pass
        except OSError as error:
            log.error("%s can't be understood any more: %s", member.name, error)
            self._deaf.add(member)
        if member in self._deaf and not member.has_ended:
            member.stop(self._plan.grace)  # it is killed if it doesn't end
            with suppress(ProcessLookupError):
                member.process.terminate()

    def _bury(self) -> None:
        for member in self._crew.members:
            if member.has_ended:
                if member not in self._deaf:
                    self._hear(member)
                self._deaf.discard(member)
                self._crew.ended(member)

    def _tell_manager(self) -> None:
        now = monotonic()
        if self._tell is None or now < self._next_tick:
            return
        self._next_tick = now + min(_AGAIN, (self._tell.watchdog or _AGAIN) / 2)
        self._tell.say_again()
        if self._stops and now >= self._next_extend:
            self._next_extend = now + _EXTEND_EVERY
            self._tell.extend(_EXTEND)
        if self._tell.watchdog is not None and not self._somebody_hangs(max(self._tell.watchdog, _OLD)):
            self._tell.alive()

    def _somebody_hangs(self, seconds: float) -> bool:
        serving = [member for member in self._crew.members if member.state is State.SERVING]
        return any(self._crew.rows.age(member.row) > seconds for member in serving)

    # The end

    def _end(self, former: tuple[int, dict[int, Any]]) -> None:
        fd, handlers = former
        for member in self._crew.members:  # an error has ended the loop
            member.kill()
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(fd)
        self.close()

    def close(self) -> None:
        """Let go of all that is its own, also where it never ran. Called again it does nothing."""
        self.roster.close()
        self._wishes.end()
        self._crew.listeners.close()
        self._crew.rows.close()
        self._woken.close()
        self._wakes.close()
        if self._tell is not None:
            self._tell.say_again()
            self._tell.close()


def _noted(_number: int, _frame: object) -> None:
    """Its number was written to the descriptor that wakes."""
