"""``log``: how much a logger of the program tells, for a time or until it is changed again.

This file owns the levels that it has changed, and when they are to be as they were.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from pysock.admin.asked import Asked
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any, Final

#: By their names, which are those of ``pysock serve --log-level``, and one more.
LEVELS: Final = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
#: A day: longer than that nobody means "for a while".
LONGEST: Final = 86_400.0
#: Of a name in an error's text.
_LONGEST_NAME: Final = 100
#: The root, under both names.
_ROOT: Final = frozenset(("", "root"))


class LogLevels:
    """The levels of this process's loggers, as far as the admin socket has set them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Of the logger: what its level was, and what gives it back.
        self._lent: dict[str, tuple[int, threading.Timer]] = {}

    def set(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change one.

        :param fields: ``level``; ``logger``, by default the root of all; ``for``: seconds, without which it stays.
        """
        asked = Asked("log", fields, ("level", "logger", "for"))
        level = asked.text("level")
        if level not in LEVELS:
            raise ParameterError("level", f"must be one of {', '.join(LEVELS)}, not {level!r}", name="'level'")
        name = asked.text("logger", "") or ""
        if name not in logging.root.manager.loggerDict and name not in _ROOT:
            problem = f"must be the name of one that there is, not {name[:_LONGEST_NAME]!r}"
            raise ParameterError("logger", problem, name="'logger'")
        name = "" if name in _ROOT else name
        seconds = asked.number("for", 0.001, LONGEST)
        with self._lock:
            was = self._set(name, LEVELS[level], seconds)
        until = "until it is changed again" if seconds is None else f"for {seconds:g} seconds"
        server_log.info("the logger %r tells from level %s on, %s", name or "root", level, until)
        return {"logger": name or "root", "level": level, "was": _level_name(was), "for": seconds}

    def give_back(self) -> None:
        """All that was lent, for the admin socket goes."""
        with self._lock:
            lent, self._lent = self._lent, {}
        for name, (level, timer) in lent.items():
            timer.cancel()
            logging.getLogger(name or None).setLevel(level)

    def _set(self, name: str, level: int, seconds: float | None) -> int:
        logger = logging.getLogger(name or None)
        was = logger.level
        before = self._lent.pop(name, None)
        if before is not None:
            before[1].cancel()
        logger.setLevel(level)
        if seconds is not None:
            timer = threading.Timer(seconds, self._over, (name,))
            timer.daemon, timer.name = True, "pysock-admin-log"
            self._lent[name] = (was if before is None else before[0]), timer
            timer.start()
        return was

    def _over(self, name: str) -> None:
        with self._lock:
            lent = self._lent.get(name)
            if lent is None or lent[1] is not threading.current_thread():
                return  # it was changed meanwhile
            del self._lent[name]
            logging.getLogger(name or None).setLevel(lent[0])
        server_log.info("the logger %r tells from level %s on again", name or "root", _level_name(lent[0]))


def _level_name(level: int) -> str:
    return str(logging.getLevelName(level)).lower()
