"""From replies to bytes in the kernel: one client's output.

``out`` is in the order in which it must be sent: replies are appended at once, pushes in between too. Everything is
tried by one send() first; the poll is asked for writability only after the kernel took less than it was given. What
waits then is bounded: over ``output_pause`` the client isn't read, over ``output_drop`` or without progress for
``output_timeout`` it is closed. Pushes that wait have limits of their own.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod

from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL
from pysock.base.unique import Unique
from pysock.causes import Cause
from pysock.engine.pure.waiting.pushed import PUSH_COST, Marked, Push, marked, take_oldest
from pysock.limits import Slow
from pysock.states import DisconnectReason
from pysock.wire.endings import ENDINGS, End
from pysock.wire.features import Feature
from pysock.wire.format import GAP

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.listener import Listener
    from pysock.engine.pure.waiting.deferred import Deferred
    from pysock.wire.rules import FrameProtocol, PlainProtocol

#: Output up to this is joined for one send; what is more is sent from where it is.
GATHER_MAX: Final = 64 * 1024
#: A reply up to this is copied behind its header.
COPY_MAX: Final = 16 * 1024
_IOV_MAX: Final = 64
#: Sends to one client a turn: the next client's turn comes even if this one takes everything.
_SENDS_MAX: Final = 16
#: From so many pieces on small ones that wait are copied together: each object costs some 50 bytes.
_PIECES_MAX: Final = 64
#: Of one that moves (``moving``): it isn't read; nor sent to, and out of the poll; its row is packed, so it may be
#: another's by now; it has come, and isn't served yet.
PAUSED, HELD, PACKED, ASLEEP = 1, 2, 3, 4
_GAP: Final = int(Feature.GAP)

_NOT_NOW: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))
#: These pass; how long it is tried is bounded by the deadline of the output.
SHORT_OF_MEMORY: Final = frozenset((errno.ENOBUFS, errno.ENOMEM))


class Output(Unique, ABC):
    """The part of a connection that sends."""

    __slots__ = (
        "bytes_out", "channel", "choked", "core", "deferred", "dropped", "frames_out", "holding", "holds_streams",
        "late", "listener", "lost_pushes", "moving", "out", "pause_at", "queued", "send", "sock", "stalled", "starved",
        "waiting",
    )  # fmt: skip

    out: list[bytes | bytearray | memoryview]
    queued: int
    bytes_out: int
    frames_out: int
    protocol: FrameProtocol | PlainProtocol

    def __init__(self, core: Core, sock: socket.socket, listener: Listener) -> None:
        self.core: Core = core
        self.sock: socket.socket = sock
        self.listener: Listener = listener  # through which it came
        self.channel: Any = listener.transport.channel(sock)  # what its bytes go through
        self.send: Callable[[Any, int], int] = listener.transport.send(self.channel)
        self.out = []
        self.queued = 0  # bytes in it
        self.bytes_out = 0
        self.frames_out = 0
        self.waiting: int = 0  # pushes: their bytes, and PUSH_COST for each
        self.late: bool = False  # it has had too many of them for too long
        self.dropped: int = 0  # pushes
        self.lost_pushes: int = 0  # of these, the last ones: the next push that is queued tells of them
        self.pause_at: int = 0  # from so many bytes that wait it isn't read; before it is let in it is owed nothing
        self.choked: bool = False  # it doesn't take its replies, so it isn't read
        self.stalled: bool = False  # the deadline of the output runs
        self.holding: bool = False  # nothing is sent: the connect hook runs, or it is closed
        self.starved: bool = False  # the kernel has no memory for it, though it is writable: see Core.starve
        self.moving: int = 0  # to another process, or from one: see moving/holding.py
        self.deferred: Deferred | None = None  # of its requests the youngest that is answered later
        self.holds_streams: bool = False  # some of these wait until all of it is sent

    def later(self) -> list[Deferred]:
        """Its requests that are answered later, the youngest first."""
        records, record = [], self.deferred
        while record is not None:
            records.append(record)
            record = record.older
        return records

    def stay(self) -> None:
        """It doesn't move: it is read and sent to."""
        if self.moving:
            self.moving, self.starved = 0, False

    def forget_later(self) -> None:
        """Nobody answers them: in a forked child."""
        self.deferred = None

    @abstractmethod
    def lost(self, reason: DisconnectReason) -> None:
        """Close at once."""

    @abstractmethod
    def settle(self) -> None:
        """Bring what is waited for in line with what has happened."""

    @abstractmethod
    def unread(self) -> tuple[bytes, int]:
        """What isn't handled yet, as it came; and how many bytes that are still to come must be thrown away."""

    @abstractmethod
    def come(self, data: bytes, skip: int, now: float) -> None:
        """So much of it was read elsewhere, and let it wait; its protocol is as it was there."""

    def no_memory(self) -> None:
        """There is none for its bytes: that costs this client its connection, and nobody else anything."""
        self.cut(End.NO_MEMORY)

    def cut(self, end: End) -> None:
        """End it in a way that says nothing and sends nothing more."""
        row = ENDINGS[end]
        if row.cause is not None:
            self.core.note(row.cause)
        self.lost(row.reason)

    def put(self, frame: bytes) -> None:
        """Queue something whole. It is sent at the end of the event or of the turn."""
        out = self.out
        last = out[-1] if out else None
        if len(out) < _PIECES_MAX or len(frame) > GATHER_MAX:
            out.append(frame)
        elif type(last) is bytearray and len(last) < GATHER_MAX:
            last += frame
        else:
            out.append(bytearray(frame))
        self.frames_out += 1
        self._count(len(frame))

    def put_push(self, message: Push) -> None:
        """As ``put``; but many may get this one, so it waits as the object that it is. Only so many may wait."""
        room = not self._is_full(len(message))
        if not room and not self.drops():
            self.cut(End.PUSHES_FULL)
            return
        if self.core.options.slow is Slow.DROP_OLD:
            while not room and self._drop_oldest():
                room = not self._is_full(len(message))
        if not room:
            self.lost_pushes += 1
            self._count_dropped()
            return
        if self.lost_pushes:
            message, self.lost_pushes = marked(message, self.lost_pushes), 0
        self._count_waiting(self.waiting + len(message) + PUSH_COST)
        self.out.append(message)
        self.frames_out += 1
        self._count(len(message))

    def drops(self) -> bool:
        """Where too many pushes wait for it, some are dropped, and it stays."""
        return self.core.options.slow is not Slow.DISCONNECT and bool(self.protocol.features & _GAP)

    def _is_full(self, size: int) -> bool:
        limits = self.core.limits
        if self.waiting and (self.late or self.waiting + size + PUSH_COST > limits.push_hard):
            return True
        # Else it is closed for that.
        return self.queued + size + GAP.size > limits.output_drop and self.drops()

    def _drop_oldest(self) -> bool:
        """Whether there was one."""
        taken = take_oldest(self.out)
        if taken is None:
            return False
        push, behind = taken
        lost = 1 + (push.lost if isinstance(push, Marked) else 0)
        self._change(-len(push), -len(push) - PUSH_COST)
        self.frames_out -= 1
        if behind < 0:
            self.lost_pushes += lost
        else:
            before: Any = self.out[behind]
            self.out[behind] = after = marked(before, lost)
            self._change(len(after) - len(before), len(after) - len(before))
        self._count_dropped()
        self.core.dirty[self] = None  # nothing may be left to send
        return True

    def _change(self, queued: int, waiting: int) -> None:
        self.queued += queued
        self.bytes_out += queued
        self._count_waiting(self.waiting + waiting)

    def _count_dropped(self) -> None:
        self.dropped += 1
        self.core.causes.note_later(Cause.PUSH_DROPPED, self.core.now)

    def has_been_slow(self) -> None:
        """It has been over ``push_soft`` for as long as one may be."""
        if self.drops():
            self.late = True
        else:
            self.cut(End.PUSHES_FULL)

    def _count_waiting(self, waiting: int) -> None:
        soft, before, self.waiting = self.core.limits.push_soft, self.waiting, waiting
        if waiting > soft >= before:
            self.core.slow.start_now(self, self.core.now)
        elif waiting <= soft < before:
            self.core.slow.stop(self)
            self.late = False

    def _begin(self, pieces: list[bytes | bytearray | memoryview]) -> None:
        """These begin to leave: pushes among them don't wait any more."""
        if self.waiting:
            begun = sum(len(piece) + PUSH_COST for piece in pieces if isinstance(piece, Push))
            self._count_waiting(self.waiting - begun)

    def _count(self, size: int) -> None:
        self.queued += size
        self.bytes_out += size
        if self.queued > self.core.limits.output_drop:
            self.cut(End.OUTPUT_FULL)
        else:
            self.core.dirty[self] = None

    def send_gathered(self, size: int) -> None:
        """Send the replies that were appended to ``out``, so many bytes; ``put`` counts by itself."""
        self.bytes_out += size
        if self.queued or self.holding or size > GATHER_MAX:
            self.queued += size
            self.flush()
            return
        out = self.out
        try:
            sent = self.send(out[0] if len(out) == 1 else b"".join(out), NO_SIGNAL)
        except OSError as error:
            sent = self._not_sent(error)
        if sent == size:
            out.clear()
        elif sent >= 0:
            self.queued = size
            self._forget(sent)
            self._after_flush(progress=sent > 0)

    def flush_at_last(self) -> None:
        """The loop ends, perhaps inside a handler: what was answered before, and isn't counted yet, is sent too."""
        uncounted = sum(map(len, self.out)) - self.queued
        self.queued += uncounted
        self.bytes_out += uncounted
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        out, size = self.out, self.queued
        if not out or self.holding or self.starved:
            return
        if size > GATHER_MAX:
            self._flush_much()
            return
        try:
            sent = self.send(out[0] if len(out) == 1 else b"".join(out), NO_SIGNAL)
        except OSError as error:
            sent = self._not_sent(error)
        if sent == size:
            self._begin(out)
            out.clear()
            self.queued = 0
            if self.stalled or self.choked or self.holds_streams:
                self._after_flush(progress=True)
        elif sent >= 0:
            self._forget(sent)
            self._after_flush(progress=sent > 0)

    def _flush_much(self) -> None:
        progress = False
        for _ in range(_SENDS_MAX):
            some = self.out[:_IOV_MAX]
            try:
                sent = self.listener.transport.send_pieces(self.channel, some)
            except OSError as error:
                sent = self._not_sent(error)
            if sent < 0:
                return
            self._forget(sent)
            progress = progress or sent > 0
            if not self.out or sent < sum(map(len, some)):
                break
        self._after_flush(progress)

    def _not_sent(self, error: OSError) -> int:
        """The kernel took nothing: 0 if it may take it later, -1 if it never will."""
        if error.errno in SHORT_OF_MEMORY:
            self.starved = True
            self.core.starve(self)
            return 0
        if error.errno in _NOT_NOW:
            return 0
        self.lost(DisconnectReason.CLOSED_BY_PEER)
        return -1

    def _forget(self, sent: int) -> None:
        """So many bytes are on their way."""
        out, count = self.out, 0
        self.queued -= sent
        for piece in out:
            if sent < len(piece):
                break
            sent -= len(piece)
            count += 1
        self._begin(out[: count + bool(sent)])
        if sent:
            out[count] = memoryview(out[count])[sent:]
        del out[:count]

    def _after_flush(self, progress: bool) -> None:
        core, limits = self.core, self.core.limits
        if not self.out:
            self.choked = self.stalled = False
            core.outputs.stop(self)
            if self.holds_streams:
                core.streams.flushed(self)
            return
        if self.queued > limits.output_drop:
            self.cut(End.OUTPUT_FULL)
            return
        if progress or not self.stalled:
            self.stalled = True
            core.outputs.start_now(self, core.now)
        if self.queued > self.pause_at:
            self.choked = True
        elif self.queued <= self.pause_at // 2:
            self.choked = False
