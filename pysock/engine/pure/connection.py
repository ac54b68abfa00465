"""One client's connection, whatever the framing: its beginning, its input, its states.

Two rules keep it safe whatever a handler does in the middle of an event:

1. A connection is never freed in an event. ``lost`` and ``settle`` make it CLOSED and put it on ``core.dead``; it is
   buried at the end of the turn, so until then its descriptor can't be somebody else's.
2. After every call of a handler the state is looked at again.
"""

from __future__ import annotations

import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context

from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import no_sigpipe
from pysock.causes import Cause
from pysock.engine.deferral import Ended
from pysock.engine.pure.core import LARGE_READ_MAX, READ_MAX
from pysock.engine.pure.door.access import Origin
from pysock.engine.pure.output import PACKED, SHORT_OF_MEMORY, Output
from pysock.engine.pure.poll import READ, WRITE, is_foreign
from pysock.engine.pure.transport import discard_input
from pysock.engine.pure.waiting import pending
from pysock.engine.pure.waiting.deferred import why_closed
from pysock.engine.pure.waiting.pushed import Push
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason
from pysock.wire.endings import End, last_words
from pysock.wire.rules import FrameProtocol, PlainProtocol

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener
    from pysock.engine.pure.table import Leaver
    from pysock.tls.info import TLSInfo

TCP_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)
UNMADE: Final = object()
#: Requests in one read from a client whose frames are large.
_FEW: Final = 8
_CLOSED: Final = ConnectionState.CLOSED
_ESTABLISHED: Final = ConnectionState.ESTABLISHED
_DRAINING: Final = ConnectionState.DRAINING


