"""A request that failed: what its client is told, and what the log says; and what that says of a loop that was held up.

This file owns the words, whatever the handler raised: exceptions of the user's may lack what their base class has, and
have attributes of any type that raise when they are looked at.
"""

from __future__ import annotations

import operator
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from pysock.base.clock import monotonic
from pysock.base.functions import described
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.clients import ClientTable
from pysock.engine import contract
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


class HeldUp:
    """A handler or a hook that blocks keeps all others waiting: whose it was is logged. Of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        #: What takes as long, in seconds, is logged.
        self.least: float = contract.HELD_UP
        self._told = 0.0  # seconds of this turn, of which the log has been told

    def turn(self, service: int, seconds: float) -> None:
        """The callback ``held_up``."""
        left, self._told = seconds - self._told, 0.0
        if left < self.least:
            return
        number = self._services.only() if service < 0 else service
        if number is None:
            log.warning(
                "a handler or a hook held up the loop for %.1f s, and all clients waited: whose it is will be told if"
                " it happens again within a minute",
                left,
            )
        else:
            self._tell(self._services.title(number), left, self._services.handler(number))

    def step(self, handler: Callable[..., Any], seconds: float) -> None:
        """A step of an async handler has, outside of a turn."""
        self._tell(self._services.titles(handler), seconds, described(handler))

    def _tell(self, title: str, seconds: float, handler: str) -> None:
        log.warning(
            "service %s held up the loop for %.1f s, and all clients waited: give it workers (threads=, processes=), or"
            " let it await what takes long; its handler is %s",
            title,
            seconds,
            handler,
        )

    def timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which is called in a turn: what it takes is known to be no handler's."""
        return partial(self._call, what, function)

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = monotonic()
        try:
            return function(*arguments)
        finally:
            seconds = monotonic() - began
            if seconds >= self.least:
                self._told += seconds
                log.warning("%s held up the loop for %.1f s, and all clients waited", what, seconds)


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
