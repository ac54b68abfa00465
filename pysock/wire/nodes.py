"""What the built-in service ``_nodes`` says: the servers of one service, and how many clients they have. To and from
bytes, without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.wire.format import Malformed, decode_fields, encode_field, number_of, text_of

if TYPE_CHECKING:
    from typing import Final

#: The name of the service. Names that begin with this sign are the server's own.
NODES: Final = "_nodes"
RESERVED: Final = "_"

#: A list of more nodes than that is none.
NODES_MAX: Final = 4096

_MOST: Final = 2**32 - 1


class ListTag(IntEnum):
    """The tag of a field of a list."""

    VERSION = 1  # u64: changes whenever the list does, but for loads
    NODE = 2  # repeated: the fields of one node; the first is the one that answers


class NodeTag(IntEnum):
    """The tag of a field of a node."""

    ADDRESS = 1  # repeated: UTF-8, where clients reach it
    CLIENTS = 2  # u32: how many it has
    CAPACITY = 3  # u32: how many it takes at most
    STATE = 4  # u8: as the code of a PONG: 0 serving, 5 draining


class NodeState(IntEnum):
    """What a node does."""

    SERVING = 0
    DRAINING = 5


class NodeRow(NamedTuple):
    """One node, as far as the one that answers knows it."""

    addresses: tuple[str, ...] = ()
    clients: int | None = None
    capacity: int | None = None
    state: int = NodeState.SERVING


class NodeList(NamedTuple):
    """An answer of ``_nodes``."""

    version: bytes
    nodes: tuple[NodeRow, ...]  # the first is the one that answers

    @property
    def own(self) -> NodeRow:
        """The one that answers."""
        return self.nodes[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that are listed."""
        return tuple(address for node in self.nodes for address in node.addresses)


def encode_nodes(version: int, nodes: Iterable[NodeRow]) -> bytes:
    """Return the payload of an answer."""
    fields = encode_field(ListTag.VERSION, version.to_bytes(8, "big"))
    return fields + b"".join(encode_field(ListTag.NODE, _encode(node)) for node in nodes)


def _encode(node: NodeRow) -> bytes:
    fields = b"".join(encode_field(NodeTag.ADDRESS, address.encode()) for address in node.addresses)
    for tag, number in ((NodeTag.CLIENTS, node.clients), (NodeTag.CAPACITY, node.capacity)):
        if number is not None:
            fields += encode_field(tag, min(number, _MOST).to_bytes(4, "big"))
    return fields + encode_field(NodeTag.STATE, bytes((node.state,)))


def decode_nodes(payload: bytes) -> NodeList:
    """Take apart an answer; tags that aren't known are skipped.

    :raises Malformed: a field is broken, or what must be there isn't.
    """
    version, nodes = b"", []
    for tag, value in decode_fields(payload):
        if tag == ListTag.VERSION:
            number_of(value, 8)
            version = value
        elif tag == ListTag.NODE:
            nodes.append(_decode(value))
    if not version or not nodes or len(nodes) > NODES_MAX:
        raise Malformed("a list of nodes has no version, no node, or too many")
    return NodeList(version, tuple(nodes))


def _decode(fields: bytes) -> NodeRow:
    addresses, numbers = [], {NodeTag.STATE: int(NodeState.SERVING)}
    for tag, value in decode_fields(fields):
        if tag == NodeTag.ADDRESS:
            addresses.append(text_of(value))
        elif tag in _SIZES:
            numbers[NodeTag(tag)] = number_of(value, _SIZES[tag])
    clients, capacity = numbers.get(NodeTag.CLIENTS), numbers.get(NodeTag.CAPACITY)
    return NodeRow(tuple(addresses), clients, capacity, numbers[NodeTag.STATE])


_SIZES: Final[dict[int, int]] = {NodeTag.CLIENTS: 4, NodeTag.CAPACITY: 4, NodeTag.STATE: 1}
