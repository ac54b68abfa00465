"""The text of an ERROR about an exception of a handler's: the name of its type, and what else the server exposes.

This file owns both directions. The text alone is written as Python shows exceptions, ``ValueError: wrong``, and reads
well in clients that know nothing of this. A character that nobody writes stands between the two, so that words which a
handler chose itself (``raise RemoteError("sorry: no")``) are never taken apart.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import Cancelled, Overloaded, RemoteError, RequestTimeout
from pysock.wire.format import FLAG_NOT_STARTED, ErrorCode

if TYPE_CHECKING:
    from typing import Final

#: Between the name of the type and what else is told; the last character is the unit separator of ASCII.
_BETWEEN: Final = ": \x1f"

_KINDS: Final = {int(ErrorCode.CANCELLED): Cancelled, int(ErrorCode.OVERLOADED): Overloaded}


def composed(name: str, more: str) -> str:
    """The text for an exception of a type of this name."""
    return f"{name}{_BETWEEN}{more}" if more else name


def remote_error(code: int, request_id: int, payload: bytes, flags: int = 0) -> RemoteError | RequestTimeout:
    """What an ERROR says, as the exception that a client raises."""
    text = payload.decode("utf-8", "replace")
    if code == ErrorCode.DEADLINE_PASSED:
        late = RequestTimeout(text)
        late.started = not flags & FLAG_NOT_STARTED
        return late
    name, between, more = text.partition(_BETWEEN) if code == ErrorCode.HANDLER_FAILED else ("", "", "")
    error = _KINDS.get(code, RemoteError)(f"{name}: {more}" if between else text, code)
    error.request_id = request_id
    if flags & FLAG_NOT_STARTED:
        error.started = False
    if between:
        error.type, error.message = name, more
    elif code == ErrorCode.HANDLER_FAILED and _looks_like_a_type(text):
        error.type = text
    return error


def _looks_like_a_type(text: str) -> bool:
    """A handler may have chosen one word, too: ``busy``. Classes are written otherwise, but for some ``error``."""
    return text.isidentifier() and (not text.islower() or text.endswith("error"))
