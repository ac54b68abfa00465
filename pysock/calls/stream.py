"""The reply of one request in pieces, for a blocking client: who asks for the next one waits for it.

The pieces come to the mailbox of the client, whichever of its threads reads; this file owns the wait, and the end: the
last piece, an error, the end of the time or of the connection, or that nobody wants more.
"""

from __future__ import annotations

import time
from contextlib import suppress

from pysock.base.deadlines import deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique
from pysock.calls.later import Later
from pysock.calls.pieces import Joining, Pieces
from pysock.errors import ConnectionLost, OutcomeUnknown, ProtocolError, PysockError, RemoteError, RequestTimeout
from pysock.wire.features import Feature, encode_deadline
from pysock.wire.format import FLAG_DEADLINE, FLAG_TAKES_STREAM, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

    from pysock.base.aliases import Buffer
    from pysock.calls.heartbeat import Heartbeat
    from pysock.calls.mailbox import Mailbox
    from pysock.calls.named import NamedServices
    from pysock.engine.link import Link

#: How long it may take to tell the server that nobody wants more, in seconds.
_LEAVING: Final = 1.0
TEXT_LATE: Final = "the server sent no more of the stream in time"


class Asking(Protocol):
    """A blocking client, as its streams know it."""

    _link: Link
    _mail: Mailbox
    _heart: Heartbeat
    _services: NamedServices
    _features: int
    _stream_window: int
    _window: int
    _id: int

    def _call(self, timeout: float | None, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call of the link, which is given its time."""

    def _within(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call of the link, also after the server's goodbye."""


class _Inbox:
    """The link's, as one who waits for a stream sees it: something is there when it is the stream's."""

    __slots__ = ("_pieces", "append")

    def __init__(self, mail: Mailbox, pieces: Pieces) -> None:
        self._pieces = pieces
        self.append: Callable[[Any], None] = mail.append

    def __bool__(self) -> bool:
        return bool(self._pieces)


class Stream(Unique):
    """The pieces of one reply, as they come: iterate over it, in one thread at a time. Made by ``client.stream()``.

    Who leaves early closes it, best by a ``with`` statement: the server is told, and ends what makes the pieces.
    """

    _instead = "ask for another one by stream()"

    def __init__(self, client: Asking, number: int, end: float | None, patience: float | None) -> None:
        self._client = client
        self._number = number
        self._end = end
        self._patience = patience
        self._pieces = Pieces(client._stream_window, number in client._services.streaming)
        self._inbox = _Inbox(client._mail, self._pieces)
        self._request_id = 0
        self._gave = False
        self._sent_at = time.time()

    # Its beginning

    def send(self, payload: Buffer, seconds: float | None) -> None:
        """Send the request, within the client's call."""
        client = self._client
        streams = client._mail.streams
        flags = FLAG_TAKES_STREAM if client._features & Feature.STREAM else 0
        left = time_left(self._end)
        prefix = encode_deadline(left) if left is not None and client._features & Feature.DEADLINE else b""
        if prefix:
            flags |= FLAG_DEADLINE
        self._request_id = client._link.next_request_id()
        streams[self._request_id] = self._pieces
        try:
            data = prefix + payload if prefix else payload
            client._link.send(Kind.SRM, self._number, self._request_id, data, seconds, flags)
        except BaseException as error:
            self._leave()
            if isinstance(error, ConnectionLost):
                error.fates = [False]
            raise

    # What it gives

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        """The next piece.

        :raises RemoteError: the server ended it with an error.
        :raises RequestTimeout: nothing more came in time; the server is told that nobody waits.
        :raises OutcomeUnknown: the connection has ended, and there were pieces already.
        """
        piece = self._next()
        self._gave = True
        return piece

    def _next(self) -> bytes:
        pieces = self._pieces
        until, waits = None, False
        while True:
            is_over = pieces.is_over
            if not is_over:
                self._give_credit()
            piece = pieces.take()
            if piece is not None:
                return piece
            if is_over:
                self._finish()
            if not waits:
                until, waits = _earlier(self._end, deadline_of(self._patience)), True
            self._wait(until)

    def _give_credit(self) -> None:
        """For what was taken before: whoever asks for more has done with it."""
        pieces, client = self._pieces, self._client
        credit = pieces.credit()
        if not credit:
            return
        left = time_left(_earlier(self._end, deadline_of(self._patience)))
        try:
            client._within(client._link.send, Kind.CREDIT, 0, self._request_id, credit, left)
        except ConnectionLost as error:
            pieces.set_exception(error)
        except RequestTimeout:
            self.close()
            raise
        else:
            pieces.credited()

    def _wait(self, until: float | None) -> None:
        """Let something come; it may return without that."""
        client, pieces = self._client, self._pieces
        left = time_left(until)
        try:
            client._within(client._heart.listen, client._link, left, True, self._inbox)
        except RequestTimeout:
            if pieces or left is None or time_left(until):
                return
            self.close()
            raise RequestTimeout(TEXT_LATE) from None
        except (ConnectionLost, ProtocolError) as error:
            pieces.set_exception(error)

    def _finish(self) -> NoReturn:
        """There are no more pieces."""
        error = self._pieces.take_error()
        self._leave()
        if error is None:
            raise StopIteration
        if isinstance(error, RemoteError):
            raise self._client._services.telling(error)
        if not isinstance(error, ConnectionLost):
            raise error
        if not self._gave:
            error.fates = [False if self._client._mail.settled else self._request_id]
            raise error
        unknown = OutcomeUnknown(f"the connection ended in the middle of a stream: {error}")
        unknown.request_id, unknown.client_id, unknown.sent_at = self._request_id, self._client._id, self._sent_at
        raise unknown from error

    def join(self, most: int) -> bytes:
        """All of it at once.

        :param most: so many bytes of it are kept at most.
        """
        joining = Joining(most)
        with self, suppress(StopIteration):
            while True:
                joining.put(self._next())
        return joining.whole()

    # Its end

    def _leave(self) -> bool:
        """Whether it was open until now."""
        return self._client._mail.streams.pop(self._request_id, None) is not None

    def close(self) -> None:
        """Leave it: the server is told that nobody wants more, and what comes still is dropped."""
        was_over = self._pieces.is_over
        self._pieces.drop()
        client = self._client
        if not self._leave() or was_over or not client._features & Feature.CANCEL:
            return
        with suppress(ConnectionError, RequestTimeout):
            client._within(client._link.send, Kind.CANCEL, 0, self._request_id, b"", _LEAVING)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        pieces: Pieces | None = getattr(self, "_pieces", None)
        if pieces is not None and not pieces.is_over:
            with suppress(Exception):  # in the middle of a call of this thread it can't be said
                self.close()

    def __repr__(self) -> str:
        return f"<Stream of request {self._request_id} {'over' if self._pieces.is_over else 'open'}>"


class LaterStream(Later, Stream):
    """One that begins with its first piece."""

    def __next__(self) -> bytes:
        return self._next()

    def _next(self) -> bytes:
        try:
            begin, self._begin = self._begin, None
            if begin is not None:
                self._inner, first = begin()
                if first is not None:
                    return first  # type: ignore[no-any-return]  # bytes
            if self._inner is None:
                raise StopIteration
            return next(self._inner)  # type: ignore[no-any-return]  # bytes
        except Exception:
            self.close()
            raise


def too_many(window: int) -> PysockError:
    """What a call is told that the server would read behind the last of the streams only."""
    return PysockError(
        f"{window} streams of this client are open, as many as the server takes requests in flight: close one, or"
        " connect() once more"
    )


def _earlier(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)
