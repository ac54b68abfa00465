"""Replies in pieces. A stream is a deferred request that has credit: each of its frames takes 16 and the size of its
payload from it, its client gives more by CREDIT. While there is none it isn't asked for more; nor is it while its
client doesn't take what waits to be sent: so a client that reads slowly, or not at all, costs what its window says.

Most are iterators that the loop asks for their pieces, once a turn, all in turn. Those that aren't, for they run in a
task or in another thread, are told when they may go on: ``Callbacks.flow``. ``csrc/conn/stream.c`` and
``csrc/python/stream.c`` do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.engine.guards import type_name
from pysock.engine.pure.ending import dismiss, spare_others
from pysock.engine.pure.output import COPY_MAX
from pysock.engine.pure.reply import Failure, checked_reply
from pysock.engine.pure.waiting import pending
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.endings import End
from pysock.wire.features import STREAM_COST
from pysock.wire.format import FLAG_MORE, HEADER, Kind

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.output import Output
    from pysock.engine.pure.waiting.deferred import Deferred

#: Pieces of one stream in a row, and bytes; then it is the next one's turn.
_STEPS_MAX: Final = 16
_STEP_BYTES_MAX: Final = 64 * 1024
#: So long at most streams are asked in a row, in seconds: then it is looked at what has come.
_STEP: Final = 0.0002
#: After so many pieces of one it is looked at the clock: of one that takes its time it is one or two in a row.
_LOOKS: Final = frozenset((1, 2, 4, 8))
_CREDIT_MAX: Final = 2**32 - 1
#: What another thread may send of a stream before the loop has seen it, in bytes, roughly.
_AHEAD: Final = 64 * 1024

_pack: Final = HEADER.pack
_REPLY: Final = int(Kind.REPLY)


class Streams(Unique):
    """Those of one engine."""

    def __init__(self, core: Core) -> None:
        self.core: Core = core
        #: Of which the next piece is to be asked for, in this order.
        self.ready: dict[Deferred, None] = {}

    # --- a piece ---

    def send(self, handle: int, piece: Any, most: int) -> int:
        """As :attr:`pysock.engine.contract.Engine.send_more`, in a turn.

        :param most: of the bytes that wait to be sent to the client.
        """
        record = self.core.deferrals.find(handle)
        if record is None or not record.streams or record.is_answered or record.why is not None:
            return -1
        payload = _checked(piece, record.connection.protocol.reply_limit)
        if type(payload) is bytes:
            return self._put(record, payload, most)
        assert type(payload) is Failure
        error = payload.error
        del payload  # see Failure
        self.core.deferrals.fail(record, error)
        return -1

    def _put(self, record: Deferred, payload: bytes, most: int) -> int:
        connection, size = record.connection, len(payload)
        record.sent += size + STREAM_COST
        head = _pack(size, _REPLY, FLAG_MORE, 0, record.request_id)
        if size > COPY_MAX:  # a large one is sent from where it is
            connection.put(head)
            if connection.protocol.state is not ConnectionState.CLOSED:
                connection.put(payload)
                connection.frames_out -= 1  # of the two
        else:
            connection.put(head + payload)
        if connection.protocol.state is ConnectionState.CLOSED:
            return -1
        if record.sent >= record.limit:
            if connection.protocol.state is ConnectionState.DRAINING:  # nothing is read any more: no credit comes
                self.core.deferrals.mark(record, Ended.GONE)
            return 0
        if connection.queued <= most:
            return 1
        self._hold(record)
        return 0

    def take_from_elsewhere(self, handle: int, piece: Any) -> None:
        """A piece of another thread's, which counts itself, and doesn't know that the client takes nothing."""
        self.send(handle, piece, self.core.limits.output_pause)
        record = self.core.deferrals.find(handle)
        if record is None:
            return
        if record.is_held or (record.told < record.limit and record.told < record.sent + _AHEAD // 2):
            self._tell(record)

    # --- what makes one go on ---

    def _hold(self, record: Deferred) -> None:
        """Until its client has taken what waits to be sent."""
        record.is_held = record.connection.holds_streams = True

    def begin(self, record: Deferred) -> None:
        """Its handler has returned: what it is made of is kept."""
        if not record.is_pulled:
            self._tell(record)
        elif record.sent < record.limit:
            self.ready[record] = None

    def _tell(self, record: Deferred) -> None:
        """Whoever sends its pieces: how many bytes may follow."""
        flow = self.core.callbacks.flow
        if flow is None or record.kept is None or record.is_answered:
            return
        record.told = min(record.limit, record.sent + _AHEAD)
        waits = record.is_held or record.connection.choked
        flow(record.kept, 0 if waits else max(0, record.limit - record.sent), record.told)

    def _go_on(self, record: Deferred) -> None:
        if record.is_answered or record.is_held or record.kept is None or record.sent >= record.limit:
            return
        if record.is_pulled:
            self.ready[record] = None
        else:
            self._tell(record)

    def credit(self, connection: Connection, request_id: int, size: int) -> None:
        """Its client takes so many bytes more. One that isn't in flight has been answered meanwhile."""
        held = pending.ids_held(connection, wants_reply=True)
        record: Any = None if held is None else held.get(request_id)
        if record is None or type(record) is tuple or not record.streams:
            return
        record.limit += size
        if record.limit - record.sent > _CREDIT_MAX:
            dismiss(connection, End.VIOLATION, texts.CREDIT_OVERFLOW, request_id)
        else:
            self._go_on(record)

    def flushed(self, output: Output) -> None:
        """All that waited to be sent to this client was taken."""
        output.holds_streams = False
        for record in output.later():
            if record.is_held:
                record.is_held = False
                self._go_on(record)

    # --- the loop asks for pieces ---

    def step(self) -> None:
        """Once a turn."""
        ready, end = self.ready, monotonic() + _STEP
        last = next(reversed(ready))
        while ready:
            record = next(iter(ready))
            del ready[record]
            connection = record.connection
            if connection.stalled or connection.starved:
                self._hold(record)
            else:
                self._pull(record, end)
                if not record.is_over:
                    self._go_on(record)
            following = next(iter(ready), None)
            if following is None or following.connection is not connection:
                spare_others(connection, connection.flush)
            if record is last or monotonic() >= end:
                return

    def _pull(self, record: Deferred, end: float) -> None:
        answer, began = self.core.deferrals.answer, monotonic()
        try:
            wrong = record.connection.run(self._take, record, record.kept, end)
        except StopIteration as stop:
            answer(record.handle, stop.value)
        except Exception as error:
            answer(record.handle, error)
        else:
            if wrong is not None:
                self.close(record)
                answer(record.handle, wrong)
        self.core.held_up.took(record.service, monotonic() - began)

    def _take(self, record: Deferred, iterator: Iterator[Any], end: float) -> Exception | None:
        """In the context of the client; what is wrong with a piece. The engine finds the request in this frame."""
        connection, sent = record.connection, 0
        for step in range(1, _STEPS_MAX + 1):
            payload = _checked(next(iterator), connection.protocol.reply_limit)
            if type(payload) is not bytes:
                assert type(payload) is Failure
                return payload.error
            if record.is_over or self._put(record, payload, _STEP_BYTES_MAX) <= 0:
                return None
            sent += len(payload)
            if sent >= _STEP_BYTES_MAX or (step in _LOOKS and monotonic() >= end):
                return None
        return None

    def close(self, record: Deferred) -> None:
        """Nobody wants any more of it."""
        self.ready.pop(record, None)
        kept, record.kept = record.kept, None
        try:
            record.connection.run(self._close, record, kept)
        except Exception as error:
            self.core.callbacks.failed(
                record.connection.client_id, record.service, record.request_id, record.began, error
            )

    def _close(self, record: Deferred, iterator: Any) -> None:  # see below
        """In the context of the client. The engine finds the request in this frame."""
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    # --- the ends of clients, and of the server ---

    def end_those_of(self, connection: Connection, everything: bool) -> None:
        """Nothing more is read of this client, so its streams get no credit: those that have none left are ended."""
        for record in connection.later():
            if record.streams and (everything or record.sent >= record.limit):
                self.core.deferrals.mark(record, Ended.GONE)

    def wind_up(self, connection: Connection) -> None:
        """The server stops: nothing is read any more of this client, unless its streams need their CREDITs."""
        if any(record.streams for record in connection.later()):
            return
        connection.end(ConnectionEvent.DRAIN, DisconnectReason.SERVER_STOPPING)

    def end_endless(self) -> None:
        """The server begins to stop: what never ends by itself is ended."""
        core = self.core
        for connection in list(core.table.rows.values()) if core.endless else ():
            for record in connection.later():
                if record.service in core.endless:
                    core.deferrals.mark(record, Ended.STOPPED)
        core.deferrals.tell()


def iterator_of(result: Any) -> Iterator[Any] | None:
    """What a handler returned, if it can be asked for pieces."""
    if isinstance(result, str) or not isinstance(result, Iterable):
        return None
    return iter(result)


def _checked(piece: Any, limit: int) -> bytes | Failure:
    """As bytes of our own."""
    if type(piece) is bytes and len(piece) <= limit:
        return piece
    payload = None if piece is None else checked_reply(piece, limit)
    if payload is not None:
        return payload
    advice = texts.ENCODE if issubclass(type(piece), str) else ""
    return Failure(TypeError(texts.PIECE_NOT_BYTES % (type_name(piece), advice)))
