"""The wire format, version 1, without any I/O: frames, what holds for each kind, fields. It owns what bytes mean.

A frame of the framing ``pysock`` is a 12-byte header, then the payload; integers are in network byte order::

    offset  type  field
    0       u32   length of the payload in bytes
    4       u8    kind
    5       u8    flags: what each bit means is up to the kind; 0 where there are none
    6       u16   code: version on a CIR, service on an SRM, reason of a refusal, error, GOAWAY, state on a PONG, else 0
    8       u32   request id: chosen by the client on an SRM or PING, echoed on the answer, else 0
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import PysockError
from pysock.wire import texts
from pysock.wire.features import Feature

if TYPE_CHECKING:
    from typing import Final

PROTOCOL_VERSION: Final = 1
MAGIC: Final = b"PSK1"
HEADER: Final = struct.Struct("!IBBHI")
FIELD: Final = struct.Struct("!BH")  # tag, length of the value that follows
SERVICE: Final = struct.Struct("!HB")  # in a SERVICE field: number, length of the name that follows
SERVICE_OPTIONS: Final = struct.Struct("!HB")  # a SERVICE_OPTIONS field: number, bits
LARGEST_PING: Final = 64
LARGEST_NAME: Final = 255
LARGEST_REASON: Final = 255  # of a refusal, where a hook gives it
NONCE_SIZE: Final = 32
MAC_SIZE: Final = 32  # HMAC-SHA256
CREDIT: Final = struct.Struct("!I")  # the payload of a CREDIT: bytes
GOAWAY_REPLACED: Final = 1  # the code of a GOAWAY: another client has come by this one's name, which shall stay away
GOAWAY_SETTLED: Final = 2  # all that was accepted is answered: what has no answer now was not run, and won't be
LARGEST_ASKED: Final = 1 + LARGEST_NAME  # what is in front of the request of an ASK: a u8, and the service's name
FLAG_NO_REPLY: Final = 0x01  # of an SRM
FLAG_DEADLINE: Final = 0x02  # of an SRM: its payload begins with a u32, microseconds the client still waits
FLAG_TAKES_STREAM: Final = 0x04  # of an SRM: its client takes the reply in pieces
FLAG_MORE: Final = 0x01  # of a REPLY: it is a piece, and more follow
FLAG_NOT_STARTED: Final = 0x01  # of an ERROR: the handler was not started
FLAG_GAP: Final = 0x01  # of a PUSH: its payload begins with a u32, pushes before it that were dropped
GAP: Final = struct.Struct("!I")  # that; lengths count without it


class Framing(IntEnum):
    """How bytes are cut into messages."""

    PYSOCK = 0  # the frames of this file
    U32 = 1  # 4-byte big-endian length, then the payload
    LINE = 2  # up to a newline, which is not part of the message
    RAW = 3  # whatever arrives


class Kind(IntEnum):
    """What a frame is; kinds from 0x80 come from the server."""

    CIR = 0x01
    SRM = 0x02
    PING = 0x03
    BYE = 0x04
    CANCEL = 0x05
    CREDIT = 0x06
    TRACE = 0x07
    PROOF = 0x08
    ANSWER = 0x09
    ANSWER_ERROR = 0x0A
    CIR_ACCEPTED = 0x81
    CIR_REFUSED = 0x82
    REPLY = 0x83
    ERROR = 0x84
    PUSH = 0x85
    PONG = 0x86
    GOAWAY = 0x87
    CHALLENGE = 0x88
    ASK = 0x89
    ASK_CANCEL = 0x8A

    @property
    def comes_from_server(self) -> bool:
        """Whether only servers send it."""
        return self >= 0x80


class ErrorCode(IntEnum):
    """The code of an ERROR."""

    HANDLER_FAILED = 1
    NO_SUCH_SERVICE = 2
    PAYLOAD_TOO_LARGE = 3
    TOO_MANY_IN_FLIGHT = 4
    SHUTTING_DOWN = 5
    NOT_ALLOWED = 6
    MALFORMED = 7
    DEADLINE_PASSED = 8
    CANCELLED = 9
    OVERLOADED = 10
    NEEDS_STREAM = 11


class Refusal(IntEnum):
    """The code of a CIR_REFUSED."""

    BAD_MAGIC_OR_VERSION = 1
    NOT_ALLOWED = 2
    WRONG_PROOF = 3
    SERVER_FULL = 4
    SHUTTING_DOWN = 5
    CIR_TOO_LATE = 6
    MALFORMED = 7


class Tag(IntEnum):
    """The tag of a field in the payload of a CIR, CIR_ACCEPTED, CHALLENGE or PROOF."""

    CLIENT_ID = 1  # u64
    NAME = 2  # UTF-8
    NONCE = 3  # 32 bytes
    MAC = 4  # 32 bytes
    MAX_PAYLOAD = 5  # u32
    MAX_IN_FLIGHT = 6  # u32
    SERVICE = 7  # repeated: u16 number, u8 length, UTF-8 name
    SOFTWARE = 8  # UTF-8, e.g. "pysock/0.1"
    FEATURES = 9  # u32: what the client speaks, and in the answer, what both do: see Feature
    STREAM_WINDOW = 10  # u32: bytes of a stream that may be on their way, and in the answer, how many will be
    SERVICE_OPTIONS = 11  # repeated: u16 number, u8 bits of ServiceOption
    IDLE_TIMEOUT = 12  # u32: milliseconds after which the server drops a client that is silent


class ServiceOption(IntFlag):
    """A bit of a field SERVICE_OPTIONS."""

    STREAMS = 1  # its reply comes in pieces
    IDEMPOTENT = 2  # to run it twice is as good as once


class Most(IntEnum):
    """How long a frame's payload may be."""

    REQUEST = 0  # the server's max_payload; a longer one is answered, and the connection lives
    CIR = 1  # the server's max_cir_bytes
    PING = 2  # 64 bytes, as of a TRACE
    NOTHING = 3
    CREDIT = 4  # 4 bytes
    ANSWER = 5  # the server's max_payload; a longer one breaks the rules


