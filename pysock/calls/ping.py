"""A sign of life: PING there, PONG back, and what it tells of the server."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.link import Link
from pysock.errors import ProtocolError
from pysock.wire.health import SERVING, state_of

if TYPE_CHECKING:
    from typing import Final

TEXT_OTHER_BYTES: Final = "the server answered a ping with other bytes than those it was sent"


class Pong(float):
    """What ``ping()`` returns: a number, the seconds there and back, which also knows the state that the server told.

    :ivar code: the number of that state on the wire; 0 is serving.
    """

    __slots__ = ("code",)

    code: int

    def __new__(cls, seconds: float, code: int = SERVING) -> Pong:
        """Make one of so many seconds."""
        self = super().__new__(cls, seconds)
        self.code = code
        return self

    @property
    def state(self) -> str:
        """``"serving"``; or ``"draining"``: it serves who is connected, but new clients should go elsewhere, for it is
        lame (:meth:`pysock.Server.lame`) or stops.
        """
        return state_of(self.code)


def ping(link: Link, payload: Buffer, seconds: float | None) -> Pong:
    """Return the seconds there and back. What else comes meanwhile goes to the link's inbox.

    :raises ProtocolError: the server answered with other bytes; the link is closed then.
    """
    started = monotonic()
    code, answer = link.ping(payload, seconds)
    elapsed = monotonic() - started
    if answer != payload:
        link.close()
        raise ProtocolError(TEXT_OTHER_BYTES)
    return Pong(elapsed, code)
