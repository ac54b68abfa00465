"""One client's bytes to the C engine and to the protocol in Python, both without sockets: both must answer the same.

The C engine is the shared library that ``make -C tests/fuzz oracle`` builds; the other side is ``pysock.wire.rules``
with the plainest loop around it. Streams come from a seed: frames, good and bad, mutated, in any pieces.
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import wire

from pysock.states import DISCONNECT_REASONS, ConnectionState, DisconnectReason
from pysock.wire.format import HEADER, ErrorCode, Framing, Kind, encode
from pysock.wire.framing import FRAMINGS
from pysock.wire.rules import (
    Answer,
    Answered,
    Cancel,
    Credit,
    FrameProtocol,
    Initiation,
    NotServed,
    PlainProtocol,
    Request,
    Rules,
)
from pysock.wire.tracing import Traced

#: What the library has as well: the numbers of its services, its welcome, and the id of its first client.
SERVICES = range(3)
WELCOME = b"hello"
CLIENT_ID = 1 << 32

COUNTERS = ("requests", "errors", "refused", "violations", "established")


class Stream(NamedTuple):
    """What one client sends, in which pieces, under which limits."""

    framing: Framing
    max_payload: int
    max_cir_bytes: int
    pieces: list[bytes]


class Outcome(NamedTuple):
    """What one side made of a stream."""

    sent: bytes
    given: list[tuple[int, int, int, bytes]]  # to the handlers: flags, service, request id, payload
    reason: str
    requests: int
    errors: int
    refused: int
    violations: int
    established: int


# The C engine


class _Played(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("framing", "max_payload", "max_cir_bytes")),
        ("bytes", ctypes.c_char_p),
        ("pieces", ctypes.POINTER(ctypes.c_uint64)),
        ("count", ctypes.c_uint64),
        ("down", ctypes.c_void_p),
        ("given", ctypes.c_void_p),
        *((name, ctypes.c_uint64) for name in ("down_size", "given_size", "reason", *COUNTERS)),
    )


class Engine:
    """The C engine as a function of a stream."""

    def __init__(self, library: Path) -> None:
        self._play = ctypes.CDLL(str(library)).oracle_play
        self._play.argtypes = [ctypes.POINTER(_Played)]
        self._play.restype = None

    def play(self, stream: Stream) -> Outcome:
        pieces = stream.pieces
        sizes = (ctypes.c_uint64 * len(pieces))(*map(len, pieces))
        played = _Played(stream.framing, stream.max_payload, stream.max_cir_bytes, b"".join(pieces), sizes, len(pieces))
        self._play(ctypes.byref(played))
        given = _bytes(played.given, played.given_size)
        return Outcome(
            _bytes(played.down, played.down_size),
            list(_given(given)),
            str(DISCONNECT_REASONS[played.reason]),
            *(getattr(played, name) for name in COUNTERS),
        )


def _bytes(address: int | None, size: int) -> bytes:
    return ctypes.string_at(address, size) if size else b""


def _given(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at < len(data):
        length, _, flags, service, number = HEADER.unpack_from(data, at)
        yield flags, service, number, data[at + 12 : at + 12 + length]
        at += 12 + length


# The protocol in Python


class _Count:
    def __init__(self) -> None:
        self.requests = self.errors = self.refused = self.violations = self.established = 0


def by_python(stream: Stream) -> Outcome:
    """The same by the protocol in Python."""
    sent, given, count = bytearray(), [], _Count()
    play = _native if stream.framing is Framing.PYSOCK else _plain
    reason = play(stream, sent, given, count)
    return Outcome(bytes(sent), given, str(reason), *(getattr(count, name) for name in COUNTERS))


def _native(stream: Stream, sent: bytearray, given: list, count: _Count) -> DisconnectReason:
    protocol = FrameProtocol(Rules(stream.max_payload, stream.max_cir_bytes, SERVICES))
    for piece in stream.pieces:
        protocol.feed(piece)
        while (action := protocol.next()) is not None:
            if isinstance(action, Answered):
                action = protocol.unasked(action)  # nobody asks anything
            if isinstance(action, Request):
                count.requests += 1
                sent += _echoed(action, protocol.reply_limit, given, count)
            elif isinstance(action, Initiation):
                count.established += 1
                sent += protocol.accept(CLIENT_ID, WELCOME)
            elif isinstance(action, Answer):
                sent += action.frame
            elif isinstance(action, (Cancel, Credit, Traced)):
                pass  # nothing is in flight: an echo is answered at once; and nobody looks at traces
            elif isinstance(action, NotServed):
                count.errors += 1
                count.requests += action.whole
                sent += action.frame
            else:
                violation = action.reason is DisconnectReason.PROTOCOL_VIOLATION
                count.violations += violation
                count.errors += violation and count.established
                count.refused += violation and not count.established
                sent += action.frame
                return action.reason
    return DisconnectReason.CLOSED_BY_PEER


def _echoed(request: Request, most: int, given: list, count: _Count) -> bytes:
    given.append((int(not request.wants_reply), request.service, request.request_id, request.payload))
    kind, code, payload = Kind.REPLY, 0, request.payload
    if len(payload) > most:
        kind, code, payload = Kind.ERROR, ErrorCode.HANDLER_FAILED, b""
        count.errors += 1
    return encode(kind, payload, code=code, request_id=request.request_id) if request.wants_reply else b""


def _plain(stream: Stream, sent: bytearray, given: list, count: _Count) -> DisconnectReason:
    protocol = PlainProtocol(FRAMINGS[stream.framing], stream.max_payload)
    protocol.accept()
    count.established = 1
    for piece in _as_read(stream):
        for request in protocol.feed(piece):
            count.requests += 1
            given.append((0, 0, 0, request))
            if stream.framing is Framing.U32:
                sent += struct.pack("!I", len(request))
            sent += request
            if stream.framing is Framing.LINE:
                sent += b"\n"
        if protocol.cutter.too_large:
            return DisconnectReason.OVER_A_LIMIT
    assert protocol.state is ConnectionState.ESTABLISHED
    return DisconnectReason.CLOSED_BY_PEER


def _as_read(stream: Stream) -> Iterable[bytes]:
    """Of the framing ``raw`` no more is read at once than one request may have."""
    most = stream.max_payload
    if stream.framing is not Framing.RAW:
        return stream.pieces
    return [piece[at : at + most] for piece in stream.pieces for at in range(0, len(piece), most)]


# Streams


class Streams:
    """Streams without end, the same from the same seed. What was sent before is mutated and sent again."""

    def __init__(self, seed: object) -> None:
        self._chance = random.Random(f"streams {seed}")
        self._pool: list[bytes] = [b""]

    def next(self) -> Stream:
        chance = self._chance
        framing = Framing(chance.choices(range(4), [7, 2, 2, 1])[0])
        max_payload = chance.choice([1, 5, 100, 3000, 100_000])
        max_cir = chance.choice([4, 20, 300, 4096])
        data = self._native(max_payload) if framing is Framing.PYSOCK else self._plain(framing, max_payload)
        if chance.random() < 0.5:
            data = self._mutated(data)
        self._remember(data)
        return Stream(framing, max_payload, max_cir, self._cut(data))

    def _remember(self, data: bytes) -> None:
        if len(data) > 20_000:
            return
        if len(self._pool) < 500:
            self._pool.append(data)
        else:
            self._pool[self._chance.randrange(500)] = data

    def _size(self, most: int) -> int:
        chance = self._chance
        if chance.random() < 0.02:
            return chance.choice([most - 1, most, most + 1, 16_384, 16_385, 65_536, 70_000])
        return chance.choice([0, 1, 2, chance.randrange(20), chance.randrange(300)])

    def _field(self) -> bytes:
        chance = self._chance
        value = chance.choice(
            [
                b"",
                b"me",
                "é€😀".encode(),
                b"\xff",
                b"\xed\xa0\x80",
                b"a\0b",
                b"\0\0\0\3",
                b"\xff" * 4,
                bytes(32),
                bytes(256),
            ]
        )
        return wire.field(chance.choice([0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 8, 9, 9, 200]), value)

    def _cir(self) -> bytes:
        chance = self._chance
        fields = [self._field() for _ in range(chance.choice([0, 0, 1, 1, 2, 4]))]
        if chance.random() < 0.4:
            fields.append(wire.features(chance.choice([1, 2, 3, 3, 3, 4, 8, 11, 2**32 - 1])))
        version = chance.choice([0, 2, 257]) if chance.random() < 0.05 else 1
        magic = chance.choice([b"", b"PSK", b"PSK2"]) if chance.random() < 0.05 else b"PSK1"
        return wire.cir(*fields, magic=magic, version=version)

    def _frame(self, most: int) -> bytes:
        chance, number = self._chance, self._chance.choice([0, 1, 2**32 - 1, self._chance.getrandbits(32)])
        what = chance.random()
        if what < 0.75:
            flags = int(chance.random() < 0.2)
            service = chance.choice([0, 0, 0, 1, 2, 3, 65535])
            payload = chance.randbytes(min(60, size := self._size(most))).ljust(size, b"p")
            if chance.random() < 0.2:
                left = chance.choice([0, 1, 2**32 - 1])
                return wire.timed(payload, number, left=left, service=service, flags=flags)
            return wire.srm(payload, number, service=service, flags=flags)
        if what < 0.77:
            return wire.cancel(number)
        if what < 0.78:
            return wire.frame(
                chance.choice([wire.ANSWER, wire.ANSWER_ERROR]), b"a" * min(self._size(most), 99), id=number
            )
        if what < 0.9:
            return wire.ping(bytes(chance.choice([0, 1, 8, 64, 65])), number)
        kind = chance.choice(
            [*wire.SERVERS_KINDS, *wire.UNKNOWN_KINDS, wire.CIR, wire.SRM, wire.PING, wire.BYE, wire.PROOF]
        )
        length = chance.choice([-1, -1, 0, 5, most + 1, 2**31, 2**32 - 1])
        return wire.frame(
            kind, bytes(chance.randrange(9)), id=number, code=chance.choice([0, 0, 1, 9]), length=length,
            flags=chance.choice([0, 0, 0, 1, 2, 128]),
        )  # fmt: skip

    def _native(self, most: int) -> bytes:
        chance = self._chance
        frames = [wire.ping(b"early")] if chance.random() < 0.1 else []
        frames += [self._cir()] if chance.random() < 0.95 else []
        frames += [self._frame(most) for _ in range(chance.choice([0, 1, 3, 10]))]
        if chance.random() < 0.1:
            frames.insert(chance.randrange(len(frames) + 1), wire.BYE_FRAME)
        return b"".join(frames)

    def _plain(self, framing: Framing, most: int) -> bytes:
        chance, data = self._chance, bytearray()
        for _ in range(chance.choice([0, 1, 3, 10])):
            size = self._size(most)
            message = chance.randbytes(min(size, 30)).ljust(size, b"p")
            if framing is Framing.U32:
                lie = chance.choice([most + 1, 2**32 - 1, size + 1])
                data += struct.pack("!I", lie if chance.random() < 0.03 else size)
            data += message
            if framing is Framing.LINE:
                data += chance.choice([b"\n", b"\n", b"\n\n", b"\r\n", b""])
        return bytes(data)

    def _mutated(self, data: bytes) -> bytes:
        chance, changed = self._chance, bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(changed) + 1)
            what = chance.randrange(5)
            if what == 0 and at < len(changed):
                changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << chance.randrange(8)])
            elif what == 1:
                changed[at:at] = chance.randbytes(chance.choice([1, 1, 2, 12]))
            elif what == 2:
                del changed[at : at + chance.choice([1, 1, 4, 12, 100])]
            elif what == 3:
                other = chance.choice(self._pool)
                begin = chance.randrange(len(other) + 1)
                changed[at:at] = other[begin : begin + chance.choice([12, 50, 500])]
            else:
                del changed[at:]
        return bytes(changed)

    def _cut(self, data: bytes) -> list[bytes]:
        chance = self._chance
        most = (
            chance.choice([1, 4, 12, 13, 40, 1000, 30_000])
            if len(data) < 2000
            else chance.choice([3000, 30_000, 60_000])
        )
        pieces, at = [], 0
        while at < len(data):
            pieces.append(data[at : at + chance.randint(1, most)])
            at += len(pieces[-1])
        return pieces
