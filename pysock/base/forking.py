"""fork() while servers and clients are in use: what a child may keep of them, which is nothing.

A child has copies of all descriptors. As long as one of them is open, the peer of a connection that the parent closes
sees no end of file, an address stays taken, and epoll reports to both (epoll(7)). So in the child every descriptor of
every owner is closed: not shut down, not taken out of an epoll, no file is unlinked, for all that would act on what the
parent goes on using. Whoever uses such an object in the child gets a :class:`PysockError` that says whose it is.

Python calls the functions below around ``os.fork()``, also in :mod:`multiprocessing` and, where there is a
``preexec_fn``, in :mod:`subprocess`. It doesn't where C code calls ``fork()`` by itself. What is started by ``exec``
inherits nothing: all descriptors are closed then.

Nothing in the child waits for a lock: who holds it may be a thread that a child doesn't have.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

#: Held while a descriptor is open and written down nowhere, or closed and written down still; a fork waits for it. Only
#: for calls that don't block. Re-entrant, because a signal's handler may fork.
guard: Final = threading.RLock()


class Owner(Protocol):
    """Something that owns descriptors."""

    def abandon(self, why: str) -> None:
        """In a forked child: close the descriptors, no more. ``why`` continues a sentence: "this server ..."."""


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
#: During a fork: the process that forks.
_parent = 0


def own(owner: Owner) -> None:
    """Abandon it in every forked child, as long as it lives."""
    with guard:
        _owners.add(owner)


def own_socket(sock: socket.socket) -> None:
    """Close it in every forked child, as long as it lives and isn't detached."""
    with guard:
        _sockets.add(sock)


class Elsewhere:
    """In a child, what is in the place of an engine: whatever it is asked for, it raises."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> NoReturn:
        raise PysockError(self._text)


def close_quietly(fd: int) -> None:
    """Close a descriptor in a child."""
    with suppress(OSError):
        os.close(fd)


def _before() -> None:
    global _parent  # noqa: PLW0603  # of one fork at a time: the guard is held
    guard.acquire()
    _parent = os.getpid()


def _in_parent() -> None:
    guard.release()


def _in_child() -> None:
    owners: list[Any] = list(_owners)
    sockets = list(_sockets)
    _owners.clear()
    _sockets.clear()
    why = f"belongs to process {_parent}, of which this one is a forked child: make a new one here"
    for owner in owners:
        owner.abandon(why)
    for sock in sockets:
        sock.close()
    guard.release()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
