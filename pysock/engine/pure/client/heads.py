"""Which frames a client takes, by their heads. ``ps__judge_server()`` in C is the counterpart."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ProtocolError
from pysock.wire.features import Feature
from pysock.wire.format import FLAG_GAP, FLAG_MORE, FLAG_NOT_STARTED, GAP, LARGEST_ASKED, Frame, Header, Kind

if TYPE_CHECKING:
    from typing import Final

#: Bytes of what a server says of itself, its services for example.
_CONTROL_MAX: Final = 16 * 1024 * 1024
_CARRIERS: Final = frozenset((Kind.REPLY, Kind.PUSH))
#: What a client is asked, where it answers.
_QUESTIONS: Final = frozenset((Kind.ASK, Kind.ASK_CANCEL))
_ASK: Final = int(Kind.ASK)
_ERROR: Final = int(Kind.ERROR)
_REPLY: Final = int(Kind.REPLY)
_PUSH: Final = int(Kind.PUSH)
#: With these an ERROR may say that nothing was started.
TELL: Final = int(Feature.DEADLINE | Feature.CANCEL)
_UNASKED: Final = frozenset((Kind.PUSH, Kind.GOAWAY, *_QUESTIONS))
#: What ends a step of the initiation.
VERDICTS: Final = frozenset((Kind.CIR_ACCEPTED, Kind.CIR_REFUSED, Kind.CHALLENGE))
#: What answers a request or a ping.
ANSWERS: Final = frozenset((Kind.REPLY, Kind.ERROR, Kind.PONG))


def _flags(kind: int, features: int) -> int:
    """Those that have a meaning."""
    if kind == _ERROR:
        return FLAG_NOT_STARTED if features & TELL else 0
    if kind == _PUSH:
        return FLAG_GAP if features & Feature.GAP else 0
    return FLAG_MORE if kind == _REPLY and features & Feature.STREAM else 0


def comes_from_server(header: Header, features: int) -> bool:
    """Whether a server may send one of this kind, with these flags, where both speak this."""
    if header.flags and header.flags & ~_flags(header.kind, features):
        return False
    if header.kind in _QUESTIONS:
        return bool(features & Feature.ASK)
    if header.kind == _PUSH and header.flags and header.length < GAP.size:
        return False
    return Kind.CIR_ACCEPTED <= header.kind <= Kind.CHALLENGE


def most_bytes(header: Header, max_payload: int) -> int:
    """The longest payload of this kind.

    The limit is about replies, pushes, and what is asked, without the name in front of that: what the server says of
    itself has to come through a smaller one, too.
    """
    if header.kind == _ASK:
        return max_payload + LARGEST_ASKED
    if header.kind == _PUSH and header.flags:
        return max_payload + GAP.size
    return max_payload if header.kind in _CARRIERS else max(max_payload, _CONTROL_MAX)


class Judge:
    """It looks at each head before the payload is waited for.

    :ivar features: what both ends speak, as soon as that is known.
    """

    __slots__ = ("_max_payload", "features")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self.features: int = 0

    def __call__(self, header: Header) -> None:
        """Raises :class:`ProtocolError` where no server sends it, or where it is too large."""
        if not comes_from_server(header, self.features):
            raise ProtocolError(f"the server sent a frame of kind {header.kind:#04x}, flags {header.flags:#04x}")
        most = most_bytes(header, self._max_payload)
        if header.length > most:
            over = f"of {header.length} bytes, over this client's limit of {most}"
            raise ProtocolError(f"the server sent a frame {over}: give connect() a larger max_payload")


def is_unasked(frame: Frame) -> bool:
    """Whether nobody had asked for it."""
    return frame.kind in _UNASKED or (frame.kind == _ERROR and not frame.request_id)
