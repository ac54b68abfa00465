"""Whatever the user's code or the host's logging raises, nothing gets out of a callback, and every end is reached."""

from __future__ import annotations

import dataclasses
import logging
import sys

import pytest
from engine_alone import eventually, srm, started
from support import RawPeer, plug, wait_for

import pysock
from pysock import RemoteError, ServerState, connect
from pysock.base.lean import field_names
from pysock.engine.contract import Callbacks
from pysock.engine.guards import INSTEAD, guarded
from pysock.wire.format import ErrorCode, Kind, encode


class Odd(Exception):
    """One that can't even say what it is."""

    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


class NeverMade(RemoteError):
    def __init__(self):
        pass


class Unspeakable(RemoteError):
    @property
    def message(self):
        raise OSError("no words")

    @message.setter
    def message(self, value):
        pass


class Text(str):
    def encode(self, *arguments):
        raise LookupError("never")


#: What a handler raises, and what its client is told.
RAISED = {
    "a text as the code": (lambda: RemoteError("not found", "404"), (1, "not found")),
    "a huge code": (lambda: RemoteError("not found", 1 << 40), (1, "not found")),
    "a negative code": (lambda: RemoteError("not found", -1), (1, "not found")),
    "a float as the code": (lambda: RemoteError("not found", 4.5), (1, "not found")),
    "a code of its own": (lambda: RemoteError("not found", 404), (404, "not found")),
    "no __init__": (NeverMade, (1, "NeverMade")),
    "a message that raises": (lambda: Unspeakable("a"), (1, "a")),
    "a message of another type": (lambda: RemoteError(404), (1, "404")),
    "a message that overrides str": (lambda: RemoteError(Text("words")), (1, "words")),
    "lone surrogates": (lambda: RemoteError("a\udc80b"), (1, "a?b")),
    "without words": (Odd, (1, "Odd")),
    "no memory": (MemoryError, (1, "MemoryError")),
}


@pytest.mark.parametrize("what", RAISED)
@pytest.mark.parametrize("batch", [False, True], ids=["plain", "batch"])
def test_whatever_a_handler_raises(make_server, address, what, batch):
    make, (code, text) = RAISED[what]
    server = make_server(address)

    def fail(client, request):
        raise make()

    server.batch_service(fail) if batch else server.service(fail)
    server.service("good")(lambda client, request: request)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        for _ in range(2):
            with pytest.raises(RemoteError) as caught:
                client.request(b"x")
            assert (caught.value.code, caught.value.message) == (code, text)
        assert client.request(b"y", service="good") == b"y"


# What the host's logging does


class Raises(logging.Handler):
    def __init__(self, error=TypeError):
        super().__init__(logging.DEBUG)
        self.error = error
        self.calls = 0

    def handle(self, record):
        self.calls += 1
        raise self.error("out of the logging")


