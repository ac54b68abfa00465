"""Threads that die with the interpreter: some sub-interpreters allow none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pysock.errors import PysockError


@contextmanager
def explained_without_daemons() -> Iterator[None]:
    """Around the making and the start of a thread: since Python 3.12 the one is refused, before it was the other."""
    try:
        yield
    except RuntimeError as error:
        if "subinterpreter" not in str(error) and "(sub)interpreter" not in str(error):
            raise  # the system has no more threads, say
        raise PysockError(
            "start() needs a daemon thread, and this sub-interpreter allows none: call serve_forever() of a new Server"
            " here, or start it in the main interpreter"
        ) from error


def daemon(target: Callable[[], object], name: str) -> threading.Thread:
    """Such a thread, not started yet.

    :raises PysockError: there can be none.
    """
    with explained_without_daemons():
        return threading.Thread(target=target, name=name, daemon=True)
