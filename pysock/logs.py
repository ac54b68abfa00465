"""The loggers. They are silent until the program configures logging, as a library's should be.

What an operator may want to know goes to ``pysock.server``, what a client's user may want to know to ``pysock.client``;
the classical steps of the sockets are there at DEBUG.
"""

import logging
from time import monotonic
from typing import Any, Final

logging.getLogger("pysock").addHandler(logging.NullHandler())

server_log = logging.getLogger("pysock.server")
client_log = logging.getLogger("pysock.client")

_TELL_EVERY: Final = 1.0


class Seldom:
    """A log line of one kind that anybody who connects can cause: a storm of them must not become a storm of lines.

    The first is told at once, then one a second at most, with the number of those since the one before. What the
    engines count is told in the same way, see :mod:`pysock.causes`; this is for what happens in Python, in one thread.
    """

    def __init__(self, logger: logging.Logger, level: int, text: str) -> None:
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
        self._tell_at = now + _TELL_EVERY
        times, self._untold = self._untold, 0
        text = f"{self._text}; {times} times" if times > 1 else self._text
        self._logger.log(self._level, text, *about, exc_info=traceback, stacklevel=2)
