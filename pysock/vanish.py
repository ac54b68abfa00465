"""TCP peers that vanish: a cable is pulled, a machine loses power, and nothing ever tells the other end.

Without traffic TCP asks nothing and notices nothing; with unanswered traffic it tries on for a quarter of an hour (RFC
9293, 3.8.3 and 3.8.4). So the kernel is told to ask (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT) and when
to give up (TCP_USER_TIMEOUT; RFC 5482, tcp(7)). Linux gives accepted sockets what their listening socket has, so that
an accept() costs no call more.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from pysock._lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: Questions that stay unanswered until the connection is given up.
_PROBES: Final = 3
#: The most that the kernel takes, in seconds (MAX_TCP_KEEPIDLE).
_LONGEST: Final = 32767


def notice_vanished(handle: socket.socket, seconds: float | None) -> None:
    """Close the connections of this TCP socket when the other end hasn't answered for so long; ``None``: never.

    It asks first after half of the time; the kernel counts in whole seconds. Any other socket stays as it is, and where
    the system doesn't know an option it goes without.
    """
    if handle.family == socket.AF_UNIX or seconds is None:
        return
    idle = min(_LONGEST, max(1, int(seconds / 2)))
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", idle),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", min(_LONGEST, max(1, int(seconds / 2 / _PROBES)))),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", min(2**31 - 1, max(1, int(seconds * 1000)))),
    ]
    for level, name, value in options:
        number = getattr(socket, name, None)
        with suppress(OSError):
            if number is not None:
                handle.setsockopt(level, number, value)
