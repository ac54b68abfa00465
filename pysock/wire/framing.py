"""Cutting a stream of bytes into messages, without any I/O: a cutter for each framing, and a row of facts.

A cutter takes bytes as they arrive, whole, one at a time or in any cuts, and always gives the same messages. It owns
the bytes of one unfinished message and no more. An announced length is compared with the limit before a single byte of
the payload is kept (memcached's CVE-2016-8704 to 8706 are what becomes of doing it later), and the memory grows with
what has arrived, never with what was announced.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar
from pysock.wire.format import HEADER, Frame, Framing, Header, Kind

if TYPE_CHECKING:
    from typing import Final

LENGTH: Final = struct.Struct("!I")
_unpack_length = LENGTH.unpack_from
_PUSH: Final = int(Kind.PUSH)

#: Pieces shorter than this are copied together: each small object costs some 40 bytes more than it holds, and a client
#: could make millions of them.
_SMALL: Final = 4096
#: Pieces from this size on are worth a view instead of a copy.
_LARGE: Final = 16 * 1024


class _Pieces:
    """A payload that arrives in pieces."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray | memoryview] = []
        self.size = 0

    def add(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        """Keep ``data[at:end]``."""
        if end is None:
            end = len(data)
        size = end - at
        self.size += size
        if size >= _LARGE and size >= len(data) // 2:
            self._pieces.append(memoryview(data)[at:end])  # saves a copy
            return
        piece = data[at:end]
        if size >= _SMALL or not self._pieces:
            self._pieces.append(piece)
            return
        last = self._pieces[-1]
        if type(last) is bytearray:
            last += piece
        elif len(last) < _SMALL:
            self._pieces[-1] = bytearray(last) + piece
        else:
            self._pieces.append(bytearray(piece))

    def all(self) -> bytes:
        """All of it in one; it stays."""
        return b"".join(self._pieces)

    def take(self) -> bytes:
        """All of it in one; nothing stays."""
        pieces, self._pieces, self.size = self._pieces, [], 0
        if len(pieces) == 1 and type(pieces[0]) is bytes:
            return pieces[0]
        return b"".join(pieces)


Verdict = TypeVar("Verdict")


class FrameCutter(Generic[Verdict]):
    """The framing ``pysock``.

    Each header is shown to ``judge`` as soon as its 12 bytes are there. If that returns ``None``, the payload is
    collected and ``next`` gives the whole :class:`Frame`. If it returns anything else, ``next`` gives that at once, and
    the payload is thrown away as it arrives.

    ``data`` from ``at`` on is what hasn't been looked at yet; it is empty when all has been. The pure engine's loop for
    the commonest frames takes from it by itself, with ``skip_to``, where no ``header`` says that a frame was begun.
    """

    __slots__ = ("_judge", "_payload", "_skipping", "at", "data", "header", "missing")

    def __init__(self, judge: Callable[[Header], Verdict | None]) -> None:
        self._judge = judge
        self._payload: _Pieces | None = None
        self.missing: int = 0  # bytes of the payload that is being received, or thrown away
        self._skipping = False
        self.header: Header | None = None  # of the frame that is being received
        self.data: bytes = b""
        self.at: int = 0

    @property
    def partial(self) -> bool:
        """A frame has been begun and isn't complete."""
        return self.header is not None or self.at < len(self.data)

    @property
    def kept(self) -> bool:
        """There is something to look at: ``next`` wasn't asked until it had nothing more."""
        return len(self.data) - self.at >= (HEADER.size if self.header is None else 1)

    def feed(self, data: bytes, at: int = 0) -> None:
        """Take what has arrived, from ``at`` on."""
        if self.at < len(self.data):
            data, at = self.data[self.at :] + data[at:], 0
        self.data, self.at = data, at

    def skip_to(self, at: int) -> None:
        """Leave out what comes before ``at``."""
        if at == len(self.data):
            self.data, self.at = b"", 0
        else:
            self.at = at

    def clear(self) -> None:
        """Forget everything."""
        self.data, self.at, self.header, self._payload, self.missing = b"", 0, None, None, 0

    def unread(self) -> tuple[bytes, int]:
        """What isn't handled yet, as it came; and how many bytes that are still to come must be thrown away."""
        rest = self.data[self.at :]
        if self.header is None:
            return rest, 0
        if self._skipping:
            return rest, self.missing
        return HEADER.pack(*self.header) + (self._payload.all() if self._payload else b"") + rest, 0

    def skip(self, size: int) -> None:
        """Throw away so many bytes that come first."""
        self.header, self.missing, self._skipping = Header(size, 0, 0, 0, 0), size, True

    def next(self) -> Frame | Verdict | None:
        """The next frame or verdict, or ``None`` if more bytes must come first."""
        while True:
            if self.header is None:
                if len(self.data) - self.at < HEADER.size:
                    self.data, self.at = self.data[self.at :], 0
                    return None
                verdict = self._begin()
                if verdict is not None:
                    return verdict
            if not self._fill():
                return None
            header, self.header = self.header, None
            if not self._skipping:
                assert header is not None
                payload, self._payload = self._payload, None
                whole = payload.take() if payload else b""
                return Frame(header.kind, header.flags, header.code, header.request_id, whole)

    def _begin(self) -> Verdict | None:
        header = Header(*HEADER.unpack_from(self.data, self.at))
        self.at += HEADER.size
        self.header, self.missing, self._skipping = header, header.length, False
        verdict = self._judge(header)
        self._skipping = verdict is not None
        return verdict

    def _fill(self) -> bool:
        """Move what has arrived of the payload; return whether it is complete."""
        end = min(len(self.data), self.at + self.missing)
        if end > self.at and not self._skipping:
            if self._payload is None:
                self._payload = _Pieces()
            self._payload.add(self.data, self.at, end)
        self.missing -= end - self.at
        self.skip_to(end)
        return not self.missing


class PlainCutter(Protocol):
    """What the framings without a header of ours have in common."""

    #: A message has been begun and isn't complete, or is too large.
    partial: bool
    #: Bytes of the message that is being received that are known to come.
    missing: int
    #: A message is longer than the limit: what came before it has been given out, nothing comes after it.
    too_large: bool

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the messages that are whole now."""

    def unread(self) -> bytes:
        """What has come of a message that isn't whole, as it came."""


class U32Cutter:
    """The framing ``u32``: a 4-byte big-endian length, then the payload."""

    __slots__ = ("_head", "_max_payload", "_payload", "missing", "partial", "too_large")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._head = b""  # of a length that is cut
        self._payload: _Pieces | None = None
        self.missing: int = 0
        self.partial: bool = False
        self.too_large: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the messages that are whole now."""
        if self.partial:
            return self._feed_on(data)
        if len(data) >= 4:
            (length,) = _unpack_length(data)
            if length == len(data) - 4 and length <= self._max_payload:
                return [data[4:]]  # as nearly always: one message, whole
        return self._cut(data, 0, [])

    def unread(self) -> bytes:
        """What has come of a message that isn't whole, as it came."""
        if not self.missing or self._payload is None:
            return self._head
        return LENGTH.pack(self.missing + self._payload.size) + self._payload.all()

    def _feed_on(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        if self.too_large:
            return messages
        self.partial = False
        at = 0
        if self.missing:
            at = self._fill(data, messages)
        elif self._head:
            data, self._head = self._head + data, b""
        return messages if self.partial else self._cut(data, at, messages)

    def _cut(self, data: bytes, at: int, messages: list[bytes]) -> list[bytes]:
        end, most = len(data), self._max_payload
        while end - at >= 4:
            (length,) = _unpack_length(data, at)
            at += 4
            if length > most:
                self.too_large = self.partial = True
                return messages
            if end - at < length:
                self._begin(length, data, at)
                return messages
            messages.append(data[at : at + length])
            at += length
        if at < end:
            self._head, self.partial = data[at:], True
        return messages

    def _begin(self, length: int, data: bytes, at: int) -> None:
        self.partial = True
        self.missing = length - (len(data) - at)
        self._payload = _Pieces()
        if at < len(data):
            self._payload.add(data, at)

    def _fill(self, data: bytes, messages: list[bytes]) -> int:
        """Add to the message that is being received; how many bytes that took."""
        assert self._payload is not None
        used = min(len(data), self.missing)
        self._payload.add(data, 0, used)
        self.missing -= used
        if self.missing:
            self.partial = True
        else:
            messages.append(self._payload.take())
            self._payload = None
        return used


class LineCutter:
    """The framing ``line``: a message ends at a line feed, which isn't part of it (a carriage return is)."""

    __slots__ = ("_max_payload", "_start", "missing", "partial", "too_large")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._start: _Pieces | None = None  # of a line that isn't complete
        self.missing: int = 0
        self.partial: bool = False
        self.too_large: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the messages that are whole now."""
        if self.too_large:
            return []
        lines = data.split(b"\n")
        rest = lines.pop()
        start = self._start
        if lines and start is not None:
            start.add(lines[0])
            lines[0], self._start, self.partial = start.take(), None, False
        if lines and (len(data) > self._max_payload or len(lines[0]) > self._max_payload):
            lines = self._within_limit(lines)
        if rest and not self.too_large:
            self._keep(rest)
        return lines

    def unread(self) -> bytes:
        """What has come of a message that isn't whole, as it came."""
        return self._start.all() if self._start else b""

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        for index, line in enumerate(lines):
            if len(line) > self._max_payload:
                self.too_large = self.partial = True
                return lines[:index]
        return lines

    def _keep(self, rest: bytes) -> None:
        if self._start is None:
            self._start = _Pieces()
        self.partial = True
        self._start.add(rest)
        if self._start.size > self._max_payload:
            self.too_large, self._start = True, None


class RawCutter:
    """The framing ``raw``: what arrives together is a message."""

    __slots__ = ("_max_payload", "missing", "partial", "too_large")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self.missing: int = 0
        self.partial: bool = False
        self.too_large: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the messages that are whole now."""
        most = self._max_payload
        if len(data) <= most:
            return [data] if data else []
        return [data[at : at + most] for at in range(0, len(data), most)]

    def unread(self) -> bytes:
        """Nothing: what has come is whole."""
        return b""


def _frame_head(size: int) -> bytes:
    return HEADER.pack(size, _PUSH, 0, 0, 0)


class FramingFacts(NamedTuple):
    """How one framing differs from another. ``csrc/base/framing.h`` has the same facts under the same names.

    Whoever wants to know asks for a fact, never for the name of a framing.
    """

    name: Framing
    head_size: int  # bytes in front of a payload
    has_cir: bool  # a client is let in by a CIR, and frames have kinds; else it is in at once, and all are SRMs
    has_ids: bool  # a reply says which request it answers, so each request has one, or says that it wants none
    has_texts: bool  # there are frames that tell a client why: refusals, errors, GOAWAY
    tells_size: bool  # in the head: the end of a payload is known before it comes
    ends_line: bool  # there is a newline behind each payload
    #: Makes the cutter of one connection, for payloads up to a limit. With a CIR it is a ``FrameCutter``, which asks
    #: for a judgement.
    cutter: Callable[[int], PlainCutter] | None
    #: What comes before a message that names no request, made of its size: a push, and without ids a reply as well.
    head: Callable[[int], bytes] | None
    tail: bytes  # and what behind it

    def message(self, payload: bytes) -> bytes:
        """A message that names no request, as it is sent."""
        return (self.head(len(payload)) if self.head else b"") + payload + self.tail


#: By ``Framing``.
FRAMINGS: Final = (
    FramingFacts(
        Framing.PYSOCK,
        head_size=HEADER.size,
        has_cir=True,
        has_ids=True,
        has_texts=True,
        tells_size=True,
        ends_line=False,
        cutter=None,
        head=_frame_head,
        tail=b"",
    ),
    FramingFacts(Framing.U32, LENGTH.size, False, False, False, True, False, U32Cutter, LENGTH.pack, b""),
    FramingFacts(Framing.LINE, 0, False, False, False, False, True, LineCutter, None, b"\n"),
    FramingFacts(Framing.RAW, 0, False, False, False, False, False, RawCutter, None, b""),
)

#: What users call them.
FRAMING_BY_NAME: Final = {framing.name.lower(): framing for framing in Framing}
