"""What people do first, and what they are told then."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import environment

import pysock
from pysock import Address, MasterSocket, Server


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/run/x.sock", "unix:/run/x.sock"),
        ("./x.sock", "unix:./x.sock"),
        ("x.sock", "unix:x.sock"),
        ("run/x", "unix:run/x"),
        ("/run/x:1", "unix:/run/x:1"),
        ("/run/x.sock?mode=0660", r"unix:/run/x.sock\?mode=0660"),
        ("@demo", "unix:@demo"),
        ("~/x.sock", f"unix:{os.path.expanduser('~')}/x.sock"),
    ],
)
def test_a_path_without_its_scheme(text, meant):
    for take in (Address.parse, Server, MasterSocket, pysock.connect):
        with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
            take(text)


def test_an_address_shows_its_text():
    address = Address.parse("unix:/run/x.sock?mode=0660")
    assert repr(address) == "Address('unix:/run/x.sock?mode=0660')"
    assert repr((address, Address.parse(":1"))) == "(Address('unix:/run/x.sock?mode=0660'), Address('tcp://:1'))"
    with pytest.raises(ValueError, match=r"or write Address.parse\('unix:/run/x.sock'\)"):
        Address("unix:/run/x.sock")


def test_a_path_is_an_address(tmp_path, backend):
    path = tmp_path / "a?b%41.sock"
    server = Server(path, backend=backend)
    server.service(lambda client, request: request)
    with server, pysock.connect(path, backend=backend) as client:
        assert client.request(b"hello") == b"hello"
        assert path.is_socket()
    moved = Server("unix:nowhere.sock", backend=backend)
    moved.listen_at(path)
    assert moved.addresses == (Address("unix", str(path)),)
    assert MasterSocket(Path("@x"), backend).address == Address("unix", "@x")


@pytest.mark.parametrize("wrong", [5, ("127.0.0.1", 9000), None])
def test_what_is_no_address(wrong):
    with pytest.raises(TypeError, match=r"an address is a str, an os.PathLike or an Address, not .*; write for ex"):
        pysock.connect(wrong)


def test_serving_at_a_path(tmp_path, backend, monkeypatch):
    seen = []
    monkeypatch.setattr(Server, "serve_forever", lambda self: seen.append(self.addresses))
    pysock.serve(tmp_path / "x.sock", lambda client, request: request, backend=backend)
    assert seen == [(Address("unix", str(tmp_path / "x.sock")),)]


def test_connecting_to_what_is_no_socket(tmp_path, backend):
    file, fifo = tmp_path / "file", tmp_path / "fifo"
    file.write_bytes(b"")
    os.mkfifo(fifo)
    for path, what in ((file, "a regular file"), (tmp_path, "a directory"), (fifo, "a named pipe")):
        with pytest.raises(OSError, match=f"unix:{path}: that is {what}, not a socket; is the path right"):
            pysock.connect(f"unix:{path}", backend=backend)


@pytest.mark.parametrize("framing", ["pysock", "u32"])
def test_a_server_without_a_service_warns_at_the_start(tmp_path, backend, framing, caplog):
    def warnings():
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    with Server(f"unix:{tmp_path}/x.sock", backend=backend, framing=framing):
        assert len(warnings()) == 1
        assert "has no service, so that no request can be answered: register one" in warnings()[0]
    caplog.clear()
    server = Server(f"unix:{tmp_path}/x.sock", backend=backend)
    server.service("only a named one")(lambda client, request: None)
    with server:
        assert not warnings()


def test_who_never_answers_may_be_no_pysock_server(backend):
    """A server of lines waits for the end of one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(pysock.RequestTimeout, match=r"within 0\.05 seconds; is it busy, or is it a pysock"):
            pysock.connect(address, timeout=0.05, backend=backend)


SERVING = """
import pysock
server = pysock.Server("unix:own.sock")
@server.service
def upper(client, request):
    return request.upper()
"""


def pysock_serve(directory, *arguments):
    return subprocess.run(  # noqa: PLW1510
        [sys.executable, "-m", "pysock", "serve", *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    "last",
    ["server.serve_forever()", 'pysock.serve("unix:own.sock", upper)', "def main():\n  server.serve_forever()\nmain()"],
)
def test_a_module_that_serves_while_it_is_imported(tmp_path, last):
    (tmp_path / "serving.py").write_text(SERVING + last)
    done = pysock_serve(tmp_path, "serving:server", "--bind", "unix:other.sock")
    assert done.returncode == 1
    assert done.stderr.startswith("pysock: module 'serving' (serving.py, line ")
    assert 'it serves while it is imported: put that behind if __name__ == "__main__":' in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.sock"))


def test_a_module_that_starts_its_server_while_it_is_imported(tmp_path):
    (tmp_path / "started.py").write_text(SERVING + "server.start()")
    done = pysock_serve(tmp_path, "started:server", "--log-level", "error")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the server was started while its module was imported" in done.stderr
    assert not list(tmp_path.glob("*.sock"))


def test_who_asks_for_the_unnamed_service_is_told_of_the_others(tmp_path, backend):
    server = Server(f"unix:{tmp_path}/s", backend=backend)
    server.service("add")(lambda client, request: request)
    server.service("sub")(lambda client, request: request)
    words = "no such service: the server has no unnamed one; it has 'add', 'sub'"
    with server, pysock.connect(server.addresses[0], backend=backend) as client:
        with pytest.raises(pysock.RemoteError, match=words):
            client.request(b"x")
        with pytest.raises(pysock.RemoteError, match=words):
            client.request_many([b"x"])
        assert [str(one) for one in client.request_many([b"x"], return_exceptions=True)] == [words]
