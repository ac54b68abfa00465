"""What a handler made of a request: bytes that can be sent, or a failure.

Failures are handed on, not raised again: an exception that fails a whole batch would grow a traceback entry for each
request of it.
"""

from __future__ import annotations

from types import GeneratorType

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.guards import type_name
from pysock.errors import FrameTooLarge
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any


class Failure:
    """In the place of a reply: what the handler raised, or what is wrong with what it returned.

    Nobody up the stack may keep one in a variable. The exception's traceback holds the frame that caught it, and that
    its callers: they would keep each other, and the request, alive until the next garbage collection.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error: Exception = error


def checked_reply(reply: Any, limit: int) -> bytes | Failure | None:
    """What a handler returned, as bytes of our own: it may use its buffer for the next reply. ``None``: it isn't
    bytes-like.
    """
    if reply is None:
        return b""
    if type(reply) is not bytes:
        reply = _as_bytes(reply)
        if type(reply) is not bytes:
            return reply  # type: ignore[no-any-return]
    if len(reply) > limit:
        return Failure(FrameTooLarge(texts.REPLY_TOO_LARGE % (len(reply), limit)))
    return bytes(reply)


def _as_bytes(reply: Any) -> bytes | Failure | None:
    if type(reply) is Failure:
        return reply
    try:
        return bytes(memoryview(reply))
    except TypeError:
        return None
    except Exception as error:  # a buffer that can't be read, for example a memoryview that was released
        return Failure(error)


def may_be_for_later(reply: Any) -> bool:
    """It is neither bytes-like nor ``None``, nor an exception in the place of a reply."""
    if reply is None or issubclass(type(reply), Exception):
        return False
    try:
        memoryview(reply)
    except TypeError:
        return True
    except Exception:  # a buffer that can't be read
        return False
    return False


def not_bytes(reply: Any) -> Failure:
    """It isn't bytes-like, and isn't for later either."""
    advice = texts.STREAM if type(reply) is GeneratorType else texts.ENCODE if issubclass(type(reply), str) else ""
    return Failure(TypeError(texts.NOT_BYTES % (type_name(reply), advice)))
