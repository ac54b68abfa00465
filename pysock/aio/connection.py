"""One connection in an asyncio loop: who waits for what, and what becomes of what comes.

The loop holds this object while the connection lives; the program holds the client. It owns the socket. A request's
id stays taken from when it is sent until its answer is there, also if nobody waits any more: so no answer ever reaches
somebody else, and both ends count the same number in flight.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import OrderedDict, deque
from functools import partial

from pysock.aio.answers import Answers
from pysock.aio.deadlines import Deadlines
from pysock.aio.heart import Heart
from pysock.aio.output import Output
from pysock.base import forking
from pysock.base.aliases import Buffer
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.calls.mailbox import Mailbox
from pysock.engine.inbox import Inbox
from pysock.engine.inlet import TEXT_BAD_FRAME, TEXT_UNASKED_PIECE, Inlet
from pysock.engine.outlet import SMALL, Outlet
from pysock.errors import ConnectionLost, ProtocolError, RequestTimeout
from pysock.limits import LARGEST_PAYLOAD
from pysock.wire import tracing
from pysock.wire.cir import Welcome
from pysock.wire.error_text import remote_error
from pysock.wire.features import Feature, encode_deadline
from pysock.wire.format import FLAG_DEADLINE, FLAG_NO_REPLY, FLAG_TAKES_STREAM, HEADER, Frame, Kind, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.answering.services import ClientServices
    from pysock.calls.pieces import Pieces
    from pysock.tls.channel import ClientChannel

_SRM: Final = int(Kind.SRM)
_REPLY: Final = int(Kind.REPLY)
_ERROR: Final = int(Kind.ERROR)
_PONG: Final = int(Kind.PONG)
_UNASKED: Final = frozenset((Kind.PUSH, Kind.GOAWAY))
_QUESTIONS: Final = frozenset((Kind.ASK, Kind.ASK_CANCEL))
_LATE: Final = "the server didn't answer in time"
_pack: Final = HEADER.pack


class Connection(Unique):
    """See the head of this file.

    :param heartbeat: seconds between two PINGs; ``None``: there are none.
    :param output: its way out, as one knows which requests weren't sent, and the other doesn't.
    :param channel: what is around the socket, where TLS is spoken.
    :ivar waiting: by request id: a future, or what looks like one.
    """

    def __init__(
        self,
        sock: socket.socket,
        inlet: Inlet,
        outlet: type[Outlet],
        inbox: Inbox,
        welcome: Welcome,
        mail: Mailbox,
        heartbeat: float | None = None,
        output: type[Output] = Output,
        services: ClientServices | None = None,
        channel: ClientChannel | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.waiting: dict[int, Any] = {}
        self.mail: Mailbox = mail
        self.error: Exception | None = None  # why it has ended
        self.listeners: deque[asyncio.Future[None]] = deque()  # who waits for a push
        self._sock = sock
        self._fd = sock.fileno()
        self._file = file_of(self._fd)
        self._inlet = inlet
        self._inbox = inbox
        self._window = max(1, welcome.max_in_flight or 1)
        self._timed = bool(welcome.features & Feature.DEADLINE)
        self._traces = bool(welcome.features & Feature.TRACE)
        self._cancels = bool(welcome.features & Feature.CANCEL)
        self._takes_streams = bool(welcome.features & Feature.STREAM)
        self._streams: dict[int, Pieces] = {}
        self._tombstones: set[int] = set()  # nobody waits for these in `waiting`, and their answer hasn't come
        self._pings: set[int] = set()  # a server can't take these back
        #: Beyond the window, not sent yet: service, payload, deadline and flags.
        self._queued: OrderedDict[int, tuple[int, Buffer, float | None, int]] = OrderedDict()
        self._deadlines = Deadlines(self.loop, self.waiting, self._expire)
        gathering = partial(
            outlet,
            waiting=self.waiting,
            unwanted=self._tombstones,
            deadline=self._deadlines.share,
            window=self._window,
            largest=SMALL if welcome.max_payload is None else welcome.max_payload,
            timed=self._timed,
        )
        self._channel = channel
        self.output: Output = output(self.loop, channel or sock, self._broken, gathering)
        #: Is called when the server has said goodbye, and when the connection has ended.
        self.watch: Callable[[], object] | None = None
        #: Sends an ordinary request, else returns 0: as :meth:`submit`, and much faster.
        self.submit_ordinary: Callable[[Any, int, Any, float | None], int] = self.output.outlet.submit
        most = LARGEST_PAYLOAD if welcome.max_payload is None else welcome.max_payload
        self._answers = None if services is None else Answers(services, self, most)
        # In a context of its own: else it would keep, and show, that of whoever has connected.
        contextvars.Context().run(self.loop.add_reader, self._fd, self._readable)
        forking.own(self)
        self._heart = Heart(self, heartbeat)
        self._sort()

    # --- what goes out ---

    def submit(self, waiter: Any, service: int, payload: Buffer, seconds: float | None) -> int:
        """Send a request, or queue it until the window has room; its id."""
        trace = None if tracing.inject is None else self._trace()
        number = 0 if trace else self.submit_ordinary(waiter, service, payload, seconds)
        if number:
            return number
        number = self.output.outlet.next_id()
        in_flight = len(self.waiting) + len(self._tombstones)
        self.waiting[number] = waiter
        deadline = deadline_of(seconds)
        if deadline is not None:
            self._deadlines.add(deadline, number)
        self._enter(number, service, payload, seconds, in_flight, 0, trace)
        return number

    def submit_stream(self, pieces: Pieces, service: int, payload: Buffer, seconds: float | None) -> int:
        """The same for one whose reply may come in pieces. When its time is over the caller says so."""
        number = self.output.outlet.next_id()
        in_flight = len(self.waiting) + len(self._tombstones)
        self._streams[number] = pieces
        self._tombstones.add(number)  # so that the inlet leaves all of its frames in their order
        flags = FLAG_TAKES_STREAM if self._takes_streams else 0
        self._enter(number, service, payload, seconds, in_flight, flags, self._trace())
        return number

    def _trace(self) -> bytes | None:
        """Of which trace what is sent now is a part, where the server wants to know it."""
        return tracing.inject() if tracing.inject is not None and self._traces else None

    def _enter(
        self,
        number: int,
        service: int,
        payload: Buffer,
        seconds: float | None,
        in_flight: int,
        flags: int,
        trace: bytes | None,
    ) -> None:
        if trace:  # in front of it, also of what waits for the window
            self.output.put(_pack(len(trace), Kind.TRACE, 0, 0, number) + trace, b"", idle=False)
        if in_flight >= self._window or self._queued:
            self._queued[number] = (service, payload, deadline_of(seconds), flags)
        else:
            self._send(number, service, payload, seconds, flags, idle=not in_flight)

    def _send(
        self, number: int, service: int, payload: Buffer, seconds: float | None, flags: int, *, idle: bool
    ) -> None:
        prefix = encode_deadline(seconds) if seconds is not None and self._timed else b""
        flags |= FLAG_DEADLINE if prefix else 0
        self.output.put(_pack(len(prefix) + len(payload), _SRM, flags, service, number) + prefix, payload, idle)

    def notify(self, service: int, payload: Buffer) -> int:
        """Send a request that isn't answered; its id."""
        number = self.output.outlet.next_id()
        if trace := self._trace():
            self.output.put(_pack(len(trace), Kind.TRACE, 0, 0, number) + trace, b"", idle=False)
        self.output.put(_pack(len(payload), _SRM, FLAG_NO_REPLY, service, number), payload, not self.waiting)
        return number

    def ping(self, waiter: Any, payload: Buffer, deadline: float | None) -> int:
        """Send a PING; its id."""
        number = self.output.outlet.next_id()
        self.waiting[number] = waiter
        self._pings.add(number)
        if deadline is not None:
            self._deadlines.add(deadline, number)
        self.output.put(_pack(len(payload), Kind.PING, 0, 0, number), payload, idle=True)
        return number

    def give_up(self, number: int) -> None:
        """Nobody waits for it any more: the server is told, and what still comes of it is thrown away."""
        if self.waiting.pop(number, None) is None or self.error is not None:
            return
        if self._queued.pop(number, None) is not None:
            return
        self.output.own()
        self._tombstones.add(number)
        if self._cancels and number not in self._pings:
            self.output.put(encode(Kind.CANCEL, request_id=number), b"", idle=False)

    def leave_stream(self, number: int) -> None:
        """Nobody wants more of it."""
        if self._streams.pop(number, None) is None or self.error is not None:
            return
        if self._queued.pop(number, None) is not None:
            self._tombstones.discard(number)
            return
        self.output.own()
        if self._cancels:
            self.output.put(encode(Kind.CANCEL, request_id=number), b"", idle=False)

    @property
    def has_streams(self) -> bool:
        """Whether one is open."""
        return bool(self._streams)

    @property
    def has_room(self) -> bool:
        """Whether a request that waits for long leaves room for others."""
        return self._window > 1

    def give_credit(self, number: int, credit: bytes) -> None:
        """So much more of a stream may come."""
        if number in self._streams and self.error is None:
            self.output.put(encode(Kind.CREDIT, credit, request_id=number), b"", idle=False)

    def _expire(self, number: int) -> None:
        waiter = self.waiting[number]
        self.give_up(number)
        if not waiter.done():
            waiter.set_exception(RequestTimeout(_LATE))

    def _advance(self) -> None:
        """Send what was queued, as far as the window has room now."""
        queued = self._queued
        room = self._window - (len(self.waiting) - len(queued) + len(self._tombstones))
        while queued and room > 0:
            number, (service, payload, deadline, flags) = queued.popitem(last=False)
            room -= 1
            self._send(number, service, payload, time_left(deadline), flags, idle=False)

    # --- what comes in ---

    def _readable(self) -> None:
        try:
            self._inlet.receive(self._fd, self.waiting, self._inbox)
        except (ConnectionLost, ProtocolError) as error:
            self._sort()
            self.end(error)
            return
        except MemoryError:  # what came may be lost, and whoever waits for it would wait in vain
            self.end(ConnectionLost("there is no memory for what the server sent"))
            return
        if self._inbox:
            self._sort()
        if self._queued:
            self._advance()

    def _sort(self) -> None:
        """What the inlet gave to nobody: errors, pongs, late answers; the rest is the mailbox's."""
        others = Inbox()
        others.dropped = self._inbox.take_dropped()
        while self._inbox:
            frame = Frame._make(self._inbox.popleft())
            if frame.kind in _UNASKED or (frame.kind == _ERROR and not frame.request_id):
                others.append(frame)
            elif frame.kind in _QUESTIONS and self._answers is not None:
                self._answers.take(frame)
            elif frame.kind not in (_REPLY, _ERROR, _PONG) or (frame.flags and not (self._timed or self._cancels)):
                self.end(ProtocolError(TEXT_BAD_FRAME))
                return
            elif not (self._piece(frame) if frame.kind == _REPLY and frame.flags else self._answered(frame)):
                self.end(ProtocolError(TEXT_UNASKED_PIECE))
                return
        self.mail.take_over(others)
        self._wake_listeners()
        if self.mail.goodbye is not None and self.watch is not None:
            self.watch()

    def _piece(self, frame: Frame) -> bool:
        """More will follow; whether it is right that it came."""
        pieces = self._streams.get(frame.request_id)
        if pieces is not None:
            pieces.put(frame.payload)
        return frame.request_id not in self.waiting

    def _answered(self, frame: Frame) -> bool:
        self._tombstones.discard(frame.request_id)
        result: Any = frame.payload
        if frame.kind == _PONG:
            self._pings.discard(frame.request_id)
            result = frame.code, frame.payload
        waiter = self.waiting.pop(frame.request_id, None) or self._streams.pop(frame.request_id, None)
        if waiter is None or waiter.done():
            return True
        if frame.kind != _ERROR:
            waiter.set_result(result)
        else:
            waiter.set_exception(remote_error(frame.code, frame.request_id, frame.payload, frame.flags))
        return True

    def _wake_listeners(self) -> None:
        for future in self.listeners:
            if not future.done():
                future.set_result(None)
        self.listeners.clear()

    # --- the end ---

    def _broken(self, error: OSError) -> None:
        """The server takes nothing more. What it said before is read first, and then the end of the stream."""
        self._readable()
        if self.error is None:
            self.end(ConnectionLost(f"the connection is closed ({error.strerror})"))

    def end(self, error: Exception) -> None:
        """Close it; each who waits is told."""
        if self.error is not None:
            return
        self.error = error
        self.mail.over("lost", str(error))
        self._heart.stop()
        if self._answers is not None:
            self._answers.end()
        self._deadlines.clear()
        self.output.drop()
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        self._close()
        reason = self.mail.farewell() or self.mail.blamed(error)
        waiting = [*self.waiting.items(), *self._streams.items()]
        self.waiting.clear()
        self._streams.clear()
        for number, waiter in waiting:
            if not waiter.done():
                waiter.set_exception(self.fated(type(error)(reason or str(error)), number))
        self._queued.clear()
        self._wake_listeners()
        if self.watch is not None:
            self.watch()

    def fated(self, error: Exception, number: int) -> Exception:
        """The error of one request, when the connection has ended, with what is known of it."""
        unsent = self.output.unsent
        if unsent is not None and isinstance(error, ConnectionLost):
            known = self.mail.settled or number in unsent or number in self._queued
            error.fates = [False if known else number]
        return error

    def _close(self) -> None:
        with forking.guard:
            if is_still(self._fd, self._file):
                if self._channel is not None:
                    self._channel.goodbye()
                self._sock.close()
            else:
                self._sock.detach()

    def abandon(self, why: str) -> None:
        """In a forked child: close the copy of the descriptor. The loop is the parent's."""
        self.error = ConnectionLost(f"this client {why}")
        self.mail.over("lost", str(self.error))
        if is_still(self._fd, self._file):
            forking.close_quietly(self._sock.detach())
