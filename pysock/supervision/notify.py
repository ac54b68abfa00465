"""Words to the service manager: sd_notify(3), without its library.

This file owns the datagrams to ``$NOTIFY_SOCKET``, and what becomes of one that can't be sent. They never wait: a
manager that isn't there, or doesn't read, costs a server nothing but a line in the log at level DEBUG. What was to be
said for good is said again with the next one.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

log: Final = logging.getLogger(__name__)

#: What is true until something else is said: kept for the next datagram if one is lost.
_LASTING: Final = frozenset(("READY", "STATUS", "STOPPING"))
_MILLION: Final = 1_000_000


class Notifier(Unique):
    """Where this process's service manager listens.

    :param where: the value of ``$NOTIFY_SOCKET``: a path, or ``@`` and an abstract name.
    :param watchdog: seconds within which it wants to hear that the service works; ``None``: it doesn't.
    """

    def __init__(self, where: str, watchdog: float | None = None) -> None:
        self.watchdog: float | None = watchdog
        self.where: str = where
        self._where = "\0" + where[1:] if where.startswith("@") else where
        self._unsaid: dict[str, str] = {}
        self._failed = ""
        self._socket: socket.socket | None = None
        # Re-entrant, because a signal's handler may have something to say.
        self._lock = threading.RLock()

    def say(self, **words: str | int) -> bool:
        """Send these assignments in one datagram, as ``READY=1``. Whether it was sent."""
        with self._lock:
            return self._say({key: str(value).replace("\n", " ") for key, value in words.items()})

    def _say(self, words: dict[str, str]) -> bool:
        lines = self._unsaid | words
        if not lines:
            return True
        try:
            self._send("\n".join(f"{key}={value}" for key, value in lines.items()))
        except OSError as error:
            self._unsaid = {key: value for key, value in lines.items() if key in _LASTING}
            self._tell(os.strerror(error.errno) if error.errno else str(error))
            return False
        self._unsaid, self._failed = {}, ""
        return True

    def say_again(self) -> bool:
        """What is true and couldn't be sent yet."""
        return self.say()

    # The words: man sd_notify

    def ready(self, status: str) -> None:
        """It has started; or what it was told to load again, is loaded, or couldn't be."""
        self.say(READY=1, STATUS=status)

    def reloading(self) -> None:
        """It loads something again. With the time, which ``Type=notify-reload`` waits for."""
        self.say(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def stopping(self, status: str) -> None:
        """It begins to end."""
        self.say(STOPPING=1, STATUS=status)

    def extend(self, seconds: float) -> None:
        """It starts, or ends, for so long still, whatever its unit says of timeouts."""
        self.say(EXTEND_TIMEOUT_USEC=int(seconds * _MILLION))

    def alive(self) -> None:
        """It works."""
        self.say(WATCHDOG=1)

    def environ(self) -> dict[str, str]:
        """The variables by which this process was told of it."""
        found = {"NOTIFY_SOCKET": self.where}
        if self.watchdog is not None:
            found |= {"WATCHDOG_USEC": str(int(self.watchdog * _MILLION)), "WATCHDOG_PID": str(os.getpid())}
        return found

    def close(self) -> None:
        """Called again it does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # By name each time: who listens there may have been replaced.
        flags = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
        self._socket.sendto(text.encode("utf-8", "replace"), flags, self._where)

    def _tell(self, why: str) -> None:
        """Once for each cause in a row."""
        if why != self._failed:
            self._failed = why
            log.debug("the service manager isn't told anything (NOTIFY_SOCKET=%r): %s", self._where, why)


def notifier() -> Notifier | None:
    """That of this process, if it has a service manager that wants to be told.

    The variables are taken out of the environment: processes that it starts are none of the manager's business.
    """
    where = os.environ.pop("NOTIFY_SOCKET", "")
    usec = os.environ.pop("WATCHDOG_USEC", "")
    pid = os.environ.pop("WATCHDOG_PID", "")
    if not where:
        return None
    if where[0] not in "/@" or len(where) < 2:
        log.debug("NOTIFY_SOCKET=%r is neither a path nor an abstract name: nobody is told anything", where)
        return None
    wanted = usec.isascii() and usec.isdigit() and int(usec) > 0 and pid in {"", str(os.getpid())}
    return Notifier(where, int(usec) / _MILLION if wanted else None)
