"""A server whose requests have spans: what its clients say, and what is put around its handlers."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress

from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from pysock._version import __version__
from pysock.base.functions import is_async, is_async_generator, is_generator
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.otel.call import Call
from pysock.otel.jobs import trace_pool
from pysock.replies.current import current
from pysock.states import ServerState
from pysock.wire.nodes import RESERVED
from pysock.wire.tracing import decode_trace

if TYPE_CHECKING:
    from typing import Any, Final

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from pysock.address import Address
    from pysock.data import DataSocket
    from pysock.engine.contract import Service
    from pysock.pools.pool import Pool
    from pysock.server import Server

#: So many requests may have been told of that haven't come yet, or never will.
_EXPECTED_MAX: Final = 4096
#: Advice of the semantic conventions, in seconds.
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def instrument(
    server: Server, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Make a span of each request whose client says of which trace it is a part, and measure how long all take, before
    the server is started. Batches have neither.

    :param tracer_provider: where spans go; ``None``: as the program has set it for all.
    :param meter_provider: likewise, for the histogram ``rpc.server.call.duration``.
    :raises PysockError: the server runs, or has run, already; or this was called before.
    """
    running = server._running
    if running.state is not ServerState.NEW or running.services.around is not None:
        raise PysockError("this server runs, or has run, or has been instrumented already")
    tracing = Tracing(server, tracer_provider, meter_provider)
    running.hooks.traced = tracing.expect
    running.services.around = tracing.around


class Tracing(Unique):
    """That of one server."""

    def __init__(
        self, server: Server, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._server = server
        self._tracer = trace.get_tracer("pysock", __version__, tracer_provider)
        self._durations = metrics.get_meter("pysock", __version__, meter_provider).create_histogram(
            "rpc.server.call.duration",
            "s",
            "How long the server took for a call.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self._expected: dict[tuple[int, int], bytes] = {}
        self._attributes: dict[tuple[str, str], dict[str, Any]] = {}

    def expect(self, client_id: int, request_id: int, said: bytes) -> None:
        """In the loop's thread: this request, which comes next, is a part of that."""
        expected = self._expected
        if len(expected) >= _EXPECTED_MAX:
            with suppress(RuntimeError):  # a worker has just taken one
                expected.pop(next(iter(expected)), None)
        expected[client_id, request_id] = said

    def begin(self, service: str, client: DataSocket, request_id: int | None = None) -> Call:
        """A request is served from now on.

        :param request_id: ``None``: that of the handler that runs here.
        """
        parent = self._parent(client, request_id) if self._expected else None
        return Call(self._tracer, self._durations, self._attributes_of(service, client), parent)

    def _parent(self, client: DataSocket, request_id: int | None) -> Context | None:
        number = current().request_id if request_id is None else request_id
        said = self._expected.pop((client.id, number), None)
        found = None if said is None else decode_trace(said)
        if found is None:
            return None
        span = SpanContext(found.trace_id, found.parent_id, is_remote=True, trace_flags=TraceFlags(found.flags))
        return set_span_in_context(NonRecordingSpan(span))

    def _attributes_of(self, service: str, client: DataSocket) -> dict[str, Any]:
        addresses = self._server.addresses
        address = addresses[0] if len(addresses) == 1 else _reached(addresses, client)
        key = (service, str(address))
        found = self._attributes.get(key)
        if found is None:
            found = self._attributes[key] = {"rpc.system.name": "pysock", "rpc.method": service, **_place(address)}
        return found

    def around(self, service: Service, pool: Pool | None, in_tasks: bool) -> Service:
        """The service, with what belongs around its handler."""
        handler, name = service.handler, service.name
        if handler is None or service.batch or name.startswith(RESERVED):
            return service
        if pool is not None:
            trace_pool(pool, functools.partial(self.begin, name))
            return service
        return service._replace(handler=_around(handler, in_tasks, functools.partial(self.begin, name)))


def _reached(addresses: tuple[Address, ...], client: DataSocket) -> Address:
    """The first of the client's kind."""
    is_unix = client.address.startswith("unix:")
    return next((one for one in addresses if (one.transport == "unix") is is_unix), addresses[0])


def _place(address: Address) -> dict[str, Any]:
    if address.transport == "unix":
        return {"server.address": str(address.bare()).removeprefix("unix:"), "network.transport": "unix"}
    return {"server.address": address.host, "server.port": address.port, "network.transport": "tcp"}


def _around(handler: Callable[..., Any], in_tasks: bool, begin: Callable[[DataSocket], Call]) -> Callable[..., Any]:
    """A function of the handler's kind."""
    if is_async(handler) or (in_tasks and not is_async_generator(handler)):

        @functools.wraps(handler)
        async def traced(client: DataSocket, request: bytes) -> Any:
            with begin(client):
                return await handler(client, request)

        return traced
    if is_async_generator(handler):

        @functools.wraps(handler)
        async def traced_pieces(client: DataSocket, request: bytes) -> AsyncIterator[Any]:
            with begin(client):
                async for piece in handler(client, request):
                    yield piece

        return traced_pieces
    if is_generator(handler):

        @functools.wraps(handler)
        def traced_stream(client: DataSocket, request: bytes) -> Generator[Any, None, Any]:
            return (yield from _stepped(begin(client), handler(client, request)))

        return traced_stream

    @functools.wraps(handler)
    def traced_call(client: DataSocket, request: bytes) -> Any:
        with begin(client):
            return handler(client, request)

    return traced_call


def _stepped(call: Call, pieces: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    """Only its steps are within: between two of them other requests of the same client are served, in this context."""
    error: BaseException | None = None
    try:
        while True:
            yield _within(call, pieces.__next__)
    except StopIteration as over:
        return over.value
    except BaseException as raised:  # GeneratorExit, say: nobody wants the rest
        error = raised
        _within(call, pieces.close)
        raise
    finally:
        call.end(error)


def _within(call: Call, step: Callable[[], Any]) -> Any:
    call.enter()
    try:
        return step()
    finally:
        call.leave()
