"""Calls of a server's own loop to itself: nobody could answer them, so they are an error at once, not a timeout.

This file owns the question whether a connection leads to a server of this process, and whose thread this is.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import weakref

from pysock.base.borrowed import borrowed
from pysock.base.lean import TYPE_CHECKING
from pysock.base.registry import servers
from pysock.errors import PysockError
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.master import MasterSocket
    from pysock.server import Server

#: What a socket that listens on every interface has for a host.
_EVERYWHERE: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104  # compared, not bound


def server_behind(handle: socket.socket) -> weakref.ref[Server] | None:
    """The server of this process that a connected socket leads to, if there is one; no client keeps it alive."""
    for server in servers():
        if any(_leads_to_master(handle, master) for master in server._running.listening.masters):
            return weakref.ref(server)
    return None


def refuse_own_loop(beside: weakref.ref[Server]) -> None:
    """Raise where this thread runs the server's loop.

    :raises PysockError: it does.
    """
    server = beside()
    if server is None:
        return
    if server._running.owner == threading.get_ident() and server.state is not ServerState.CLOSED:
        raise PysockError(
            f"this thread runs the loop of {server!r}, which would have to answer: it would wait for itself. Call the"
            " function itself, or connect in another thread"
        )


def _leads_to_master(handle: socket.socket, master: MasterSocket) -> bool:
    try:
        with borrowed(master.fd) as listener:
            return _leads_to(handle, listener, inherited=master.inherited)
    except OSError:  # either has just been closed
        return False


def _leads_to(handle: socket.socket, listener: socket.socket, *, inherited: bool) -> bool:
    if (handle.family == socket.AF_UNIX) != (listener.family == socket.AF_UNIX):
        return False
    if handle.family == socket.AF_UNIX:
        # Another process's server may have the same relative path, in another directory.
        peer_name, own_name = os.fsencode(handle.getpeername()), os.fsencode(listener.getsockname())
        return peer_name == own_name != b"" and (inherited or _listened_here(handle))
    peer: tuple[str, int] = handle.getpeername()[:2]
    here: tuple[str, int] = listener.getsockname()[:2]
    if peer == here:
        return True
    # On this machine both ends have the same address, but for the loopback's many.
    is_local = handle.getsockname()[0] == peer[0] or peer[0].startswith("127.")
    return is_local and peer[1] == here[1] and here[0] in _EVERYWHERE


def _listened_here(handle: socket.socket) -> bool:
    """Whether this process called ``listen()``, as far as the system tells (SO_PEERCRED, man unix(7))."""
    option: Any = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    (process,) = struct.unpack("i", handle.getsockopt(socket.SOL_SOCKET, option, 12)[:4])
    return bool(process == os.getpid())
