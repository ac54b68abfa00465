"""The messages between nodes, to and from bytes.

A message is a header, fields as in the frames of :mod:`pysock.wire.format`, and a body::

    offset  type  what
    0       2     "PC"
    2       u8    major version: another one is another protocol, and isn't read
    3       u8    kind
    4       u16   length of the fields
    6             fields: u8 tag, u16 length, value; unknown ones are skipped
    ..            the body: rows of clients, or a payload of the program's

Every message has the epoch of its sender, and its Lamport clock (Lamport, "Time, clocks, and the ordering of events",
1978). Nothing in it is ever unpickled or called.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.wire.format import Malformed, decode_fields, encode_field, number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MAJOR: Final = 1
HEAD: Final = struct.Struct("!2sBBH")
MAGIC: Final = b"PC"
U64: Final = 2**64


class MessageKind(IntEnum):
    """What a message is."""

    HEARTBEAT = 1  # to all: that it lives, what it is, and number, count and hash of its clients
    BATCH = 2  # to all: who came, in the body, and who went
    BYE = 3  # to all: it stops
    FETCH = 4  # to one: a page of its clients is wanted
    PAGE = 5  # to one: that page
    PUSH = 16  # to one, mostly as a request: for a client
    ASK = 17  # to one, as a request: a client is to be asked
    GROUP = 18  # to those who have members of it
    BROADCAST = 19  # to all
    CALL = 20  # to one of those who have the service, as a request
    CLOSE = 21  # to one, as a request: the connection of a client is to end
    FIND = 22  # to any one, as a request of a client: where the nodes are
    RESULT = 32  # the answer to a request


class Tag(IntEnum):
    """The tag of a field of a message."""

    EPOCH = 1  # u64: of the sender
    CLOCK = 2  # u64: its Lamport clock
    NUMBER = 3  # u64: of the batch, or the last one
    COUNT = 4  # u32: clients
    HASH = 5  # u64: of them all
    NODE = 6  # fields: see NodeTag
    HELLO = 7  # empty: whoever hears it shows itself
    SESSION = 8  # u32: chosen by who fetches
    PAGE = 9  # u32
    PAGES = 10  # u32: how many there are; 0: none are kept, begin again
    LEFT = 11  # u64 each: ids of clients
    CLIENT = 12  # u64: an id
    SERVICE = 13  # UTF-8
    TIMEOUT = 14  # u32: milliseconds
    GROUP = 15  # UTF-8
    CODE = 16  # u16: of a result
    DETAIL = 17  # u16: likewise, the code of an error
    CALLER = 18  # UTF-8: the name of the node that calls
    HOST = 19  # UTF-8: of the machine of the one who asks
    CONNECTION = 20  # u32: which of the sender's to the bus, of messages whose order counts


class NodeTag(IntEnum):
    """The tag of a field of a node."""

    NAME = 1  # UTF-8
    HOST = 2  # UTF-8
    ADDRESS = 3  # repeated: UTF-8
    CAPACITY = 4  # u32: clients that it takes
    STATE = 5  # u8: as the code of a PONG: 0 serving, 5 draining
    SOFTWARE = 6  # UTF-8, e.g. "pysock/0.1"


#: The sizes of numbers.
SIZES: Final[dict[int, int]] = {
    Tag.EPOCH: 8, Tag.CLOCK: 8, Tag.NUMBER: 8, Tag.COUNT: 4, Tag.HASH: 8, Tag.SESSION: 4, Tag.PAGE: 4, Tag.PAGES: 4,
    Tag.CLIENT: 8, Tag.TIMEOUT: 4, Tag.CODE: 2, Tag.DETAIL: 2, Tag.CONNECTION: 4,
}  # fmt: skip


class UnknownMajor(Malformed):
    """A message of another protocol: a node of a version of pysock that this one can't understand.

    :ivar major: its version.
    """

    def __init__(self, major: int) -> None:
        super().__init__(f"a message of version {major}, and not {MAJOR}")
        self.major = major


class NodeInfo(NamedTuple):
    """What a node says of itself."""

    name: str
    host: str = ""
    addresses: tuple[str, ...] = ()
    capacity: int = 0
    state: int = 0
    software: str = ""


class Message(NamedTuple):
    """One that was taken apart."""

    kind: int
    epoch: int
    clock: int
    fields: dict[int, bytes]  # the last of each tag
    body: bytes

    def number(self, tag: Tag, default: int | None = None) -> int:
        """What a field says.

        :raises Malformed: it isn't there and there is no default, or has another size.
        """
        value = self.fields.get(tag)
        if value is None:
            if default is None:
                raise Malformed(f"a message of kind {self.kind} has no field {tag.name}")
            return default
        return number_of(value, SIZES[tag])

    def text(self, tag: Tag) -> str:
        """What a field says; ``""``: it isn't there.

        :raises Malformed: it isn't UTF-8.
        """
        return text_of(self.fields.get(tag, b""))


def number(tag: Tag, value: int) -> bytes:
    """A field."""
    return encode_field(tag, value.to_bytes(SIZES[tag], "big"))


def text(tag: Tag, value: str) -> bytes:
    """A field."""
    return encode_field(tag, value.encode("utf-8", "surrogateescape"))


def encode(kind: MessageKind, epoch: int, clock: int, fields: Iterable[bytes] = (), body: bytes = b"") -> bytes:
    """Return one message."""
    joined = b"".join((number(Tag.EPOCH, epoch), number(Tag.CLOCK, clock), *fields))
    return b"".join((HEAD.pack(MAGIC, MAJOR, kind, len(joined)), joined, body))


def decode(data: bytes) -> Message:
    """Take one apart.

    :raises UnknownMajor: it is of another version.
    :raises Malformed: it is none.
    """
    if len(data) < HEAD.size:
        raise Malformed("a message is cut short")
    magic, major, kind, size = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Malformed("a message of somebody else's")
    if major != MAJOR:
        raise UnknownMajor(major)
    end = HEAD.size + size
    if len(data) < end:
        raise Malformed("a message is cut short")
    fields = dict(decode_fields(data[:end], HEAD.size))
    told = Message(kind, 0, 0, fields, data[end:])
    return told._replace(epoch=told.number(Tag.EPOCH), clock=told.number(Tag.CLOCK))


def encode_node(node: NodeInfo) -> bytes:
    """Return the field of a node."""
    texts = [(NodeTag.NAME, node.name), (NodeTag.HOST, node.host), (NodeTag.SOFTWARE, node.software)]
    texts += [(NodeTag.ADDRESS, address) for address in node.addresses]
    fields = [encode_field(tag, value.encode("utf-8", "surrogateescape")) for tag, value in texts]
    fields.append(encode_field(NodeTag.CAPACITY, min(node.capacity, 2**32 - 1).to_bytes(4, "big")))
    fields.append(encode_field(NodeTag.STATE, bytes((node.state,))))
    return encode_field(Tag.NODE, b"".join(fields))


def decode_node(value: bytes) -> NodeInfo:
    """Take a node apart.

    :raises Malformed: it is none.
    """
    found, addresses = NodeInfo(""), []
    for tag, part in decode_fields(value):
        if tag == NodeTag.ADDRESS:
            addresses.append(text_of(part))
        elif tag in _TEXTS:
            found = found._replace(**{_TEXTS[tag]: text_of(part)})  # type: ignore[arg-type]  # a text each
        elif tag == NodeTag.CAPACITY:
            found = found._replace(capacity=number_of(part, 4))
        elif tag == NodeTag.STATE:
            found = found._replace(state=number_of(part, 1))
    if not is_node_name(found.name):
        raise Malformed("a node without a name, or with one that can't be")
    return found._replace(addresses=tuple(addresses))


_TEXTS: Final[dict[int, str]] = {NodeTag.NAME: "name", NodeTag.HOST: "host", NodeTag.SOFTWARE: "software"}


def is_node_name(name: str) -> bool:
    """Whether a node may be called so: it is part of the addresses of its clients, ``NAME/1.7``, and of log lines."""
    return 0 < len(name) <= 128 and name.isprintable() and not set(name) & {"/", " ", ","}
