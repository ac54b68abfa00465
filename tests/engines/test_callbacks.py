"""Callbacks of the engine that fail where the contract says that they don't: there was no memory for them, say."""

from __future__ import annotations

import pytest
from engine_alone import eventually, srm, started

from pysock.wire.format import Kind, encode

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def start(socket_dir, backend):
    runs = started(socket_dir)
    make = next(runs)
    yield lambda **options: make(backend=backend, **options)
    assert next(runs, None) is None


class FailsOnce:
    """A callback that raises once, then answers."""

    def __init__(self, error, answer):
        self.error = error
        self.answer = answer
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == 1:
            raise self.error
        return self.answer


def raises(client, request):
    raise ValueError(request.decode())


#: A violation, where the client gets so far.
SECOND_CIR = encode(Kind.CIR, b"", code=1)

CALLBACKS = {
    "client": (object(), {}),
    "connect": (None, {}),
    "disconnect": (None, {}),
    "failed": ((1, b"text", True), {"handler": raises}),
    "noted": (None, {}),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_no_memory_for_a_callback(start, name):
    """It costs the client concerned something, and nobody else anything."""
    answer, options = CALLBACKS[name]
    callback = FailsOnce(MemoryError(), answer)
    running = start(callbacks={name: callback}, **options)
    unlucky = running.peer()
    unlucky.send(encode(Kind.CIR, b"PSK1", code=1) + srm(b"a") + SECOND_CIR)
    unlucky.to_the_end()
    eventually(lambda: callback.calls >= 1)
    good = running.peer()
    good.let_in()
    good.send(srm(b"b"))
    assert good.frame().kind == (Kind.ERROR if name == "failed" else Kind.REPLY)
    assert running.raised is None


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_exit_out_of_a_callback(start, name):
    """It ends the loop, and comes out of run()."""
    answer, options = CALLBACKS[name]
    running = start(callbacks={name: FailsOnce(SystemExit(3), answer)}, **options)
    unlucky = running.peer()
    unlucky.send(encode(Kind.CIR, b"PSK1", code=1) + srm(b"a") + SECOND_CIR)
    eventually(lambda: running.raised is not None)
    assert isinstance(running.raised, SystemExit)
    assert running.drained == 1
