"""A signal's handler that raises, as Ctrl-C does, at any moment of a client's call.

The moments are those at which CPython looks for signals: as a function of Python's is entered, and as one of C returns.
The profiler is called there as well, so that each can be tried in turn, without a signal.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading

import pytest
from support import PATIENCE, plug, running

from pysock import connect
from pysock.engine.choice import choose
from pysock.wire.cir import encode_cir
from pysock.wire.format import FLAG_NO_REPLY, Kind


class Interrupt(BaseException):
    """As KeyboardInterrupt is."""


def interrupt_at(moment, call):
    """Make the call, and interrupt it at this moment; return whether it lasted that long."""
    left = iter(range(moment))

    def look(frame, event, _):
        if event in {"call", "c_return"} and frame.f_code is not interrupt_at.__code__ and next(left, None) is None:
            raise Interrupt

    try:
        sys.setprofile(look)
        call()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def in_another_thread(call):
    """What it returns, or raises; it must end."""
    results = []

    def run():
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert results != [], "it waits for ever"
    return results[0]


@pytest.fixture(autouse=True)
def _no_garbage_collection():
    """An exception in a weak reference's callback goes nowhere, and pytest minds it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    server.service("push")(lambda client, request: client.send(request))
    with running(server):
        yield server


def linked(backend, address):
    """A link, let in."""
    sock = plug(address)
    sock.sendall(encode_cir("it"))
    link = choose(backend).link(sock.detach(), 20e-6, 1 << 20)
    assert link.receive(10).kind == Kind.CIR_ACCEPTED
    return link


LARGE = bytes(300_000)

CALLS = {
    "request": lambda client: client.request(b"x"),
    "a large request": lambda client: client.request(LARGE),
    "a request that is answered by a push, too": lambda client: client.request(b"x", service="push"),
    "request_many": lambda client: client.request_many([b"x"] * 20),
    "many large requests": lambda client: client.request_many([LARGE] * 3),
    "notify": lambda client: client.notify(b"x"),
    "a large notify": lambda client: client.notify(LARGE),
    "ping": lambda client: client.ping(),
    "pushes": lambda client: list(client.pushes(timeout=0.001)),
}


LINK_CALLS = {
    "request": lambda link: link.request(0, b"x", 2),
    "a large request": lambda link: link.request(0, LARGE, 2),
    "request_many": lambda link: link.request_many(0, [b"x"] * 20, 100, 2, 10),
    "many large requests": lambda link: link.request_many(0, [LARGE] * 3, 1 << 20, 2, 10),
    "a large frame": lambda link: link.send(Kind.SRM, 0, 2**32 - 1, LARGE, 2, FLAG_NO_REPLY),
}


@pytest.mark.parametrize("name", LINK_CALLS)
def test_a_link_that_is_interrupted(server, backend, name):
    """It stays in step, or is closed."""
    call, link = LINK_CALLS[name], linked(backend, server.addresses[0])
    for moment in itertools.count():
        was_interrupted = interrupt_at(moment, lambda link=link: call(link))
        if link.closed:
            link = linked(backend, server.addresses[0])
        assert link.request(0, b"%d" % moment, 2) == b"%d" % moment
        if not was_interrupted:
            break
    link.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_interrupted(server, name):
    """The next one, of any thread, gets its own answer, or hears clearly that the connection is closed."""
    call, client, found = CALLS[name], None, []
    for moment in itertools.count():
        if client is None:
            client = connect(server.addresses[0], backend=server.backend)
        was_interrupted = interrupt_at(moment, lambda client=client: call(client))
        answer = in_another_thread(lambda client=client, text=b"%d" % moment: client.request(text, timeout=2))
        found.append(answer if answer != b"%d" % moment else "right")
        if isinstance(answer, Exception):
            assert client.closed
            client.close()
            client = None
        if not was_interrupted:
            break
    assert {str(answer) for answer in found} <= {"right", "this client is closed: connect() again"}
    assert "right" in found
    assert moment > 5
    client.close()


def test_a_close_that_is_interrupted(server):
    """Another thread's close does the rest."""
    for moment in itertools.count():
        client = connect(server.addresses[0], backend=server.backend)
        was_interrupted = interrupt_at(moment, client.close)
        assert in_another_thread(client.close) is None
        assert client.closed
        if not was_interrupted:
            break


def test_a_mailbox_without_room_keeps_no_lock(server, monkeypatch):
    """Whatever goes wrong as a call ends: the connection is free for others."""

    def append(*_):
        raise MemoryError

    with connect(server.addresses[0], backend=server.backend) as client:
        with monkeypatch.context() as patch:
            patch.setattr(client._mail, "append", append)
            with pytest.raises(MemoryError):
                client.request(b"x", service="push")
        assert in_another_thread(lambda: client.request(b"y")) == b"y"
