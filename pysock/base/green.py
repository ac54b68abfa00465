"""Green threads: where gevent or eventlet has patched the standard library, a thread that is started isn't one.

A loop in C never switches to the program's other green threads, so that whoever started it would wait for ever; the
pure one does, if waiting (``select``) is patched as well. This file owns the question, and asks only modules that the
program has imported itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any, Final

#: By module: how it is asked whether it has patched something; "thread" and "select" are the names of both.
_ASKED: Final[dict[str, Callable[[Any, str], bool]]] = {
    "gevent.monkey": lambda module, name: module.is_module_patched({"thread": "threading"}.get(name, name)),
    "eventlet.patcher": lambda module, name: module.is_monkey_patched(name),
}


def refuse_green_threads(backend: str) -> None:
    """Raise where a loop in a background thread would never give the program its turn.

    :raises PysockError: it would; the message says what works.
    """
    if would_block(backend):
        raise PysockError(
            "gevent or eventlet has patched threads, and start() would never return: leave threads as they are"
            " (monkey.patch_all(thread=False), eventlet.monkey_patch(thread=False)), or call serve_forever() in a"
            " process of its own, or (gevent only) patch select as well as threads and use backend='pure'"
        )
    if backend == "pure" and "eventlet.patcher" in sys.modules and (_patched("socket") or _patched("select")):
        raise PysockError(
            "eventlet has patched the modules socket or select, and the pure engine doesn't work with those:"
            " use the native engine, or eventlet.monkey_patch(thread=False, socket=False, select=False)"
        )


def would_block(backend: str) -> bool:
    """Whether a thread that waits would keep all others from running."""
    return _patched("thread") and (backend == "native" or not _patched("select"))


def refuse_green_pools() -> None:
    """Raise where the threads of a pool would never get their turn.

    :raises PysockError: they wouldn't.
    """
    if _patched("thread"):
        raise PysockError(
            "gevent or eventlet has patched threads, and workers (threads=, processes=) need real ones: leave threads"
            " as they are (monkey.patch_all(thread=False), eventlet.monkey_patch(thread=False)), or register the"
            " service without workers"
        )


def _patched(name: str) -> bool:
    return any(module in sys.modules and ask(sys.modules[module], name) for module, ask in _ASKED.items())
