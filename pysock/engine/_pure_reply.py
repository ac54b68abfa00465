"""What a handler made of a request: bytes that can be sent, or a failure."""

from __future__ import annotations

from typing import Any

from pysock.errors import FrameTooLarge
from pysock.protocol import TEXT_REPLY_TOO_LARGE


class Failure:
    """In the place of a reply: what the handler raised."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def checked_reply(reply: Any, limit: int) -> bytes:
    """What a handler returned, as bytes of our own: it may use its buffer for the next reply.

    :raises Exception: what the handler raised; a ``TypeError`` if it returned something else than bytes, and
        ``FrameTooLarge`` if it returned too many of them.
    """
    if type(reply) is Failure:
        raise reply.error
    if type(reply) is not bytes:
        reply = b"" if reply is None else _as_bytes(reply)
    if len(reply) > limit:
        raise FrameTooLarge(TEXT_REPLY_TOO_LARGE % (len(reply), limit))
    return bytes(reply)


def _as_bytes(reply: Any) -> bytes:
    try:
        return bytes(memoryview(reply))
    except TypeError:
        raise TypeError(f"the handler returned {type(reply).__name__}, not a bytes-like object") from None
