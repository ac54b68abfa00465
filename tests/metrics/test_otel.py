"""Traces: what clients say, the spans that servers make of it, and the time of calls; by OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from support import wait_for

import pysock
import pysock.aio
import pysock.otel
from pysock.otel import servers
from pysock.wire import tracing
from pysock.wire.tracing import Trace, encode_trace


@pytest.fixture(autouse=True)
def clients():
    """They say it, as long as the test runs."""
    pysock.otel.instrument_clients()
    yield
    pysock.otel.instrument_clients(False)
    assert tracing.inject is None


class Seen:
    """What was exported."""

    def __init__(self):
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("test")

    def span(self, name="client"):
        """Everything within is in it."""
        return self.tracer.start_as_current_span(name)

    def spans(self, kind=SpanKind.SERVER):
        return [span for span in self._spans.get_finished_spans() if span.kind is kind]

    def durations(self):
        """Attributes and how many, of each."""
        data = self._reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        assert [(one.name, one.unit) for one in found] == [("rpc.server.call.duration", "s")]
        return [(dict(point.attributes), point.count, point.sum) for point in found[0].data.data_points]


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def server(make_server, address, seen):
    server = make_server(address, name="shop")
    pysock.otel.instrument(server, tracer_provider=seen.tracers, meter_provider=seen.meters)
    return server


def inner(seen):
    """What a handler does: it has a span of its own."""
    with seen.span("inner"):
        pass


def double(seen):
    def handler(client, request):
        inner(seen)
        return request * 2

    return handler


def coroutine(seen):
    async def handler(client, request):
        await asyncio.sleep(0)
        inner(seen)
        return request * 2

    return handler


def pieces(seen):
    def handler(client, request):
        yield request
        inner(seen)
        yield request

    return handler


def async_pieces(seen):
    async def handler(client, request):
        yield request
        await asyncio.sleep(0)
        inner(seen)
        yield request

    return handler


KINDS = {
    "def": lambda server, seen: server.service("one")(double(seen)),
    "async def": lambda server, seen: server.service("one")(coroutine(seen)),
    "awaitable": lambda server, seen: server.service("one", kind="async")(lambda c, r: coroutine(seen)(c, r)),  # noqa: PLW0108
    "generator": lambda server, seen: server.service("one")(pieces(seen)),
    "async generator": lambda server, seen: server.service("one")(async_pieces(seen)),
    "threads": lambda server, seen: server.service("one", threads=1)(double(seen)),
    "generator in threads": lambda server, seen: server.service("one", threads=1)(pieces(seen)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_of_each_kind_of_handler(server, seen, kind, backend):
    KINDS[kind](server, seen)
    with server, pysock.connect(server.addresses[0], backend=backend) as client:
        client.request(b"before", "one")
        with seen.span() as mine:
            assert client.request(b"ab", "one") == b"abab"
        client.request(b"behind", "one")
        (span,) = wait_for(seen.spans, "it to end")
    assert (span.name, span.kind, span.status.status_code) == ("one", SpanKind.SERVER, StatusCode.UNSET)
    assert (span.context.trace_id, span.parent.span_id) == (mine.context.trace_id, mine.context.span_id)
    assert span.parent.is_remote
    where = server.addresses[0]
    place = (
        {"server.address": where.path, "network.transport": "unix"}
        if where.transport == "unix"
        else {"server.address": where.host, "server.port": where.port, "network.transport": "tcp"}
    )
    wanted = {"rpc.system.name": "pysock", "rpc.method": "one", "rpc.response.status_code": "OK", **place}
    assert dict(span.attributes) == wanted
    within = [one for one in seen.spans(SpanKind.INTERNAL) if one.name == "inner"]
    assert [one.parent is not None and one.parent.span_id == span.context.span_id for one in within] == [
        False, True, False,
    ]  # fmt: skip
    ((attributes, count, seconds),) = seen.durations()
    assert (attributes, count) == (wanted, 3)
    assert 0 < seconds < 10


def test_a_stream_that_is_not_over_is_around_nothing_else(server, seen, backend):
    """Not around what the same client asks meanwhile, and not around what it asks later."""
    current, closed = [], []

    @server.service("stream")
    def stream(client, request):
        try:
            for _ in range(1000):
                yield bytes(65536)
        finally:
            closed.append(trace.get_current_span().get_span_context().span_id)

    @server.service("one")
    def one(client, request):
        current.append(trace.get_current_span().get_span_context().span_id)
        return b""

    with server, pysock.connect(server.addresses[0], backend=backend) as client:
        with seen.span():
            first, second = client.stream(b"", "stream"), client.stream(b"", "stream")
        assert (next(first), next(second)) == (bytes(65536), bytes(65536))
        client.request(b"", "one")
        first.close()
        wait_for(lambda: len(seen.spans()) == 1, "the first one to end")
        client.request(b"", "one")
        second.close()
        spans = wait_for(lambda: len(found := seen.spans()) == 2 and found, "both to end")
        client.request(b"", "one")
    assert current == [0, 0, 0]
    assert closed == [span.context.span_id for span in spans]
    assert {span.attributes["error.type"] for span in spans} == {"GeneratorExit"}


def reverse(request):
    return request[::-1]


def test_workers_that_are_processes(server, seen):
    server.service("one", processes=1)(reverse)
    with server, pysock.connect(server.addresses[0]) as client, seen.span() as mine:
        assert client.request(b"ab", "one") == b"ba"
        (span,) = wait_for(seen.spans, "it to end")
    assert span.parent.span_id == mine.context.span_id


def fail(_client, request):
    if request == b"busy":
        raise pysock.RemoteError("later", 10)
    if request == b"own":
        raise pysock.RemoteError("no", 4711)
    raise KeyError("x")


@pytest.mark.parametrize("workers", [{}, {"threads": 1}], ids=["loop", "threads"])
@pytest.mark.parametrize(
    ("request_", "code", "kind", "events"),
    [(b"busy", "OVERLOADED", "OVERLOADED", 0), (b"own", "4711", "4711", 0), (b"", "HANDLER_FAILED", "KeyError", 1)],
)
def test_one_that_fails(server, seen, workers, request_, code, kind, events):
    server.service("one", **workers)(fail)
    with server, pysock.connect(server.addresses[0]) as client, seen.span():
        with pytest.raises(pysock.RemoteError):
            client.request(request_, "one")
        (span,) = wait_for(seen.spans, "it to end")
    assert (span.attributes["rpc.response.status_code"], span.attributes["error.type"]) == (code, kind)
    assert (span.status.status_code, len(span.events)) == (StatusCode.ERROR, events)
    assert seen.durations()[0][0]["error.type"] == kind


def test_a_task_that_is_cancelled(server, seen):
    begun = []

    @server.service
    async def slow(client, request):
        begun.append(1)
        await asyncio.sleep(60)

    with server, pysock.connect(server.addresses[0]) as client, seen.span():
        with pytest.raises(pysock.RequestTimeout):
            client.request(b"", timeout=0.05)
        (span,) = wait_for(seen.spans, "it to end")
    assert begun == [1]
    assert (span.name, span.attributes["rpc.response.status_code"]) == ("(unnamed)", "CANCELLED")


def test_all_that_clients_send(server, seen, backend):
    server.service("one")(double(seen))
    server.service("stream")(pieces(seen))
    with server, pysock.connect(server.addresses[0], backend=backend) as client, seen.span() as mine:
        client.request(bytes(100_000), "one")
        client.request(b"a", "one", timeout=5)
        client.notify(b"a", "one")
        assert b"".join(client.stream(b"a", "stream")) == b"aa"

        async def ask():
            async with await pysock.aio.connect(server.addresses[0], backend=backend) as other:
                await other.request(b"a", "one")
                await other.request(bytes(100_000), "one", timeout=5)
                await other.request_many([b"a"] * 3, "one")
                await other.notify(b"a", "one")
                assert [piece async for piece in other.stream(b"a", "stream")] == [b"a", b"a"]

        asyncio.run(ask())
        spans = wait_for(lambda: len(found := seen.spans()) == 11 and found, "all to end")
    assert {span.parent.span_id for span in spans} == {mine.context.span_id}


def test_clients_that_connect_again(server, seen, backend):
    server.service("one")(double(seen))
    with server, pysock.connect(server.addresses[0], reconnect=True, backend=backend) as client, seen.span():
        client.request(b"a", "one")
        wait_for(seen.spans, "it to end")


def test_what_isnt_sampled_isnt_said(server, seen):
    told = []
    server.service("one")(double(seen))
    server._running.hooks.traced = lambda *said: told.append(said)
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("off")
    with server, pysock.connect(server.addresses[0]) as client:
        with tracer.start_as_current_span("unseen"):
            client.request(b"a", "one")
        client.request(b"a", "one")
        pysock.otel.instrument_clients(False)
        with seen.span():
            client.request(b"a", "one")
    assert told == []


def test_who_was_connected_before_says_nothing(server, seen):
    server.service("one")(double(seen))
    pysock.otel.instrument_clients(False)
    with server, pysock.connect(server.addresses[0]) as client:
        pysock.otel.instrument_clients()
        with seen.span():
            assert client.request(b"a", "one") == b"aa"
    assert seen.spans() == []


def test_a_server_that_makes_none(make_server, address, seen):
    server = make_server(address)
    server.service("one")(double(seen))
    with server, pysock.connect(server.addresses[0]) as client, seen.span():
        assert client.request(b"a", "one") == b"aa"
    assert seen.spans() == []


@pytest.mark.parametrize("said", [b"", bytes(26), encode_trace(Trace(1, 2, 1))[:-1]])
def test_a_trace_that_makes_no_sense(server, seen, said, monkeypatch):
    server.service("one")(double(seen))
    monkeypatch.setattr(tracing, "inject", lambda: said)
    with server, pysock.connect(server.addresses[0]) as client:
        assert client.request(b"a", "one") == b"aa"
    assert seen.spans() == []


def test_traces_of_requests_that_never_come_are_forgotten(make_server, unix_address, seen, monkeypatch):
    monkeypatch.setattr(servers, "_EXPECTED_MAX", 10)
    server = make_server(unix_address)
    tracing_ = servers.Tracing(server, seen.tracers, seen.meters)
    for number in range(25):
        tracing_.expect(1, number, b"")
    assert [number for _, number in tracing_._expected] == [*range(15, 25)]


def test_the_other_framings_and_batches(make_server, unix_address, seen):
    server = make_server(unix_address)
    pysock.otel.instrument(server, tracer_provider=seen.tracers, meter_provider=seen.meters)
    server.batch_service("all")(lambda clients, requests: requests)
    with server, pysock.connect(server.addresses[0]) as client, seen.span():
        assert client.request(b"a", "all") == b"a"
    assert seen.spans() == []


def test_once_and_before_the_start(server):
    with pytest.raises(pysock.PysockError, match="instrumented already"):
        pysock.otel.instrument(server)
    server.service(lambda client, request: request)
    with server, pytest.raises(pysock.PysockError, match="this server runs"):
        pysock.otel.instrument(server)


def test_of_several_addresses_the_client_s(make_server, socket_dir, seen):
    server = make_server(f"unix:{socket_dir}/s", "127.0.0.1:0")
    server.service("one")(double(seen))
    pysock.otel.instrument(server, tracer_provider=seen.tracers, meter_provider=seen.meters)
    with server:
        for address in server.addresses:
            with pysock.connect(address) as client, seen.span():
                client.request(b"a", "one")
    assert [span.attributes["network.transport"] for span in seen.spans()] == ["unix", "tcp"]
    assert seen.spans()[1].attributes["server.port"] == server.addresses[1].port


def test_as_the_program_has_set_it_for_all(make_server, unix_address):
    """Which is to do nothing, here."""
    server = make_server(unix_address)
    server.service("one")(lambda client, request: trace.get_current_span().is_recording() or b"no")
    pysock.otel.instrument(server)
    with server, pysock.connect(server.addresses[0]) as client:
        assert client.request(b"a", "one") == b"no"


def test_without_the_extra():
    code = "import sys; sys.modules['opentelemetry'] = None; import pysock.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'pysock-engine[otel]'" in done.stderr
