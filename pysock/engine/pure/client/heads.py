"""Which frames a client takes, by their heads. ``ps__judge_server()`` in C is the counterpart."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import Header, Kind

if TYPE_CHECKING:
    from typing import Final

#: Bytes of what a server says of itself, its services for example.
_CONTROL_MAX: Final = 16 * 1024 * 1024
_CARRIERS: Final = frozenset((Kind.REPLY, Kind.PUSH))
_ERROR: Final = int(Kind.ERROR)


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
