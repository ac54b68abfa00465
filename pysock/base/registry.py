"""The servers that run in this process.

Somebody who runs a cell of a notebook again, or whose test failed half-way, has lost the name of a server that goes on:
here it can be found, and stopped. And who finds an address taken is told where the server is one of these.
"""

from __future__ import annotations

import os

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import Address
    from pysock.server import Server

#: Where the error is that a server of this process is in the way of another one.
HINT: Final = "pysock.servers() lists those of this process"

# Those whose loop runs or is about to, oldest first, with their process. Whoever runs one keeps it until its end.
# Single operations on a dict are atomic: any thread may look.
_running: dict[int, tuple[int, Server]] = {}


def servers() -> list[Server]:
    """Return the servers that were started in this process and aren't closed yet, oldest first.

    ``for server in pysock.servers(): server.stop()`` ends them all. In a forked child there are none of the parent's.
    """
    here = os.getpid()
    return [server for process, server in list(_running.values()) if process == here]


def are_any() -> bool:
    """Whether :func:`servers` may be worth asking."""
    return bool(_running)


def add(server: Server) -> None:
    """It is about to serve."""
    _running[id(server)] = os.getpid(), server


def discard(server: Server) -> None:
    """It has ended, or is another process's."""
    _running.pop(id(server), None)


def listens_at(address: Address) -> bool:
    """Whether one of them is in the way of this address."""
    return any(_collides(other, address) for server in servers() for other in server.addresses)


def _collides(one: Address, other: Address) -> bool:
    if one.port or other.port:
        return one.port == other.port
    return one.transport == other.transport and one.path == other.path
