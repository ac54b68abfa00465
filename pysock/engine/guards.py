"""A guard around each callback of the contract: nothing gets out of it that the contract doesn't know.

This file owns what is answered in the place of a callback that failed. It is used twice: by the facade, around what it
gives to an engine, and by the pure engine, around what it is given, as ``callback_failed()`` is in C.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.contract import Callbacks
from pysock.wire import texts
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from typing import Any, Final, NoReturn


def _nothing(*_arguments: Any) -> None:
    """There is nothing to answer."""


def _no(*_arguments: Any) -> bool:
    return False


def _costs_the_client(*_arguments: Any) -> NoReturn:
    """Without an answer the connection can't go on: as where there is no memory, the client pays, and nobody else."""
    raise MemoryError


def _begun(*_arguments: Any) -> bool:
    """Its place is free when it is answered."""
    return True


def _refused(_client_id: int) -> str:
    return texts.NOT_ALLOWED


def _failed(
    _client_id: int, _service: int, _request_id: int, _began: float, exception: Exception
) -> tuple[int, bytes, bool]:
    return ErrorCode.HANDLER_FAILED, type_name(exception).encode("utf-8", "replace"), True


#: By callback: what is answered where it failed. One that isn't here is asked for nothing.
INSTEAD: Final[dict[str, Callable[..., Any]]] = {
    "client": _costs_the_client,
    "connect": _refused,
    "failed": _failed,
    "allow": _no,
    "challenge": _costs_the_client,
    "prove": _no,
    "defer": _nothing,
    "ended": _begun,
    "answered": _no,
}


def apart(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The callback; context variables that it sets, or the user's function that it calls, are seen by no later call."""
    return None if callback is None else lambda *arguments: copy_context().run(callback, *arguments)


def guarded(tell: Callable[[str, Exception], None], **callbacks: Any) -> Callbacks:
    """The callbacks, each of which raises nothing but ``MemoryError`` and what isn't an ``Exception``.

    :param tell: called with the name of a callback that failed, and the exception. It must not raise.
    """
    made: dict[str, Any] = {
        name: None if callback is None else _guarded(name, callback, INSTEAD.get(name, _nothing), tell)
        for name, callback in callbacks.items()
    }
    return Callbacks(**made)


def _guarded(
    name: str, callback: Callable[..., Any], instead: Callable[..., Any], tell: Callable[[str, Exception], None]
) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except MemoryError:
            raise
        except Exception as error:
            tell(name, error)
        return instead(*arguments)

    return call


_name_of: Final = type.__dict__["__name__"].__get__


def type_name(thing: object) -> str:
    """The name of its type, whatever the metaclass says of that."""
    return str(_name_of(type(thing)))
