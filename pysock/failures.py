"""A request that failed: what its client is told, and what the log says.

This file owns both, whatever the handler raised: exceptions of the user's may lack what their base class has, and have
attributes of any type that raise when they are looked at.
"""

from __future__ import annotations

import operator
import traceback
from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.clients import ClientTable
from pysock.engine.deferral import ReplyDropped
from pysock.engine.guards import type_name
from pysock.errors import FrameTooLarge, Overloaded, RemoteError
from pysock.services import Services
from pysock.wire.error_text import composed
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from typing import Any, Final

#: A code has 16 bits on the wire, and 0 is none.
_LARGEST_CODE: Final = 0xFFFF


class Failed:
    """The callback ``failed`` of one server."""

    def __init__(self, clients: ClientTable, services: Services, expose: str) -> None:
        self._clients = clients
        self._services = services
        self._expose = expose

    def __call__(
        self, client_id: int, service: int, request_id: int, began: float, exception: Exception
    ) -> tuple[int, bytes, bool]:
        """The code and the text of the ERROR, and whether the work on the request was started; the log has been told.

        How long it took is counted from ``began``, see :class:`pysock.engine.contract.Callbacks`: what the loop did
        before the handler in the same turn counts, too.
        """
        # Not the DataSocket: the client may be gone, and must not come back into the table.
        row = self._clients.engine_info(client_id)
        about = (
            self._services.title(service),
            shown(client_id),
            row.name if row else "",
            request_id,
            max(0.0, monotonic() - began) * 1000,
            self._services.handler(service),
        )
        if isinstance(exception, RemoteError) and not isinstance(exception, ReplyDropped):
            return *_meant(exception, about), not _refuses(exception)
        _with_traceback(exception)
        log.error(
            "service %s failed for client %s %r: request %d, after %.1f ms; its handler is %s",
            *about,
            exc_info=exception,
        )
        if isinstance(exception, ReplyDropped):
            return ErrorCode.HANDLER_FAILED, encoded(exception.message), True
        if isinstance(exception, FrameTooLarge):
            return ErrorCode.PAYLOAD_TOO_LARGE, encoded(text_of(exception)), True
        return ErrorCode.HANDLER_FAILED, encoded(composed(type_name(exception), self._more(exception))), True

    def _more(self, exception: Exception) -> str:
        """What a client is told besides the type."""
        if self._expose == "type":
            return ""
        parts = [text_of(exception, default="")]
        if self._expose == "traceback":
            with suppress(Exception):  # the exception may not let itself be shown
                parts.append("".join(traceback.format_exception(exception)).rstrip())
        return "\n\n".join(filter(None, parts))


def _with_traceback(exception: Exception) -> None:
    """Of one that nobody raised, as for what a handler returned: so it is logged in the form of the others."""
    if exception.__traceback__ is not None:
        return
    try:
        raise exception
    except Exception:
        del exception  # the traceback holds this frame


def _meant(exception: RemoteError, about: tuple[Any, ...]) -> tuple[int, bytes]:
    """The handler wanted to say this."""
    text, code = text_of(exception, "message"), _code_of(exception)
    if code is None:
        code = ErrorCode.HANDLER_FAILED
        log.error(
            "service %s answered client %s %r: request %d, after %.1f ms; its handler is %s, and raised a RemoteError"
            " whose code isn't a number from 1 to 65535: the client gets code 1",
            *about,
            exc_info=exception,
        )
    else:
        log.debug("service %s answered client %s %r with an error: request %d, after %.1f ms; %r", *about[:5], text)
    return code, encoded(text)


def _refuses(exception: RemoteError) -> bool:
    """Nobody could take the request. What a handler was told by another server is no refusal of its own."""
    return isinstance(exception, Overloaded) and not exception.request_id


def _code_of(exception: RemoteError) -> int | None:
    try:
        # A subclass whose __init__ doesn't call that of RemoteError has none: it wants no other than the usual one.
        code = operator.index(getattr(exception, "code", ErrorCode.HANDLER_FAILED))
    except Exception:
        return None
    return code if 0 < code <= _LARGEST_CODE else None


def text_of(exception: Exception, attribute: str | None = None, default: str | None = None) -> str:
    """What an exception says: in this attribute, or as a whole where it has no such attribute.

    :param default: for one that says nothing, or can't; else it is the name of its type.
    """
    if attribute is not None:
        with suppress(Exception):
            return _text(getattr(exception, attribute))
    with suppress(Exception):
        if text := _text(exception):
            return text
    return type_name(exception) if default is None else default


def _text(thing: object) -> str:
    return str.__str__(str(thing))  # the latter may be of a class of the user's, which overrides what it likes


def encoded(text: str) -> bytes:
    """In UTF-8; what can't be encoded is a question mark."""
    return text.encode("utf-8", "replace")
