"""What a bus is: the contract between a cluster and whatever carries messages between its nodes.

A bus carries bytes under subjects, at most once. It may lose anything, above all whatever was said while it was down,
but it neither doubles a message nor brings those of one publisher and one subject out of order. A driver has one
thread of its own; everything that it calls is called there, one after the other, and must not wait. Every method may be
called in any thread, also in a server's loop: none of them waits, but ``close``.

A subject is a text of words joined by dots: a word is of the letters, digits, ``-`` and ``_``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from pysock.base.lean import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias


class BusState(Enum):
    """Whether what is published now may arrive."""

    LOST = "lost"  # not connected; it tries again and again, with jitter, for ever
    CONNECTED = "connected"


class Outcome(Enum):
    """What came of a request."""

    ANSWERED = "answered"
    NOBODY = "nobody"  # surely nobody has got it
    LATE = "late"  # no answer in time: it may have arrived
    LOST = "lost"  # the bus went down after it was sent: it may have arrived


class Heard(NamedTuple):
    """One message, as a subscriber gets it."""

    subject: str
    payload: bytes
    answer: Callable[[bytes], None] | None  # of a request: once, in any thread; if the bus is down it is lost


class BusReport(NamedTuple):
    """What is known of a bus, for whoever checks it."""

    kind: str  # "local", "nats", "redis"
    server: str  # what runs there, with its version
    round_trip: float  # seconds
    max_payload: int  # bytes in one message
    findings: tuple[str, ...]  # sentences, each with what is to be done: a missing permission, a version too old


if TYPE_CHECKING:
    Hears: TypeAlias = Callable[[Heard], None]
    Ends: TypeAlias = Callable[[Outcome, bytes], None]


class Subscription(Protocol):
    """It is kept over every loss of the bus, until it is ended."""

    def end(self) -> None:
        """Hear no more. Called again it does nothing."""


class Bus(Protocol):
    """One node's end of it.

    :ivar kind: as in :class:`BusReport`.
    :ivar state: of this moment.
    :ivar max_payload: how many bytes one message may have; a guess, until it was connected once.
    :ivar dropped: messages that this end has lost because it was too slow, as far as that is known.
    :ivar round_trip: seconds in which the last message to itself came back; 0: none has yet.
    :ivar where: the bus, as errors call it; no secrets in it.
    :ivar why: why it isn't connected.
    :ivar has_failed: whether an attempt to connect has, or a connection has ended.
    :ivar is_refused: whether the next one will fail as well, until somebody does what ``why`` says.
    :ivar is_guest: it is no node's: it doesn't run what others need. To be set before the start.
    """

    kind: str
    state: BusState
    max_payload: int
    dropped: int
    round_trip: float
    where: str
    why: str
    has_failed: bool
    is_refused: bool
    is_guest: bool

    def start(self, changed: Callable[[BusState], None]) -> None:
        """Begin to connect, and return. ``changed`` is called at each change of the state."""

    def close(self) -> None:
        """End it, and wait for its thread, unless this is it. Requests end as ``LOST``."""

    def reconnect(self) -> None:
        """Give up the connection, which seems to be dead, and make a new one."""

    def publish(self, subject: str, payload: bytes) -> None:
        """Send it to everybody who hears the subject, this node too.

        :raises BusDown: it isn't connected, or takes no more: surely nobody has got it.
        :raises FrameTooLarge: it is over ``max_payload``.
        """

    def request(self, subject: str, payload: bytes, timeout: float, ended: Ends) -> None:
        """Send it, and call ``ended`` once: with the first answer, or with why there is none.

        :raises BusDown: as ``publish``; then ``ended`` isn't called.
        :raises FrameTooLarge: likewise.
        """

    def subscribe(self, subject: str, heard: Hears, *, queue: bool = False) -> Subscription:
        """Hear what is published under a subject, from now on, or from when it is connected.

        :param queue: of all who have subscribed so, one hears each message.
        """

    def check(self, subjects: tuple[str, ...], timeout: float) -> BusReport:
        """Look at it as an operator does: a round trip, the server's version, whether one may publish and subscribe.

        This waits. It needs no ``start``.

        :raises BusDown: it isn't there, or doesn't let this one in; the message says why, and what to do.
        """
