"""The connection initiation request (CIR) and CIR_ACCEPTED: what each says, to and from bytes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import ParameterError
from pysock.wire import texts
from pysock.wire.format import (
    LARGEST_NAME,
    MAGIC,
    NONCE_SIZE,
    PROTOCOL_VERSION,
    SERVICE,
    SERVICE_OPTIONS,
    Kind,
    Malformed,
    Refusal,
    Tag,
    decode_fields,
    encode,
    encode_field,
    number_of,
    text_of,
)

if TYPE_CHECKING:
    from typing import Any, Final

# --- the CIR ---------------------------------------------------------------------------------------------------------


class Cir(NamedTuple):
    """What a connection initiation request says."""

    name: str = ""
    max_payload: int | None = None  # the largest payload the client accepts; None if it doesn't say
    software: str = ""
    nonce: bytes | None = None  # it has an auth key
    features: int = 0  # what the client speaks
    stream_window: int | None = None  # None if it doesn't say


def encode_name(name: str) -> bytes:
    """Return the name of a client as a CIR has it.

    :raises ValueError: if it is longer than 255 bytes, has a NUL, or is no text that UTF-8 can hold.
    :raises TypeError: if it is no text at all.
    """
    if not isinstance(name, str):
        raise TypeError(f"a client's name is a str, not {type(name).__name__}")
    encoded = name.encode("utf-8")
    if len(encoded) > LARGEST_NAME or b"\0" in encoded:
        problem = f"is at most {LARGEST_NAME} bytes of UTF-8 without NUL, not {name!r}"
        raise ParameterError("name", problem, name="a name")
    return encoded


def encode_cir(
    name: str = "",
    software: str = "",
    max_payload: int | None = None,
    nonce: bytes | None = None,
    features: int = 0,
    stream_window: int | None = None,
) -> bytes:
    """Return the whole CIR frame.

    :raises ValueError: what :func:`encode_name` says of the name; a :class:`TypeError` likewise.
    """
    encoded = encode_name(name)
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
    if stream_window is not None:
        payload += encode_field(Tag.STREAM_WINDOW, stream_window.to_bytes(4, "big"))
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
    said: dict[int, Any] = {}
    max_payload, software = None, ""
    for tag, value in fields:
        if tag in _ONCE:
            if tag in said:
                raise Malformed("a field comes twice")
            said[tag] = _ONCE[tag](value)
        elif tag == Tag.MAX_PAYLOAD:
            # Of several promises the one that is easiest to keep counts.
            most = number_of(value, 4)
            max_payload = most if max_payload is None else min(most, max_payload)
        elif tag == Tag.SOFTWARE:
            software = _shown(value)
    name, nonce, features = said.get(Tag.NAME, ""), said.get(Tag.NONCE), said.get(Tag.FEATURES, 0)
    return Cir(name, max_payload, software, nonce, features, said.get(Tag.STREAM_WINDOW))


def _name(value: bytes) -> str:
    """The name of a client: without NUL, where C would see its end."""
    if not 0 < len(value) <= LARGEST_NAME or b"\0" in value:
        raise Malformed("a name is too long, empty, or has a NUL")
    return text_of(value)


def _shown(value: bytes) -> str:
    """Software is only ever shown, so never a reason to refuse: the beginning of it, up to a NUL."""
    return value[:LARGEST_NAME].partition(b"\0")[0].decode("utf-8", "replace")


def _nonce(value: bytes) -> bytes:
    if len(value) != NONCE_SIZE:
        raise Malformed("a nonce of another size")
    return value


#: The fields that a CIR has at most once, and what they say.
_ONCE: Final[dict[int, Callable[[bytes], Any]]] = {
    Tag.NAME: _name,
    Tag.NONCE: _nonce,
    Tag.FEATURES: partial(number_of, size=4),
    Tag.STREAM_WINDOW: partial(number_of, size=4),
}


# --- the answer to a CIR ---------------------------------------------------------------------------------------------


class Welcome(NamedTuple):
    """What a CIR_ACCEPTED says."""

    client_id: int
    max_payload: int | None  # the largest payload the server accepts
    max_in_flight: int | None
    services: dict[str, int]  # name -> number; the unnamed service is "" -> 0
    software: str
    features: int = 0  # what both speak
    stream_window: int = 0  # bytes that a stream may send before it has credit; where both speak of streams
    options: dict[int, int] = {}  # number of a service -> bits of ServiceOption  # noqa: RUF012  # nobody writes to it
    idle_timeout: float | None = None  # seconds after which the server drops a client that is silent


def encode_welcome(
    max_payload: int,
    max_in_flight: int,
    services: Iterable[tuple[int, str]],
    software: str,
    options: Iterable[tuple[int, int]] = (),
    idle_timeout: float | None = None,
) -> bytes:
    """Return the fields of a CIR_ACCEPTED that are the same for every client.

    :param options: of those services that have any: number, bits of :class:`ServiceOption`.
    :param idle_timeout: seconds after which a client that is silent is dropped; ``None``: none is.
    :raises ValueError: if a service's name is longer than 255 bytes.
    """
    fields = encode_field(Tag.MAX_PAYLOAD, max_payload.to_bytes(4, "big"))
    fields += encode_field(Tag.MAX_IN_FLIGHT, max_in_flight.to_bytes(4, "big"))
    for number, name in services:
        encoded = name.encode("utf-8")
        if len(encoded) > LARGEST_NAME:
            raise ValueError(f"a service's name is at most {LARGEST_NAME} bytes of UTF-8, not {len(encoded)}")
        fields += encode_field(Tag.SERVICE, SERVICE.pack(number, len(encoded)) + encoded)
    for number, bits in options:
        fields += encode_field(Tag.SERVICE_OPTIONS, SERVICE_OPTIONS.pack(number, bits))
    if idle_timeout is not None:
        fields += encode_field(Tag.IDLE_TIMEOUT, max(1, int(idle_timeout * 1000)).to_bytes(4, "big"))
    return fields + encode_field(Tag.SOFTWARE, software.encode("utf-8"))


def encode_accepted(client_id: int, welcome: bytes, features: int = 0, stream_window: int | None = None) -> bytes:
    """Return the whole CIR_ACCEPTED frame.

    :param features: what both speak.
    :param stream_window: where they speak of streams.
    """
    fields = encode_field(Tag.CLIENT_ID, client_id.to_bytes(8, "big"))
    if features:
        fields += encode_field(Tag.FEATURES, features.to_bytes(4, "big"))
    if stream_window is not None:
        fields += encode_field(Tag.STREAM_WINDOW, stream_window.to_bytes(4, "big"))
    return encode(Kind.CIR_ACCEPTED, fields + welcome)


def decode_welcome(payload: bytes) -> Welcome:
    """Take apart a CIR_ACCEPTED's payload.

    :raises Malformed: if it has no client id, or a field is broken.
    """
    numbers, services, options, software = {}, {}, {}, ""
    for tag, value in decode_fields(payload):
        if tag in _NUMBERS:
            numbers[tag] = number_of(value, _NUMBERS[tag])
        elif tag == Tag.SERVICE:
            number, name = _service(value)
            services[name] = number
        elif tag == Tag.SERVICE_OPTIONS:
            number, bits = _options(value)
            options[number] = bits
        elif tag == Tag.SOFTWARE:
            software = text_of(value)
    client_id = numbers.get(Tag.CLIENT_ID)
    if client_id is None:
        raise Malformed("the CIR_ACCEPTED has no client id")
    return Welcome(
        client_id,
        numbers.get(Tag.MAX_PAYLOAD),
        numbers.get(Tag.MAX_IN_FLIGHT),
        services,
        software,
        numbers.get(Tag.FEATURES, 0),
        numbers.get(Tag.STREAM_WINDOW, 0),
        options,
        numbers[Tag.IDLE_TIMEOUT] / 1000 if Tag.IDLE_TIMEOUT in numbers else None,
    )


#: The fields of a CIR_ACCEPTED that are a number, and how many bytes each has.
_NUMBERS: Final[dict[int, int]] = {
    Tag.CLIENT_ID: 8,
    Tag.MAX_PAYLOAD: 4,
    Tag.MAX_IN_FLIGHT: 4,
    Tag.FEATURES: 4,
    Tag.STREAM_WINDOW: 4,
    Tag.IDLE_TIMEOUT: 4,
}


def _service(value: bytes) -> tuple[int, str]:
    if len(value) < SERVICE.size:
        raise Malformed("a service field is cut short")
    number, length = SERVICE.unpack_from(value)
    if len(value) != SERVICE.size + length:
        raise Malformed("a service field's name isn't as long as it says")
    return number, text_of(value[SERVICE.size :])


def _options(value: bytes) -> tuple[int, int]:
    if len(value) != SERVICE_OPTIONS.size:
        raise Malformed("the options of a service are of another size")
    number, bits = SERVICE_OPTIONS.unpack(value)
    return number, bits
