"""The user's functions: most hooks and all rules are plain ones, which do their work when they are called.

This file owns what is looked at when one is given: whether it is an ``async def``, for what that returns is true,
whatever it would say if somebody awaited it, and so it would let everybody in; and that it can be called with what it
will be called with. And it owns what people are told of a function: its name, and where it stands.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Final

#: Flags of a code object whose call only makes something to be awaited (inspect.CO_COROUTINE, CO_ITERABLE_COROUTINE),
#: or to be iterated over (CO_GENERATOR, CO_ASYNC_GENERATOR), or that takes any number of arguments (CO_VARARGS). The
#: module inspect takes 10 ms to import.
_CO_COROUTINE: Final = 0x0080 | 0x0100
_CO_GENERATOR: Final = 0x0020
_CO_ASYNC_GENERATOR: Final = 0x0200
_CO_VARARGS: Final = 0x0004


def checked_function(what: str, function: Any, call: str, instead: str | None, *, yields: bool = False) -> None:
    """Raise if it can't be called as it will be, or calling it would only make something of which nobody makes use.

    :param what: what it is, for the message: ``"handler"``.
    :param call: how it is called, for the message: ``"handler(client, request)"``; it counts the arguments, too.
    :param instead: what is wanted in place of an async function, for the message; ``None``: it may be one.
    :param yields: it may be a generator, or an async one.
    :raises TypeError: it isn't callable, takes other arguments, or is an async function or generator that can't be one,
        an object with such a ``__call__``, or a partial of these.
    """
    if not callable(function):
        raise TypeError(f"a {what} must be callable, not {type(function).__name__}")
    if instead is not None and is_async(function):
        raise TypeError(f"the {what} {function!r} is an async function; {instead}")
    if not yields and (is_generator(function) or is_async_generator(function)):
        kind = "a generator" if is_generator(function) else "an async generator"
        raise TypeError(f"the {what} {function!r} is {kind}; {instead or 'it has nothing to yield to'}")
    if not _takes(function, call.count(",") + 1):
        raise TypeError(f"the {what} {described(function)} can't be called as {call}: it must take so many arguments")


def described(function: Any) -> str:
    """Its name, its file and its line, as far as it has them."""
    while (inner := getattr(function, "func" if isinstance(function, partial) else "__wrapped__", None)) is not None:
        function = inner
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = _code(function) or _code(getattr(type(function), "__call__", None))  # noqa: B004  # see _called
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else str(name)


def settled(answer: Any) -> Any:
    """The answer of a function that decides who comes in.

    :raises TypeError: it is none, but something to be awaited.
    """
    if answer is None or isinstance(answer, bool) or not hasattr(type(answer), "__await__"):
        return answer
    if hasattr(answer, "cr_code"):
        answer.close()  # a coroutine: else Python warns of it as well
    raise TypeError(f"it returned a {type(answer).__name__}, which nobody awaits, and no answer")


def is_async(function: Any) -> bool:
    """Whether what it returns is to be awaited: an ``async def``, an object with such a ``__call__``, a partial of
    these, or what bears the mark of :func:`inspect.markcoroutinefunction` (Python 3.12).
    """
    return makes_coroutines(function) or any(hasattr(one, "_is_coroutine_mark") for one in _called(function))


def is_generator(function: Any) -> bool:
    """Whether it is a generator, an object with such a ``__call__``, or a partial of these."""
    return _has_flag(function, _CO_GENERATOR)


def is_async_generator(function: Any) -> bool:
    """The same of an async generator."""
    return _has_flag(function, _CO_ASYNC_GENERATOR)


def makes_coroutines(function: Any) -> bool:
    """Whether it returns a coroutine of Python's own."""
    return _has_flag(function, _CO_COROUTINE)


def _has_flag(function: Any, flag: int) -> bool:
    codes = map(_code, _called(function))
    return any(code is not None and code.co_flags & flag for code in codes)


def _called(function: Any) -> tuple[Any, Any]:
    """What runs when it is called: one of these."""
    while isinstance(function, partial):
        function = function.func
    return function, getattr(type(function), "__call__", None)  # noqa: B004  # not that of a class's objects


def _code(function: Any) -> Any:
    code = getattr(function, "__code__", None)
    return code if hasattr(code, "co_flags") else None


def _takes(function: Any, count: int) -> bool:
    """Whether it can be called with so many arguments, as far as can be known."""
    if isinstance(function, FunctionType):
        return _code_takes(function, count)
    if isinstance(function, MethodType) and isinstance(function.__func__, FunctionType):
        return _code_takes(function.__func__, count + 1)
    import inspect  # noqa: PLC0415  # a partial, a class, an object: the rules are many

    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except Exception:  # what is written in C often doesn't say
        return True
    return True


def _code_takes(function: FunctionType, count: int) -> bool:
    if hasattr(function, "__wrapped__") or hasattr(function, "__signature__"):
        return True  # a decorator's: what it passes on is its own affair
    code, defaults = function.__code__, function.__defaults__ or ()
    named = set(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
    if named - set(function.__kwdefaults__ or ()):
        return False
    least = code.co_argcount - len(defaults)
    return least <= count and (count <= code.co_argcount or bool(code.co_flags & _CO_VARARGS))
