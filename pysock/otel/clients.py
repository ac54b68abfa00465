"""What the clients of this process say of the span that a request is made in."""

from __future__ import annotations

from opentelemetry.trace import get_current_span

from pysock.wire import tracing
from pysock.wire.tracing import Trace, encode_trace


def instrument_clients(on: bool = True) -> None:
    """From now on each client of this process that connects tells its server of which trace a request is a part: if it
    is made in a span that is sampled, and the server understands it. A request in no span costs next to nothing.

    That holds for all kinds of clients, blocking ones and those of asyncio, but not for ``request_many`` of the former.

    :param on: ``False`` ends it, also for those that are connected.
    """
    tracing.inject = _inject if on else None


def _inject() -> bytes | None:
    span = get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return None
    return encode_trace(Trace(span.trace_id, span.span_id, int(span.trace_flags)))
