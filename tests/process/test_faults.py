"""System calls that fail around a server's life. ``python -m tests.lab`` tries all of them; what it found is here."""

from __future__ import annotations

import errno
import gc
import os

import pytest
from support import plug, running

from pysock import MasterSocket, Server, ServerState
from pysock.engine.pure.commands import Commands


def open_files():
    return len(os.listdir("/proc/self/fd"))


class Failing:
    """Sockets of an engine, whose close() says that it failed. Linux has freed the number all the same (close(2))."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def close(self, fd):
        self.real.close(fd)
        raise OSError(errno.EIO, "Input/output error")


def test_the_socket_file_goes_even_if_close_fails(backend, unix_address):
    master = MasterSocket(unix_address, backend)
    master.create()
    master.bind()
    master._sockets = Failing(master._sockets)
    path = unix_address.removeprefix("unix:")
    assert os.path.exists(path)
    with pytest.raises(OSError, match="Input/output"):
        master.close()
    assert not os.path.exists(path)
    assert master.state is ServerState.CLOSED


def test_an_engine_that_can_not_begin_leaves_nothing_open(backend, make_server, address, monkeypatch):
    def fail(engine, *arguments, **options):
        raise OSError(errno.ENOSPC, "no room to watch it")

    make_server(address).stop()
    pure = "pysock.engine.pure.accept.Masters.add"
    monkeypatch.setattr(pure if backend == "pure" else "pysock.engine.native.engine.NativeEngine.add_master", fail)
    server = make_server(address)
    gc.collect()
    gc.disable()  # what is only closed by chance would be left open
    try:
        before = open_files()
        with pytest.raises(OSError, match="no room"):
            server.start()
        assert server.state is ServerState.CLOSED
        assert open_files() == before
    finally:
        gc.enable()


@pytest.fixture
def commands():
    commands = Commands()
    yield commands
    commands.close()


def test_a_command_that_can_not_be_told_is_not_carried_out(commands, monkeypatch):
    done = []

    def fail(fd, data):
        raise OSError(errno.ENOMEM, "no page for the pipe")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="no page"):
            commands.post(lambda: done.append(1))
    assert commands.post(lambda: done.append(2))
    assert os.read(commands.read_fd, 10) == b"\0"  # the loop is told of the next one
    commands.run()
    assert done == [2]


def test_a_pure_engine_closes_whatever_close_says(address, monkeypatch):
    server = Server(address, backend="pure")
    real = os.close

    def fail(fd):
        real(fd)
        raise OSError(errno.EIO, "Input/output error")

    before = open_files()
    with running(server):
        plug(server.addresses[0]).close()
        monkeypatch.setattr(os, "close", fail)
    monkeypatch.undo()
    assert open_files() == before
