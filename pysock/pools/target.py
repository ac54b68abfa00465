"""By which name a worker process can import a handler."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError, PysockError

if TYPE_CHECKING:
    from typing import Any


def target_of(handler: Callable[..., Any]) -> str:
    """``MODULE:NAME``, by which another process can import it.

    :raises ValueError: it can't be imported.
    """
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        why = "it isn't a function of a module"
    elif "<" in name:
        why = "it is a lambda, or made inside another function"
    elif module == "__main__":
        why = "it is in the program's main module, which is no module there"
    else:
        return f"{module}:{name}"
    problem = f": worker processes import the handler, and can't import {handler!r}: {why}"
    raise ParameterError("processes", f"{problem}; make it a plain function of a module of its own", name="processes=")


def check_target(target: str, handler: Callable[..., Any]) -> None:
    """Look whether that is still the name of the handler, now that its module is there as a whole.

    :raises PysockError: it isn't.
    """
    module, _, name = target.partition(":")
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if found is not handler:
        raise PysockError(
            f"worker processes would import {target}, and that isn't the handler {handler!r}, but {found!r}: give the"
            " handler a name of its own in its module"
        )
