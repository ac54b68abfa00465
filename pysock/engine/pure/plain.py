"""A connection of the framings without a CIR: u32, line and raw.

There is no request id, so replies must come in the order of the requests, and there is no error frame, so a request
that fails ends the connection: a missing reply would make the client match all later ones to the wrong requests.
"""

from __future__ import annotations

import socket

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR
from pysock.engine.pure.connection import UNMADE, Connection
from pysock.engine.pure.core import READ_MAX, ROW_MAX
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.output import COPY_MAX, GATHER_MAX
from pysock.engine.pure.poll import READ
from pysock.engine.pure.reply import Failure, checked_reply
from pysock.engine.pure.waiting import pending
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire import texts
from pysock.wire.endings import End
from pysock.wire.format import ErrorCode
from pysock.wire.framing import LENGTH
from pysock.wire.rules import PlainProtocol

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener

_unpack_from, _pack = LENGTH.unpack_from, LENGTH.pack
_ESTABLISHED = ConnectionState.ESTABLISHED


class PlainConnection(Connection):
    """One client, served by service 0 alone."""

    __slots__ = ("_cutter", "_head", "_kept", "_limit", "_small", "_tail")

    protocol: PlainProtocol

    # What is changed here and declared above: type checkers want to know that it stays the same.
    bytes_in: int
    bytes_out: int
    frames_out: int
    heard: float
    out: list[bytes | bytearray | memoryview]
    queued: int
    requests: int

    def __init__(self, core: Core, sock: socket.socket, listener: Listener, address: str) -> None:
        limits, framing = core.limits, listener.framing
        self.protocol = PlainProtocol(framing, limits.max_payload)
        self._cutter = self.protocol.cutter
        self._head, self._tail = framing.head, framing.tail
        self._limit = limits.max_payload
        self._small = min(COPY_MAX, self._limit)  # for the short ways
        self._kept: list[bytes] = []  # requests that were read, and may not be looked at yet
        super().__init__(core, sock, listener, address)
        if not framing.tells_size and not framing.ends_line:  # a read is a message
            self.read_max: int = min(READ_MAX, limits.max_payload)

    def start(self) -> None:
        """The kernel's connect was the connection initiation request: let the client in, or don't."""
        super().start()
        self.arrive()

    def arrive(self) -> None:
        """Its bytes can come and go: ask whether it may."""
        if self.protocol.state is not ConnectionState.ACCEPTED:
            return
        refused = self.ask()
        if refused is not None or self.protocol.state is not ConnectionState.ACCEPTED:
            self.core.counts.refused += 1
            self.lost(DisconnectReason.CLOSED_BY_SERVER)
            return
        self.protocol.accept()
        self.let_in()

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
        self._take(data)

    def _take(self, data: bytes) -> None:
        if not data:
            self.end_of_file()
            return
        self.bytes_in += len(data)
        self.heard = self.core.now
        cutter = self._cutter
        begun = cutter.partial
        requests = cutter.feed(data)
        if cutter.missing or self.read_max > READ_MAX:
            self.adapt_read(len(data), begun, len(requests), cutter.missing)
        if requests:
            self._serve(requests)
        if self.timed or cutter.partial:
            self._after_input(bool(requests))

    def _after_input(self, progress: bool) -> None:
        if self._cutter.too_large and not self._kept and self.protocol.state is _ESTABLISHED:
            dismiss(self, End.TOO_LARGE)
            self.settle()
        self.time_frame(progress)

    def go_on(self) -> None:
        """Go on with input that was kept while the client was paused."""
        kept, self._kept = self._kept, []
        self._serve(kept)
        self._after_input(bool(kept))

    def unread(self) -> tuple[bytes, int]:
        """What isn't handled yet, as it came; nothing that comes must be thrown away."""
        return b"".join([*map(self.listener.framing.message, self._kept), self._cutter.unread()]), 0

    def come(self, data: bytes, skip: int, now: float) -> None:
        """So much of it was read elsewhere, and let it wait."""
        self._kept = self._cutter.feed(data) if data else []

    def is_too_large(self) -> bool:
        """It is about to end for that."""
        return self._cutter.too_large

    def finish_input(self) -> None:
        """Serve what was kept, paused or not: the server stops."""
        while self._kept and self.protocol.state is _ESTABLISHED and not self.deferred:
            self.choked = False
            if self.in_flight:
                self.listener.batches[0].run(everything=True)
            self.go_on()

    def has_input(self) -> bool:
        """There is input to go on with."""
        return bool(self._kept)

    def is_partial(self) -> bool:
        """A message has been begun and isn't complete, and all that has come has been looked at."""
        return self._cutter.partial and not self._kept

    def drop_input(self) -> None:
        """Forget all input that no handler has got."""
        self._kept = []
        self.protocol.forget()
        self._cutter = self.protocol.cutter

    def last_read(self) -> None:
        """The server stops: take what has arrived, so that closing doesn't reset the connection."""
        try:
            if self.recv(READ_MAX):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lost(DisconnectReason.CLOSED_BY_PEER)
            return
        self.end(ConnectionEvent.END_OF_FILE, DisconnectReason.CLOSED_BY_PEER)

    # --- serving ---

    def _serve(self, requests: list[bytes]) -> None:
        handler = self.listener.handlers.get(0)
        if handler is None:
            self._serve_otherwise(requests)
            return
        protocol, out, small = self.protocol, self.out, self._small
        head, tail = self._head, self._tail
        client = self.client if self.client is not UNMADE else self.client_object()
        run = self.run
        gathered, before, is_later, unanswered = 0, self.requests, False, 0
        for request in requests if len(requests) <= ROW_MAX else requests[:ROW_MAX]:
            self.requests += 1
            try:
                reply = run(handler, client, request)
            except Exception as error:
                reply = Failure(error)
            if type(reply) is bytes and len(reply) <= small:
                reply = head(len(reply)) + reply if head else reply + tail
                out.append(reply)
                gathered += len(reply)
            else:
                added = self._append(len(request), reply)
                unanswered += not added
                gathered += added
                reply = None
                is_later = bool(self.deferred)
            if gathered > GATHER_MAX:
                self.send_gathered(gathered)
                gathered = 0
                if not self.may_read():
                    break
            elif is_later or protocol.state is not _ESTABLISHED:
                break
        self.frames_out += self.requests - before - unanswered
        if gathered or self.queued:
            self.send_gathered(gathered)
        if out or self.interest != READ or protocol.state is not _ESTABLISHED or self.requests < before + len(requests):
            self._keep(requests, self.requests - before)

    def _keep(self, requests: list[bytes], at: int) -> None:
        """Something is out of the ordinary: what wasn't served is for later."""
        if self.protocol.state is _ESTABLISHED:
            self._kept = requests[at:]
        self.settle()

    def _serve_otherwise(self, requests: list[bytes]) -> None:
        """By a batch, or not at all."""
        batch = self.listener.batches.get(0)
        if batch is None:
            self._no_service()
            return
        room = pending.room(self)
        taken = requests[:room]
        self.requests += len(taken)
        pending.add(self, len(taken), sum(map(len, taken)))
        batch.add([(self, 0, True, request, 0.0) for request in taken])
        self._keep(requests, room)

    def _append(self, request_size: int, reply: Any) -> int:
        """Append one reply to ``out``, whatever the handler made of it; how many bytes."""
        if reply is None:
            return 0
        payload = checked_reply(reply, self._limit)
        if payload is None:
            payload = self.core.deferrals.take(self, 0, 0, True, request_size, 0.0, reply)
            if payload is None:
                return 0
        if type(payload) is Failure:
            self._failed(payload.error)
            del payload  # see Failure
            return 0
        assert type(payload) is bytes
        if len(payload) <= COPY_MAX:
            message = self.listener.framing.message(payload)
            self.out.append(message)
            return len(message)
        # A large one is sent from where it is.
        head, tail = self._head(len(payload)) if self._head else b"", self._tail
        self.out += filter(None, (head, payload, tail))
        return len(head) + len(payload) + len(tail)

    def answer(self, service: int, request_id: int, wants_reply: bool, size: int, deadline: float, reply: Any) -> None:
        """The reply to a request that was pending."""
        if self.protocol.state is ConnectionState.CLOSED:
            return
        if type(reply) is bytes and len(reply) <= self._small:  # half of the time that _append takes
            reply = self._head(len(reply)) + reply if self._head else reply + self._tail
            self.out.append(reply)
            added = len(reply)
        else:
            added = self._append(size, reply)
        self.queued += added
        self.bytes_out += added
        self.frames_out += added > 0

    # --- failing ---

    def _failed(self, error: Exception) -> None:
        self.core.failed(self.client_id, 0, 0, error)
        self._break_off()

    def _no_service(self) -> None:
        self.requests += 1
        self.core.not_served(0, ErrorCode.NO_SUCH_SERVICE)
        if not self.core.logged_no_service:
            self.core.logged_no_service = True
            self.core.callbacks.log(ERROR, texts.NO_SERVICE)
        self._break_off()
        self.settle()

    def _break_off(self) -> None:
        pending.give_up(self)
        self.end(ConnectionEvent.DRAIN, DisconnectReason.CLOSED_BY_SERVER)


