"""The pieces of one stream that have come and weren't taken yet, and the credit that taking them gives back. No I/O."""

from __future__ import annotations

from collections import deque

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import FrameTooLarge
from pysock.wire.features import STREAM_COST

if TYPE_CHECKING:
    from typing import Final

#: The most that one CREDIT can say.
_MOST: Final = 2**32 - 1


class Pieces(Unique):
    """What waits for the answer to a request that takes a stream: one puts in, one takes out, maybe another thread.

    :param window: the credit that the server began with.
    :param streams: the server says that this service does. Then the last piece, where it is empty, is none.
    :ivar came: whether there was a piece.
    :ivar is_over: whether nothing more will come.
    """

    __slots__ = ("_error", "_half", "_last", "_pieces", "_taken", "came", "is_over")

    def __init__(self, window: int, streams: bool) -> None:
        self._pieces: deque[bytes] = deque()
        self._half = max(1, window // 2)
        self._taken = 0
        self._last = not streams  # also an empty one counts
        self._error: Exception | None = None
        self.came: bool = False
        self.is_over: bool = False

    def __bool__(self) -> bool:
        """Whether there is something to take: a piece, or the end."""
        return bool(self._pieces) or self.is_over

    def put(self, piece: bytes) -> None:
        """One has come; more will follow."""
        self.came = True
        self._pieces.append(piece)

    # The end, as a future hears of it:

    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.is_over

    def set_result(self, piece: bytes) -> None:
        """The last one has come."""
        if piece or (self._last and not self.came):
            self._pieces.append(piece)
        self.is_over = True

    def set_exception(self, error: Exception) -> None:
        """Nothing more will come, for this reason."""
        if not self.is_over:
            self._error = error
            self.is_over = True

    # What is taken out:

    def take(self) -> bytes | None:
        """The oldest one; ``None``: there is none now, or none any more."""
        try:
            piece = self._pieces.popleft()
        except IndexError:
            return None
        self._taken += len(piece) + STREAM_COST
        return piece

    def take_error(self) -> Exception | None:
        """What it ended with: once."""
        error, self._error = self._error, None
        return error

    def credit(self) -> bytes:
        """The payload of the CREDIT that is to be sent now; empty: none is."""
        if self.is_over or self._taken < self._half:
            return b""
        return min(self._taken, _MOST).to_bytes(4, "big")

    def credited(self) -> None:
        """It was."""
        self._taken = 0

    def drop(self) -> None:
        """Nobody wants any of it."""
        self.is_over = True
        self._error = None
        self._pieces.clear()


class Joining:
    """All pieces of one reply, which are kept up to so many bytes."""

    __slots__ = ("_left", "_most", "_pieces")

    def __init__(self, most: int) -> None:
        self._pieces: list[bytes] = []
        self._most = self._left = most

    def put(self, piece: bytes) -> None:
        """Keep one.

        :raises FrameTooLarge: they are too many.
        """
        self._left -= len(piece)
        if self._left < 0:
            raise FrameTooLarge(
                f"the reply is a stream of more than {self._most} bytes, the most that this client keeps: take it by"
                " stream(), or give connect() a larger max_payload"
            )
        self._pieces.append(piece)

    def whole(self) -> bytes:
        """The reply."""
        return b"".join(self._pieces)