class Rule(NamedTuple):
    """What holds for one kind of frame. ``csrc/conn/rules.c`` has the same rows; a test compares them cell by cell."""

    # Why it may not come: before a CIR was accepted, while a PROOF is awaited, and after; empty: it may.
    wrong: tuple[str, str, str] = ("", "", "")
    flags: int = 0  # the bits that have a meaning
    timed_flags: int = 0  # those that have one where both ends speak of deadlines
    stream_flags: int = 0  # and of streams
    needs: int = 0  # the feature without which it is unknown
    version: bool = False  # its code is the version of the protocol
    most: Most = Most.NOTHING
    least: int = 0  # bytes
    too_long: str = ""  # what is said of a longer one, or one that is too short


def _never(text: str) -> Rule:
    return Rule(wrong=(text, text, text))


#: What clients may send. A kind that isn't here is unknown.
RULES: Final[dict[int, Rule]] = {
    Kind.CIR: Rule(
        wrong=("", texts.SECOND_CIR_WAITING, texts.SECOND_CIR),
        version=True,
        most=Most.CIR,
        too_long=texts.LONG_CIR,
    ),
    Kind.PROOF: Rule(wrong=(texts.UNASKED_PROOF, "", texts.UNASKED_PROOF), most=Most.CIR, too_long=texts.LONG_PROOF),
    Kind.SRM: Rule(
        wrong=(texts.SRM_BEFORE_CIR, texts.SRM_BEFORE_CIR, ""),
        flags=FLAG_NO_REPLY,
        timed_flags=FLAG_DEADLINE,
        stream_flags=FLAG_TAKES_STREAM,
        most=Most.REQUEST,
    ),
    Kind.PING: Rule(most=Most.PING, too_long=texts.LONG_PING),
    Kind.BYE: Rule(most=Most.NOTHING, too_long=texts.LONG_BYE),
    Kind.CANCEL: Rule(
        wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
        needs=int(Feature.CANCEL),
        most=Most.NOTHING,
        too_long=texts.LONG_CANCEL,
    ),
    Kind.CREDIT: Rule(
        wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
        needs=int(Feature.STREAM),
        most=Most.CREDIT,
        least=CREDIT.size,
        too_long=texts.CREDIT_SIZE,
    ),
    Kind.TRACE: Rule(
        wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
        needs=int(Feature.TRACE),
        most=Most.PING,
        too_long=texts.LONG_TRACE,
    ),
    **{
        kind: Rule(
            wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
            needs=int(Feature.ASK),
            most=Most.ANSWER,
            too_long=texts.LONG_ANSWER,
        )
        for kind in (Kind.ANSWER, Kind.ANSWER_ERROR)
    },
    **{kind: _never(texts.SERVER_KIND) for kind in Kind if kind.comes_from_server},
}
UNKNOWN: Final = _never(texts.UNKNOWN_KIND)


