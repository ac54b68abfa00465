"""What a node tells of itself and its clients: the fields of its messages."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory.messages import Tag, encode_node, number
from pysock.cluster.directory.rows import encode_rows
from pysock.wire.format import encode_field

if TYPE_CHECKING:
    from pysock.cluster.directory.messages import NodeInfo
    from pysock.cluster.directory.node import Fetch
    from pysock.cluster.directory.own import Batch, Kept, Own


def heartbeat(own: Own, info: NodeInfo, *, hello: bool) -> list[bytes]:
    """That it lives, and what whoever has heard everything knows.

    :param hello: whoever hears it is to show itself.
    """
    roster = own.roster
    fields = [number(Tag.NUMBER, own.number), number(Tag.COUNT, len(roster)), number(Tag.HASH, roster.hash)]
    fields.append(encode_node(info))
    if hello:
        fields.append(encode_field(Tag.HELLO, b""))
    return fields


def batch(told: Batch) -> tuple[list[bytes], bytes]:
    """Who came, and who went: fields and body."""
    fields = [number(Tag.NUMBER, told.number)]
    if told.left:
        fields.append(encode_field(Tag.LEFT, b"".join(client_id.to_bytes(8, "big") for client_id in told.left)))
    return fields, encode_rows(told.came)


def page(session: int, at: int, kept: Kept | None) -> tuple[list[bytes], bytes]:
    """One page of the list: fields and body."""
    given, pages, rows = (0, 0, []) if kept is None else (kept.number, len(kept.pages), kept.pages[at])
    fields = [number(Tag.SESSION, session), number(Tag.PAGE, at), number(Tag.PAGES, pages), number(Tag.NUMBER, given)]
    return fields, encode_rows(rows)


def wanted(fetch: Fetch) -> list[bytes]:
    """A page of another one's list is wanted."""
    return [number(Tag.SESSION, fetch.session), number(Tag.PAGE, fetch.page)]
