"""The client's end of one connection: blocking calls on a socket that itself never blocks.

It owns the socket and what has arrived and wasn't asked for. While it waits until the kernel takes a frame it goes on
reading: a server whose replies aren't taken stops reading, and then both would wait for ever.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import wraps

from pysock.base.aliases import Buffer
from pysock.base.deadlines import deadline_of
from pysock.base.forking import close_quietly, guard, own
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING
from pysock.base.payload import checked_all
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.unique import Unique
from pysock.engine.inbox import INBOX_MAX, Inbox
from pysock.engine.link import BUSY
from pysock.engine.pure.client.heads import comes_from_server, most_bytes
from pysock.engine.pure.client.pipeline import Pipeline
from pysock.engine.pure.client.waiter import Waiter
from pysock.engine.pure.core import READ_MAX
from pysock.engine.pure.output import GATHER_MAX
from pysock.errors import ConnectionLost, ProtocolError, PysockError, RequestTimeout
from pysock.wire.error_text import remote_error
from pysock.wire.format import HEADER, Frame, Header, Kind
from pysock.wire.framing import FrameCutter

if TYPE_CHECKING:
    from typing import Any, Final, NoReturn, TypeVar

    Call = TypeVar("Call", bound=Callable[..., Any])

#: What send() says when it may work later; and when the server is gone, which may have said something before.
_NOT_NOW: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))
_HUNG_UP: Final = frozenset((errno.EPIPE, errno.ECONNRESET))

_IN: Final = select.POLLIN
_OUT: Final = select.POLLOUT
_REPLY: Final = int(Kind.REPLY)
_ERROR: Final = int(Kind.ERROR)
_SRM: Final = int(Kind.SRM)
_BYE: Final = int(Kind.BYE)
_UNASKED: Final = frozenset((Kind.PUSH, Kind.GOAWAY))
_LATE: Final = frozenset((Kind.REPLY, Kind.ERROR, Kind.PONG))


def _alone(call: Call) -> Call:
    """One call at a time, whatever the thread."""

    @wraps(call)
    def guarded(self: PureLink, *args: Any, **kwargs: Any) -> Any:
        # No lock: a signal's exception could come between taking it and the `try`. Here nothing can come in between,
        # neither that nor another thread, for nothing is called.
        if self._busy:
            raise PysockError(BUSY)
        try:
            self._busy = True
            return call(self, *args, **kwargs)
        finally:
            self._busy = False

    return guarded  # type: ignore[return-value]


class PureLink(Unique):
    """See :class:`pysock.engine.contract.Link`."""

    def __init__(self, fd: int, linger: float | None, max_payload: int) -> None:
        self.inbox: Inbox = Inbox((), INBOX_MAX)
        self._arrived: deque[Frame] = deque()  # answers that came while something was being sent
        self._max_payload = max_payload
        self._cutter: FrameCutter[None] = FrameCutter(self._judge)
        self._last_id = 0
        self._going_away = False
        self._hung_up: OSError | None = None  # what send() said when the server took no more
        self._closed = False
        self._busy = False
        self._sock = socket.socket(fileno=fd)
        try:
            self._sock.setblocking(False)
        except OSError:
            self._sock.detach()  # it stays the caller's, who closes it
            raise
        self._open_file = file_of(fd)  # what the number stands for, as long as it is ours
        no_sigpipe(self._sock)
        self._waiter = Waiter(self._sock, linger, lambda: self._last_id)
        own(self)

    # --- the contract ---

    @property
    def closed(self) -> bool:
        """It can't be used any more."""
        return self._closed

    @_alone
    def send(  # as the contract has it
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        """Send one frame whole."""
        if kind == _BYE and not self._is_ours():
            raise ConnectionLost("the program has closed the connection's descriptor")
        self._send_frame(kind, code, request_id, payload, timeout, flags)

    def _send_frame(
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        head = HEADER.pack(len(payload), kind, flags, code, request_id)
        end = deadline_of(timeout)
        if len(payload) <= GATHER_MAX:
            self._send(head + payload, end)
            return
        try:
            self._send(head, end)
            self._send(payload, end, begun=True)
        except RequestTimeout:
            raise
        except BaseException:
            self._shut()  # it may have come between the two
            raise

    @_alone
    def receive(self, timeout: float | None) -> Frame:
        """The next frame, whatever it is."""
        return self._next(deadline_of(timeout))

    @_alone
    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        """One SRM and its reply."""
        request_id = self.next_request_id()
        end = deadline_of(timeout)
        self._send_frame(_SRM, service, request_id, payload, timeout)
        while True:
            frame = self._next(end)
            if frame.request_id == request_id:
                if frame.kind == _REPLY:
                    return frame.payload
                if frame.kind == _ERROR:
                    raise remote_error(frame.code, frame.request_id, frame.payload)
            self._set_aside(frame)

    @_alone
    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """Pipelined SRMs: a reply or a ``RemoteError`` for each, in order."""
        self._check_open()
        pipeline = Pipeline(service, checked_all(payloads, limit), max(1, window), self._reserve(len(payloads)))
        end = deadline_of(timeout)
        try:
            while pipeline.missing:
                self._pump(pipeline, end)
        finally:
            if pipeline.cut:
                self._shut()
        return pipeline.results, pipeline.errors

    def next_request_id(self) -> int:
        """A number no other request of this link has had lately."""
        return self._reserve(1)

    @_alone
    def close(self) -> None:
        """Close the socket."""
        self._shut()

    def abandon(self, why: str) -> None:
        """In a forked child: close the copy of the descriptor."""
        self._closed = True
        ours, fd = self._is_ours(), self._sock.detach()
        if ours:
            close_quietly(fd)

    def _shut(self) -> None:
        if not self._closed:
            with guard:
                # Not before it is: if a signal's exception comes first, closing again must do it. An OSError is no such
                # case, Linux has freed the number whatever it says (close(2)).
                try:
                    if not self._is_ours():
                        self._sock.detach()
                    self._sock.close()
                except OSError:
                    self._closed = True
                    raise
                self._closed = True

    def _is_ours(self) -> bool:
        """Or the program has closed the descriptor, and the number is somebody else's by now."""
        return is_still(self._sock.fileno(), self._open_file)

    # --- ids ---

    def _reserve(self, count: int) -> int:
        """The first of so many numbers in a row. 0 isn't one: it is in frames that answer nothing."""
        if self._last_id + count > 0xFFFFFFFF:
            self._last_id = 0
        first = self._last_id + 1
        self._last_id += count
        return first

    # --- frames ---

    def _judge(self, header: Header) -> None:
        if not comes_from_server(header):
            raise ProtocolError(f"the server sent a frame of kind {header.kind:#04x}, flags {header.flags:#04x}")
        most = most_bytes(header, self._max_payload)
        if header.length > most:
            over = f"of {header.length} bytes, over this client's limit of {most}"
            raise ProtocolError(f"the server sent a frame {over}: give connect() a larger max_payload")

    def _next(self, end: float | None) -> Frame:
        if self._arrived:
            return self._arrived.popleft()
        self._check_open()
        while (frame := self._cut()) is None:
            if self._cutter.header is None:
                self._wait(_IN, end)
            self._read(end)
        return frame

    def _cut(self) -> Frame | None:
        """The next frame of what has been read."""
        try:
            return self._cutter.next()
        except BaseException:  # nonsense; or a signal's exception, which may come between two steps
            self._shut()
            raise

    def _set_aside(self, frame: Frame) -> None:
        """Something else is awaited."""
        if _is_unasked(frame):
            self._going_away = self._going_away or frame.kind == Kind.GOAWAY
            self.inbox.append(frame)
        elif frame.kind not in _LATE:
            self._shut()
            raise ProtocolError(f"the server sent a frame of kind {frame.kind:#04x} in the middle of a connection")

    # --- bytes ---

    def _read(self, end: float | None) -> None:
        """Take some bytes from the kernel, waiting for them."""
        while True:
            try:
                size = self._take()
            except OSError as error:
                self._lost(error)
            if size is not None:
                break
            self._wait(_IN, end)
        if not size:
            self._lost(None)

    def _take(self) -> int | None:
        """Take what the kernel has: how many bytes, 0 at the end; ``None`` if there is nothing now."""
        try:
            data = self._sock.recv(READ_MAX)
            self._cutter.feed(data)
            return len(data)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            raise
        except BaseException:
            self._shut()  # a signal's exception: what the kernel has given away may be lost, and nothing can follow it
            raise

    def _send(self, data: Buffer, end: float | None, begun: bool = False) -> None:
        """Send all of it. Whatever interrupts it in the middle closes the link."""
        self._check_open()
        sent = 0
        try:
            sent = self._send_some(data)
            if sent < len(data):
                view = memoryview(data)
                while sent < len(data):
                    self._wait_to_send(end)
                    sent += self._send_some(view[sent:])
        except RequestTimeout:
            if sent or begun:
                self._shut()
            raise
        except BaseException:
            self._shut()
            raise

    def _send_some(self, data: Buffer) -> int:
        try:
            return self._sock.send(data, NO_SIGNAL)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return 0
            if error.errno not in _HUNG_UP or self._hung_up is not None:
                self._lost(error)
            self._hear_last_words(error)
            self._hung_up = error
            return len(data)

    def _hear_last_words(self, error: OSError) -> None:
        """The server has closed the connection. What it said before is worth more than a broken pipe.

        If that was an answer, what is being sent counts as sent: the answer is found when it is looked for.
        """
        with suppress(OSError):
            self._put_away()
            while self._take():
                self._put_away()
        if not self._arrived:
            self._lost(error)

    def _put_away(self) -> None:
        """Keep the frames that have come while something is being sent."""
        while (frame := self._cut()) is not None:
            if _is_unasked(frame):
                self._set_aside(frame)
            elif len(self._arrived) < INBOX_MAX:
                self._arrived.append(frame)
            else:
                self._shut()
                raise ProtocolError("the server sends answers that nobody asked for")

    def _wait_to_send(self, end: float | None) -> None:
        """Wait until the kernel takes more; meanwhile read."""
        if self._wait(_IN | _OUT, end) & ~_OUT:
            self._read(end)
            self._put_away()

    def _wait(self, bits: int, end: float | None) -> int:
        """Wait until the socket is ready for this; what it is ready for."""
        if self._hung_up is not None and not self._waiter.is_ready(bits):
            self._lost(self._hung_up)  # all that it had said was heard
        return self._waiter.wait(bits, end)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost("the connection is closed")

    def _lost(self, error: OSError | None) -> NoReturn:
        self._shut()
        ran = "did not run" if self._going_away else "may have run"
        raise ConnectionLost(f"the server closed the connection; it {ran} what it hasn't answered") from error

    # --- the pipeline ---

    def _pump(self, pipeline: Pipeline, end: float | None) -> None:
        """Send what the window allows, and take what has come."""
        pipeline.fill()
        if pipeline.unsent:
            pipeline.cut = True  # until it is known how much has gone
            pipeline.sent(self._send_some(pipeline.unsent))
        if not self._collect(pipeline):
            ready = self._wait(_IN | _OUT if pipeline.unsent else _IN, end)
            if ready & ~_OUT:
                self._read(end)
                self._collect(pipeline)

    def _collect(self, pipeline: Pipeline) -> bool:
        """Hand the replies that have arrived to the pipeline; return whether there were any."""
        cutter, before = self._cutter, pipeline.missing
        while self._arrived:
            self._give(pipeline, self._arrived.popleft())
        while True:
            if cutter.header is None and cutter.data:
                cutter.skip_to(pipeline.take_whole(cutter.data, cutter.at, self._max_payload))
            frame = self._cut()
            if frame is None:
                return pipeline.missing < before
            self._give(pipeline, frame)

    def _give(self, pipeline: Pipeline, frame: Frame) -> None:
        if not pipeline.take(frame):
            self._set_aside(frame)


def _is_unasked(frame: Frame) -> bool:
    return frame.kind in _UNASKED or (frame.kind == _ERROR and not frame.request_id)
