"""SIGUSR1: the files that a program's loggers write are opened anew, for something has moved them away (logrotate).

This file owns how, of the handlers that module logging has for files. pysock itself has none: what it says goes to
standard error, which is whoever's has started it.
"""

from __future__ import annotations

import logging
from typing import TextIO

from pysock.base.logs import server_log as log


def reopen() -> list[str]:
    """-> which files were. One that can't be opened is written on as before, and told of."""
    handlers = {id(handler): handler for logger in _loggers() for handler in logger.handlers}
    found = [handler for handler in handlers.values() if isinstance(handler, logging.FileHandler)]
    names = [handler.baseFilename for handler in found if _reopen(handler)]
    if names:
        log.info("opened anew: %s", ", ".join(names))
    return names


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]


def _reopen(handler: logging.FileHandler) -> bool:
    before: TextIO | None = handler.stream
    if before is None:  # it opens it when it first writes
        return False
    try:
        # Not by its own mode: that may be one that empties the file.
        new = open(handler.baseFilename, "a", encoding=handler.encoding, errors=getattr(handler, "errors", None))  # noqa: SIM115
    except OSError as error:
        log.error("a log file can't be opened anew, the old one is written on: %s", error)
        return False
    handler.acquire()
    try:
        handler.setStream(new)
    finally:
        handler.release()
    before.close()
    return True
