"""The user's functions: handlers, hooks and rules are plain ones, which do their work when they are called.

This file owns the refusal of those that don't: what an ``async def`` returns is true, whatever it would say if somebody
awaited it, and so it would let everybody in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable
from typing import Any


def refuse_async(what: str, function: Any, instead: str) -> None:
    """Raise if calling it would only make something to be awaited.

    :param what: what it is, for the message.
    :param instead: what is wanted, for the message.
    :raises TypeError: it is an async function or generator, an object with such a ``__call__``, or a partial of these.
    """
    if _is_async(function):
        raise TypeError(f"{what} {function!r} is an async function; {instead}")


def settled(answer: Any) -> Any:
    """The answer of a function that decides who comes in.

    :raises TypeError: it is none, but something to be awaited.
    """
    if answer is None or isinstance(answer, bool) or not isinstance(answer, Awaitable):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns of it as well
    raise TypeError(f"it returned a {type(answer).__name__}, which nobody awaits, and no answer")


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004  # its code is wanted: not that of a class's objects
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (function, call))
