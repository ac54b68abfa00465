"""A signal's handler that raises, as Ctrl-C does, at any moment of a client's call.

The moments are those at which CPython looks for signals: as a function of Python's is entered, and as one of C returns.
The profiler is called there as well, so that each can be tried in turn, without a signal.
"""

from __future__ import annotations

import gc
import itertools
import sys

import pytest
from support import plug, running

from pysock.engine import choose
from pysock.protocol import FLAG_NO_REPLY, Kind, encode_cir


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
