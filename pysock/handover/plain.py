"""Plain values to and from bytes: ``None``, bool, numbers, texts, bytes, and lists and dicts of such. No I/O.

What ``client.data`` may be to move to another process by itself. Nothing else is written down, also no subclass of
these: what comes out is what went in, or there is an error. No pickle: reading bytes never runs code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Final

_SIZE: Final = struct.Struct("<I")
_FLOAT: Final = struct.Struct("<d")
#: Lists in lists: one that contains itself has no end.
DEPTH: Final = 64
#: Bytes of one value.
LARGEST: Final = 64 * 1024 * 1024

_SCALARS: Final[dict[type, tuple[bytes, Callable[[Any], bytes]]]] = {
    int: (b"i", lambda value: value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)),
    float: (b"f", _FLOAT.pack),
    str: (b"s", lambda value: value.encode("utf-8", "surrogatepass")),
    bytes: (b"b", bytes),
}
_WORDS: Final = {None: b"N", False: b"F", True: b"T"}


def encode_plain(value: Any) -> bytes:
    """Return it as bytes.

    :raises ValueError: it isn't plain, or too large; it says where.
    """
    pieces: list[bytes] = []
    _encode(value, pieces, [0], "")
    return b"".join(pieces)


def _encode(value: Any, pieces: list[bytes], size: list[int], where: str, depth: int = 0) -> None:
    kind = type(value)
    if depth > DEPTH:
        raise ValueError(f"data{where[:100]}: more than {DEPTH} levels, or it contains itself")
    if value is None or kind is bool:
        pieces.append(_WORDS[value])
    elif kind in _SCALARS:
        tag, encode = _SCALARS[kind]
        data = encode(value)
        pieces += (tag, _SIZE.pack(len(data)), data)
        size[0] += len(data)
    elif kind is list:
        pieces += (b"l", _SIZE.pack(len(value)))
        for number, item in enumerate(value):
            _encode(item, pieces, size, f"{where}[{number}]", depth + 1)
    elif kind is dict:
        pieces += (b"d", _SIZE.pack(len(value)))
        for key, item in value.items():
            if type(key) in {list, dict}:
                raise ValueError(f"data{where}: a key that is a {type(key).__name__}")
            _encode(key, pieces, size, f"{where} key", depth + 1)
            _encode(item, pieces, size, f"{where}[{key!r:.40}]", depth + 1)
    else:
        raise ValueError(f"data{where}: a {kind.__qualname__} isn't plain")
    size[0] += 1
    if size[0] > LARGEST:
        raise ValueError(f"data: more than {LARGEST} bytes")


def decode_plain(data: bytes) -> Any:
    """Return the value that these bytes are.

    :raises ValueError: they are none, or something follows.
    """
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow a value")
    return value


_FROM: Final[dict[bytes, Callable[[bytes], Any]]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"f": lambda data: _FLOAT.unpack(data)[0],
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
}
_WORDS_FROM: Final = {word: value for value, word in _WORDS.items()}


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    tag = data[at : at + 1]
    at += 1
    if tag in _WORDS_FROM:
        return _WORDS_FROM[tag], at
    if len(data) - at < _SIZE.size or depth > DEPTH:
        raise ValueError("a value isn't whole, or has too many levels")
    (size,) = _SIZE.unpack_from(data, at)
    at += _SIZE.size
    if size > len(data) - at:
        raise ValueError("a value isn't whole")
    if tag == b"l":
        return _decode_items(data, at, size, depth)
    if tag == b"d":
        return _decode_dict(data, at, size, depth)
    if tag not in _FROM:
        raise ValueError(f"no value begins with {tag!r}")
    try:
        return _FROM[tag](data[at : at + size]), at + size
    except struct.error as error:
        raise ValueError(f"a number isn't one: {error}") from None


def _decode_items(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):
        item, at = _decode(data, at, depth + 1)
        items.append(item)
    return items, at


def _decode_dict(data: bytes, at: int, count: int, depth: int) -> tuple[dict[Any, Any], int]:
    found: dict[Any, Any] = {}
    for _ in range(count):
        key, at = _decode(data, at, depth + 1)
        if isinstance(key, (list, dict)):
            raise ValueError("a key is a list or a dict")
        found[key], at = _decode(data, at, depth + 1)
    return found, at