@pytest.fixture
def broken_logging(monkeypatch, caplog):
    """Every record raises, from DEBUG on; what was told to sys.unraisablehook instead."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    loggers = [logging.getLogger(name) for name in ("pysock.server", "pysock.client")]
    handler = Raises()
    for logger in loggers:
        caplog.set_level(logging.DEBUG, logger.name)
        logger.addHandler(handler)
    yield told
    for logger in loggers:
        logger.removeHandler(handler)
    assert handler.calls


def test_a_server_lives_and_ends_where_logging_raises(make_server, address, socket_dir, broken_logging):
    server = make_server(address)

    @server.service
    def fail(client, request):
        raise ValueError("wrong")

    server.start()
    with RawPeer.connect(server.addresses[0]).sock as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1000)
    with (
        connect(server.addresses[0], backend=server.backend) as client,
        pytest.raises(RemoteError, match="ValueError"),
    ):
        client.request(b"x")
    server.stop()
    assert server.state is ServerState.CLOSED
    assert not list(socket_dir.iterdir())
    assert all(isinstance(error, TypeError) for error in broken_logging)
    assert broken_logging
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        plug(server.addresses[0]).close()


def test_a_reply_is_not_lost_to_a_hook_and_the_logging(make_server, address, broken_logging):
    server = make_server(address)

    @server.service
    def answer(client, request):
        client.send(b"unasked")
        return request

    with server, connect(server.addresses[0], backend=server.backend) as client:
        calls = []

        @client.on_push
        def fails(payload):
            calls.append(payload)
            raise ValueError(payload)

        assert client.request(b"reply") == b"reply"
        assert calls == [b"unasked"]


def test_by_hand_where_logging_raises(backend, socket_dir, broken_logging):
    with pysock.MasterSocket(f"unix:{socket_dir}/s", backend) as master:
        master.create()
        master.bind()
        master.listen()
        with plug(master.address) as peer, master.accept() as data:
            peer.sendall(b"x")
            assert data.recv() == b"x"
            data.send(b"y")
            assert peer.recv(10) == b"y"
    assert master.state is ServerState.CLOSED
    assert master.fd == -1


class Stop(BaseException):
    """As KeyboardInterrupt: nobody may swallow it."""


@pytest.mark.parametrize("at", ["SERVING -> DRAINING", "DRAINING -> CLOSED"])
def test_the_end_is_reached_whatever_the_logging_raises(make_server, address, socket_dir, monkeypatch, caplog, at):
    """Also where it isn't an Exception, so that the loop ends of it: socket file, descriptors, state."""
    server = make_server(address)
    server.service(lambda client, request: request)

    def handle(record):
        if at in record.getMessage():
            raise Stop(at)

    handler = logging.Handler()
    handler.handle = handle
    logger = logging.getLogger("pysock.server")
    caplog.set_level(logging.INFO, logger.name)
    logger.addHandler(handler)
    try:
        monkeypatch.setattr("threading.excepthook", lambda args: None)
        server.start()
        server.stop()
        wait_for(lambda: server.state is ServerState.CLOSED, "the end")
    finally:
        logger.removeHandler(handler)
    assert not list(socket_dir.iterdir())
    server.stop()


# Each callback, on the engines alone


def test_each_callback_that_is_asked_for_something_has_something_in_its_place():
    types = {field.name: field.type for field in dataclasses.fields(Callbacks)}
    telling = {name for name, what in types.items() if what.removesuffix(" | None").endswith(", None]")}
    assert {"disconnect", "draining", "noted"} <= telling
    assert set(INSTEAD) == set(types) - telling


@pytest.mark.parametrize("name", field_names(Callbacks))
def test_no_callback_lets_an_exception_out(name):
    """Those of the facade, present and future: they are all made by ``guarded``."""

    def fails(*arguments):
        raise Odd

    told = []
    needed = dict.fromkeys(("client", "connect", "disconnect", "failed", "draining", "log", "noted"), fails)
    callbacks = guarded(lambda which, error: told.append(which), **needed | {name: fails})
    arguments = {"failed": (1, 0, 0, 0.0, Odd()), "connect": (1,)}.get(name, ())
    try:
        getattr(callbacks, name)(*arguments)
    except MemoryError:
        assert name in {"client", "challenge"}
    assert told == [name]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["client", "connect", "disconnect", "failed", "noted"])
def test_an_engine_outlives_a_callback_that_breaks_the_contract(socket_dir, backend, name):
    """The second net: it costs the client concerned something at most."""

    def fails(*arguments):
        raise Odd

    def raises(client, request):
        raise ValueError("wrong")

    runs = started(socket_dir)
    options = {"handler": raises} if name == "failed" else {}
    running = next(runs)(backend=backend, callbacks={name: fails}, **options)
    peer = running.peer()
    # At last a violation, where it gets so far.
    peer.send(encode(Kind.CIR, b"PSK1", code=1) + srm(b"a") + encode(Kind.CIR, b"", code=1))
    if name == "failed":
        assert peer.frame().kind == Kind.CIR_ACCEPTED
        answer = peer.frame()
        assert (answer.kind, answer.code, answer.payload) == (Kind.ERROR, ErrorCode.HANDLER_FAILED, b"ValueError")
    peer.to_the_end()
    eventually(lambda: running.engine.stats().pending + running.engine.stats().clients == 0)
    assert running.raised is None
    assert running.thread.is_alive()
    assert next(runs, None) is None
    assert running.raised is None
