"""One request that is served: its span, if its client wants one, and how long it took."""

from __future__ import annotations

import asyncio

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.guards import type_name
from pysock.errors import RemoteError
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram
    from opentelemetry.trace import Span, Tracer


class Call:
    """It begins when it is made. Within ``with`` its span is the current one; at the end of that it is over."""

    __slots__ = ("_attributes", "_began", "_durations", "_is_over", "_span", "_token")

    def __init__(
        self, tracer: Tracer, durations: Histogram, attributes: Mapping[str, Any], parent: Context | None
    ) -> None:
        """``parent``: what its client was in; ``None``: it doesn't say, and there is no span."""
        self._attributes = attributes
        self._durations = durations
        self._is_over = False
        self._token: Any = None
        self._span: Span | None = None
        if parent is not None:
            name = attributes["rpc.method"] or "(unnamed)"
            self._span = tracer.start_span(name, parent, SpanKind.SERVER, attributes=attributes)
        self._began = monotonic()

    def enter(self) -> None:
        """What runs from now on in this context is a part of it."""
        if self._span is not None:
            self._token = context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        """The end of that."""
        if self._token is not None:
            context.detach(self._token)
            self._token = None

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.leave()
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """It is over, well or by an exception. Called again it does nothing."""
        if self._is_over:
            return
        self._is_over = True
        seconds = monotonic() - self._began
        told = _outcome(error)
        self._durations.record(seconds, {**self._attributes, **told})
        if self._span is None:
            return
        self._span.set_attributes(told)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
            if isinstance(error, Exception) and not isinstance(error, RemoteError):
                self._span.record_exception(error)
        self._span.end()


def _outcome(error: BaseException | None) -> dict[str, str]:
    if error is None:
        return {"rpc.response.status_code": "OK"}
    if isinstance(error, RemoteError):
        known = {int(code): code.name for code in ErrorCode}
        code = known.get(error.code, str(error.code))
        return {"rpc.response.status_code": code, "error.type": code}
    cancelled = isinstance(error, (asyncio.CancelledError, GeneratorExit))
    code = ErrorCode.CANCELLED.name if cancelled else ErrorCode.HANDLER_FAILED.name
    return {"rpc.response.status_code": code, "error.type": type_name(error)}
