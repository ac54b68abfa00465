"""``Engine.watch``: what others have a loop watch for them, on both engines."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from engine_alone import Running, eventually, srm, started


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def start(socket_dir, backend, pair):  # which is closed after the loop has ended
    makes = started(socket_dir)
    start = next(makes)
    yield lambda **options: start(backend=backend, **options)
    next(makes, None)


def within(running, function):
    """Call it in the loop's thread, and wait for that."""
    done, raised = threading.Event(), []

    def call():
        try:
            function()
        except BaseException as error:
            raised.append(error)
        done.set()

    assert running.engine.call_later(call)
    assert done.wait(10)
    if raised:
        raise raised[0]


def test_it_is_called_in_the_loop_whenever_there_is_something(start, pair):
    ours, theirs = pair
    running, got = start(), []
    ready = lambda: got.append((ours.recv(10), threading.current_thread() is running.thread))  # noqa: E731
    within(running, lambda: running.engine.watch(ours.fileno(), ready))
    for text in (b"a", b"b"):
        theirs.send(text)
        eventually(lambda: got and got[-1][0] == text)  # noqa: B023
    theirs.close()
    eventually(lambda: (b"", True) in got)  # its end, again and again
    within(running, lambda: running.engine.watch(ours.fileno(), None))
    assert got[:2] == [(b"a", True), (b"b", True)]


def test_no_longer(start, pair):
    ours, theirs = pair
    running, called = start(), []
    within(running, lambda: running.engine.watch(ours.fileno(), lambda: called.append(ours.recv(10))))
    theirs.send(b"a")
    eventually(lambda: called)
    within(running, lambda: running.engine.watch(ours.fileno(), None))
    theirs.send(b"b")
    peer = running.peer()
    peer.let_in()
    peer.send(srm())
    peer.frame()
    assert called == [b"a"]
    within(running, lambda: running.engine.watch(ours.fileno(), None))  # as before


def test_until_it_can_be_written(start, pair):
    ours, theirs = pair
    running, called = start(), []
    with suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)

    def ready():
        called.append(1)
        running.engine.watch(ours.fileno(), None)

    within(running, lambda: running.engine.watch(ours.fileno(), ready, True))
    within(running, lambda: None)
    assert not called
    theirs.recv(1 << 20)
    eventually(lambda: called == [1])


def test_that_it_is_only_read_after_all(start, pair):
    ours, theirs = pair
    running, called = start(), []

    def ready():
        called.append(1)
        running.engine.watch(ours.fileno(), also, False)

    def also():
        called.append(ours.recv(10))

    within(running, lambda: running.engine.watch(ours.fileno(), ready, True))
    eventually(lambda: called == [1])
    theirs.send(b"a")
    eventually(lambda: called == [1, b"a"])


def test_what_it_raises_ends_nothing(start, pair, monkeypatch):
    ours, theirs = pair
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    running = start()

    def ready():
        ours.recv(10)
        raise ValueError("why")

    within(running, lambda: running.engine.watch(ours.fileno(), ready))
    for count in (1, 2):
        theirs.send(b"a")
        eventually(lambda: len(told) == count)  # noqa: B023
    within(running, lambda: running.engine.watch(ours.fileno(), None))
    assert [str(error) for error in told] == ["why", "why"]


def test_what_cannot_be_watched(start, tmp_path):
    running = start()
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        within(running, lambda: running.engine.watch(file.fileno(), lambda: None))


def test_before_the_loop_runs_and_as_a_guest(socket_dir, backend, pair):
    ours, theirs = pair
    running, got = Running(f"{socket_dir}/guest", backend=backend), []
    engine = running.engine
    engine.watch(ours.fileno(), lambda: got.append(ours.recv(10)))
    engine.begin()
    try:
        theirs.send(b"a")
        engine.turn()
        assert got == [b"a"]
    finally:
        engine.end()
        engine.close()
        running.master.close()
