"""Which request a handler runs for. Asked for seldom, and each of them would have to be noted: so it is read from the
frames of the calls that lead to the handler, and costs those who don't ask nothing.
"""

from __future__ import annotations

import sys

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure.framed import FramedConnection
from pysock.engine.pure.plain import PlainConnection, U32Connection
from pysock.engine.pure.waiting.streams import Streams
from pysock.engine.rows import Current

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any, Final

    from pysock.engine.pure.core import Core


def _of_a_row(names: dict[str, Any]) -> Current:
    """Of several that are served in a row: none of them has a deadline, and all want a reply."""
    return Current(names["self"].client_id, names["request_id"], names["service"], 0.0, True)


def _of_one(names: dict[str, Any]) -> Current:
    request = names["request"]
    return Current(names["self"].client_id, request.request_id, request.service, request.deadline, request.wants_reply)


def _of_stream(names: dict[str, Any]) -> Current | None:
    record = names["record"]
    connection = record.connection
    if connection.buried:
        return None
    return Current(connection.client_id, record.request_id, record.service, record.deadline, True)


def _without_ids(names: dict[str, Any]) -> Current:
    return Current(names["self"].client_id, 0, 0, 0.0, True)


#: The functions that call handlers, and how to read from their variables for whom.
_CALLERS: Final[dict[CodeType, Callable[[dict[str, Any]], Current | None]]] = {
    FramedConnection._serve_whole.__code__: _of_a_row,
    FramedConnection._call.__code__: _of_one,
    PlainConnection._serve.__code__: _without_ids,
    U32Connection.on_event.__code__: _without_ids,
    Streams._take.__code__: _of_stream,
    Streams._close.__code__: _of_stream,
}


def current(core: Core) -> Current | None:
    """The request of the innermost handler of this engine's that runs in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        read = _CALLERS.get(frame.f_code)
        if read is not None and (names := frame.f_locals)["self"].core is core:
            return read(names)
        frame = frame.f_back
    return None
