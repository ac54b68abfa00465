"""A socket object for a moment, on a descriptor that isn't its own.

This file owns two promises: the descriptor stays open, and stays as it was. Where the program has called
``socket.setdefaulttimeout()``, Python would make it non-blocking, and with it whatever shares its open file: an
inherited socket of another process's.
"""

from __future__ import annotations

import _socket
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """The socket of a descriptor, whose family and type Python finds out about.

    :raises OSError: it isn't one.
    """
    blocks = os.get_blocking(fd)
    handle = _socket.socket(fileno=fd)  # not what may have taken the place of socket.socket (gevent, eventlet)
    try:
        if os.get_blocking(fd) != blocks:
            os.set_blocking(fd, blocks)
        yield handle  # type: ignore[misc]  # it has all but the methods that make other sockets
    finally:
        handle.detach()
