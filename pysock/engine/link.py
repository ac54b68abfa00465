"""The client's end of one connection, which waits: what it does, of either engine. Part of the engine contract."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.engine.inbox import Inbox
from pysock.wire.format import Frame

if TYPE_CHECKING:
    from typing import Any, Final

#: What a second call on a link says, while a first one runs.
BUSY: Final = (
    "this connection is in the middle of another call: of another thread, or of this one, if a signal's handler calls;"
    " one call at a time"
)


class Link(Protocol):
    """The client's end of one connection: blocking, one call at a time; a second one raises ``PysockError``.

    ``timeout`` is in seconds, ``None`` waits for ever. Every call may raise ``ConnectionLost`` and
    ``ProtocolError``, and ``RequestTimeout`` where it takes a timeout; after the first two the link is closed.
    A timeout or an interruption that leaves a frame half sent closes it as well.
    """

    #: PUSH and GOAWAY frames, and ERRORs that answer no request, that came while something else was awaited, oldest
    #: first.
    inbox: Inbox

    def __init__(self, fd: int, linger: float | None, max_payload: int) -> None:
        """Take over a connected socket. A frame from the server over ``max_payload`` is a protocol error."""

    @property
    def closed(self) -> bool:
        """Whether the link is useless, by ``close`` or by an error."""

    def send(
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        """Send one frame whole."""

    def receive(self, timeout: float | None) -> Frame:
        """The next frame, whatever it is (the inbox isn't looked at)."""

    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        """One SRM and its reply.

        :raises RemoteError: the server answered with an ERROR.
        """

    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """Pipelined SRMs, at most ``window`` in flight: a reply (``bytes``) or a ``RemoteError`` for each, in order.

        Returned with them is how many are errors. First all are checked by :func:`pysock.base.payload.checked_all`.
        """

    def next_request_id(self) -> int:
        """A number no other request of this link has had lately."""

    def close(self) -> None:
        """Close the socket. Called again it does nothing."""

    def abandon(self, why: str) -> None:
        """In a forked child: close the copy of the descriptor. The link is useless there."""