class U32Connection(PlainConnection):
    """The framing ``u32``, with a short way for what nearly always comes: one request, whole."""

    __slots__ = ()

    # What is changed here and declared above: type checkers want to know that it stays the same.
    bytes_in: int
    frames_out: int
    heard: float
    requests: int

    def on_event(self, bits: int) -> None:
        """Something is ready: read, serve, send. Written out: a call more was measured, and cost 4 %."""
        if bits != READ and not self.also(bits):
            return
        try:
            data = self.recv(self.read_max)
        except OSError as error:
            self.input_failed(error)
            return
        size, handler = len(data), self.listener.handlers.get(0)
        if size < 4 or self._cutter.partial or not size - 4 == _unpack_from(data)[0] <= self._limit or handler is None:
            self._take(data)
            return
        if size <= READ_MAX < self.read_max:
            self.read_max = READ_MAX
        client = self.client if self.client is not UNMADE else self.client_object()
        self.bytes_in += size
        self.heard = self.core.now
        self.requests += 1
        try:
            reply = self.run(handler, client, data[4:])
        except Exception as error:
            reply = Failure(error)
        if type(reply) is bytes and len(reply) <= self._small:
            size = len(reply) + 4
            self.out.append(_pack(size - 4) + reply)
        else:
            size = self._append(size - 4, reply)
            reply = None
        self.frames_out += size > 0
        if size or self.queued:
            self.send_gathered(size)
        if self.out or self.interest != READ or self.protocol.state is not _ESTABLISHED:
            self.settle()
