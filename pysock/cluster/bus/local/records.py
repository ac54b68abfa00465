"""What nodes and their hub say to each other: records of bytes, without I/O.

A message of the framing ``u32`` is one or more records. Each has four bytes of length, then a byte that says its kind:

======================  =====================================================================================
``PUBLISH``             a u8 and so many bytes of subject, the payload
``REQUEST``             the asker (u64), its number (u64), a u8 and so many bytes of subject, the payload
``ANSWER``, ``NOBODY``  the asker (u64), its number (u64), of ``ANSWER`` the payload
``SUBSCRIBE``           a byte, 1: one of many hears each message; the subject. ``UNSUBSCRIBE`` likewise
``HELLO``               of a node: the version (u8), its token (8 bytes), its name. Of the hub: the version (u8), the
                        client's id (u64), ``max_payload`` (u32), 1 where it was cut as too slow (u8), what it is
======================  =====================================================================================

The hub passes the first three on as they are; one that was subscribed to as one of many gets them with ``QUEUED`` added
to the kind. So it copies no payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.bus.routes import Route

#: Another one isn't understood.
VERSION: Final = 1

PUBLISH: Final = 1
REQUEST: Final = 2
ANSWER: Final = 3
NOBODY: Final = 4
SUBSCRIBE: Final = 5
UNSUBSCRIBE: Final = 6
HELLO: Final = 7
QUEUED: Final = 0x80

#: Bytes of one payload. As much as a NATS takes where nobody has changed it.
MAX_PAYLOAD: Final = 1024 * 1024
#: So many bytes of records are put together in one message, beside the last one.
GATHERED: Final = 256 * 1024
#: The longest message.
MESSAGE_MAX: Final = GATHERED + MAX_PAYLOAD + 1024

_LENGTH: Final = struct.Struct("!I")
_ASKED: Final = struct.Struct("!BQQ")
_PUBLISH_HEAD: Final = struct.Struct("!IBB")
_REQUEST_HEAD: Final = struct.Struct("!IBQQB")
_ANSWER_HEAD: Final = struct.Struct("!IBQQ")
_ROUTE_HEAD: Final = struct.Struct("!IBB")
_NODE: Final = struct.Struct("!IBB8s")
_HUB: Final = struct.Struct("!IBBQIB")
_SUBJECT_OF_PUBLISH: Final = 1
_SUBJECT_OF_REQUEST: Final = 17


class BadRecord(Exception):
    """The bytes aren't records."""


class Welcome(NamedTuple):
    """What a hub says first."""

    version: int
    client_id: int
    max_payload: int
    was_cut: bool
    software: str


def publish(subject: bytes, payload: bytes) -> bytes:
    """A record, with its length, as all that the functions here return."""
    return b"".join((_PUBLISH_HEAD.pack(2 + len(subject) + len(payload), PUBLISH, len(subject)), subject, payload))


def request(asker: int, number: int, subject: bytes, payload: bytes) -> bytes:
    """A record."""
    head = _REQUEST_HEAD.pack(18 + len(subject) + len(payload), REQUEST, asker, number, len(subject))
    return b"".join((head, subject, payload))


def answer(asker: int, number: int, payload: bytes) -> bytes:
    """A record."""
    return _ANSWER_HEAD.pack(17 + len(payload), ANSWER, asker, number) + payload


def nobody(asker: int, number: int) -> bytes:
    """A record."""
    return _ANSWER_HEAD.pack(17, NOBODY, asker, number)


def route(kind: int, one: Route) -> bytes:
    """A record: SUBSCRIBE or UNSUBSCRIBE."""
    subject, queue = one
    return _ROUTE_HEAD.pack(2 + len(subject), kind, queue) + subject


def node_hello(token: bytes, name: str) -> bytes:
    """A record: a node's first one."""
    tail = name.encode()
    return _NODE.pack(10 + len(tail), HELLO, VERSION, token) + tail


def hub_hello(welcome: Welcome) -> bytes:
    """A record: a hub's first one."""
    tail = welcome.software.encode()
    head = (welcome.version, welcome.client_id, welcome.max_payload, welcome.was_cut)
    return _HUB.pack(15 + len(tail), HELLO, *head) + tail


def records(message: bytes) -> Iterator[bytes]:
    """The records of a message, without their lengths.

    :raises BadRecord: it doesn't consist of records.
    """
    at, end = 0, len(message)
    while at < end:
        if end - at < 5:
            raise BadRecord("the end of a record is missing")
        (length,) = _LENGTH.unpack_from(message, at)
        start = at + 4
        at = start + length
        if not length or at > end:
            raise BadRecord("a record is longer than the message that it is in")
        yield message[start:at]


def passed_on(record: bytes) -> bytes:
    """The record with its length."""
    return _LENGTH.pack(len(record)) + record


def queued(record: bytes) -> bytes:
    """The same for one of many."""
    return _LENGTH.pack(len(record)) + bytes((record[0] | QUEUED,)) + record[1:]


def subject_end(record: bytes) -> tuple[bytes, int]:
    """The subject of a PUBLISH or a REQUEST, and where the payload begins.

    :raises BadRecord: it is too short.
    """
    at = _SUBJECT_OF_REQUEST if record[0] & ~QUEUED == REQUEST else _SUBJECT_OF_PUBLISH
    if len(record) <= at or len(record) < (end := at + 1 + record[at]):
        raise BadRecord("it ends within the subject")
    return record[at + 1 : end], end


def asked(record: bytes) -> tuple[int, int]:
    """The asker and the number of a REQUEST, an ANSWER or a NOBODY.

    :raises BadRecord: it is too short.
    """
    if len(record) < _ASKED.size:
        raise BadRecord("it ends within its head")
    _kind, asker, number = _ASKED.unpack_from(record)
    return asker, number


def answer_payload(record: bytes) -> bytes:
    """Of an ANSWER."""
    return record[_ASKED.size :]


def read_route(record: bytes) -> Route:
    """Of a SUBSCRIBE or an UNSUBSCRIBE.

    :raises BadRecord: it is too short.
    """
    if len(record) < 3:
        raise BadRecord("it names no subject")
    return record[2:], record[1] == 1


def read_node(record: bytes) -> tuple[int, bytes, str]:
    """The version, the token and the name in a node's HELLO.

    :raises BadRecord: it is none.
    """
    if record[0] != HELLO or len(record) < 10:
        raise BadRecord("no HELLO came first")
    return record[1], record[2:10], record[10:].decode("utf-8", "replace")


def read_hub(record: bytes) -> Welcome:
    """A hub's HELLO.

    :raises BadRecord: it is none.
    """
    if record[0] != HELLO or len(record) < 15:
        raise BadRecord("no HELLO came first")
    version, client_id, max_payload, was_cut = struct.unpack_from("!BQIB", record, 1)
    return Welcome(version, client_id, max_payload, bool(was_cut), record[15:].decode("utf-8", "replace"))
