"""TLS by Python's module ssl in the native engine: what runs in the middle of a step, and steps that fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl

import pytest
from certificates import certificates
from support import wait_for

import pysock
import pysock.aio
from pysock import TLS, Server
from pysock.engine.choice import choose

choose("native")
hosted = pytest.importorskip("pysock.engine.native.hosted")


@pytest.fixture(scope="module")
def made():
    return certificates()


def context_of(made):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)
    return context


@pytest.fixture
def serve():
    """``serve(context)``: a server that runs, whose handler answers in capitals."""
    servers = []

    def start(context, **options):
        server = Server("tls://127.0.0.1:0", tls=context, backend="native", **options)
        server.service(lambda client, request: request.upper())
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(0)


def test_a_context_of_the_program(serve, made):
    """As it is: its own callback is asked, and what it changes is so for connections to come."""
    context, asked = context_of(made), []
    server = serve(context)  # which looks at the context, by a handshake with itself
    context.sni_callback = lambda connection, name, context: asked.append(name)
    server.start()
    assert server.backend == "native"
    with pysock.connect(server.addresses[0], tls=TLS(ca=made.ca, name="localhost")) as client:
        assert client.request(b"x") == b"X"
        (known,) = server.clients.values()
        assert known.tls.driver == "ssl"
    assert asked == ["localhost"]
    context.load_cert_chain(made.issue("exchanged", "other.example"))
    with pysock.connect(server.addresses[0], tls=TLS(ca=made.ca, name="other.example")) as client:
        assert client.request(b"x") == b"X"


def test_what_runs_within_a_step_touches_no_connection(serve, made):
    """A callback of the program's, in the middle of a handshake: what it sends is sent a little later, and in order."""
    context = context_of(made)
    server = serve(context)
    server.start()
    pushed = []
    with pysock.connect(server.addresses[0], tls=made.trusting) as first:
        first.on_push(pushed.append)
        assert first.request(b"x") == b"X"
        (known,) = server.clients.values()

        def within(connection, name, context):
            for number in range(100):
                known.send(b"%d" % number)
                server.clients.broadcast(b"%d" % (1000 + number))

        context.sni_callback = within
        with pysock.connect(server.addresses[0], tls=TLS(ca=made.ca, name="localhost")) as second:
            assert second.request(b"y") == b"Y"
            assert first.request(b"z") == b"Z"
            wait_for(lambda: len(pushed) >= 200, "what was pushed")
    assert [bytes(one) for one in pushed if len(one) < 4] == [b"%d" % number for number in range(100)]
    assert [bytes(one) for one in pushed if len(one) == 4] == [b"%d" % (1000 + number) for number in range(100)]


def test_what_is_closed_within_a_step(serve, made):
    context = context_of(made)
    server = serve(context)
    server.start()
    with pysock.connect(server.addresses[0], tls=made.trusting) as first:
        (known,) = server.clients.values()

        def within(*_):
            known.close()

        context.sni_callback = within
        with pysock.connect(server.addresses[0], tls=TLS(ca=made.ca, name="localhost")) as second:
            assert second.request(b"y") == b"Y"
        with pytest.raises(pysock.PysockError):
            first.request(b"z")


def test_in_a_loop_of_the_program(made):
    """The engine is a guest: within a step it isn't between turns either."""
    context = context_of(made)
    answers = []

    async def main():
        server = Server("tls://127.0.0.1:0", tls=context, backend="native")
        gate = asyncio.Event()

        @server.service
        async def wait(client, request):
            await gate.wait()
            return request.upper()

        async with server, await pysock.aio.connect(server.addresses[0], tls=made.trusting) as first:
            (known,) = server.clients.values()

            def within(*_):
                gate.set()
                known.send(b"pushed")

            context.sni_callback = within
            waiting = asyncio.ensure_future(first.request(b"x"))
            await asyncio.sleep(0.05)
            tls = TLS(ca=made.ca, name="localhost")
            async with await pysock.aio.connect(server.addresses[0], tls=tls) as second:
                answers.append(await second.request(b"y"))
            answers.append(await waiting)

    asyncio.run(main())
    assert answers == [b"Y", b"X"]


def one_request(server, made):
    """Whatever comes of it."""
    with (
        contextlib.suppress(OSError, pysock.PysockError),
        pysock.connect(server.addresses[0], tls=made.trusting) as client,
    ):
        client.request(b"x")


def sessions():
    return [one for one in gc.get_objects() if type(one) is hosted.HostedSession]


STEPS = ("shake", "unseal", "seal", "close")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("raised", [MemoryError, LookupError])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_costs_its_client_the_connection(serve, made, monkeypatch, step, raised):
    server = serve(made.served.server_context())
    server.start()
    with pysock.connect(server.addresses[0], tls=made.trusting) as other:
        real = getattr(hosted.HostedSession, step)

        def fails(session, data, most):
            if session in before:
                return real(session, data, most)
            raise raised

        before = sessions()
        monkeypatch.setattr(hosted.HostedSession, step, fails)
        one_request(server, made)
        wait_for(lambda: len(server.clients) == 1 and server.stats()["pending"] == 0, "it is gone")
        assert other.request(b"y") == b"Y"


@pytest.mark.parametrize("step", STEPS)
def test_what_ends_the_loop(serve, made, monkeypatch, step):
    """As from any other callback: it comes out of the loop, and every connection is closed."""
    server = serve(made.served.server_context())

    def leaves(session, data, most):
        raise SystemExit("enough")

    monkeypatch.setattr(hosted.HostedSession, step, leaves)
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    server.start()
    one_request(server, made)
    wait_for(lambda: server.state is pysock.ServerState.CLOSED, "the end")


def test_nothing_is_left_of_those_that_went(serve, made, caplog):
    caplog.set_level(logging.WARNING)
    gc.collect()
    before = len(sessions())
    server = serve(made.served.server_context())
    server.start()
    for _ in range(30):
        with pysock.connect(server.addresses[0], tls=made.trusting) as client:
            client.request(b"x" * 100_000)
    wait_for(lambda: not server.clients, "they are gone")
    wait_for(lambda: len(sessions()) <= before, "and so are their sessions")
    assert not caplog.records
