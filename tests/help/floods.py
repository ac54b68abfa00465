"""More pushes than a client takes: each has its number, and what comes of them is held against what was sent.

Which of them are dropped is up to the kernel's buffers, and so may differ between two servers. But the mark in front of
a push says how many are missing there; so behind whatever came, it is known which number must come next. Beside those
dropped, both servers have sent the same.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import wire

_MAGIC = b"flood"
_NUMBER = struct.Struct("!5sI")
#: Kind, flags, code, request id and payload of a frame.
Frame = tuple[int, int, int, int, bytes]


def numbered(number: int, size: int) -> bytes:
    """The payload of a push."""
    return _NUMBER.pack(_MAGIC, number).ljust(size, b".")


class Flood(NamedTuple):
    """What came of it at one client."""

    came: int  # how many
    following: int  # the number that must come next: so many came, or are missing and told of
    bytes: int  # of the frames that came
    wrong: str  # what mustn't be
    others: list[Frame]  # everything else that it got; marks are taken off


def flood_in(frames: list[Frame]) -> Flood:
    """Look at all that a client got."""
    came = following = size = 0
    wrong, others = "", []
    for kind, flags, code, request_id, whole in frames:
        is_marked, payload = kind == wire.PUSH and flags & wire.GAP, whole
        if is_marked:
            (lost,), payload = struct.unpack_from("!I", whole), whole[4:]
            following += lost
            size += 4
            wrong = wrong or ("" if lost else "a mark that tells of none")
        if kind != wire.PUSH or not payload.startswith(_MAGIC):
            others.append((kind, 0 if is_marked else flags, code, request_id, payload))
            continue
        got = _NUMBER.unpack_from(payload)[1]
        if got != following:
            wrong = wrong or f"number {got} in the place of {following}"
        came, following, size = came + 1, got + 1, size + 12 + len(payload)
    return Flood(came, following, size, wrong, others)
