"""The loggers. What they are told never raises: logging is the host program's, and what its filters, handlers or
formatters do wrong must not cost a client its connection, nor a server its end.

What an operator may want to know goes to ``pysock.server``, what a client's user may want to know to ``pysock.client``;
the classical steps of the sockets are there at DEBUG. Where the program configures no logging, Python's writes warnings
and errors to standard error (``logging.lastResort``).
"""

from __future__ import annotations

from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from typing import Any, Final

#: The levels of the module logging, which takes longer to import than all of a client.
DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
CRITICAL: Final = 50

#: Seconds between two log lines of one kind.
TELL_EVERY: Final = 1.0


class Log:
    """A logger whose methods raise no ``Exception``: what logging raises is told to ``sys.unraisablehook``.

    The module :mod:`logging` is imported by :meth:`prepare`: when a server is made, not when it first has
    something to say. By then the program may have given up the rights, or the root directory, that an import needs.
    What isn't an ``Exception``, as ``KeyboardInterrupt``, comes out: so a step that must not be left out doesn't follow
    a log line without a ``finally``.
    """

    __slots__ = ("_logger", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: logging.Logger | None = None

    def prepare(self) -> None:
        """Import what the first line would."""
        self._taken()

    def _taken(self) -> logging.Logger:
        if self._logger is None:
            import logging  # noqa: PLC0415  # see above

            self._logger = logging.getLogger(self._name)
        return self._logger

    def debug(self, text: str, *about: Any) -> None:
        """One of the classical steps, or what a handler does on purpose."""
        self._tell(DEBUG, text, about)

    def info(self, text: str, *about: Any) -> None:
        """What is as it should be."""
        self._tell(INFO, text, about)

    def warning(self, text: str, *about: Any) -> None:
        """Something may be wrong outside."""
        self._tell(WARNING, text, about)

    def error(self, text: str, *about: Any, exc_info: Any = None) -> None:
        """Something of this program's failed."""
        self._tell(ERROR, text, about, exc_info)

    def exception(self, text: str, *about: Any) -> None:
        """The same, with the exception that is being handled."""
        self._tell(ERROR, text, about, True)

    def critical(self, text: str, *about: Any, exc_info: Any = None) -> None:
        """A server ended of it."""
        self._tell(CRITICAL, text, about, exc_info)

    def log(self, level: int, text: str, *about: Any, exc_info: Any = None, stacklevel: int = 1) -> None:
        """At any level."""
        self._tell(level, text, about, exc_info, stacklevel)

    def _tell(self, level: int, text: str, about: tuple[Any, ...], exc_info: Any = None, stacklevel: int = 1) -> None:
        try:
            self._taken().log(level, text, *about, exc_info=exc_info, stacklevel=stacklevel + 2)
        except Exception as error:
            tell_unraisable(error)


class ExceptionThatCouldNotBeLogged:
    """What an object raises as it is deleted is told to ``sys.unraisablehook``, and Python offers no plainer way: the
    hook takes arguments of a type that only the interpreter can make. It shows this class's name.
    """

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __del__(self) -> None:
        raise self._error


def tell_unraisable(error: Exception) -> None:
    """Tell ``sys.unraisablehook`` of an exception that nobody can be told of otherwise. It never raises an
    ``Exception``.
    """
    with suppress(Exception):  # no memory for it, or no room on the stack
        ExceptionThatCouldNotBeLogged(error)


server_log: Final = Log("pysock.server")
client_log: Final = Log("pysock.client")


class Seldom:
    """A log line of one kind that anybody who connects can cause: a storm of them must not become a storm of lines.

    The first is told at once, then one a second at most, with the number of those since the one before. What the
    engines count is told in the same way, see :mod:`pysock.causes`; this is for what happens in Python, in one
    thread.
    """

    def __init__(self, logger: Log, level: int, text: str) -> None:
        self._logger = logger
        self._level = level
        self._text = text
        self._tell_at = 0.0
        self._untold = 0

    def tell(self, *about: Any, traceback: bool = False) -> None:
        """Log the text with these arguments, if it is time to.

        :param traceback: add the exception that is being handled.
        """
        self._untold += 1
        now = monotonic()
        if now < self._tell_at:
            return
        self._tell_at = now + TELL_EVERY
        times, self._untold = self._untold, 0
        text = f"{self._text}; {times} times" if times > 1 else self._text
        self._logger.log(self._level, text, *about, exc_info=traceback, stacklevel=2)
