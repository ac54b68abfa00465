"""What goes on in a link of the client: blocking calls on a socket that itself never blocks.

It owns the socket and what has arrived and wasn't asked for. While it waits until the kernel takes a frame it goes on
reading: a server whose replies aren't taken stops reading, and then both would wait for ever.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from contextlib import suppress

from pysock.base.forking import close_quietly, guard, own
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.unique import Unique
from pysock.engine.inbox import INBOX_MAX, Inbox
from pysock.engine.inlet import TEXT_LOST, TEXT_UNASKED_PIECE
from pysock.engine.link import CUT_BY_ANOTHER, nothing_sent
from pysock.engine.pure.client.call import Call, Listening, as_others_hear
from pysock.engine.pure.client.heads import ANSWERS, VERDICTS, Judge, is_unasked
from pysock.engine.pure.client.pipeline import Pipeline
from pysock.engine.pure.client.share import Share
from pysock.engine.pure.client.waiter import Waiter, sooner, wait_to_write
from pysock.engine.pure.core import READ_MAX
from pysock.errors import ConnectionLost, ProtocolError, RequestTimeout, TLSError
from pysock.wire.format import Frame, Kind
from pysock.wire.framing import FrameCutter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

    from pysock.tls.channel import SharedChannel

#: What send() says when it may work later; and when the server is gone, which may have said something before.
_NOT_NOW: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))
_HUNG_UP: Final = frozenset((errno.EPIPE, errno.ECONNRESET))

_IN: Final = select.POLLIN
_OUT: Final = select.POLLOUT


class Exchange(Unique):
    """The calls of the threads that are in one link, and the bytes."""

    def __init__(self, fd: int, linger: float | None, max_payload: int, channel: SharedChannel | None = None) -> None:
        self.inbox: Inbox = Inbox((), INBOX_MAX)
        self._verdicts: deque[Frame] = deque()  # on a PROOF, that came while it was being sent
        self._max_payload = max_payload
        self._judge = Judge(max_payload)
        self._cutter: FrameCutter[None] = FrameCutter(self._judge)
        self._last_id = self._features = 0
        self._hung_up: OSError | None = None  # what send() said when the server took no more
        self._share = Share()
        self._closed = self._freed = False
        self._why: Exception = ConnectionLost("the connection is closed")
        self._sock = socket.socket(fileno=fd)
        try:
            self._sock.setblocking(False)
        except OSError:
            self._sock.detach()  # it stays the caller's, who closes it
            raise
        self._open_file = file_of(fd)  # what the number stands for, as long as it is ours
        no_sigpipe(self._sock)
        self._channel = channel
        through: Any = self._sock if channel is None else channel
        self._receive: Callable[[int], bytes] = self._sock.recv if channel is None else channel.receive
        self._send: Callable[[Any, int], int] = through.send
        if channel is not None:
            channel.move(self._sock)
        self._linger = linger
        self._waiter = Waiter(self._sock, linger, lambda: self._last_id)
        own(self)

    @property
    def closed(self) -> bool:
        """It can't be used any more."""
        return self._closed

    def close(self) -> None:
        """Close the socket: at once, or when the last thread has left."""
        self._shut(ConnectionLost("the connection is closed"))

    def abandon(self, why: str) -> None:
        """In a forked child: close the copy of the descriptor."""
        self._closed = self._freed = True
        ours, fd = self._is_ours(), self._sock.detach()
        if ours:
            close_quietly(fd)

    def _shut(self, why: Exception) -> None:
        share = self._share
        if not self._closed:
            self._why = why
            self._closed = True
        share.rouse_all()
        if not share.is_empty():
            with suppress(OSError):
                if self._is_ours():
                    self._sock.shutdown(socket.SHUT_RDWR)  # who sleeps in the kernel wakes; the last one closes it
        else:
            self._free()

    def _free(self) -> None:
        if self._freed:
            return
        with guard:
            # Not before it is: if a signal's exception comes first, closing again must do it. An OSError is no such
            # case, Linux has freed the number whatever it says (close(2)).
            try:
                if not self._is_ours():
                    self._sock.detach()
                elif self._channel is not None:
                    self._channel.goodbye()
                self._sock.close()
            except OSError:
                self._freed = True
                raise
            self._freed = True

    def _is_ours(self) -> bool:
        """Or the program has closed the descriptor, and the number is somebody else's by now."""
        return is_still(self._sock.fileno(), self._open_file)

    def _cut(self) -> Frame | None:
        """The next frame of what has been read."""
        try:
            return self._cutter.next()
        except BaseException as error:  # nonsense; or a signal's exception, which may come between two steps
            self._shut(as_others_hear(error))
            raise

    # --- what goes on: see Share for whose part is whose ---

    def _run(self, call: Call, end: float | None, inbox: Any = False) -> None:
        """Have all of a call sent, and all that it waits for."""
        share = self._share
        try:
            share.join(call)
            self._check_open()
            if inbox:
                return
            while call.missing or call.unsent or call.rest:
                self._step(call, end)
            if self._hung_up is not None and type(call) is Call:
                self._hear_last_words(call, end)
        finally:
            calls = share.calls
            if call.thread in calls:
                del calls[call.thread]
            if share.reader is call:
                share.reader = None
            if share.writer is call:
                share.writer = None
            self._left(call)

    def _left(self, call: Call) -> None:
        """The call is over, and its roles are others'."""
        share = self._share
        try:
            if share.calls:
                share.pass_on()
        finally:
            if call.cut and not self._closed:
                self._shut(ConnectionLost(CUT_BY_ANOTHER))
            if self._closed and not share.calls:
                self._free()

    def _step(self, call: Call, end: float | None) -> None:
        share = self._share
        call.news = False
        call.fill()
        if call.unsent and share.take_writing(call):
            self._push_out(call)
            if not call.unsent and call.rest:
                return  # to send that as well
            if not call.unsent:
                share.written(call)
                if not call.missing or (type(call) is Pipeline and call.has_more()):
                    return
        if share.take_reading(call):
            self._lead(call, end)
        elif not self._closed:
            self._follow(call, end)
        if self._closed and (call.missing or call.unsent):
            raise self._reason()

    def _push_out(self, call: Call) -> None:
        call.cut = True  # until it is known how much has gone
        try:
            call.sent(self._send_some(call))
        except ConnectionLost:
            call.cut = False
            raise

    def _follow(self, call: Call, end: float | None) -> None:
        """Another reads."""
        share = self._share
        if call.unsent and share.writer is call:
            wait_to_write(self._sock, end)
        elif call.missing or call.unsent:
            share.sleep(call, end)

    def _lead(self, call: Call, end: float | None) -> None:
        """Hand out what is here already, or else take what comes."""
        if self._hand_out(call):
            return
        writes = bool(call.unsent) and self._share.writer is call
        until = sooner(end) if call.unsent and not writes else end  # nobody wakes who reads when another has written
        try:
            ready = self._wait(call, _IN | _OUT if writes else _IN, until)
        except RequestTimeout:
            if until != end:
                return
            raise
        if ready & ~_OUT and self._share.reader is call:
            self._read(call)
            self._hand_out(call)

    def _hand_out(self, call: Call) -> bool:
        """Give the frames that are here to whom they belong, until the call has what it wants; whether any were."""
        cutter, found = self._cutter, False
        while call.missing or call.greedy or type(call) is Call:
            if type(call) is Pipeline and cutter.header is None and cutter.data:
                before = call.missing
                cutter.skip_to(call.take_whole(cutter.data, cutter.at, self._max_payload))
                found = found or call.missing < before
            frame = self._cut()
            if frame is None:
                return found
            found = True
            if frame.flags and frame.kind == Kind.REPLY:
                self._give_piece(frame)
            elif not call.take(frame):
                self._give(call, frame)
        return found

    def _give_piece(self, frame: Frame) -> None:
        """More will follow, so that it isn't the answer to anything."""
        if self._share.is_awaited(frame):
            error = ProtocolError(TEXT_UNASKED_PIECE)
            self._shut(error)
            raise error
        self.inbox.append(frame)
        self._share.tell()

    def _give(self, call: Call, frame: Frame) -> None:
        """It isn't the reader's."""
        if is_unasked(frame):
            self.inbox.append(frame)
            self._share.tell()
        elif frame.kind in ANSWERS:
            if not self._share.hand(frame):
                self.inbox.append(frame)  # of a stream, or too late
                self._share.tell()
        elif frame.kind in VERDICTS and call.greets:
            self._verdicts.append(frame)
        else:
            error = ProtocolError(f"the server sent a frame of kind {frame.kind:#04x} in the middle of a connection")
            self._shut(error)
            raise error

    # --- bytes ---

    def _read(self, call: Call) -> None:
        """Take some bytes from the kernel, if there are any."""
        try:
            size = self._take()
        except OSError as error:
            self._lost(error)
        if size == 0:
            self._lost(None)

    def _take(self) -> int | None:
        """Take what the kernel has: how many bytes, 0 at the end; ``None`` if there is nothing now."""
        try:
            data = self._receive(READ_MAX)
            self._cutter.feed(data)
            return len(data)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            raise
        except BaseException as error:
            # A signal's exception: what the kernel has given away may be lost, and nothing can follow it.
            self._shut(as_others_hear(error))
            raise

    def _send_some(self, call: Call) -> int:
        data = call.unsent
        try:
            return self._send(data, NO_SIGNAL)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return 0
            if error.errno not in _HUNG_UP:
                self._lost(error)
            self._hung_up = error  # what it said before is worth more: whoever reads hears that first
            call.hang_up()
            return len(data)

    def _hear_last_words(self, call: Call, end: float | None) -> None:
        """The server has closed the connection, and what was to be sent was lost: hear what it said."""
        while self._share.take_reading(call):
            self._lead(call, end)

    def _wait(self, call: Call, bits: int, end: float | None) -> int:
        """Wait until the socket is ready for this; what it is ready for."""
        waiter = self._waiter
        if type(call) is Listening:
            if call.waiter is None:
                call.waiter = Waiter(self._sock, self._linger or 0, lambda: self._last_id)
            waiter = call.waiter
        if self._hung_up is not None and not waiter.is_ready(bits):
            self._lost(self._hung_up)  # all that it had said was heard
        try:
            call.dozes = call.listens
            return waiter.wait(bits, end)
        finally:
            call.dozes = False

    def _reason(self) -> Exception:
        """Why it is closed, for one thread: an exception has one traceback."""
        return type(self._why)(str(self._why))

    def _check_open(self) -> None:
        if self._closed:
            raise nothing_sent("the connection is closed")

    def _lost(self, error: OSError | None) -> NoReturn:
        if self._closed:
            raise self._reason()
        text = TEXT_LOST
        if isinstance(error, TLSError):
            text = f"TLS failed: {error}; the server may have run what it hasn't answered"
        self._shut(ConnectionLost(text))
        raise ConnectionLost(text) from error
