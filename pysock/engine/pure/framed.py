"""A connection of the framing ``pysock``.

``FrameProtocol`` decides everything; this file carries its actions out. One shortcut is taken: whole, ordinary SRMs
on an established connection are cut and answered by the loop in ``_serve_whole``, which knows nothing that isn't in
``FrameProtocol`` too and leaves it everything else, from the first byte of the frame on.
"""

from __future__ import annotations

import socket

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.causes import Cause
from pysock.engine.deferral import Ended
from pysock.engine.pure.connection import UNMADE, Connection
from pysock.engine.pure.core import READ_MAX, ROW_MAX
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.output import COPY_MAX, GATHER_MAX
from pysock.engine.pure.poll import READ
from pysock.engine.pure.reply import Failure, checked_reply
from pysock.engine.pure.waiting import pending
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.endings import End, last_words
from pysock.wire.format import HEADER, ErrorCode, Kind, encode, fitting
from pysock.wire.rules import (
    Answer,
    Answered,
    Cancel,
    Credit,
    Ending,
    FrameProtocol,
    Initiation,
    NotServed,
    Request,
)
from pysock.wire.tracing import Traced

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener
    from pysock.wire.rules import Action

_ESTABLISHED = ConnectionState.ESTABLISHED
# Plain numbers: comparing and packing an enum's member costs more.
_unpack_from, _pack = HEADER.unpack_from, HEADER.pack
_SRM = int(Kind.SRM)
_REPLY = int(Kind.REPLY)