class Connection(Output):
    """The part that every framing has. A subclass says what the bytes mean."""

    __slots__ = (
        "address", "attached", "buried", "bytes_in", "client", "client_id", "connected_at", "credentials",
        "established", "fd", "frames_in", "full", "gave_up", "heard", "in_flight", "in_flight_bytes", "interest",
        "leaver", "origin", "protocol", "read_max", "reason", "recv", "requests", "run", "sending", "sent", "timed",
        "unsettled",
    )  # fmt: skip

    protocol: FrameProtocol | PlainProtocol
    run: Callable[..., Any]
    requests: int
    bytes_in: int

    def __init__(self, core: Core, sock: socket.socket, listener: Listener, address: str) -> None:
        super().__init__(core, sock, listener)
        self.recv: Callable[[int], bytes] = listener.transport.receive(self.channel)
        self.fd: int = sock.fileno()
        self.address: str = address
        self.connected_at: float = time.time()
        self.read_max: int = READ_MAX
        self.requests = 0
        self.bytes_in = 0
        self.frames_in: int = 0  # beside requests
        self.heard: float = core.now  # when bytes of it were last read, on the monotonic clock
        self.client: Any = UNMADE
        self.attached: bool = core.options.watch_disconnects
        self.established: bool = False  # was let in, once
        self.reason: DisconnectReason | None = None  # of the end, once it is ending
        self.leaver: Leaver | None = None  # among those that went, once it has
        self.credentials: tuple[int, int, int] | None = None
        self.origin: Origin | None = None  # that it takes, of those that its user or address may have
        self.interest: int = 0
        self.in_flight: int = 0  # requests that have no answer yet
        self.in_flight_bytes: int = 0
        self.full: bool = False  # so many wait that it isn't read until half of them are answered
        self.unsettled: bool = False  # the server stops, and has still to say when all of them are answered
        self.gave_up: bool = False  # one stays without, so no later one gets any
        self.buried: bool = False  # its end is being told
        self.timed: bool = False  # the deadline of a frame runs
        self.sending: bool = False  # all that is left to do: the kernel sends what it took; and it has
        self.sent: bool = False
        self.client_id: int = core.table.add(self)

    # --- the beginning ---

    def start(self) -> None:
        """Wait for its bytes."""
        core = self.core
        core.counts.pending += 1
        core.on_event[self.fd] = self.on_event if core.limits.idle_timeout is None else self._on_event_idle
        no_sigpipe(self.sock)
        if core.limits.idle_timeout is not None:
            core.idles.start(self, core.now)
        self._watch(READ)

    def arrive(self) -> None:  # nothing is to be done where a CIR is waited for
        """Its bytes can come and go."""

    def tls(self) -> TLSInfo | None:
        """What came of the TLS handshake, if there is one."""
        return None

    def ask(self) -> str | None:
        """Ask the connect hook: ``None`` to let the client in, or why not."""
        connect = self.core.callbacks.connect
        if connect is None:
            return None
        self.holding = True
        try:
            return connect(self.client_id)
        finally:
            self.holding = self.protocol.state is _CLOSED

    def let_in(self) -> None:
        """It is a client from now on."""
        counts = self.core.counts
        self.established = True
        self.pause_at: int = self.core.limits.output_pause
        counts.pending -= 1
        counts.clients += 1
        counts.established += 1
        self.core.cirs.stop(self)
        self.core.table.let_in(self.client_id, self, self.protocol.name)
        if self.core.callbacks.joined is not None:
            self.core.callbacks.joined(self.client_id)

    def client_object(self) -> Any:
        """What a handler is called with; asked for once."""
        if self.client is UNMADE:
            # What a handler sets must not be seen by another client's. A copy for each request would cost more.
            self.run = copy_context().run
            self.client = self.core.callbacks.client(self.client_id)
            self.attached = True
        return self.client

    # --- input ---

    @abstractmethod
    def on_event(self, bits: int) -> None:
        """Something is ready: read, serve, send."""

    @abstractmethod
    def go_on(self) -> None:
        """Go on with input that was kept while the client was paused."""

    @abstractmethod
    def has_input(self) -> bool:
        """There is input to go on with."""

    @abstractmethod
    def is_partial(self) -> bool:
        """A frame has been begun and isn't complete, and all that has come of it has been looked at."""

    @abstractmethod
    def drop_input(self) -> None:
        """Forget all input that no handler has got."""

    @abstractmethod
    def finish_input(self) -> None:
        """Serve what was kept, paused or not: the server stops."""

    @abstractmethod
    def last_read(self) -> None:
        """The server stops: say so where the framing can, and read what has arrived."""

    @abstractmethod
    def answer(self, service: int, request_id: int, wants_reply: bool, size: int, deadline: float, reply: Any) -> None:
        """The reply to a request that was pending, of so many bytes."""

    def takes_pushes(self) -> bool:
        """It was let in, or is being let in just now, and isn't ending."""
        state = self.protocol.state
        return self.moving < PACKED and (state is _ESTABLISHED or (self.holding and state < _ESTABLISHED))

    def push(self, message: Push) -> bool:
        """Queue bytes the client didn't ask for, encoded."""
        if not self.takes_pushes():
            return False
        self.core.counts.pushes += 1
        self.put_push(message)
        return self.protocol.state is not _CLOSED

    def _on_event_idle(self, bits: int) -> None:
        if bits & READ:
            self.core.idles.start(self, self.core.now)
        self.on_event(bits)

    def also(self, bits: int) -> bool:
        """Deal with an event that is more than bytes to read; return whether there is something to read, too."""
        self.flush()
        self.settle()
        return bool(self.interest & READ) and bits != WRITE

    def may_read(self) -> bool:
        """Its input may be looked at now."""
        if self.choked or self.moving or self.protocol.state >= _DRAINING:
            return False
        return not self.in_flight or pending.room(self) > 0

    def adapt_read(self, size: int, begun: bool, requests: int, missing: int) -> None:
        """Read more at once where that is one large frame, and never where it would be many small ones.

        :param begun: a frame had been begun before these ``size`` bytes came.
        :param missing: bytes that are missing of the frame that is being received now.
        """
        if missing > READ_MAX // 4:
            self.read_max = LARGE_READ_MAX
        elif (size <= READ_MAX and not begun) or requests > _FEW:
            self.read_max = READ_MAX

    def input_failed(self, error: OSError) -> None:
        """recv() failed."""
        if error.errno in SHORT_OF_MEMORY:
            self.no_memory()
        elif not isinstance(error, (BlockingIOError, InterruptedError)):
            self.lost(DisconnectReason.CLOSED_BY_PEER)

    def end_of_file(self) -> None:
        """The client sends nothing more. What it sent whole is answered, unless it is one that would wait for that."""
        if pending.speaks_of_cancelling(self):
            self.core.deferrals.orphan(self, Ended.GONE)
            if not self.in_flight:
                self.lost(DisconnectReason.CLOSED_BY_PEER)
                return
        self.end(ConnectionEvent.END_OF_FILE, DisconnectReason.CLOSED_BY_PEER)
        self.settle()

    def time_frame(self, progress: bool) -> None:
        """The deadline of a frame runs from its first byte to its last, however often a few bytes come between.

        It doesn't begin while the client isn't read, but one that has begun goes on.

        :param progress: a frame has been completed.
        """
        if self.timed and (progress or not self.is_partial()):
            self.timed = False
            self.core.frames.stop(self)
        if not self.timed and self.established and self.may_read() and self.is_partial():
            self.timed = True
            self.core.frames.start(self, self.core.now)

    # --- the end ---

    def settle(self) -> None:
        """Bring what is waited for in line with what has happened; close if all is done."""
        state = self.protocol.state
        if state is _CLOSED:
            return
        if state is _DRAINING and not self.in_flight and self.unsettled:
            self._say_settled()
        if state is _DRAINING and not self.out and not self.in_flight and not self._is_sending():
            if self.reason not in {DisconnectReason.LEFT, DisconnectReason.CLOSED_BY_PEER}:
                discard_input(self.sock)
            self._close(ConnectionEvent.FLUSHED)
            return
        reads = self.may_read()
        if reads and self.has_input():
            self.core.ready[self] = None
            reads = False  # first things first
        interest = (READ if reads else 0) | (WRITE if (self.out and not self.starved) or self.sending else 0)
        if interest != self.interest:
            if reads and not self.interest & READ:
                self.time_frame(progress=False)  # of one that was begun before it wasn't read
            self._watch(interest)

    def _say_settled(self) -> None:
        """All that was accepted is answered. Its client can't know that, nor when what it asked for was too late."""
        self.unsettled = False
        if self.reason is DisconnectReason.SERVER_STOPPING:
            self.put(last_words(End.SETTLED, admitted=True))
            self.core.dirty[self] = None

    def end(self, event: ConnectionEvent, reason: DisconnectReason) -> None:
        """Read nothing more; close when what was accepted is answered and flushed."""
        self._note_no_proof(reason)
        if self.protocol.state < _DRAINING:
            self.protocol.take(event)
            self.ending(reason)

    def _note_no_proof(self, reason: DisconnectReason) -> None:
        """It leaves instead of proving that it has the auth key: most likely it has another one."""
        if self.protocol.state is ConnectionState.CHALLENGED and reason is DisconnectReason.CLOSED_BY_PEER:
            self.core.note(Cause.PROOF)

    def ending(self, reason: DisconnectReason) -> None:
        """The connection has just become DRAINING."""
        core = self.core
        if self.reason is None:
            self.reason = reason
        self.stay()
        if self.deferred:
            core.streams.end_those_of(self, reason is DisconnectReason.PROTOCOL_VIOLATION)
        self.drop_input()
        self.timed = False
        core.frames.stop(self)
        if self.established:  # one that wasn't let in keeps the deadline for that, or could stay by taking no refusal
            core.cirs.stop(self)
        core.idles.stop(self)
        core.on_event[self.fd] = self._on_event_draining
        core.dirty[self] = None

    def lost(self, reason: DisconnectReason) -> None:
        """Close at once."""
        self._note_no_proof(reason)
        if self.protocol.state is not _CLOSED:
            if self.reason is None:
                self.reason = reason
            self._close(ConnectionEvent.LOST)

    def abandon(self) -> None:
        """In a forked child: close the copy of the descriptor, and tell nobody. A handler of its may be running."""
        if self.protocol.state is not _CLOSED:
            self.protocol.take(ConnectionEvent.LOST)
        self.holding = True
        self.choked: bool = False
        self.stalled: bool = False
        self.established = False
        self.attached = False
        self.interest = 0
        self.forget_later()
        self.drop_input()
        with suppress(OSError):
            self.sock.close()

    def _on_event_draining(self, _bits: int) -> None:
        self.sent = self.sending
        self.flush()
        self.settle()

    def _is_sending(self) -> bool:
        """Once a TCP socket is closed, whatever the client still sends is answered by a reset, and then what the kernel
        took from us and has not sent yet is lost. So it is closed only when all is on its way.
        """
        may_get_more = self.reason not in {DisconnectReason.LEFT, DisconnectReason.CLOSED_BY_PEER}
        if not self.listener.tcp or not may_get_more or self.sent or TCP_NOTSENT_LOWAT is None:
            return False
        if not self.sending:
            with suppress(OSError):
                # From now on it counts as writable when nothing waits to be sent.
                self.sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1)
                self.sending = True
                self.core.outputs.start_now(self, self.core.now)
        return self.sending

    def _close(self, event: ConnectionEvent) -> None:
        """By this event it is CLOSED: nothing of it is waited for."""
        core = self.core
        assert self.reason is not None
        with core.table.lock:  # whoever looks finds it here or there
            self.protocol.take(event)
            core.table.leave(self, self.protocol.name, self.reason)
        self._watch(0)
        core.on_event[self.fd] = _ignore
        # A handler may be running: what it returns is still appended, and not sent.
        self.holding: bool = True
        self.choked = False
        self.stalled = False
        self.drop_input()
        for deadlines in (core.cirs, core.frames, core.outputs, core.idles, core.slow):
            deadlines.stop(self)
        if self.deferred:
            core.deferrals.orphan(self, why_closed(self.reason))
        if self.origin is not None:
            core.origins.leave(self.origin)
        if self.established:
            core.counts.clients -= 1
        else:
            core.counts.pending -= 1
        core.dead.append(self)

    def _watch(self, interest: int) -> None:
        old, self.interest = self.interest, interest
        if old == interest:
            return
        try:
            self.core.poller.change(self.fd, old, interest)
        except OSError as error:
            if old and is_foreign(self.core.poller, self.sock, error):
                self.sock.detach()
            # Else the kernel has no memory to watch it (epoll_ctl(2): ENOMEM, ENOSPC).
            self.interest = old if not interest else 0
            if interest:
                self.no_memory()


def _ignore(_bits: int) -> None:
    """An event of this turn for a connection that was closed in it."""
