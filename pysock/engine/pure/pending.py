"""Requests that have no answer yet: how many of one client, and how many bytes; when it isn't read for them; and which
of them get an answer.

Who lets requests wait tells it by ``add``, and keeps each as ``Unanswered``; who has an answer asks ``done`` whether it
may be given. A connection that is ending isn't closed while one of its requests waits.

Where no id tells which request a reply is for, the order does: answers are given in the order of the requests, and
after one that stays without an answer none may come.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    from pysock.engine.pure.connection import Connection

    #: Connection, request id, wants a reply, payload. A plain tuple: it is cheap.
    Unanswered: TypeAlias = tuple[Connection, int, bool, bytes]

#: Bytes of the requests of one client that wait, at which it isn't read.
_BYTES_MAX: Final = 64 * 1024 * 1024


def add(connection: Connection, requests: int, size: int) -> None:
    """So many more of its requests wait, of so many bytes together."""
    connection.in_flight += requests
    connection.in_flight_bytes += size


def done(connection: Connection, size: int) -> bool:
    """One of this size waits no more; whether its answer may be given."""
    connection.in_flight -= 1
    connection.in_flight_bytes -= size
    connection.core.dirty[connection] = None  # to be read again, or closed
    return not connection.gave_up


def give_up(connection: Connection) -> None:
    """One stays without an answer, where only the order tells them apart."""
    connection.gave_up = True


def room(connection: Connection) -> int:
    """How many more may wait; if there is none it isn't read."""
    if connection.in_flight_bytes >= _BYTES_MAX:
        return 0
    return connection.core.limits.max_in_flight - connection.in_flight
