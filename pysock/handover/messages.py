"""The messages of PHO1, by which two processes talk about a hand-over, to and from bytes. No I/O.

Each is ``u16 type, u16 flags, u32 length`` of what follows, and then fields (:mod:`pysock.handover.fields`), in any
order; all little endian. The same tag may come several times. Which versions there are is negotiated: each side says
the lowest and the highest major that it speaks, and the highest that both do is used. A minor change adds types and
fields that aren't critical, which an older side skips.

What the fields of each message mean is the matter of the conversation; this file owns their form.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.handover.fields import CRITICAL, decode_fields, encode_fields

if TYPE_CHECKING:
    from typing import Final

#: Majors that this release speaks.
LOWEST: Final = 1
HIGHEST: Final = 1

HEAD: Final = struct.Struct("<HHI")
_VERSIONS: Final = struct.Struct("<HH")
#: Of a message: it is in a file, of which the descriptor comes with it.
FLAG_IN_FILE: Final = 1
_FLAGS: Final = FLAG_IN_FILE
_LARGEST: Final = 2**32 - 1


class Kind(IntEnum):
    """What a message is about."""

    HELLO = 1  # N to O: its versions, what it is
    OFFER = 2  # O to N: what there is to be had
    REFUSE = 3  # either: why it won't
    LISTENERS = 4  # O to N, with their descriptors and those of their locks
    PREPARED = 5  # N to O: it could serve now
    FREEZE = 6  # O to N: from now on nobody is served
    ROWS = 7  # O to N: clients, with their descriptors
    TAKEN = 8  # N to O: they are there, asleep
    COMMIT = 9  # O to N: all are there: serve them
    ACTIVE = 10  # N to O: it serves them from now on
    TOTALS = 11  # O to N: what was counted
    BYE = 12  # O to N: there is nobody left
    ABORT = 13  # O to N: it serves on
    GAVE_UP = 14  # N to O: it goes away
    EXTRA = 15  # O to N: what the program has kept of clients


_KINDS: Final = frozenset(map(int, Kind))


class Message(NamedTuple):
    """One of them, taken apart."""

    kind: int
    flags: int
    fields: dict[int, list[bytes]]  # by tag, in the order in which they came

    def one(self, tag: int, default: bytes | None = None) -> bytes:
        """The value of a field that comes once; or this one, where it doesn't come.

        :raises ValueError: it comes several times; or not at all, and there is no default.
        """
        values = self.fields.get(tag, [])
        if len(values) == 1:
            return values[0]
        if values or default is None:
            raise ValueError(f"{self.name}: field {tag:#06x} comes {len(values)} times, not once")
        return default

    def number(self, tag: int, size: int, default: int | None = None) -> int:
        """The same of a number of so many bytes.

        :raises ValueError: likewise; or it has another size.
        """
        if default is not None and tag not in self.fields:
            return default
        value = self.one(tag)
        if len(value) != size:
            raise ValueError(f"{self.name}: field {tag:#06x} has {len(value)} bytes, not {size}")
        return int.from_bytes(value, "little")

    def refuse_unknown(self, known: Container[int]) -> None:
        """See to it that nothing that can't be left out goes unnoticed.

        :raises ValueError: a critical field isn't one of these.
        """
        for tag in self.fields:
            if tag & CRITICAL and tag not in known:
                raise ValueError(f"{self.name}: field {tag:#06x} isn't known, and can't be left out")

    @property
    def name(self) -> str:
        """What it is called."""
        return Kind(self.kind).name if self.kind in _KINDS else f"message {self.kind}"


def encode(kind: int, fields: Iterable[tuple[int, bytes]] = (), flags: int = 0) -> bytes:
    """Return a message of this type as bytes.

    :param fields: tags and values.
    :raises ValueError: it has more than 4 GiB.
    """
    body = encode_fields(fields)
    if len(body) > _LARGEST:
        raise ValueError(f"{len(body)} bytes are too many for a message")
    return HEAD.pack(kind, flags, len(body)) + body


def decode(data: bytes | bytearray | memoryview) -> Message:
    """Take apart one whole message. A type that isn't known is no error here: that is for who waits for another.

    :raises ValueError: it isn't one, is truncated, or something follows; or a flag isn't known.
    """
    view = memoryview(data)
    if len(view) < HEAD.size:
        raise ValueError(f"the head of a message has {HEAD.size} bytes, not {len(view)}")
    kind, flags, length = HEAD.unpack_from(view)
    message = Message(kind, flags, {})
    if flags & ~_FLAGS:
        raise ValueError(f"{message.name}: the flags {flags:#06x} aren't known")
    if length != len(view) - HEAD.size:
        raise ValueError(f"{message.name}: it says that it has {length} bytes, and has {len(view) - HEAD.size}")
    for tag, value in decode_fields(view[HEAD.size :]):
        message.fields.setdefault(tag, []).append(bytes(value))
    return message


# --- versions --------------------------------------------------------------------------------------------------------


def encode_versions(lowest: int = LOWEST, highest: int = HIGHEST) -> bytes:
    """Return the majors that one side speaks, as a field's value."""
    return _VERSIONS.pack(lowest, highest)


def common_version(value: bytes, lowest: int = LOWEST, highest: int = HIGHEST) -> int:
    """The highest major that the other side, which says this, speaks as well as one that speaks these.

    :raises ValueError: there is none, or it isn't a field of versions.
    """
    if len(value) != _VERSIONS.size:
        raise ValueError(f"versions have {_VERSIONS.size} bytes, not {len(value)}")
    from_them: int
    to_them: int
    from_them, to_them = _VERSIONS.unpack(value)
    if from_them > to_them:
        raise ValueError(f"no versions are from {from_them} to {to_them}")
    common = min(to_them, highest)
    if common < max(from_them, lowest):
        raise ValueError(
            f"the other side speaks PHO{from_them} to PHO{to_them}, this one PHO{lowest} to PHO{highest}: "
            "restart it instead of handing over"
        )
    return common
