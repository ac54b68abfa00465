"""What a TRACE carries: a traceparent of W3C Trace Context in its binary form, 26 bytes.

That is a version, the number of a trace, that of the span that the request is made in, and flags, of which 1 says that
it is sampled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Final

_FORM: Final = struct.Struct("!B16s8sB")
SIZE: Final = _FORM.size
_INVALID_VERSION: Final = 0xFF


#: Returns the bytes of the span that runs here, or ``None``: there is none. ``pysock.otel`` sets it; who doesn't trace
#: pays for one look at it.
inject: Callable[[], bytes | None] | None = None


class Traced(NamedTuple):
    """The request that comes next under this id is a part of what these bytes say."""

    request_id: int
    said: bytes


class Trace(NamedTuple):
    """One of them; the numbers aren't 0."""

    trace_id: int
    parent_id: int
    flags: int


def encode_trace(trace: Trace) -> bytes:
    """Return the bytes."""
    return _FORM.pack(0, trace.trace_id.to_bytes(16, "big"), trace.parent_id.to_bytes(8, "big"), trace.flags)


def decode_trace(data: bytes) -> Trace | None:
    """Return what they say; ``None``: nothing that makes sense."""
    if len(data) != SIZE:
        return None
    version, trace_id, parent_id, flags = _FORM.unpack(data)
    trace = Trace(int.from_bytes(trace_id, "big"), int.from_bytes(parent_id, "big"), flags)
    return trace if version != _INVALID_VERSION and trace.trace_id and trace.parent_id else None
