"""``pysock serve --access-log``: the option, and where the lines go: to standard error, whatever becomes of that."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

import pysock
from pysock.accesslog.wanted import checked_wanted
from pysock.errors import ParameterError


def _check(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """It stays text."""
    try:
        if value is not None:
            checked_wanted(value)
    except ParameterError as error:
        raise click.BadParameter(f"it {error.problem}") from None
    return value


access_log_option: Callable[[Any], Any] = click.option(
    "--access-log",
    metavar="WHAT",
    callback=_check,
    show_envvar=True,
    help="Tell of each connection that has ended (connections), of requests, or of each Nth of them (requests:1/N).",
)


def log_access(server: pysock.Server, what: str | None) -> None:
    """Have it told on standard error, if it is to be, however much else is."""
    if what is None:
        return
    server.log_access(what)
    logger = logging.getLogger("pysock.access")
    logger.setLevel(logging.INFO)
    if logger.handlers or sys.stderr is None:  # the program has its own, or there is nowhere to write to
        return
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    handler = Steadfast(sys.stderr)
    handler.setFormatter(formatters[0] if formatters else None)
    logger.addHandler(handler)
    logger.propagate = False


class Steadfast(logging.Handler):
    """Writes lines where they may be lost: a full disk, a pipe that nobody reads. When it can again, it says how many
    were. It has a lock of its own, so that only lines of the access log wait for it.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it as lost."""
        try:
            lines = [self.format(record)]
            if self._lost:
                lines.insert(0, self.format(_told(record, self._lost)))
            self._write("".join(f"{line}\n" for line in lines))
            self._lost = 0
        except (OSError, ValueError):  # ValueError: it is closed
            self._lost += 1

    def _write(self, text: str) -> None:
        """All at once, not by the stream: what that couldn't write it would keep, and write later."""
        fd = self._stream.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not any(events & select.POLLOUT for _, events in poll.poll(0)):
            raise BlockingIOError
        data = text.encode(errors="backslashreplace")
        if os.write(fd, data) < len(data):  # a disk that is full by now
            os.write(fd, b"\n")


def _told(record: logging.LogRecord, lost: int) -> logging.LogRecord:
    made: Any = logging.makeLogRecord(record.__dict__)
    made.levelno, made.levelname = logging.WARNING, "WARNING"
    made.msg, made.args = "lost lines=%d", (lost,)
    return made  # type: ignore[no-any-return]
