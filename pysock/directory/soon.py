"""What any thread hands to the loop of a server: a function, which is called there when its turn comes.

The engine keeps the order: functions and pushes of other threads wait in one list. This file owns what is around the
function: a context of its own, and a log record of what it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from pysock.base.functions import is_async, settled
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.contract import Engine


def call_soon(
    engine: Engine | None,
    timed: Callable[..., Callable[..., object]],
    function: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    """As :meth:`pysock.Server.call_soon`.

    :param engine: ``None``: the server has none yet.
    :param timed: as :meth:`pysock.failures.HeldUp.timed`.
    """
    if not callable(function) or is_async(function):
        what = "an async one" if callable(function) else f"a {type(function).__name__}"
        raise TypeError(f"call_soon() takes a plain function, and this is {what}: {function!r}")
    context = copy_context()
    call = timed("a function that call_soon() was given", partial(context.run, _call, function, args))
    if engine is None or not engine.call_later(call):
        raise PysockError(f"this server doesn't run, so that nothing calls {function!r}")


def _call(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        result = function(*args)
        settled(result)
    except Exception:
        log.exception("%r failed, which call_soon() was given; it was called with %r", function, args)
