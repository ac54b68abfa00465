"""What a server leaves behind for the one that follows it, as bytes: messages of a hand-over, and which descriptors
come with each. No I/O but a look at those.

A store gives them back in any order and without duplicates, so that each is known by a mark: of a socket its cookie
(SO_COOKIE, socket(7)), which is the same through every copy; of a file its device and its inode.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.handover.fields import CRITICAL, decode_fields, encode_fields
from pysock.handover.messages import decode, encode

if TYPE_CHECKING:
    from typing import Final

    from pysock.handover.messages import Message

#: Of the whole: what it is, and which one of those that one server leaves behind.
_HEAD: Final = struct.Struct("<4sI")
_MAGIC: Final = b"PHK1"
_MESSAGE: Final = CRITICAL | 1
_MARK: Final = CRITICAL | 2  # once for each descriptor of the message before
_SO_COOKIE: Final = 57
_COOKIE_BYTES: Final = 8
_FILE: Final = struct.Struct("<QQ")


class Entry(NamedTuple):
    """A message, and the marks of the descriptors that go with it."""

    message: Message
    marks: tuple[bytes, ...]


class Bundle(NamedTuple):
    """Messages that were kept together."""

    number: int
    entries: tuple[Entry, ...]


def mark_of(fd: int) -> bytes:
    """What a descriptor is known by, through every copy.

    :raises OSError: it is none.
    """
    found = os.fstat(fd)
    if not stat.S_ISSOCK(found.st_mode):
        return b"f" + _FILE.pack(found.st_dev, found.st_ino)
    with socket.socket(fileno=os.dup(fd)) as copy:
        return b"s" + copy.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)


def encode_bundle(number: int, entries: Iterable[tuple[int, Sequence[tuple[int, bytes]], Sequence[bytes]]]) -> bytes:
    """Return these messages - kind, fields, marks - as bytes."""
    fields: list[tuple[int, bytes]] = []
    for kind, values, marks in entries:
        fields.append((_MESSAGE, encode(kind, values)))
        fields += [(_MARK, mark) for mark in marks]
    return _HEAD.pack(_MAGIC, number) + encode_fields(fields)


def decode_bundle(data: bytes | bytearray) -> Bundle:
    """Take apart what :func:`encode_bundle` has made.

    :raises ValueError: it isn't that, or of a release that isn't understood.
    """
    if len(data) < _HEAD.size:
        raise ValueError("it is cut off")
    magic, number = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("it isn't what a pysock server leaves behind, or of another release")
    entries: list[tuple[Message, list[bytes]]] = []
    for tag, value in decode_fields(memoryview(data)[_HEAD.size :]):
        if tag == _MESSAGE:
            entries.append((decode(value), []))
        elif tag == _MARK and entries:
            entries[-1][1].append(bytes(value))
        elif tag & CRITICAL:
            raise ValueError(f"its field {tag:#06x} isn't known")
    return Bundle(number, tuple(Entry(message, tuple(marks)) for message, marks in entries))
