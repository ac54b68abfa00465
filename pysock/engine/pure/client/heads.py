"""Which frames a client takes, by their heads. ``ps__judge_server()`` in C is the counterpart."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ProtocolError
from pysock.wire.format import Frame, Header, Kind

if TYPE_CHECKING:
    from typing import Final

#: Bytes of what a server says of itself, its services for example.
_CONTROL_MAX: Final = 16 * 1024 * 1024
_CARRIERS: Final = frozenset((Kind.REPLY, Kind.PUSH))
_ERROR: Final = int(Kind.ERROR)
_UNASKED: Final = frozenset((Kind.PUSH, Kind.GOAWAY))
#: What ends a step of the initiation.
VERDICTS: Final = frozenset((Kind.CIR_ACCEPTED, Kind.CIR_REFUSED, Kind.CHALLENGE))
#: What answers a request or a ping.
ANSWERS: Final = frozenset((Kind.REPLY, Kind.ERROR, Kind.PONG))


def comes_from_server(header: Header, error_flags: int = 0) -> bool:
    """Whether a server may send one of this kind, with these flags.

    :param error_flags: those that an ERROR may have.
    """
    flags = error_flags if header.kind == _ERROR else 0
    return Kind.CIR_ACCEPTED <= header.kind <= Kind.CHALLENGE and not header.flags & ~flags


def most_bytes(header: Header, max_payload: int) -> int:
    """The longest payload of this kind.

    The limit is about replies and pushes: what the server says of itself has to come through a smaller one, too.
    """
    return max_payload if header.kind in _CARRIERS else max(max_payload, _CONTROL_MAX)


def judge(max_payload: int, header: Header) -> None:
    """Look at a head before the payload is waited for.

    :raises ProtocolError: no server sends it, or it is too large.
    """
    if not comes_from_server(header):
        raise ProtocolError(f"the server sent a frame of kind {header.kind:#04x}, flags {header.flags:#04x}")
    most = most_bytes(header, max_payload)
    if header.length > most:
        over = f"of {header.length} bytes, over this client's limit of {most}"
        raise ProtocolError(f"the server sent a frame {over}: give connect() a larger max_payload")


def is_unasked(frame: Frame) -> bool:
    """Whether nobody had asked for it."""
    return frame.kind in _UNASKED or (frame.kind == _ERROR and not frame.request_id)
