"""pysock.servers(): what runs in this process, so that it can be found again and stopped."""

from __future__ import annotations

import os

import pytest
from support import run_python

import pysock
from pysock import AddressInUse, ServerState


@pytest.fixture(autouse=True)
def _nothing_else_runs():
    assert pysock.servers() == []
    yield
    assert pysock.servers() == []


def test_those_that_run_are_listed_the_oldest_first(make_server, address, socket_dir):
    first, second = make_server(address), make_server(f"unix:{socket_dir}/other")
    assert pysock.servers() == []
    with second, first:
        assert pysock.servers() == [second, first]
        pysock.servers().clear()  # a list of the caller's own
        assert pysock.servers() == [second, first]
    assert first.state is second.state is ServerState.CLOSED


def test_one_that_did_not_start_is_not_listed(make_server, unix_address):
    with make_server(unix_address):
        with pytest.raises(AddressInUse):
            make_server(unix_address).start()
        assert len(pysock.servers()) == 1


@pytest.mark.parametrize("where", ["unix:{}/s", "unix:@{}/s", "tcp://127.0.0.1:{port}"])
def test_a_cell_that_is_run_again_says_how_to_end_the_first(make_server, socket_dir, where):
    """And so it can be done, without the name of the first."""
    with make_server("tcp://127.0.0.1:0") as other:
        port = other.addresses[0].port
    where = where.format(socket_dir, port=port)
    make_server(where).start()
    with pytest.raises(
        AddressInUse, match=r"of this process.*pysock\.servers\(\) lists those of this process: stop it"
    ):
        make_server(where).start()
    for server in pysock.servers():
        server.stop(0)
    with make_server(where):
        pass


def test_serve_forever_is_listed(backend, unix_address):
    code = """
import sys, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
server.service(lambda client, request: request)
server.on_state(lambda old, new: print(new.name, pysock.servers() == [server]))
import threading, os, signal
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
server.serve_forever()
print(pysock.servers())
"""
    done = run_python(code, unix_address, backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SERVING True\n" in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_none(make_server, unix_address):
    with make_server(unix_address):
        child = os.fork()
        if not child:
            os._exit(len(pysock.servers()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(pysock.servers()) == 1