class FramedConnection(Connection):
    """One client."""

    __slots__ = ("_cutter", "_small")

    protocol: FrameProtocol

    # What is changed here and declared above: type checkers want to know that it stays the same.
    bytes_in: int
    frames_in: int
    frames_out: int
    heard: float
    out: list[bytes | bytearray | memoryview]
    queued: int
    requests: int

    def __init__(self, core: Core, sock: socket.socket, listener: Listener, address: str) -> None:
        self.protocol = FrameProtocol(listener.rules)
        self._cutter = self.protocol.cutter
        self._small = 0  # bytes of a reply that the short way takes
        super().__init__(core, sock, listener, address)

    def start(self) -> None:
        """Wait for its CIR."""
        super().start()
        if self.protocol.state is ConnectionState.ACCEPTED:
            self.core.cirs.start_now(self, self.core.now)

    # --- input ---

    def on_event(self, bits: int) -> None:
        """Something is ready: read, serve, send."""
        if bits != READ and not self.also(bits):
            return
        try:
            data = self.recv(self.read_max)
        except OSError as error:
            self.input_failed(error)
            return
        if not data:
            self.end_of_file()
            return
        self.bytes_in += len(data)
        self.heard = self.core.now
        protocol, cutter = self.protocol, self._cutter
        now = 0.0 if self.established and not protocol.features else monotonic()  # only deadlines count from it
        at, before, begun = 0, self.requests, cutter.header is not None
        if self.established and not begun and not cutter.data and not protocol.in_flight:
            at = self._serve_whole(data, 0, ROW_MAX)
            if at == len(data) and not self.out and protocol.state is _ESTABLISHED and self.interest == READ:
                if self.timed:
                    self.time_frame(progress=True)
                if self.read_max > READ_MAX:
                    self.adapt_read(at, begun, self.requests - before, 0)
                return
        if protocol.state < ConnectionState.DRAINING:
            protocol.feed(data, at, now)
        self._go_on(progress=at > 0, most=ROW_MAX - self.requests + before)
        if cutter.missing or self.read_max > READ_MAX:
            self.adapt_read(len(data), begun, self.requests - before, cutter.missing)

    def go_on(self) -> None:
        """Go on with input that was kept while the client was paused."""
        self._go_on(progress=False)

    def _go_on(self, progress: bool, most: int = ROW_MAX) -> None:
        protocol, cutter = self.protocol, self._cutter
        while most > 0 and self.may_read():
            if cutter.data and cutter.header is None and protocol.state is _ESTABLISHED and not protocol.in_flight:
                before = self.requests
                cutter.skip_to(self._serve_whole(cutter.data, cutter.at, most))
                if self.requests > before:
                    most -= self.requests - before
                    progress = True
                    continue
            pending_before = self.in_flight
            action = protocol.next()
            if action is None:
                break
            progress = True
            self._carry_out(action)
            # Those that wait for a batch have a limit of their own; the more of them come together, the better.
            most -= self.in_flight == pending_before
        if self.out:
            self.flush()
        self.time_frame(progress)
        self.settle()

    def has_input(self) -> bool:
        """There is input to go on with."""
        return self._cutter.kept

    def is_partial(self) -> bool:
        """A frame has been begun and isn't complete, and all that has come of it has been looked at."""
        return self._cutter.partial and not self._cutter.kept

    def drop_input(self) -> None:
        """Forget all input that no handler has got."""
        self._cutter.clear()

    def unread(self) -> tuple[bytes, int]:
        """What isn't handled yet, as it came; and how many bytes that are still to come must be thrown away."""
        return self._cutter.unread()

    def come(self, data: bytes, skip: int, now: float) -> None:
        """So much of it was read elsewhere, and let it wait; its protocol is as it was there."""
        self._small = min(COPY_MAX, self.protocol.reply_limit)
        if skip:
            self._cutter.skip(skip)
        self.protocol.feed(data, 0, now)

    def finish_input(self) -> None:
        """Serve what was kept, paused or not: the server stops."""
        while self._cutter.kept and self.protocol.state is _ESTABLISHED:
            self.choked = False
            if self.in_flight:
                for batch in self.listener.batches.values():
                    batch.run(everything=True)
            self._go_on(progress=False)

    def last_read(self) -> None:
        """The server stops: say so, and answer what has arrived, so that closing doesn't reset the connection."""
        protocol = self.protocol
        if protocol.state is _ESTABLISHED:
            protocol.shutting_down = True
            unsettled = self.in_flight > 0
            self.unsettled = unsettled
            self.put(last_words(End.STOPPING if unsettled else End.SETTLED, admitted=True))
        elif protocol.state < _ESTABLISHED:
            dismiss(self, End.STOPPING)
        try:
            data = self.recv(READ_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lost(DisconnectReason.CLOSED_BY_PEER)
            return
        if not data:
            self.end_of_file()
        elif protocol.state is _ESTABLISHED:
            self._refuse_srms(data)

    def _refuse_srms(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.protocol.feed(data, 0, monotonic())
        while (action := self.protocol.next()) is not None:
            self._carry_out(action)

    # --- carrying out ---

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Request):
            self._serve_one(action)
            return
        self.frames_in += not isinstance(action, (NotServed, Ending))
        if isinstance(action, Answer):
            self.put(action.frame)
        elif isinstance(action, NotServed):
            self.core.not_served(action.service, action.code)
            self.requests += action.whole
            self.frames_in += not action.whole
            if not action.whole:
                self.core.note(Cause.TOO_LARGE)
            if action.frame:
                self.put(action.frame)
        elif isinstance(action, Initiation):
            self._initiate()
        elif isinstance(action, Cancel):
            pending.cancel(self, action.request_id)
        elif isinstance(action, Credit):
            self.core.streams.credit(self, action.request_id, action.size)
        elif isinstance(action, (Answered, Traced)):
            self._told(action)
        else:
            self._end(action)

    def _told(self, action: Answered | Traced) -> None:
        """It answers what it was asked, or nothing that was; or says of which trace its next request is a part."""
        if isinstance(action, Traced):
            traced = self.core.callbacks.traced
            if traced is not None:
                traced(self.client_id, action.request_id, action.said)
            return
        answered = self.core.callbacks.answered
        if answered is None or not answered(self.client_id, action.request_id, action.code, action.payload):
            self._end(self.protocol.unasked(action))

    def _initiate(self) -> None:
        """The CIR is good, and so is its proof; ask whether the server wants this client."""
        protocol, state = self.protocol, self.protocol.state
        # What the hook pushes follows CIR_ACCEPTED.
        waiting, self.out = self.out, []
        refused = self.ask()
        pushed, self.out = self.out, waiting
        if refused is not None or protocol.state is not state:
            self._refuse(refused or texts.NOT_ALLOWED, sum(map(len, pushed)))
            return
        self._small = min(COPY_MAX, protocol.reply_limit)
        self.put(protocol.accept(self.client_id, self.core.options.welcome))
        self.out += pushed
        self.let_in()

    def _refuse(self, text: str, dropped: int) -> None:
        """Also where the hook closed the client itself."""
        self.queued -= dropped
        if self.protocol.state < _ESTABLISHED:
            dismiss(self, End.NOT_LET_IN, text)
            return
        self.core.counts.refused += 1
        if self.protocol.state is ConnectionState.DRAINING:
            self.put(last_words(End.NOT_LET_IN, admitted=False, text=text))

    def _end(self, action: Ending) -> None:
        counts = self.core.counts
        self.frames_in += action.cause is None  # what breaks the rules isn't taken for a frame
        if action.cause is not None:
            self.core.note(action.cause)
            counts.errors += self.established
            counts.refused += not self.established
        if action.frame:
            self.put(action.frame)
        if action.reason is DisconnectReason.LEFT:  # it has said that it waits for nothing
            self.core.deferrals.orphan(self, Ended.GONE)
        self.ending(action.reason)

    # --- serving ---

    def _serve_whole(self, data: bytes, at: int, row: int) -> int:
        """Serve the whole, ordinary SRMs that ``data`` has from ``at`` on, at most ``row`` of them; up to where."""
        handlers, protocol, out = self.listener.handlers, self.protocol, self.out
        most, small, end = self.core.max_payload, self._small, len(data)
        client = self.client if self.client is not UNMADE else self.client_object()
        run = self.run
        gathered, before, unanswered, handler = 0, self.requests, 0, None
        last = before + row
        while end - at >= 12 and self.requests < last:
            length, kind, flags, service, request_id = _unpack_from(data, at)
            start, stop = at + 12, at + 12 + length
            if kind != _SRM or flags or stop > end or length > most:
                break
            handler = handlers.get(service)
            if handler is None:
                break
            at = stop
            self.requests += 1
            try:
                reply = run(handler, client, data[start:stop])
            except Exception as error:
                reply = Failure(error)
            if type(reply) is bytes and len(reply) <= small:
                out.append(_pack(len(reply), _REPLY, 0, 0, request_id) + reply)
                gathered += len(reply) + 12
            else:
                pieces = self._answer_to(service, request_id, True, length, 0.0, reply)
                reply = None
                unanswered += not pieces
                out += pieces
                gathered += sum(map(len, pieces))
                last = last if not self.deferred else self.requests  # the rules see to what may come now
            if gathered > GATHER_MAX:
                self.send_gathered(gathered)
                gathered = 0
                if not self.may_read():
                    break
            elif protocol.state is not _ESTABLISHED:
                break
        served, held_up = self.requests - before, self.core.held_up
        held_up.called = handler
        held_up.requests += served
        self.frames_out += served - unanswered
        if gathered:
            self.send_gathered(gathered)
        return at

    def _serve_one(self, request: Request) -> None:
        """An SRM that came in pieces, or wants no reply, or is for a batch."""
        self.requests += 1
        self.core.held_up.requests += 1
        if request.deadline and pending.is_late(request.deadline):
            self._not_started(request, ErrorCode.DEADLINE_PASSED, texts.TOO_LATE)
            return
        if request.service in self.core.streaming and not (request.takes_stream and request.wants_reply):
            self._not_started(request, ErrorCode.NEEDS_STREAM, texts.NEEDS_STREAM)
            return
        batch = self.listener.batches.get(request.service)
        if batch is not None:
            pending.add(self, 1, len(request.payload))
            waiting = (self, request.request_id, request.wants_reply, request.payload, request.deadline)
            pending.hold_id(waiting)
            batch.add([waiting])
            return
        size = len(request.payload)
        self.answer(
            request.service, request.request_id, request.wants_reply, size, request.deadline, self._call(request)
        )

    def _not_started(self, request: Request, code: ErrorCode, text: str) -> None:
        self.core.not_served(request.service, code)
        pending.not_started(self, request.request_id, request.wants_reply, code, text)

    def _call(self, request: Request) -> Any:
        client, number = self.client_object(), request.service
        handler = self.listener.handlers.get(number) or self.core.streaming[number]
        self.core.held_up.called = handler
        try:
            return self.run(handler, client, request.payload)
        except Exception as error:
            return Failure(error)

    def answer(self, service: int, request_id: int, wants_reply: bool, size: int, deadline: float, reply: Any) -> None:
        """The reply to a request that was pending, or is served now."""
        pieces = self._answer_to(service, request_id, wants_reply, size, deadline, reply)
        for piece in pieces if wants_reply else ():
            if self.protocol.state is not ConnectionState.CLOSED:
                self.put(piece)
        self.frames_out -= wants_reply and len(pieces) > 1  # the head of a large one, and what it has

    def _answer_to(
        self, service: int, request_id: int, wants_reply: bool, size: int, deadline: float, reply: Any
    ) -> list[bytes]:
        """The frame that answers a request: a REPLY, or an ERROR if the handler failed or what it returned won't do;
        nothing if the answer comes later.
        """
        payload = checked_reply(reply, self.protocol.reply_limit)
        if payload is None:
            payload = self.core.deferrals.take(self, service, request_id, wants_reply, size, deadline, reply)
            if payload is None:
                return []
        if type(payload) is Failure:
            code, text, started = self.core.failed(self.client_id, service, request_id, payload.error)
            del payload  # see Failure
            flags = 0 if started else self.protocol.not_started_flag
            text = fitting(text, self.protocol.reply_limit)
            return [encode(Kind.ERROR, text, code=code, request_id=request_id, flags=flags)]
        assert type(payload) is bytes
        head = _pack(len(payload), _REPLY, 0, 0, request_id)
        # A large one is sent from where it is.
        return [head, payload] if len(payload) > COPY_MAX else [head + payload]
