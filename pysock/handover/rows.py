"""What a client is when it moves: a row of the client table, and the bytes that hang on it, to and from bytes. No I/O.

The pure engine packs and unpacks its clients by this file; ``csrc/moving/`` does the same in C and is tested against
it. Rows are bytes by definition and never a dumped struct, so that either engine takes over from the other, and an
older release from a newer one.

Each row is ``u32 size`` of what follows, and then fields, in ascending order of their tags without the top bit, none
twice. One that has its default is left out. What isn't said here doesn't move: credentials are asked of the socket
anew, times are told as what is left of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from pysock.base.lean import TYPE_CHECKING, NamedTuple, dataclass
from pysock.handover.fields import CRITICAL, decode_fields, encode_fields

if TYPE_CHECKING:
    from typing import Any, Final

#: The states in which a client moves, as in ``ConnectionState``.
ACCEPTED: Final = 1
CHALLENGED: Final = 2
ESTABLISHED: Final = 3

#: Deadlines, as ``Row.deadlines`` names them.
CIR: Final = 0
FRAME: Final = 1
OUTPUT: Final = 2
IDLE: Final = 3

#: Families of addresses: our numbers, the same on each system.
UNIX: Final = 1
IPV4: Final = 2
IPV6: Final = 3

#: Bytes at most: of a name, of a MAC, and of what a client says that it runs, in which each was replaced by three.
NAME_MAX: Final = 255
MAC_MAX: Final = 255
SOFTWARE_MAX: Final = 765

_SIZE: Final = struct.Struct("<I")
_ORIGIN: Final = struct.Struct("<BH16s")
_VIA: Final = struct.Struct("<BBH16s")
_COUNTERS: Final = struct.Struct("<6Q")
_DEADLINE: Final = struct.Struct("<BI")
_HAS_PATH: Final = 1
_LENGTHS: Final = {UNIX: 0, IPV4: 4, IPV6: 16}


class Address(NamedTuple):
    """Where somebody is."""

    family: int  # UNIX, IPV4 or IPV6
    host: bytes = b""  # 4 or 16 bytes; none of a Unix socket
    port: int = 0


class Proxied(NamedTuple):
    """Through whom a client came, and what was kept of that one's header."""

    proxy: Address
    header: bytes
    has_path: bool = False  # the client's address is that of a Unix socket, in the header


