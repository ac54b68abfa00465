"""Clients that old workers hand over to the new ones of their numbers.

This file owns who hands over to whom, in one change: the pair of sockets by which both talk. The new one has its end
from its start; the old one gets its own when the new one has imported the program and is about to ask.
"""

from __future__ import annotations

import socket

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.handover.channel import can_be

if TYPE_CHECKING:
    from typing import Final

    from pysock.supervision.member import Member

#: What the new one may need longer than the change has time for, in seconds: then it is called off by that.
_SLACK: Final = 5.0


class Passings(Unique):
    """Those of the change that is under way.

    :param grace: seconds for what is in flight at an old worker.
    :param prepare: seconds for a new one to come so far that it could serve.
    """

    def __init__(self, grace: float, prepare: float) -> None:
        self._told = {"grace": grace, "prepare": prepare + _SLACK}
        self._by_number: dict[int, tuple[Member, socket.socket]] = {}
        #: From now on clients may have moved: so there is no way back for all of them.
        self.began: bool = False

    def begin(self, old: Member | None) -> socket.socket | None:
        """The end for the one that follows this one; it is the caller's. ``None``: that one begins with nobody."""
        if old is None or not old.accepts or not can_be():
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._by_number[old.number] = old, ours
        return theirs

    def greets(self, new: Member) -> None:
        """It is about to ask: now the old one may wait for that."""
        found = self._by_number.get(new.number)
        if found is not None:
            old, ours = found
            old.line.say("give", [ours.fileno()], **self._told)
            ours.close()

    def concerns(self, member: Member) -> bool:
        """Whether it hands over, or is to take over."""
        return member.number in self._by_number

    def opened(self) -> None:
        """The new ones have what they listen at, and take over when they can."""
        self.began = bool(self._by_number)

    def done(self, member: Member) -> None:
        """It has taken over; or there is nobody to take over from any more."""
        found = self._by_number.pop(member.number, None)
        if found is not None:
            found[1].close()

    def end(self) -> None:
        """The change is over, or called off: who hasn't been asked yet won't be."""
        for _, ours in self._by_number.values():
            ours.close()
        self._by_number.clear()
        self.began = False
