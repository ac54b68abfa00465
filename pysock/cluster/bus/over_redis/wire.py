"""What goes through channels of a Redis: a byte that says what it is, then what that has.

    PUBLISH   payload
    REQUEST   the asker's token (8 bytes), number (8 bytes), payload
    ANSWER    number (8 bytes), payload
    JOIN, LEAVE   a member's channel

All are published under the subject itself, but answers under the asker's inbox ``PREFIX._i.TOKEN.r``, and members'
comings and goings under ``PREFIX._i.queues``. A member of a queue hears the channel ``SUBJECT@TOKEN``: no subject has
an ``@``. Whatever else comes is foreign, and dropped.
"""

from __future__ import annotations

import struct

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

PUBLISH: Final = 0
REQUEST: Final = 1
ANSWER: Final = 2
JOIN: Final = 3
LEAVE: Final = 4

_REQUEST: Final = struct.Struct("!B8sQ")
_ANSWER: Final = struct.Struct("!BQ")
#: Before a payload.
HEAD_MAX: Final = _REQUEST.size
#: A Redis takes 512 MiB; but it cuts who is slow when 32 MiB wait for it.
MAX_PAYLOAD: Final = 1024 * 1024


def publish(payload: bytes) -> bytes:
    """A message."""
    return b"\0" + payload


def request(token: bytes, number: int, payload: bytes) -> bytes:
    """One that wants an answer."""
    return _REQUEST.pack(REQUEST, token, number) + payload


def answer(number: int, payload: bytes) -> bytes:
    """It."""
    return _ANSWER.pack(ANSWER, number) + payload


def read_request(data: bytes) -> tuple[str, int, bytes] | None:
    """Token, number and payload."""
    if len(data) < _REQUEST.size:
        return None
    _, token, number = _REQUEST.unpack_from(data)
    return token.hex(), number, data[_REQUEST.size :]


def read_answer(data: bytes) -> tuple[int, bytes] | None:
    """Number and payload."""
    if len(data) < _ANSWER.size or data[0] != ANSWER:
        return None
    return _ANSWER.unpack_from(data)[1], data[_ANSWER.size :]


def inbox(prefix: str, token: str) -> bytes:
    """Where the answers to an end come."""
    return f"{prefix}._i.{token}.r".encode("ascii")


def members(prefix: str) -> bytes:
    """Where it is told who comes into queues, and who leaves."""
    return f"{prefix}._i.queues".encode("ascii")
