"""What the host program has set for its sockets, or does to the time, changes nothing of ours, nor we of its."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import environment, plug

import pysock
from pysock import MasterSocket, connect
from pysock.base.borrowed import borrowed


@pytest.fixture(params=[30, 0.001, 0], ids=["30 s", "1 ms", "non-blocking"])
def default_timeout(request, monkeypatch):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(request.param)
    yield request.param
    assert socket.getdefaulttimeout() == request.param
    socket.setdefaulttimeout(before)


def test_by_hand(default_timeout, listening):
    with plug(listening.address) as peer:
        peer.settimeout(10)
        data = listening.accept()
        assert os.get_blocking(data.fd)
        assert os.get_blocking(listening.fd)
        peer.sendall(b"x")
        assert data.recv() == b"x"
        data.send(b"y" * 1000)
        assert peer.recv(1000) == b"y" * 1000
        peer.shutdown(socket.SHUT_WR)
        assert data.recv() == b""
        data.close()


def test_a_server_and_its_client(default_timeout, make_server, address):
    server = make_server(address)
    server.service(lambda client, request: request)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"x" * 1_000_000) == b"x" * 1_000_000
        time.sleep(0.01)  # longer than the shortest default: nothing of ours may be over
        assert client.request_many([b"a", b"b"]) == [b"a", b"b"]


@pytest.mark.parametrize("blocks", [True, False])
def test_an_inherited_socket_by_hand_stays_as_it_was(default_timeout, backend, blocks):
    with socket.socket(socket.AF_INET) as maker:
        maker.bind(("127.0.0.1", 0))
        maker.listen()
        os.set_blocking(maker.fileno(), blocks)
        with MasterSocket(f"fd://{os.dup(maker.fileno())}", backend) as master:
            master.adopt()
            assert os.get_blocking(maker.fileno()) is blocks


@pytest.mark.parametrize("has", ["O_NONBLOCK", "SO_RCVTIMEO"])
def test_by_hand_waits_whatever_the_maker_of_an_inherited_socket_has_set(backend, has):
    with socket.socket() as maker, socket.socket() as peer:
        maker.bind(("127.0.0.1", 0))
        maker.listen()
        if has == "O_NONBLOCK":
            os.set_blocking(maker.fileno(), False)
        else:  # accepted sockets inherit it
            maker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20_000))
        with MasterSocket(f"fd://{os.dup(maker.fileno())}", backend) as master:
            master.adopt()
            later = threading.Timer(0.1, peer.connect, [maker.getsockname()])
            later.start()
            with master.accept() as data:
                later.join()
                later = threading.Timer(0.1, peer.sendall, [b"x"])
                later.start()
                assert data.recv() == b"x"
                later.join()
            assert os.get_blocking(maker.fileno()) is (has != "O_NONBLOCK")


@pytest.mark.skipif(sys.platform != "linux", reason="on others it can't be told apart")
def test_an_address_of_both_families_takes_both_whatever_the_system_says(backend):
    """Not net.ipv6.bindv6only, but the address decides."""
    with MasterSocket("tcp://[::]:0", backend) as master:
        master.create()
        with borrowed(master.fd) as handle:
            assert handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0


# Time that stands still


def frozen(program: str, backend: str, directory: Path) -> str:
    """What a program says in which freezegun has stopped the time."""
    pytest.importorskip("freezegun")
    text = "import freezegun, os, socket, sys, threading, time, pysock\n" + program
    done = subprocess.run(
        [sys.executable, "-c", text, backend],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=directory,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_timeout_comes_where_the_time_is_frozen(backend, socket_dir):
    program = """
silent = socket.socket(socket.AF_UNIX)
silent.bind("s")
silent.listen()
with freezegun.freeze_time("2020-01-01"):
    try:
        pysock.connect("unix:s", timeout=0.1, backend=sys.argv[1])
    except pysock.RequestTimeout:
        print("in time")
"""
    assert frozen(program, backend, socket_dir) == "in time\n"


def test_deadlines_and_ends_come_where_the_time_is_frozen(backend, socket_dir):
    """A CIR that is late, a stop with a grace, pushes() and a ping; and an idle server sleeps."""
    program = """
backend = sys.argv[1]
with freezegun.freeze_time("2020-01-01"):
    server = pysock.Server("unix:s", backend=backend, limits=pysock.Limits(cir_timeout=0.1))
    entered = threading.Event()

    @server.service
    def hang(client, request):
        entered.set()
        threading.Event().wait(0.3)
        return request

    server.start()
    client = pysock.connect("unix:s", backend=backend)
    late = socket.socket(socket.AF_UNIX)
    late.connect("s")
    late.settimeout(10)
    assert b"did not come in time" in late.recv(1000)
    assert list(client.pushes(timeout=0.05)) == []
    assert client.ping() > 0
    before = time.process_time()
    threading.Event().wait(0.3)
    used = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    threading.Event().wait(0.3)
    used = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) - used
    assert used < 0.15, used
    client.close()
    server.stop(0.1)
    print(server.state.name)
"""
    assert frozen(program, backend, socket_dir) == "CLOSED\n"


def test_no_module_looks_at_a_clock_that_tests_stop():
    """``time.time()`` tells when somebody connected; whatever waits looks at :mod:`pysock.base.clock`."""
    package = Path(pysock.__file__).parent
    guilty = [
        f"{path.relative_to(package)}:{number}"
        for path in sorted(package.rglob("*.py"))
        if "examples" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ("time.monotonic(" in line or "perf_counter" in line or "import monotonic" in line)
        and "from pysock.base.clock" not in line
    ]
    assert guilty == []


COMPARING = """
import socket, sys, pysock

backend, path, inherited = sys.argv[1], sys.argv[2], sys.argv[3] == "inherited"
abstract = pysock.Server(f"unix:@{path}-other", backend=backend)
abstract.service(lambda client, request: request)
abstract.start()
for where, name in [(f"unix:{path}", path), (f"unix:@{path}", chr(0) + path)]:
    listener = socket.socket(socket.AF_UNIX)
    if inherited:
        listener.bind(name)
        listener.listen()
    server = pysock.Server(f"fd:{listener.detach()}" if inherited else where, backend=backend)

    @server.service
    def call(client, request):
        with pysock.connect(request.decode(), backend=backend) as beside:
            return beside.request(b"")

    with server, pysock.connect(where, backend=backend) as client:
        assert client.request(f"unix:@{path}-other".encode()) == b""
        try:
            client.request(where.encode())
        except pysock.RemoteError as error:
            assert str(error) == "PysockError"  # that it would wait for itself
    listener.close()
abstract.stop()
"""


@pytest.mark.parametrize("made", ["here", "inherited"])
def test_under_bb_no_bytes_are_compared_with_text(backend, socket_dir, made):
    """A socket's name is bytes if it is abstract, else text, and ``python -bb`` makes it an error to compare them."""
    command = [sys.executable, "-bb", "-Werror", "-c", COMPARING, backend, str(socket_dir / "s"), made]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment())
    assert done.returncode == 0, done.stderr
    assert "BytesWarning" not in done.stderr