class Frame(NamedTuple):
    """One whole frame of the framing ``pysock``."""

    kind: int
    flags: int
    code: int
    request_id: int
    payload: bytes


class Header(NamedTuple):
    """The 12 bytes that every frame of the framing ``pysock`` begins with."""

    length: int
    kind: int
    flags: int
    code: int
    request_id: int


class Malformed(PysockError, ValueError):
    """Bytes that aren't what their kind of frame holds.

    :ivar code: the refusal code that says so, see :class:`Refusal`.
    """

    def __init__(self, message: str, code: int = Refusal.MALFORMED) -> None:
        super().__init__(message)
        self.code = code


# --- frames ----------------------------------------------------------------------------------------------------------


def encode(kind: int, payload: bytes = b"", *, code: int = 0, request_id: int = 0, flags: int = 0) -> bytes:
    """Return one whole frame."""
    return HEADER.pack(len(payload), kind, flags, code, request_id) + payload


def encode_text(kind: int, code: int, text: str, request_id: int = 0) -> bytes:
    """Return a frame whose payload is a text for people: a refusal, an error, a GOAWAY."""
    return encode(kind, text.encode("utf-8", "replace"), code=code, request_id=request_id)


def fitting(text: bytes, most: int) -> bytes:
    """Return as much of a UTF-8 text as has at most so many bytes, cut between two characters."""
    return text if len(text) <= most else text[:most].decode("utf-8", "ignore").encode()


def decode_header(data: bytes, offset: int = 0) -> Header:
    """Take the header at this offset, where 12 bytes must be."""
    return Header(*HEADER.unpack_from(data, offset))


def decode(data: bytes) -> Frame:
    """Take apart exactly one whole frame.

    :raises Malformed: if it is shorter or longer than its header says.
    """
    if len(data) < HEADER.size:
        raise Malformed("a frame is at least 12 bytes")
    length, kind, flags, code, request_id = HEADER.unpack_from(data)
    if length != len(data) - HEADER.size:
        raise Malformed(f"the header announces {length} bytes of payload, and there are {len(data) - HEADER.size}")
    return Frame(kind, flags, code, request_id, data[HEADER.size :])


# --- fields ----------------------------------------------------------------------------------------------------------


def encode_field(tag: int, value: bytes) -> bytes:
    """Return one field.

    :raises ValueError: if the value is longer than 65535 bytes.
    """
    if len(value) > 0xFFFF:
        raise ValueError(f"a field holds at most 65535 bytes, not {len(value)}")
    return FIELD.pack(tag, len(value)) + value


def decode_fields(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Take apart the fields from this offset to the end, in their order. Who asks skips the tags it doesn't know.

    :raises Malformed: if a field is cut short.
    """
    fields, end = [], len(data)
    while offset < end:
        if end - offset < FIELD.size:
            raise Malformed("a field is cut short")
        tag, length = FIELD.unpack_from(data, offset)
        offset += FIELD.size
        if end - offset < length:
            raise Malformed("a field is cut short")
        fields.append((tag, data[offset : offset + length]))
        offset += length
    return fields


def number_of(value: bytes, size: int) -> int:
    """What a field of so many bytes says.

    :raises Malformed: if it has more or fewer.
    """
    if len(value) != size:
        raise Malformed(f"a number field has {len(value)} bytes instead of {size}")
    return int.from_bytes(value, "big")


def text_of(value: bytes) -> str:
    """What a field of UTF-8 says.

    :raises Malformed: if it isn't.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text field isn't UTF-8") from None
