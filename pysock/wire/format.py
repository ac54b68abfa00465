"""The wire format, version 1, without any I/O: frames, fields, the CIR and the answer to it. It owns what bytes mean.

A frame of the framing ``pysock`` is a 12-byte header, then the payload; integers are in network byte order::

    offset  type  field
    0       u32   length of the payload in bytes
    4       u8    kind
    5       u8    flags: bit 0 on an SRM = no reply wanted, bit 1 = deadline; bit 0 on an ERROR = not started; else 0
    6       u16   code: protocol version on a CIR, service number on an SRM, reason on a refusal or error, else 0
    8       u32   request id: chosen by the client on an SRM or PING, echoed on the answer, else 0
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import ParameterError, PysockError
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Final

PROTOCOL_VERSION: Final = 1
MAGIC: Final = b"PSK1"
HEADER: Final = struct.Struct("!IBBHI")
FIELD: Final = struct.Struct("!BH")  # tag, length of the value that follows
SERVICE: Final = struct.Struct("!HB")  # in a SERVICE field: number, length of the name that follows
LARGEST_PING: Final = 64
LARGEST_NAME: Final = 255
LARGEST_REASON: Final = 255  # of a refusal, where a hook gives it
NONCE_SIZE: Final = 32
MAC_SIZE: Final = 32  # HMAC-SHA256
FLAG_NO_REPLY: Final = 0x01  # of an SRM
FLAG_DEADLINE: Final = 0x02  # of an SRM: its payload begins with a u32, microseconds the client still waits
FLAG_NOT_STARTED: Final = 0x01  # of an ERROR: the handler was not started


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
    PROOF = 0x08
    CIR_ACCEPTED = 0x81
    CIR_REFUSED = 0x82
    REPLY = 0x83
    ERROR = 0x84
    PUSH = 0x85
    PONG = 0x86
    GOAWAY = 0x87
    CHALLENGE = 0x88

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


def _number(value: bytes, size: int) -> int:
    if len(value) != size:
        raise Malformed(f"a number field has {len(value)} bytes instead of {size}")
    return int.from_bytes(value, "big")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text field isn't UTF-8") from None


# --- the CIR ---------------------------------------------------------------------------------------------------------


class Cir(NamedTuple):
    """What a connection initiation request says."""

    name: str = ""
    max_payload: int | None = None  # the largest payload the client accepts; None if it doesn't say
    software: str = ""
    nonce: bytes | None = None  # it has an auth key
    features: int = 0  # what the client speaks


def encode_cir(
    name: str = "",
    software: str = "",
    max_payload: int | None = None,
    nonce: bytes | None = None,
    features: int = 0,
) -> bytes:
    """Return the whole CIR frame.

    :raises ValueError: if the name is longer than 255 bytes, has a NUL, or is no text that UTF-8 can hold.
    :raises TypeError: if the name is no text at all.
    """
    if not isinstance(name, str):
        raise TypeError(f"a client's name is a str, not {type(name).__name__}")
    encoded = name.encode("utf-8")
    if len(encoded) > LARGEST_NAME or b"\0" in encoded:
        problem = f"is at most {LARGEST_NAME} bytes of UTF-8 without NUL, not {name!r}"
        raise ParameterError("name", problem, name="a name")
    payload = MAGIC
    if encoded:
        payload += encode_field(Tag.NAME, encoded)
    if max_payload is not None:
        payload += encode_field(Tag.MAX_PAYLOAD, max_payload.to_bytes(4, "big"))
    if software:
        payload += encode_field(Tag.SOFTWARE, software.encode("utf-8"))
    if nonce is not None:
        payload += encode_field(Tag.NONCE, nonce)
    if features:
        payload += encode_field(Tag.FEATURES, features.to_bytes(4, "big"))
    return encode(Kind.CIR, payload, code=PROTOCOL_VERSION)


def decode_cir(payload: bytes) -> Cir:
    """Take apart a CIR's payload.

    :raises Malformed: with the refusal code and the text that the client is told.
    """
    if len(payload) < len(MAGIC):
        raise Malformed(texts.SHORT_CIR)
    if not payload.startswith(MAGIC):
        raise Malformed(texts.BAD_MAGIC, Refusal.BAD_MAGIC_OR_VERSION)
    try:
        return _cir_fields(decode_fields(payload, len(MAGIC)))
    except Malformed:
        raise Malformed(texts.BROKEN_FIELD) from None


def _cir_fields(fields: Iterable[tuple[int, bytes]]) -> Cir:
    name, max_payload, software, nonce, features = "", None, "", None, None
    for tag, value in fields:
        if tag == Tag.NAME:
            if name:
                raise Malformed("two names")
            name = _name(value)
        elif tag == Tag.MAX_PAYLOAD:
            # Of several promises the one that is easiest to keep counts.
            most = _number(value, 4)
            max_payload = most if max_payload is None else min(most, max_payload)
        elif tag == Tag.SOFTWARE:
            software = value.decode("utf-8", "replace")  # only ever shown, so never a reason to refuse
        elif tag == Tag.NONCE:
            if nonce is not None or len(value) != NONCE_SIZE:
                raise Malformed("two nonces, or one of another size")
            nonce = value
        elif tag == Tag.FEATURES:
            if features is not None:
                raise Malformed("two sets of features")
            features = _number(value, 4)
    return Cir(name, max_payload, software, nonce, features or 0)


def _name(value: bytes) -> str:
    """The name of a client: without NUL, where C would see its end."""
    if not 0 < len(value) <= LARGEST_NAME or b"\0" in value:
        raise Malformed("a name is too long, empty, or has a NUL")
    return _text(value)


# --- the answer to a CIR ---------------------------------------------------------------------------------------------


class Welcome(NamedTuple):
    """What a CIR_ACCEPTED says."""

    client_id: int
    max_payload: int | None  # the largest payload the server accepts
    max_in_flight: int | None
    services: dict[str, int]  # name -> number; the unnamed service is "" -> 0
    software: str
    features: int = 0  # what both speak


def encode_welcome(max_payload: int, max_in_flight: int, services: Iterable[tuple[int, str]], software: str) -> bytes:
    """Return the fields of a CIR_ACCEPTED that are the same for every client: all but the client id.

    :raises ValueError: if a service's name is longer than 255 bytes.
    """
    fields = encode_field(Tag.MAX_PAYLOAD, max_payload.to_bytes(4, "big"))
    fields += encode_field(Tag.MAX_IN_FLIGHT, max_in_flight.to_bytes(4, "big"))
    for number, name in services:
        encoded = name.encode("utf-8")
        if len(encoded) > LARGEST_NAME:
            raise ValueError(f"a service's name is at most {LARGEST_NAME} bytes of UTF-8, not {len(encoded)}")
        fields += encode_field(Tag.SERVICE, SERVICE.pack(number, len(encoded)) + encoded)
    return fields + encode_field(Tag.SOFTWARE, software.encode("utf-8"))


def encode_accepted(client_id: int, welcome: bytes, features: int = 0) -> bytes:
    """Return the whole CIR_ACCEPTED frame.

    :param features: what both speak.
    """
    fields = encode_field(Tag.CLIENT_ID, client_id.to_bytes(8, "big"))
    if features:
        fields += encode_field(Tag.FEATURES, features.to_bytes(4, "big"))
    return encode(Kind.CIR_ACCEPTED, fields + welcome)


def decode_welcome(payload: bytes) -> Welcome:
    """Take apart a CIR_ACCEPTED's payload.

    :raises Malformed: if it has no client id, or a field is broken.
    """
    client_id = max_payload = max_in_flight = None
    services, software, features = {}, "", 0
    for tag, value in decode_fields(payload):
        if tag == Tag.CLIENT_ID:
            client_id = _number(value, 8)
        elif tag == Tag.MAX_PAYLOAD:
            max_payload = _number(value, 4)
        elif tag == Tag.MAX_IN_FLIGHT:
            max_in_flight = _number(value, 4)
        elif tag == Tag.SERVICE:
            number, name = _service(value)
            services[name] = number
        elif tag == Tag.SOFTWARE:
            software = _text(value)
        elif tag == Tag.FEATURES:
            features = _number(value, 4)
    if client_id is None:
        raise Malformed("the CIR_ACCEPTED has no client id")
    return Welcome(client_id, max_payload, max_in_flight, services, software, features)


def _service(value: bytes) -> tuple[int, str]:
    if len(value) < SERVICE.size:
        raise Malformed("a service field is cut short")
    number, length = SERVICE.unpack_from(value)
    if len(value) != SERVICE.size + length:
        raise Malformed("a service field's name isn't as long as it says")
    return number, _text(value[SERVICE.size :])
