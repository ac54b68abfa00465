"""The client's end of one connection, which waits: what it does, of either engine. Part of the engine contract."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.errors import ConnectionLost
from pysock.wire.format import Frame

if TYPE_CHECKING:
    from typing import Any, Final

#: What other threads' calls hear where one of them broke the link.
CUT_BY_ANOTHER: Final = (
    "another thread's call ended in the middle of a frame, which closed the connection; the server may have run what it"
    " hasn't answered"
)
#: What a thread's second call on a link says, while its first one runs.
BUSY: Final = (
    "this connection is in the middle of another call of this thread, which a signal's handler has interrupted"
)


def nothing_sent(text: str) -> ConnectionLost:
    """What a call raises that finds the connection closed before it has sent anything."""
    error = ConnectionLost(text)
    error.fates = []
    return error


class Link(Protocol):
    """The client's end of one connection: blocking, for any number of threads at a time.

    The one that reads hands the others what is theirs. ``PysockError`` is raised where this thread is in a call
    already, below a signal's handler.

    ``timeout`` is in seconds, ``None`` waits for ever. Every call may raise ``ConnectionLost`` and
    ``ProtocolError``, and ``RequestTimeout`` where it takes a timeout; after the first two the link is closed.
    A timeout or an interruption that leaves a frame half sent closes it as well. A ``ConnectionLost`` of ``request``,
    ``request_many`` and ``send`` has what is known of each request, as its ``fates``.
    """

    #: Where PUSH and GOAWAY frames go, and all that answers no call: ERRORs without a request, pieces of streams, late
    #: answers. In the order in which they came; the owner may put something else with ``append`` and a truth value in
    #: its place.
    inbox: Any

    def __init__(self, fd: int, linger: float | None, max_payload: int) -> None:
        """Take over a connected socket. A frame from the server over ``max_payload`` is a protocol error."""

    @property
    def closed(self) -> bool:
        """Whether the link is useless, by ``close`` or by an error."""

    def agree(self, features: int) -> None:
        """What both ends speak, once the client is let in: :class:`pysock.wire.features.Feature`.

        Then a request with a timeout has a deadline, and one that times out is taken back, where the server knows how.
        """

    def send(
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        """Send one frame whole."""

    def receive(self, timeout: float | None) -> Frame:
        """The next frame, whatever it is (the inbox isn't looked at): in the initiation, when no other call runs."""

    def listen(self, timeout: float | None, has: bool = True, inbox: Any = None) -> None:
        """Until something has come to the inbox; ``has``: or was there before.

        :param inbox: is looked at in its place; what is put there it hands on.
        """

    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        """One SRM and its reply.

        :raises RemoteError: the server answered with an ERROR.
        """

    def ping(self, payload: Buffer, timeout: float | None) -> tuple[int, bytes]:
        """One PING; the code of its PONG, and what that carries."""

    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """Pipelined SRMs, at most ``window`` in flight: a reply (``bytes``) or a ``RemoteError`` for each, in order.

        Returned with them is how many are errors. First all are checked by :func:`pysock.base.payload.checked_all`.
        """

    def next_request_id(self) -> int:
        """A number no other request of this link has had lately."""

    def drain(self) -> None:
        """Wait until no other thread is in a call, but in one that listens."""

    def close(self) -> None:
        """Close the socket. Called again it does nothing. Calls of other threads end, the last of them closes it."""

    def abandon(self, why: str) -> None:
        """In a forked child: close the copy of the descriptor. The link is useless there."""
