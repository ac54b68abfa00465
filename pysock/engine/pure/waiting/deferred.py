"""Requests whose handler has returned, and whose answer comes later.

Each gets one answer. Until then it is in flight; also when its client has cancelled it, or its deadline has passed:
then whoever works for it is told, the client has its answer at once, and the place in flight is free when the work is
over.

Where no id tells which request a reply is for, a client isn't read while one of its requests is deferred: ``pending``.

A record is found by its handle, a number that is never used again: an answer that comes after its client has gone finds
nobody. Deadlines are in a heap, from which those of requests that are over are taken now and then.
``csrc/conn/defer.c`` and ``csrc/table/deferred.c`` do the same.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from types import GeneratorType

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import tell_unraisable
from pysock.base.unique import Unique
from pysock.engine.deferral import Ended
from pysock.engine.pure.ending import spare_others
from pysock.engine.pure.reply import Failure, may_be_for_later, not_bytes
from pysock.engine.pure.waiting import pending
from pysock.engine.pure.waiting.streams import iterator_of
from pysock.engine.rows import Current
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.format import ErrorCode, Kind, encode_text

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core

#: The heap is cleared of what is over when that is more than half of it, and than this.
_OVER_MAX: Final = 64

#: What a client that is there is told, by whether the work had begun. GONE: no credit can come.
_LAST_ANSWERS: Final = {
    Ended.GONE: ((ErrorCode.CANCELLED, texts.CANCELLED), (ErrorCode.CANCELLED, texts.CANCELLED)),
    Ended.CANCELLED: ((ErrorCode.CANCELLED, texts.CANCELLED), (ErrorCode.CANCELLED, texts.CANCELLED)),
    Ended.LATE: ((ErrorCode.DEADLINE_PASSED, texts.TOO_LATE), (ErrorCode.DEADLINE_PASSED, texts.TOO_LATE)),
    Ended.STOPPED: ((ErrorCode.SHUTTING_DOWN, texts.SHUTTING_DOWN), (ErrorCode.CANCELLED, texts.CUT_SHORT)),
}


class Deferred(Unique):
    """One of them."""

    __slots__ = (
        "began", "connection", "deadline", "handle", "is_answered", "is_due", "is_held", "is_listed", "is_over",
        "is_pulled", "is_told", "kept", "limit", "older", "request_id", "sent", "service", "size", "streams", "told",
        "wants_reply", "why", "younger",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, service: int, request_id: int, wants_reply: bool, size: int, deadline: float
    ) -> None:
        self.handle: int = 0
        self.connection: Connection = connection
        self.service: int = service
        self.request_id: int = request_id
        self.wants_reply: bool = wants_reply
        self.size: int = size  # of the request
        self.deadline: float = deadline  # 0: none
        self.began: float = connection.core.now  # when its handler was called, or a little before
        self.kept: Any = None  # whose work it is
        self.why: Ended | None = None  # it isn't waited for
        self.is_due: bool = False  # its deadline is in the heap
        self.is_listed: bool = False  # among those who are to be told
        self.is_told: bool = False
        self.is_answered: bool = False  # also by an ERROR, while its work goes on, and counts as in flight as long
        self.is_over: bool = False  # its work, or its client: no handle finds it
        self.older: Deferred | None = None  # of the same client; a list of links, for most have one or none
        self.younger: Deferred | None = None
        self.streams: bool = service in connection.core.streaming
        self.limit: int = connection.protocol.stream_window or 0  # bytes that a stream may send in all, so far
        self.sent: int = 0  # and has
        self.told: int = 0  # how many whoever sends them knows of
        self.is_pulled: bool = False  # the loop asks it for its pieces
        self.is_held: bool = False  # it waits until its client has taken what waits to be sent


class Deferrals(Unique):
    """Those of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.last: int = 0  # the handle that was given last
        self._records: dict[int, Deferred] = {}
        #: Whose work is to be told that nobody waits any more.
        self.told: deque[Deferred] = deque()
        self.due: list[tuple[float, int]] = []  # a heap of deadlines and handles
        self._over = 0  # how many in it are of no use any more

    # --- the handler has returned ---

    def take(
        self,
        connection: Connection,
        service: int,
        request_id: int,
        wants_reply: bool,
        size: int,
        deadline: float,
        result: Any,
    ) -> Failure | None:
        """What it returned is neither bytes-like nor ``None``: it is for later, or wrong."""
        defer = self._core.callbacks.defer
        record = Deferred(connection, service, request_id, wants_reply, size, deadline)
        if defer is None and not record.streams:
            return not_bytes(result)
        is_there = connection.protocol.state is not ConnectionState.CLOSED
        alone = not connection.in_flight or connection.listener.framing.has_ids
        if is_there and alone:
            self._add(record)
        try:
            kept = None if defer is None or type(result) is GeneratorType else defer(record.handle, result)
            if kept is None and record.streams:
                kept = iterator_of(result)
                record.is_pulled = kept is not None
        except Exception as error:
            self._finish(record)
            return Failure(error)
        if kept is None:
            self._finish(record)
            return not_bytes(result)
        if record.handle and not record.is_over:
            record.kept = kept
            if record.streams:
                self._core.streams.begin(record)
        elif not record.is_answered and not record.is_pulled:
            record.why = Ended.GONE
            self._tell(record, kept)
        return None if alone or not is_there else Failure(TypeError(texts.NO_IDS))

    def nobody_waits(self, result: Any) -> None:
        """It was returned for a request that nobody waits for any more: if it is for later, whoever works for it is
        told.
        """
        defer, ended = self._core.callbacks.defer, self._core.callbacks.ended
        if defer is None or not may_be_for_later(result):
            return
        assert ended is not None  # where there is a ``defer``
        try:
            kept = defer(0, result)
            if kept is not None:
                ended(kept, Ended.GONE)
        except MemoryError as error:
            tell_unraisable(error)

    def _add(self, record: Deferred) -> None:
        connection = record.connection
        self.last += 1
        record.handle = handle = self.last
        self._records[handle] = record
        _link(record)
        if record.deadline:
            record.is_due = True
            heappush(self.due, (record.deadline, handle))
        pending.add(connection, 1, record.size)
        held = pending.ids_held(connection, record.wants_reply)
        if held is not None:
            held[record.request_id] = record
        if not connection.may_read():
            self._core.dirty[connection] = None  # from now on it isn't read

    def waiting(self, handle: int) -> Current | None:
        """As :meth:`pysock.engine.contract.Engine.waiting`."""
        record = self._records.get(handle)
        if record is None:
            return None
        client_id = record.connection.client_id
        return Current(client_id, record.request_id, record.service, record.deadline, record.wants_reply)

    def find(self, handle: int) -> Deferred | None:
        """The record that has this handle; ``None``: it is over."""
        return self._records.get(handle)

    # --- its work is over ---

    def answer(self, handle: int, reply: Any) -> bool:
        """As :meth:`pysock.engine.contract.Engine.answer`, where the loop's thread is in a turn."""
        record = self._records.get(handle)
        if record is None:
            self.nobody_waits(reply)
            return False
        connection, kept = record.connection, record.kept
        is_owed = not record.is_answered and not connection.gave_up
        record.is_answered = True
        self._finish(record)
        if is_owed:
            failed = type(reply) is not bytes and issubclass(type(reply), Exception)  # whatever its __class__ says
            spare_others(connection, lambda: self._answer(record, Failure(reply) if failed else reply, kept))
        else:
            self.nobody_waits(reply)
        return is_owed

    def fail(self, record: Deferred, error: Exception) -> None:
        """Answer it by an ERROR, while its work goes on: whoever does that is told that nobody waits."""
        record.is_answered = True
        self._free_id(record)
        self.mark(record, Ended.CANCELLED)
        spare_others(record.connection, lambda: self._answer(record, Failure(error)))

    def _answer(self, record: Deferred, reply: Any, kept: Any = None) -> None:
        core = self._core
        outer, core.began, before = core.began, record.began, core.fates()
        try:
            record.connection.answer(
                record.service, record.request_id, record.wants_reply, record.size, record.deadline, reply
            )
            core.answered(record, before, reply, kept)
        finally:
            core.began = outer

    def _finish(self, record: Deferred) -> None:
        """Its place is free."""
        if not record.handle or record.is_over:
            return
        connection = record.connection
        _unlink(record)
        self._free_id(record)
        pending.done(connection, record.size)
        self._pass(record)
        record.kept = None
        if self._core.drains and record.streams:
            self._core.streams.wind_up(connection)

    def _pass(self, record: Deferred) -> None:
        """No handle finds it any more, and its time doesn't matter."""
        record.is_over = True
        del self._records[record.handle]
        self._core.streams.ready.pop(record, None)
        if record.is_due:
            record.is_due = False
            self._over += 1
            self._clear_heap()

    def _clear_heap(self) -> None:
        due = self.due
        if self._over > _OVER_MAX and self._over * 2 > len(due):
            self._over = 0
            due[:] = [entry for entry in due if entry[1] in self._records]
            heapify(due)

    @staticmethod
    def _free_id(record: Deferred) -> None:
        held = pending.ids_held(record.connection, record.wants_reply)
        if held is not None and held.get(record.request_id) is record:
            del held[record.request_id]

    # --- nobody waits for it ---

    def cancel(self, record: object) -> None:
        """Its client has cancelled it."""
        assert isinstance(record, Deferred)
        self.mark(record, Ended.CANCELLED)

    def mark(self, record: Deferred, why: Ended) -> None:
        """Whoever works for it is to be told so. What was to be told first counts."""
        if record.why is None:
            record.why = why
            self._list(record)

    def _list(self, record: Deferred) -> None:
        record.is_listed = True
        self.told.append(record)

    def orphan(self, connection: Connection, why: Ended) -> None:
        """The client has gone: all its records are over. Those that it didn't wait for are done all the same: they
        aren't told.
        """
        while (record := connection.deferred) is not None:
            _unlink(record)
            self._core.nobody_waited(record.service, record.is_answered)
            connection.in_flight -= 1
            connection.in_flight_bytes -= record.size
            self._free_id(record)
            self._pass(record)
            if record.why is None and (record.wants_reply or why is not Ended.GONE):
                record.why = why
            if not record.is_listed and not record.is_told and record.why is not None:
                self._list(record)

    def next_due(self) -> float | None:
        """When the next deadline comes."""
        due = self.due
        while due and due[0][1] not in self._records:
            heappop(due)
            self._over -= 1
        return due[0][0] if due else None

    def tell(self) -> None:
        """At the end of a turn: whoever works for nobody, and the clients that wait in vain."""
        core = self._core
        while (end := self.next_due()) is not None and end <= core.now:
            record = self._records[heappop(self.due)[1]]
            record.is_due = False
            self.mark(record, Ended.LATE)
        while self.told:
            record = self.told.popleft()
            record.is_listed = False
            if not record.is_over:
                self._tell_both(record)
            elif record.kept is not None and record.is_pulled:
                self._core.streams.close(record)
            elif record.kept is not None:
                kept, record.kept = record.kept, None
                self._tell(record, kept)

    def attend(self) -> None:
        """At the end of a turn: ``tell``, and ask the streams for their pieces."""
        self.tell()
        if self._core.streams.ready:
            self._core.streams.step()

    def _tell(self, record: Deferred, kept: Any) -> bool:
        """Whether the work had begun."""
        ended = self._core.callbacks.ended
        record.is_told = True
        assert ended is not None  # where there is a ``defer``
        assert record.why is not None
        try:
            return ended(kept, record.why)
        except MemoryError as error:
            tell_unraisable(error)
        return True

    def _tell_both(self, record: Deferred) -> None:
        """Its client is there, or was before the worker was told."""
        begun = record.is_told = True
        if record.is_pulled:
            self._core.streams.close(record)
        else:
            begun = self._tell(record, record.kept)
        if record.is_over:
            return  # what was called has answered it, or closed the client
        was_answered, record.is_answered = record.is_answered, True
        self._free_id(record)
        if not begun or record.is_pulled:
            self._finish(record)
        if not was_answered:
            spare_others(record.connection, lambda: _answer_client(record, begun))

    def cut_short(self, connection: Connection) -> bool:
        """The server stops, and waits no longer. Whether that is sent to the client."""
        waiting = [record for record in connection.later() if record.why is None]
        for record in waiting:
            if record.why is None and not record.is_over:
                record.why = Ended.STOPPED
                self._tell_both(record)
        return bool(waiting)

    def forget(self) -> None:
        """In a forked child: nobody waits here."""
        for part in (self._records, self.told, self.due):
            part.clear()
        self._over = 0


def _link(record: Deferred) -> None:
    connection = record.connection
    record.older = older = connection.deferred
    if older is not None:
        older.younger = record
    connection.deferred = record


def _unlink(record: Deferred) -> None:
    older, younger = record.older, record.younger
    if older is not None:
        older.younger = younger
    if younger is not None:
        younger.older = older
    else:
        record.connection.deferred = older
    record.older = record.younger = None


def _answer_client(record: Deferred, begun: bool) -> None:
    connection, request_id = record.connection, record.request_id
    assert record.why is not None
    code, text = _LAST_ANSWERS[record.why][begun]
    connection.core.not_served(record.service, code)
    is_told = record.wants_reply and connection.listener.framing.has_texts
    if is_told and not begun:
        pending.not_started(connection, request_id, is_told, code, text)
        return
    if is_told and connection.protocol.state is not ConnectionState.CLOSED:
        connection.put(encode_text(Kind.ERROR, code, text, request_id))


def why_closed(reason: DisconnectReason | None) -> Ended:
    """Why the requests of a client that is closed are waited for no more."""
    return Ended.STOPPED if reason is DisconnectReason.SERVER_STOPPING else Ended.GONE