class Counters(NamedTuple):
    """What was counted of a client."""

    connected_at: int = 0  # nanoseconds since the epoch
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0  # also what isn't sent yet
    frames_in: int = 0  # beside the requests
    frames_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One client that moves."""

    client_id: int
    state: int  # ACCEPTED, CHALLENGED or ESTABLISHED
    max_reply: int  # bytes of the largest payload that it takes
    listener: int = 0  # through which it came, by its place among those that are handed over
    features: int = 0  # what both ends speak
    name: str = ""
    software: str = ""
    expected: bytes = b""  # the MAC that its PROOF must have, if it is CHALLENGED
    origin: Address | None = None  # the address that a proxy has told
    proxied: Proxied | None = None
    counters: Counters = Counters()
    deadlines: tuple[tuple[int, int], ...] = ()  # CIR, FRAME, OUTPUT or IDLE, and the milliseconds that are left
    input: bytes = b""  # read and not handled yet, as it came; first of it is thrown away what ``skip`` says
    skip: int = 0  # bytes of a payload that is too large, still to be thrown away
    output: bytes = b""  # what isn't sent yet
    stream_window: int = 0  # bytes; the first credit of a stream, where both ends speak of them
    gap: int = 0  # pushes that were dropped and that it hasn't been told of
    heard: int = 0  # milliseconds since bytes of it came last
    gave_up: bool = False  # a request of it stays without an answer, so no later one gets any
    awaits_header: bool = False  # of a proxy: ``input`` is what has come of it
    waited: int = 0  # milliseconds since the first of ``input`` was read
    dropped: int = 0  # pushes, in all


# --- values ----------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How one field is written and read."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _number(size: int) -> _Form:
    def encode(number: int) -> bytes:
        try:
            return int(number).to_bytes(size, "little")
        except OverflowError:
            raise ValueError(f"{number} isn't a number of {size} bytes") from None

    def decode(value: bytes) -> int:
        if len(value) != size:
            raise ValueError(f"a number has {size} bytes, not {len(value)}")
        return int.from_bytes(value, "little")

    return _Form(encode, decode)


def _blob(most: int) -> _Form:
    def limited(value: bytes) -> bytes:
        if len(value) > most:
            raise ValueError(f"{len(value)} bytes are too many: at most {most}")
        return value

    return _Form(limited, limited)


def _text(most: int, errors: str) -> _Form:
    limited = _blob(most).encode

    def without_nul(value: bytes) -> bytes:
        if b"\0" in value:
            raise ValueError("there is a NUL in it")
        return limited(value)

    return _Form(
        lambda text: without_nul(text.encode("utf-8")), lambda value: without_nul(value).decode("utf-8", errors)
    )


def _yes(value: bytes) -> bool:
    if value != b"\1":
        raise ValueError("it is 1 or it isn't there")
    return True


def _padded(address: Address, families: tuple[int, ...]) -> bytes:
    if address.family not in families or len(address.host) != _LENGTHS[address.family]:
        raise ValueError(f"{address} is no such address")
    return address.host.ljust(16, b"\0")


def _address(family: int, port: int, host: bytes, families: tuple[int, ...]) -> Address:
    if family not in families:
        raise ValueError(f"the family {family} isn't known here")
    length = _LENGTHS[family]
    if any(host[length:]):
        raise ValueError(f"an address of family {family} has {length} bytes")
    if family == UNIX and port:
        raise ValueError("a Unix socket has no port")
    return Address(family, host[:length], port)


def _encode_origin(origin: Address) -> bytes:
    return _ORIGIN.pack(origin.family, origin.port, _padded(origin, (IPV4, IPV6)))


def _decode_origin(value: bytes) -> Address:
    _check_size(value, _ORIGIN.size)
    family, port, host = _ORIGIN.unpack(value)
    return _address(family, port, host, (IPV4, IPV6))


def _encode_via(via: Proxied) -> bytes:
    family, _, port = via.proxy
    return _VIA.pack(family, via.has_path, port, _padded(via.proxy, (UNIX, IPV4, IPV6))) + via.header


def _decode_via(value: bytes) -> Proxied:
    if len(value) <= _VIA.size:
        raise ValueError("the proxy's header isn't there")
    family, flags, port, host = _VIA.unpack_from(value)
    if flags & ~_HAS_PATH:
        raise ValueError(f"the flags {flags:#x} aren't known")
    return Proxied(_address(family, port, host, (UNIX, IPV4, IPV6)), value[_VIA.size :], bool(flags))


def _decode_counters(value: bytes) -> Counters:
    _check_size(value, _COUNTERS.size)
    return Counters._make(_COUNTERS.unpack(value))


def _encode_deadlines(deadlines: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(_DEADLINE.pack(*deadline) for deadline in deadlines)


def _decode_deadlines(value: bytes) -> tuple[tuple[int, int], ...]:
    if len(value) % _DEADLINE.size:
        raise ValueError(f"each has {_DEADLINE.size} bytes, together they don't have {len(value)}")
    return tuple(_DEADLINE.iter_unpack(value))


def _check_size(value: bytes, size: int) -> None:
    if len(value) != size:
        raise ValueError(f"it has {size} bytes, not {len(value)}")


_ANY: Final = _blob(2**32 - 1)
_U8, _U32, _U64 = _number(1), _number(4), _number(8)
_FLAG: Final = _Form(lambda _flag: b"\1", _yes)

#: By tag: which member of a row it is, and how it is written. In the order in which they come.
_FIELDS: Final[dict[int, tuple[str, _Form]]] = {
    CRITICAL | 1: ("client_id", _U64),
    CRITICAL | 2: ("state", _U8),
    CRITICAL | 3: ("listener", _U8),
    CRITICAL | 4: ("features", _U8),
    5: ("name", _text(NAME_MAX, "strict")),
    6: ("software", _text(SOFTWARE_MAX, "replace")),
    CRITICAL | 7: ("max_reply", _U32),
    CRITICAL | 8: ("expected", _blob(MAC_MAX)),
    9: ("origin", _Form(_encode_origin, _decode_origin)),
    10: ("proxied", _Form(_encode_via, _decode_via)),
    11: ("counters", _Form(lambda counters: _COUNTERS.pack(*counters), _decode_counters)),
    12: ("deadlines", _Form(_encode_deadlines, _decode_deadlines)),
    CRITICAL | 13: ("input", _ANY),
    CRITICAL | 14: ("skip", _U32),
    CRITICAL | 15: ("output", _ANY),
    CRITICAL | 16: ("stream_window", _U32),
    CRITICAL | 17: ("gap", _U32),
    18: ("heard", _U32),
    CRITICAL | 19: ("gave_up", _FLAG),
    CRITICAL | 20: ("awaits_header", _FLAG),
    21: ("waited", _U32),
    22: ("dropped", _U64),
}
_NEEDED: Final = ("client_id", "state", "max_reply")
_DEFAULTS: Final = {
    name: getattr(Row(client_id=0, state=0, max_reply=0), name) for name, _ in _FIELDS.values() if name not in _NEEDED
}


# --- rows ------------------------------------------------------------------------------------------------------------


def encode_rows(rows: Iterable[Row]) -> bytes:
    """Return these rows as bytes, one after the other.

    :raises ValueError: one isn't as it may be, or has more than 4 GiB.
    """
    return b"".join(map(encode_row, rows))


def encode_row(row: Row) -> bytes:
    """Return one row as bytes, its size in front.

    :raises ValueError: as for ``encode_rows``.
    """
    _check(row)
    fields = encode_fields(
        (tag, _named(name, form.encode, getattr(row, name)))
        for tag, (name, form) in _FIELDS.items()
        if name in _NEEDED or getattr(row, name) != _DEFAULTS[name]
    )
    if len(fields) >> 32:
        raise ValueError(f"{len(fields)} bytes are too many for a row")
    return _SIZE.pack(len(fields)) + fields


def decode_rows(data: bytes) -> list[Row]:
    """Return the rows in these bytes.

    :raises ValueError: one isn't as it may be; it says which, counted from 0, and why.
    """
    rows: list[Row] = []
    try:
        for row in split_rows(memoryview(data)):
            rows.append(_decode(row[_SIZE.size :]))  # noqa: PERF401  # how many there are is said where one is wrong
    except ValueError as error:
        raise ValueError(f"row {len(rows)}: {error}") from None
    return rows


def split_rows(data: memoryview) -> Iterator[memoryview]:
    """Each of them as it stands there, with its size in front.

    :raises ValueError: the last one isn't whole.
    """
    at = 0
    while at < len(data):
        begin, at = at, at + _SIZE.size
        if at > len(data):
            raise ValueError("its size isn't whole")
        (size,) = _SIZE.unpack_from(data, begin)
        if size > len(data) - at:
            raise ValueError(f"its {size} bytes aren't there, only {len(data) - at} are")
        at += size
        yield data[begin:at]


def _decode(body: memoryview) -> Row:
    said: dict[str, Any] = {}
    last = 0
    for tag, value in decode_fields(body):
        place = tag & ~CRITICAL
        if place <= last:
            raise ValueError(f"field {tag:#06x} is out of order")
        last = place
        if tag in _FIELDS:
            name, form = _FIELDS[tag]
            said[name] = _named(name, form.decode, bytes(value))
        elif tag & CRITICAL or tag | CRITICAL in _FIELDS:
            raise ValueError(f"field {tag:#06x} isn't known, and can't be left out")
    missing = [name for name in _NEEDED if name not in said]
    if missing:
        raise ValueError(f"{missing[0]} isn't there")
    row = Row(**said)
    _check(row)
    return row


def _named(name: str, action: Callable[[Any], Any], value: Any) -> Any:
    try:
        return action(value)
    except UnicodeError:
        raise ValueError(f"{name}: it isn't UTF-8") from None
    except (ValueError, struct.error) as error:
        raise ValueError(f"{name}: {error}") from None


def _check(row: Row) -> None:
    """What its fields must be to one another."""
    kinds = [which for which, _ in row.deadlines]
    for good, problem in (
        (row.client_id >> 32, f"the id {row.client_id} has no generation"),
        (ACCEPTED <= row.state <= ESTABLISHED, f"no client moves in state {row.state}"),
        (bool(row.expected) == (row.state == CHALLENGED), "a MAC is awaited of a challenged client, and of no other"),
        (not row.awaits_header or row.state == ACCEPTED, "a proxy's header comes before all else"),
        (not (row.awaits_header and row.proxied), "a proxy's header is whole, or it isn't"),
        (row.proxied is not None or row.origin is None, "only a proxy tells another address"),
        (not (row.origin and row.proxied and row.proxied.has_path), "a client has one address"),
        (len(set(kinds)) == len(kinds) and set(kinds) <= {CIR, FRAME, OUTPUT, IDLE}, f"deadlines of kinds {kinds}"),
        (row.state < ESTABLISHED or CIR not in kinds, "it was let in, so no CIR is waited for"),
    ):
        if not good:
            raise ValueError(problem)
