"""Office: the admin socket of a service with workers, in the supervisor's process, in a thread of its own.

This file owns what it says. Most of it is the workers' own answers in one (:mod:`pysock.admin.merging`), for which all
of them are asked at once; one that says nothing in time is told of as hung. The rest is the supervisor's matter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from pysock.admin.answers import ACTS
from pysock.admin.asked import Asked
from pysock.admin.desk import Answering, Desk
from pysock.admin.merging import merged, spread
from pysock.admin.place import beside_first
from pysock.admin.services.log import LogLevels
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.supervision.inquiry import PATIENCE, Refused, ask_all
from pysock.supervision.member import Member, State
from pysock.supervision.orders import Wish

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import Address
    from pysock.supervision.supervisor import Supervisor

#: What the workers are asked, and how long they have, in seconds. The doctor watches threads for a while.
_OF_WORKERS: Final = {
    "clients": PATIENCE,
    "kill": PATIENCE,
    "stats": PATIENCE,
    "slowlog": PATIENCE,
    "tail": PATIENCE,
    "log": PATIENCE,
    "doctor": 3.5,
}
#: What takes its time.
_SLOW: Final = frozenset(("reload",))
#: How long somebody may wait for a reload, in seconds; and how long the supervisor may take for what is done at once.
_LONGEST: Final = 86_400.0
_SOON: Final = 5.0
#: More workers at once aren't meant.
_MOST: Final = 1024


class Office(Unique):
    """That of one supervisor.

    :param place: where; ``None``: beside the first Unix socket of the service.
    """

    def __init__(self, supervisor: Supervisor, place: Address | None) -> None:
        self._supervisor = supervisor
        self._place = place
        self._levels = LogLevels()
        self._desk: Desk | None = None
        self._last: dict[Member, Mapping[str, Any]] = {}  # what each has said of itself

    def open(self) -> None:
        """Listen, and answer in a thread from now on; where no place was given, as soon as the service listens.

        :raises OSError: the place that was given can't be used.
        """
        if self._place is not None:
            self._open_at(self._place)
        else:
            self._supervisor.on_open(lambda: self._open_at(beside_first(self._supervisor.addresses)))

    def _open_at(self, place: Address) -> None:
        services: dict[str, Answering] = {name: partial(self._of_all, name) for name in _OF_WORKERS}
        services |= {"drain": partial(self._lame, "drain"), "resume": partial(self._lame, "resume")}
        services |= {"stats": self._stats, "log": self._log, "doctor": self._doctor}
        services |= {"reload": self._reload, "scale": self._scale}
        desk = Desk(place, services, acts=ACTS, slow=_SLOW)
        try:
            desk.start()
        except (OSError, PysockError) as error:
            if self._place is not None:
                raise
            log.info("there is no admin socket at %s, and all else is as it was: %s", place, error)
        else:
            self._desk = desk

    def close(self) -> None:
        """Called again it does nothing."""
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.stop()
        self._levels.give_back()

    def __enter__(self) -> Office:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # What the workers say

    def _of_all(self, service: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return merged(service, self._answers(service, fields))

    def _answers(self, service: str, fields: Mapping[str, Any]) -> dict[int, Mapping[str, Any] | None]:
        """By their numbers; if all that answer say no, so do we."""
        lines = {member.number: member.inquiry for member in self._serving() if member.inquiry is not None}
        asked = {number: (lines[number], each) for number, each in spread(service, fields, lines).items()}
        said = ask_all(service, asked, _OF_WORKERS[service])
        found = {number: answer for number, answer in said.items() if not isinstance(answer, Refused)}
        refused = [answer for answer in said.values() if isinstance(answer, Refused)]
        if refused and not any(answer is not None for answer in found.values()):
            raise refused[0]
        return found

    def _serving(self) -> list[Member]:
        found = {member.number: member for member in self._supervisor.roster.now.members
                 if member.state is State.SERVING}  # fmt: skip
        return [found[number] for number in sorted(found)]

    def _stats(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Of one that hangs what it said last, so that no counter goes back."""
        answers = self._answers("stats", fields)
        members = {member.number: member for member in self._serving()}
        self._last = {member: said for member in members.values() if (said := answers.get(member.number)
                      or self._last.get(member))}  # fmt: skip
        hung = [number for number, answer in answers.items() if answer is None]
        for number in hung:
            if number in members:
                answers[number] = self._said_before(members[number])
        found = merged("stats", answers)
        if not found["workers"]:
            raise PysockError("no worker serves: they start, or start again; the log says more")
        return found | {"pid": os.getpid(), "hung": hung, "wanted": self._supervisor.roster.now.wanted}

    def _said_before(self, member: Member) -> dict[str, Any]:
        roster = self._supervisor.roster
        said = self._last.get(member)
        if said is None:
            now, at = time.time(), list(map(str, self._supervisor.addresses))
            said = _NOTHING_SAID | {"at": now, "since": now, "addresses": at, "pid": member.process.pid,
                                    "engine": member.backend, "max_clients": member.max_clients,
                                    "counters": {"clients": roster.clients(member)}}  # fmt: skip
        return {**said, "stuck_for": max(round(roster.age(member), 3), 0.001)}

    def _log(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Also in this process, if it has that logger."""
        found = self._of_all("log", fields)
        with suppress(ValueError):
            self._levels.set(fields)
        return found

    def _doctor(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = self._of_all("doctor", fields)
        checked = dict(found["checked"]) | _CHECKED
        return found | {"findings": [*self._findings(found["hung"]), *found["findings"]], "checked": checked}

    def _findings(self, hung: Iterable[int]) -> Iterable[dict[str, Any]]:
        for number in hung:
            text = f"worker {number} doesn't answer: it hangs, or is stopped, and its clients aren't served"
            remedy = "see the log for what it is at; kill -9 its process, and it has a successor; or say --hang-kill"
            yield {"check": "hung workers", "text": text, "remedy": remedy}
        for member in self._supervisor.roster.now.members:
            if member.state is State.ENDING and member.kill_at is not None and not self._supervisor.roster.now.stops:
                left = max(0.0, member.kill_at - monotonic())
                text = f"{member.name} is to end, and hasn't yet: it may have old code, and has clients still"
                yield {"check": "old workers", "text": text, "remedy": f"wait: in {left:.0f} seconds it is killed"}

    # What the supervisor does

    def _lame(self, what: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        Asked(what, fields, ())
        self._do(partial(self._supervisor.lame, what == "drain"))
        return {"state": "draining" if what == "drain" else "serving"}

    def _scale(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        wanted = Asked("scale", fields, ("workers",)).whole("workers", 1, _MOST)
        if wanted is None:
            raise PysockError("'workers' must say how many")
        was, now = self._do(partial(self._supervisor.scale, wanted))
        return {"workers": now, "was": was}

    def _reload(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        asked = Asked("reload", fields, ("timeout", "cold"))
        timeout = asked.number("timeout", 0.001, _LONGEST, _LONGEST)
        wish, began = Wish(), monotonic()
        self._do(partial(self._supervisor.reload, wish, asked.flag("cold")))
        if not wish.is_over.wait(timeout):
            raise PysockError(f"it isn't over within {timeout:g} seconds, and goes on")
        if wish.why_not:
            raise PysockError(wish.why_not)
        return {"workers": self._supervisor.roster.now.wanted, "took": round(monotonic() - began, 3)}

    def _do(self, order: Callable[[], Any]) -> Any:
        if self._supervisor.roster.now.stops:
            raise PysockError("the service stops")
        return self._supervisor.orders.obtain(order, _SOON)


_CHECKED: Final = {
    "hung workers": "Whether all workers answer.",
    "old workers": "Whether those that were replaced have ended.",
}
#: Of one that has hung before it was ever asked.
_NOTHING_SAID: Final[dict[str, Any]] = {
    "name": None,
    "state": State.SERVING.name,
    "lame": False,
    "services": {},
    "loop": {},
}
