"""The two state machines, as tables.

This file owns every transition; nothing else in Python changes a state. ``csrc/base/state.c`` holds the same two tables
with the same numbers, and a test compares them cell by cell.

Three rules:

1. A pair (state, event) that is not in a table is illegal: it raises, and the state stays as it was.
2. CLOSED can be reached from everywhere and left from nowhere.
3. The connection initiation request (CIR) and the service request message (SRM) are two events. The first belongs to
   the master's side of the server and makes a row of the client table; the second is only legal once that row exists.

The server's machine is also the one a :class:`pysock.MasterSocket` walks through by hand::

    NEW -> CREATED -> BOUND -> LISTENING -> SERVING -> DRAINING -> CLOSED

and this is the one of each connection::

    ACCEPTED -> (CHALLENGED ->) ESTABLISHED -> DRAINING -> CLOSED

With a framing other than ``pysock`` there is no CIR frame: the kernel's connect is the request, so the event
``CIR_ACCEPTED`` comes together with the accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Final


class ServerState(IntEnum):
    """The life of a server, or of a master socket used by hand."""

    NEW = 1
    CREATED = 2
    BOUND = 3
    LISTENING = 4
    SERVING = 5
    DRAINING = 6
    CLOSED = 7


class ServerEvent(IntEnum):
    """What can happen to a server."""

    CREATE = 0  # socket()
    BIND = 1  # bind()
    LISTEN = 2  # listen()
    ADOPT = 3  # a listening socket was inherited (fd://N)
    SERVE = 4  # the loop runs
    DRAIN = 5  # no new connections or requests
    CLOSE = 6  # the master sockets are closed


class ConnectionState(IntEnum):
    """The life of one client's data socket."""

    ACCEPTED = 1
    CHALLENGED = 2
    ESTABLISHED = 3
    DRAINING = 4
    CLOSED = 5


class ConnectionEvent(IntEnum):
    """What can happen to a connection."""

    CIR_ACCEPTED = 0  # the connection initiation request was good: let in
    CIR_CHALLENGED = 1  # an auth key is set: the proof is awaited
    CIR_REFUSED = 2  # not let in; the refusal is flushed, then the socket is closed
    PROOF_ACCEPTED = 3
    PROOF_REFUSED = 4
    SRM = 5  # a service request message
    PING = 6
    BYE = 7  # the client leaves in order
    END_OF_FILE = 8  # the client sends nothing more; what was accepted is still answered
    VIOLATION = 9  # the error is flushed, then the socket is closed
    DRAIN = 10  # the server, or a handler, closes this connection in order
    FLUSHED = 11  # a draining connection has nothing left to send
    LOST = 12  # reset, deadline passed, over a hard limit: closed at once


class DisconnectReason(str, Enum):
    """Why a client is gone; what ``on_disconnect`` is told. Each is equal to its text, e.g. ``"left"``."""

    LEFT = "left"
    CLOSED_BY_PEER = "closed by peer"
    CLOSED_BY_SERVER = "closed by server"
    TIMED_OUT = "timed out"
    PROTOCOL_VIOLATION = "protocol violation"
    OVER_A_LIMIT = "over a limit"
    SERVER_STOPPING = "server stopping"

    def __str__(self) -> str:
        return self.value


#: The engines speak of reasons as numbers: the index in this tuple (``enum ps_reason`` in C).
DISCONNECT_REASONS: Final[tuple[DisconnectReason, ...]] = tuple(DisconnectReason)


def _server_table() -> dict[tuple[ServerState, ServerEvent], ServerState]:
    s, e = ServerState, ServerEvent
    table = {
        (s.NEW, e.CREATE): s.CREATED,
        (s.NEW, e.ADOPT): s.LISTENING,
        (s.CREATED, e.BIND): s.BOUND,
        (s.BOUND, e.LISTEN): s.LISTENING,
        (s.LISTENING, e.SERVE): s.SERVING,
        (s.SERVING, e.DRAIN): s.DRAINING,
    }
    table |= {(state, e.CLOSE): s.CLOSED for state in s if state is not s.CLOSED}
    return table


def _connection_table() -> dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]:
    s, e = ConnectionState, ConnectionEvent
    table = {
        (s.ACCEPTED, e.CIR_ACCEPTED): s.ESTABLISHED,
        (s.ACCEPTED, e.CIR_CHALLENGED): s.CHALLENGED,
        (s.ACCEPTED, e.CIR_REFUSED): s.DRAINING,
        (s.CHALLENGED, e.PROOF_ACCEPTED): s.ESTABLISHED,
        (s.CHALLENGED, e.PROOF_REFUSED): s.DRAINING,
        (s.ESTABLISHED, e.SRM): s.ESTABLISHED,
        (s.DRAINING, e.FLUSHED): s.CLOSED,
    }
    open_states = (s.ACCEPTED, s.CHALLENGED, s.ESTABLISHED)
    table |= {(state, e.PING): state for state in open_states}
    endings = (e.BYE, e.END_OF_FILE, e.VIOLATION, e.DRAIN)
    table |= {(state, event): s.DRAINING for state in open_states for event in endings}
    table |= {(s.DRAINING, event): s.DRAINING for event in (e.END_OF_FILE, e.DRAIN)}
    table |= {(state, e.LOST): s.CLOSED for state in (*open_states, s.DRAINING)}
    return table


SERVER_TRANSITIONS: Final[Mapping[tuple[ServerState, ServerEvent], ServerState]] = MappingProxyType(_server_table())
CONNECTION_TRANSITIONS: Final[Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = MappingProxyType(
    _connection_table()
)


class IllegalTransition(PysockError, RuntimeError):
    """The event is not allowed in this state. The state was left as it was."""


def next_server_state(state: ServerState, event: ServerEvent) -> ServerState:
    """Return the state that follows, or raise :class:`IllegalTransition`."""
    try:
        return SERVER_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a server that is {state.name} can't {event.name}") from None


def next_connection_state(state: ConnectionState, event: ConnectionEvent) -> ConnectionState:
    """Return the state that follows, or raise :class:`IllegalTransition`."""
    try:
        return CONNECTION_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a connection that is {state.name} can't take {event.name}") from None
