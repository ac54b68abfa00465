"""Pushes as they wait for a client, and the one that tells how many it didn't get before."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import FLAG_GAP, GAP, HEADER, Kind

if TYPE_CHECKING:
    from typing import Final

#: Of the pushes that wait for a client, what each takes besides its bytes, roughly.
PUSH_COST: Final = 64


class Push(bytes):
    """One as its framing has it, as long as it waits whole: what is left of one is a memoryview."""

    __slots__ = ()


class Marked(Push):
    """One that tells of others, which were dropped before it."""

    lost: int


def marked(push: Push, lost: int) -> Marked:
    """The same, but it tells of so many, more than it did."""
    begin = HEADER.size
    if isinstance(push, Marked):
        lost += push.lost
        begin += GAP.size
    payload = memoryview(push)[begin:]
    head = HEADER.pack(GAP.size + len(payload), Kind.PUSH, FLAG_GAP, 0, 0)
    made = Marked(b"".join((head, GAP.pack(lost), payload)))
    made.lost = lost
    return made


def take_oldest(out: list[bytes | bytearray | memoryview]) -> tuple[Push, int] | None:
    """Take the first push that waits whole out of what is to be sent.

    :returns: it, and where the next one is now, or -1; ``None``: there is none.
    """
    places = (place for place, piece in enumerate(out) if isinstance(piece, Push))
    first = next(places, None)
    if first is None:
        return None
    behind = next(places, 0) - 1
    push = out.pop(first)
    assert isinstance(push, Push)
    return push, behind
