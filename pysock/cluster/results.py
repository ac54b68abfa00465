"""The answer of another node, to and from bytes: what came of a push, of a question, or of a call.

An exception goes over as a code, as the code of an ERROR where it is one, and as words: nothing is unpickled.
"""

from __future__ import annotations

import errno
from io import UnsupportedOperation

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind, Tag
from pysock.errors import ConnectionLost, DeliveryUnknown, FrameTooLarge, PysockError, RemoteError, RequestTimeout
from pysock.wire.error_text import composed, remote_error
from pysock.wire.format import ErrorCode, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.cluster.bus.contract import Outcome

DONE: Final = 0
NO_CLIENT: Final = 1
_REMOTE: Final = 2  # as an ERROR: its code is in the field DETAIL
_FAILED: Final = 8

#: The codes of exceptions: of the first kind that it is one of.
_KINDS: Final[tuple[tuple[int, type[Exception]], ...]] = (
    (3, FrameTooLarge), (4, ConnectionLost), (5, UnsupportedOperation), (6, RequestTimeout), (7, OSError),
    (_FAILED, Exception),
)  # fmt: skip
_MADE: Final[dict[int, Callable[[str], Exception]]] = {
    3: FrameTooLarge, 4: ConnectionLost, 5: UnsupportedOperation, 6: RequestTimeout,
    7: lambda text: OSError(errno.ENOBUFS, text), _FAILED: PysockError,
}  # fmt: skip


def done(epoch: int, clock: int, payload: bytes = b"") -> bytes:
    """It was done, and this came of it."""
    return messages.encode(MessageKind.RESULT, epoch, clock, [messages.number(Tag.CODE, DONE)], payload)


def no_client(epoch: int, clock: int) -> bytes:
    """There is no such client."""
    return messages.encode(MessageKind.RESULT, epoch, clock, [messages.number(Tag.CODE, NO_CLIENT)])


def failed(epoch: int, clock: int, error: Exception) -> bytes:
    """It has failed so."""
    if isinstance(error, RemoteError):
        fields = [messages.number(Tag.CODE, _REMOTE), messages.number(Tag.DETAIL, error.code & 0xFFFF)]
        text = error.message
        if error.type:
            text = composed(error.type, "" if error.message == error.type else error.message)
    else:
        code = next(code for code, kind in _KINDS if isinstance(error, kind))
        fields = [messages.number(Tag.CODE, code)]
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"{type(error).__name__}: {text}" if code == _FAILED and not isinstance(error, PysockError) else text
    return messages.encode(MessageKind.RESULT, epoch, clock, fields, str(text).encode("utf-8", "replace"))


def read(payload: bytes) -> bytes | None:
    """What came of it; ``None``: there is no such client.

    :raises Exception: what the other node says.
    :raises DeliveryUnknown: it can't be read.
    """
    try:
        message = messages.decode(payload)
        code = message.number(Tag.CODE)
        detail = message.number(Tag.DETAIL, int(ErrorCode.HANDLER_FAILED))
        if message.kind != MessageKind.RESULT:
            raise Malformed("it is no answer")
    except Malformed as error:
        raise DeliveryUnknown(f"the answer of the other node can't be read: {error}") from None
    if code == DONE:
        return message.body
    if code == NO_CLIENT:
        return None
    if code == _REMOTE:
        raise remote_error(detail, 0, message.body)
    raise _MADE.get(code, PysockError)(message.body.decode("utf-8", "replace"))


def unanswered(outcome: Outcome, whom: str) -> DeliveryUnknown:
    """It was sent, and no answer came."""
    return DeliveryUnknown(f"{whom} hasn't answered ({outcome.value}): the message may have arrived, or may not")
