"""The heartbeat of a client that listens: a PING now and then, by which a server knows that the client is there
(``Limits.idle_timeout``), and the client that the server is.
"""

from __future__ import annotations

from pysock.address import INHERITED
from pysock.base.clock import monotonic
from pysock.base.deadlines import FOREVER, deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, ParameterError, RequestTimeout

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import Address
    from pysock.calls.mailbox import Mailbox
    from pysock.engine.link import Link

#: Seconds between two over a network, where the other end may vanish; on one machine the system tells of that.
FAR: Final = 15.0
#: Of the time after which a server drops who is silent.
_PART: Final = 1 / 3
#: A PING that had no answer for so many times the time between two: the server is dead.
_PATIENCE: Final = 3


def checked_heartbeat(heartbeat: float | None) -> float | None:
    """Return the seconds between two, 0 for none, ``None`` for what goes with the address.

    :raises ValueError: it is no number of seconds from 0 on.
    """
    if heartbeat is not None and (not isinstance(heartbeat, (int, float)) or not heartbeat >= 0):
        raise ParameterError("heartbeat", f"must be 0 or more seconds, not {heartbeat!r}")
    return 0.0 if heartbeat is not None and heartbeat >= FOREVER else heartbeat


def period(heartbeat: float | None, address: Address, idle_timeout: float | None) -> float | None:
    """Seconds between two; ``None``: there is none.

    :param idle_timeout: after so many the server drops who is silent, as far as it has said.
    """
    if heartbeat == 0:
        return None
    usual = None if address.transport in {"unix", "abstract", *INHERITED} else FAR
    wanted = usual if heartbeat is None else heartbeat
    if idle_timeout is None:
        return wanted
    return idle_timeout * _PART if wanted is None else min(wanted, idle_timeout * _PART)


def patience(every: float) -> float:
    """How long an answer is awaited."""
    return every * _PATIENCE


def dead(every: float) -> ConnectionLost:
    """There was none."""
    return ConnectionLost(f"the server answered no PING for {patience(every):g} seconds")


class Heartbeat:
    """That of a blocking client, in whose thread that listens it beats."""

    __slots__ = ("_every", "_mail", "_next")

    def __init__(self, every: float | None, mail: Mailbox) -> None:
        self._every = every
        self._next = None if every is None else monotonic() + every
        self._mail = mail

    def listen(self, link: Link, seconds: float | None, has: bool = True, inbox: Any = None) -> None:
        """What the link's own does, but it may return without anything having come."""
        if self._every is None or self._next is None:
            link.listen(seconds, has, inbox)
            return
        end = deadline_of(seconds)
        due = self._next - monotonic()
        if due > 0:
            left = time_left(end)
            try:
                link.listen(due if left is None else min(left, due), has, inbox)
            except RequestTimeout:
                if left is not None and left <= due:
                    raise
            return
        self._next = monotonic() + self._every
        try:
            link.ping(b"", patience(self._every))
        except RequestTimeout:
            lost = dead(self._every)
            self._mail.over("timed out", str(lost))
            link.close()
            raise lost from None
