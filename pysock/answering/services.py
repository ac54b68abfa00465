"""The services of a client, and what becomes of what they return, without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pysock.base.functions import checked_function, is_async
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import client_log as log
from pysock.base.payload import checked
from pysock.base.unique import Unique
from pysock.engine.guards import type_name
from pysock.errors import FrameTooLarge, RemoteError
from pysock.wire import texts
from pysock.wire.format import ErrorCode, Kind
from pysock.wire.service_name import encoded_name

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    from pysock.base.aliases import Buffer

    #: Of the frame that answers: its kind, its code, its payload.
    Answer: TypeAlias = tuple[int, int, Buffer]

_ANSWER: Final = int(Kind.ANSWER)
_ANSWER_ERROR: Final = int(Kind.ANSWER_ERROR)


class ClientServices(Unique):
    """Those of one client.

    :param handlers: by name, the unnamed one by ``None``.
    :param waits: they may be async.
    :ivar owner: a weak reference to the client that they are called with.
    """

    def __init__(self, handlers: Mapping[str | None, Callable[..., Any]], *, waits: bool) -> None:
        if not isinstance(handlers, Mapping):
            raise TypeError(f"services= takes a dict of functions by name, not {type(handlers).__name__}")
        instead = None if waits else "give it to pysock.aio.connect(), or a plain function here"
        self._handlers: dict[bytes, tuple[Callable[..., Any], bool]] = {}
        for name, handler in handlers.items():
            checked_function("service", handler, "service(client, request)", instead)
            self._handlers[encoded_name(name, "services")] = handler, is_async(handler)
        self.owner: Callable[[], Any] = lambda: None

    def find(self, payload: bytes) -> tuple[Callable[..., Any], bool, bytes]:
        """What an ASK asks for, whether that is async, and the request.

        :raises RemoteError: there is no such service; or the ASK makes no sense.
        """
        start = 1 + payload[0] if payload else 1
        if len(payload) < start:
            raise RemoteError("an ASK whose name is cut short", ErrorCode.MALFORMED)
        found = self._handlers.get(payload[1:start])
        if found is None:
            raise RemoteError(texts.NO_SUCH_SERVICE, ErrorCode.NO_SUCH_SERVICE)
        return *found, payload[start:]


def answer_of(result: Any, most: int) -> Answer:
    """The answer, where a service has returned this.

    :param most: how many bytes the server takes.
    """
    try:
        return _ANSWER, 0, b"" if result is None else checked(result, most, "what the server takes")
    except FrameTooLarge as error:
        log.error("a service returned too much: %s", error)
        return _ANSWER_ERROR, ErrorCode.PAYLOAD_TOO_LARGE, str(error).encode()
    except TypeError as error:
        return failed(error)


def failed(error: BaseException) -> Answer:
    """The answer, where a service has raised this."""
    if isinstance(error, RemoteError):
        code = error.code if isinstance(error.code, int) and 0 < error.code <= 0xFFFF else ErrorCode.HANDLER_FAILED
        return _ANSWER_ERROR, code, str(error.message).encode("utf-8", "replace")
    log.error("a service of this client failed", exc_info=error)
    return _ANSWER_ERROR, ErrorCode.HANDLER_FAILED, type_name(error).encode("utf-8", "replace")


def cancelled() -> Answer:
    """The answer to what the server doesn't want to know any more."""
    return _ANSWER_ERROR, ErrorCode.CANCELLED, texts.CANCELLED.encode()
