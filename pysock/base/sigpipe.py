"""Sending to who is gone fails with EPIPE, and never with the signal SIGPIPE, whatever the program does with that.

Python ignores it, but a program may have given it its default back, and would be killed.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: For each send(2), where the system has such a flag; macOS has :func:`no_sigpipe` instead.
NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)

_SO_NOSIGPIPE: Final = 0x1022


def no_sigpipe(sock: socket.socket) -> None:
    """Set it for all that will be sent on this socket, on macOS."""
    if sys.platform == "darwin":
        with suppress(OSError):  # EINVAL where the peer is gone already: what it said before can still be read
            sock.setsockopt(socket.SOL_SOCKET, _SO_NOSIGPIPE, 1)
