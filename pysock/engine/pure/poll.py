"""Waiting: which descriptors are ready.

``selectors`` runs a loop of Python for every event it reports, and that is a fifth of a small message's cost. So epoll
is used directly where there is one; everywhere else ``selectors`` is right. Both are level-triggered: what isn't dealt
with is told again. An interest of 0 takes the descriptor out altogether, because epoll would go on telling EPOLLHUP.
"""

from __future__ import annotations

import errno
import select
import selectors
import socket

from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

#: The bits of an interest and of an event; they are epoll's. An event may have others (EPOLLHUP, EPOLLERR).
READ: Final = 0x001
WRITE: Final = 0x004
#: Of an interest: others wait for it, too, and one is enough. It can't be changed, only taken out (epoll_ctl(2)).
SHARED: Final = getattr(select, "EPOLLEXCLUSIVE", 0)

#: So much may be told of at once, no more (select.epoll.poll()): FD_SETSIZE - 1.
TOLD_MAX: Final = 1023
#: Below this, milliseconds are too coarse to wait for a batch.
_FINE: Final = 0.002
#: select() can't take descriptors from here on: FD_SETSIZE.
_SELECT_MAX: Final = 1024


class Poller(Protocol):
    """A mechanism to wait with."""

    #: What another mechanism can watch: readable while something is ready. -1: there is none.
    fd: int

    def change(self, fd: int, old: int, new: int) -> None:
        """Wait for ``new`` on this descriptor, for which ``old`` was waited."""

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready, as ``(fd, bits)``; at most ``timeout`` seconds, 0 doesn't sleep, ``None`` is for ever."""

    def is_ours(self) -> bool:
        """Whether its number is still its own: the program may have closed it."""

    def close(self) -> None:
        """Free the mechanism."""


class NoPoller(Unique):
    """In the place of one whose descriptor the program has closed."""

    fd = -1

    def __init__(self, lost: Poller) -> None:
        _lost.append(lost)

    def change(self, fd: int, old: int, new: int) -> None:
        """Nothing."""

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Nothing, at once."""
        return []

    def is_ours(self) -> bool:
        """There is no number to lose."""
        return True

    def close(self) -> None:
        """Nothing."""


#: Kept for ever: an epoll object closes its number when it goes, and that may be somebody else's.
_lost: list[Poller] = []


class EpollPoller(Unique):
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self.fd: int = self._epoll.fileno()
        self._open_file = file_of(self.fd)

    def change(self, fd: int, old: int, new: int) -> None:
        """Wait for ``new`` on this descriptor, for which ``old`` was waited."""
        if not old:
            self._epoll.register(fd, new)
        elif not new:
            self._epoll.unregister(fd)
        else:
            self._epoll.modify(fd, new)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready, as ``(fd, bits)``; at most ``timeout`` seconds, 0 doesn't sleep, ``None`` is for ever."""
        if timeout and timeout < _FINE and self.fd < _SELECT_MAX:
            # epoll_wait() counts milliseconds; but an epoll descriptor can itself be waited for (epoll(7), Q3).
            select.select([self.fd], [], [], timeout)
            timeout = 0
        return self._poll(timeout)

    def is_ours(self) -> bool:
        """All that have no inode of their own are alike: what is one of these can't be told from it."""
        return self.fd < 0 or is_still(self.fd, self._open_file)

    def close(self) -> None:
        """Free the mechanism."""
        self.fd = -1
        self._epoll.close()


class SelectorPoller(Unique):
    """Everywhere else: what ``selectors`` thinks is best, kqueue on macOS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        fileno = getattr(self._selector, "fileno", None)  # select() and poll() have none
        self.fd: int = fileno() if fileno else -1

    def change(self, fd: int, old: int, new: int) -> None:
        """Wait for ``new`` on this descriptor, for which ``old`` was waited."""
        events = (selectors.EVENT_READ if new & READ else 0) | (selectors.EVENT_WRITE if new & WRITE else 0)
        if not old:
            self._selector.register(fd, events)
        elif not new:
            self._selector.unregister(fd)
        else:
            self._selector.modify(fd, events)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready, as ``(fd, bits)``; at most ``timeout`` seconds, 0 doesn't sleep, ``None`` is for ever."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        return [
            (key.fd, (READ if events & read else 0) | (WRITE if events & write else 0))
            for key, events in self._selector.select(timeout)
        ]

    def is_ours(self) -> bool:
        """Not known."""
        return True

    def close(self) -> None:
        """Free the mechanism."""
        self._selector.close()


def is_foreign(poller: Poller, sock: socket.socket, said: OSError) -> bool:
    """Whether the number of a socket that was in the poll is somebody else's, for the poll has said that it doesn't
    know it, or can't. Only a socket could be ours, and only one that is there already.
    """
    if said.errno not in {errno.ENOENT, errno.EPERM}:
        return False
    try:
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        poller.change(sock.fileno(), 0, WRITE)
    except OSError as error:
        return error.errno == errno.ENOTSOCK
    poller.change(sock.fileno(), WRITE, 0)
    return True


def new_poller() -> Poller:
    """The best mechanism of this system."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
