"""The line between a supervisor and one of its workers: messages in JSON, with descriptors where some go along.

This file owns the socket pair and the form of a message: one packet of a Unix socket of the kind SEQPACKET, so that a
message is whole, and its descriptors are those that came with it. Each says by ``say`` what it is.
"""

from __future__ import annotations

import array
import json
import os
import socket
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

#: The longest message, in bytes: less than what a socket of the kernel's usual size takes at once.
LONGEST: Final = 128 * 1024
#: The kernel passes no more at once: SCM_MAX_FD, 253.
MOST_DESCRIPTORS: Final = 253


def can_be() -> bool:
    """Whether this system has such sockets."""
    return hasattr(socket, "SOCK_SEQPACKET") and hasattr(socket, "AF_UNIX") and os.name == "posix"


class Line(Unique):
    """One end of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """The number of its descriptor."""
        return self._socket.fileno()

    def say(self, what: str, descriptors: Sequence[int] = (), **fields: Any) -> bool:
        """Send a message. ``False``: nobody is there any more, or whoever is doesn't read.

        :raises OSError: it is too long.
        """
        data = json.dumps({"say": what, **fields}).encode()
        try:
            if descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
                self._socket.sendmsg([data], [rights], socket.MSG_NOSIGNAL)
            else:
                self._socket.send(data, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return False
        return True

    def hear(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message, and the descriptors that came with it, which aren't inherited; ``None``: the other end is
        gone.

        :raises OSError: nothing can be received; not all descriptors could be, say, because there are too many.
        """
        room = socket.CMSG_LEN(MOST_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(LONGEST, room)
        except ConnectionResetError:
            return None
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        for fd in descriptors:
            os.set_inheritable(fd, False)
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            for fd in descriptors:
                os.close(fd)
            raise OSError("not all of a message came: this process has too few descriptors left (ulimit -n)")
        return (json.loads(data), list(descriptors)) if data else None

    def close(self) -> None:
        """Called again it does nothing."""
        with suppress(OSError):
            self._socket.close()


def pair() -> tuple[Line, socket.socket]:
    """The end of this process, which never waits, and that of another one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return Line(ours), theirs
