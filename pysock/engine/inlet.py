"""The way in of a client's connection that somebody else's loop watches: what both engines' inlets are."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.engine.inbox import Inbox

if TYPE_CHECKING:
    from typing import Any, Final

#: What a link says, and an inlet, when the server is gone or talks nonsense.
TEXT_LOST: Final = "the server closed the connection; it may have run what it hasn't answered"
TEXT_LARGE_FRAME: Final = "the server sent a frame that is too large: give connect() a larger max_payload"
TEXT_BAD_FRAME: Final = "the server sent a frame that no server sends, or not in the middle of a connection"

TEXT_UNASKED_PIECE: Final = "the server answered a request in pieces that hadn't asked for a stream"


class Inlet(Protocol):
    """What comes in on a client's connection that somebody else's loop watches. Who uses it owns the descriptor."""

    def __init__(self, max_payload: int) -> None:
        """A REPLY or PUSH over ``max_payload`` is a protocol error."""

    def agree(self, features: int) -> None:
        """What both ends speak, once the client is let in: :class:`pysock.wire.features.Feature`."""

    def receive(self, fd: int, waiting: dict[int, Any], inbox: Inbox) -> None:
        """Take what the kernel has, without waiting. A reply is given to whoever waits for it under its request id, and
        leaves the dict: by ``set_result(payload)``, unless ``done()``. All other frames go to the inbox, also pieces
        behind which more follow.

        :raises ConnectionLost: the connection has ended.
        :raises ProtocolError: the server talks nonsense. Nothing may follow either.
        """
