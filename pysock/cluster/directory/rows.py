"""One client in a few bytes, and all those of one node.

There may be hundreds of thousands, and each node has them all; so there is no object of ours for one, but ``bytes``::

    u16  which node: an index in this process alone
    u64  id
    u64  Lamport stamp of when it came
    u32  when it connected, in seconds since the epoch, by the clock of its node
         the rest is its name, at most 255 bytes

In a message the first is left out, and the length of the name, a u8, is in front.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

INDEX: Final = struct.Struct("!H")
_FACTS: Final = struct.Struct("!QQI")
_ROW: Final = struct.Struct("!HQQI")
_ID: Final = slice(2, 10)
_STAMP: Final = slice(10, 18)
_CONNECTED_AT: Final = slice(18, 22)
NAME: Final = slice(_ROW.size, None)
_LARGEST_NAME: Final = 255

_number: Final = int.from_bytes


def pack(index: int, client_id: int, stamp: int, connected_at: int, name: bytes) -> bytes:
    """Return a row."""
    return _ROW.pack(index, client_id, stamp, connected_at) + name[:_LARGEST_NAME]


def unpack(row: bytes) -> tuple[int, int, int, int, bytes]:
    """The node's index, the id, the stamp, the time, the name."""
    return (*_ROW.unpack_from(row), row[NAME])


def id_of(row: bytes) -> int:
    """The id of the client."""
    return _number(row[_ID], "big")


def stamp_of(row: bytes) -> int:
    """When it came, by Lamport's clock."""
    return _number(row[_STAMP], "big")


def connected_at(row: bytes) -> int:
    """When it connected, by the clock of its node."""
    return _number(row[_CONNECTED_AT], "big")


def hash_of(row: bytes) -> int:
    """64 bits of what its node and all others have alike."""
    return _number(blake2b(row[2:], digest_size=8).digest(), "big")


def encode_rows(rows: Iterable[bytes]) -> bytes:
    """As the body of a message."""
    return b"".join(part for row in rows for part in (bytes((len(row) - _ROW.size,)), row[2:]))


def decode_rows(data: bytes, index: int) -> list[bytes]:
    """Take the body of a message apart.

    :param index: of the node that the rows are of.
    :raises Malformed: it isn't one.
    """
    rows, at, end, prefix = [], 0, len(data), INDEX.pack(index)
    size = 1 + _FACTS.size
    while at < end:
        after = at + size + data[at]
        rows.append(prefix + data[at + 1 : after])
        at = after
    if at != end:
        raise Malformed("a row of a client is cut short")
    return rows


def pages_of(rows: Iterable[bytes], most: int) -> list[list[bytes]]:
    """The rows in lists whose messages have at most so many bytes; at least one list."""
    pages: list[list[bytes]] = [[]]
    size = 0
    for row in rows:
        size += len(row)
        if size > most and pages[-1]:
            pages.append([])
            size = len(row)
        pages[-1].append(row)
    return pages


class Roster:
    """The clients of one node.

    :ivar rows: by id.
    :ivar hash: of all of them: the hashes of the rows, by XOR, so that it changes with each that comes or goes.
    """

    __slots__ = ("hash", "rows")

    def __init__(self) -> None:
        self.rows: dict[int, bytes] = {}
        self.hash: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[bytes]:
        """Those of this moment; any thread may."""
        return iter(list(self.rows.values()))

    def put(self, row: bytes) -> bytes | None:
        """Add one; the other row that its id had, if there was one."""
        client_id = id_of(row)
        old = self.rows.get(client_id)
        if old is not None:
            self.hash ^= hash_of(old)
        self.rows[client_id] = row
        self.hash ^= hash_of(row)
        return old

    def take(self, client_id: int) -> bytes | None:
        """Remove one; its row, if it was there."""
        old = self.rows.pop(client_id, None)
        if old is not None:
            self.hash ^= hash_of(old)
        return old
