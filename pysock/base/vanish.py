"""TCP peers that vanish: a cable is pulled, a machine loses power, and nothing ever tells the other end.

Without traffic TCP asks nothing and notices nothing; with unanswered traffic it tries on for a quarter of an hour (RFC
9293, 3.8.3 and 3.8.4). So the kernel is told to ask (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT) and when
to give up (TCP_USER_TIMEOUT; RFC 5482, tcp(7)). Linux gives accepted sockets what their listening socket has, so that
an accept() costs no call more; where the listening socket is somebody else's, they are set on each accepted one.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from pysock.base.borrowed import borrowed
from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    #: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT: seconds, but for the last, in milliseconds.
    Vanishing: TypeAlias = tuple[int, int, int, int]

#: Questions that stay unanswered until the connection is given up.
_PROBES: Final = 3
#: The most that the kernel takes, in seconds (MAX_TCP_KEEPIDLE).
_LONGEST: Final = 32767

#: By system, what they are called; macOS has another name for the first.
_NAMES: Final = (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), ("TCP_KEEPINTVL",), ("TCP_KEEPCNT",), ("TCP_USER_TIMEOUT",))


def vanishing(seconds: float | None, stall: float = 0.0) -> Vanishing | None:
    """What to tell the kernel; ``None``: nothing.

    :param stall: seconds for which a peer that lives may take nothing. TCP_USER_TIMEOUT doesn't tell it from one that
        has vanished, so it isn't less.
    """
    if seconds is None:
        return None
    idle = min(_LONGEST, max(1, int(seconds / 2)))
    interval = min(_LONGEST, max(1, int(seconds / 2 / _PROBES)))
    return idle, interval, _PROBES, min(2**31 - 1, max(1, int(1000 * max(seconds, stall))))


def notice_vanished(handle: socket.socket, wanted: Vanishing | None) -> None:
    """Close the connections of this TCP socket when the other end hasn't answered for so long.

    It asks first after half of the time; the kernel counts in whole seconds. Any other socket stays as it is, and where
    the system doesn't know an option it goes without.
    """
    if handle.family == socket.AF_UNIX or wanted is None:
        return
    _set(handle, socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
    for names, value in zip(_NAMES, wanted, strict=True):
        name = next((name for name in names if hasattr(socket, name)), "")
        _set(handle, socket.IPPROTO_TCP, name, value)


def prepare(fd: int, wanted: Vanishing | None) -> bool:
    """Set on a master socket what its data sockets are to inherit; return whether they do.

    Among it is TCP_NODELAY: a small reply mustn't wait for the acknowledgement of an earlier one (Nagle).
    """
    with borrowed(fd) as handle:
        if handle.family != socket.AF_UNIX:
            _set(handle, socket.IPPROTO_TCP, "TCP_NODELAY", 1)
            notice_vanished(handle, wanted)
    return sys.platform == "linux"  # POSIX doesn't say that an accepted socket has the options of its master


def _set(handle: socket.socket, level: int, name: str, value: int) -> None:
    number = getattr(socket, name, None)
    with suppress(OSError):  # macOS: EINVAL where the peer is gone already
        if number is not None:
            handle.setsockopt(level, number, value)
