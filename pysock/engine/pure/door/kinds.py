"""Which connections come through a listener."""

from __future__ import annotations

from collections.abc import Mapping

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure.framed import FramedConnection
from pysock.engine.pure.plain import PlainConnection, U32Connection
from pysock.wire.format import Framing

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.listener import Listener

#: By framing; ``None``: by all others.
_CONNECTIONS: Final[Mapping[Framing | None, type[Connection]]] = {
    Framing.PYSOCK: FramedConnection,
    Framing.U32: U32Connection,
    None: PlainConnection,
}


def kind_of(listener: Listener) -> type[Connection]:
    """The class of these."""
    kinds = listener.transport.kinds or _CONNECTIONS
    return kinds.get(listener.framing.name) or kinds[None]
