"""Fields: ``u16 tag, u32 length, value``, one after the other, little endian. What rows and messages are made of.

A tag with the top bit set is critical: whoever doesn't know it must refuse, for leaving it out would change what the
rest means. Others may be skipped, so that a newer release can say more to an older one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: In a tag.
CRITICAL: Final = 0x8000

_HEAD: Final = struct.Struct("<HI")
_LARGEST: Final = 2**32 - 1


def encode_fields(fields: Iterable[tuple[int, bytes]]) -> bytes:
    """Return these tags and values as bytes.

    :raises ValueError: a value has more than 4 GiB.
    """
    pieces: list[bytes] = []
    for tag, value in fields:
        if len(value) > _LARGEST:
            raise ValueError(f"field {tag:#06x}: {len(value)} bytes don't fit in a field")
        pieces += (_HEAD.pack(tag, len(value)), value)
    return b"".join(pieces)


def decode_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The tags and values in these bytes, which are all fields.

    :raises ValueError: they end inside of one.
    """
    at, end = 0, len(data)
    while at < end:
        if end - at < _HEAD.size:
            raise ValueError(f"the head of a field has {_HEAD.size} bytes, not {end - at}")
        tag, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if length > end - at:
            raise ValueError(f"field {tag:#06x}: its {length} bytes aren't there, only {end - at} are")
        yield tag, data[at : at + length]
        at += length
