"""TCP peers whose machine vanishes: the kernel is told to ask, and to give up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from programs import missing, tool
from support import environment, plug, wait_for

from pysock import Limits, MasterSocket, connect
from pysock.address import join_host_port
from pysock.base.borrowed import borrowed


def options(fd):
    with borrowed(fd) as handle:
        found = {"SO_KEEPALIVE": handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NODELAY"):
            found[name] = handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        return tuple(found.values())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({}, (1, 30, 10, 3, 60_000, 1)),
        ({"vanish_timeout": 7.5}, (1, 3, 1, 3, 10_000, 1)),
        ({"vanish_timeout": 0.01}, (1, 1, 1, 3, 10_000, 1)),
        ({"vanish_timeout": 30 * 24 * 3600}, (1, 32767, 32767, 3, 2**31 - 1, 1)),
    ],
)
def test_accepted_sockets(make_server, host, limits, wanted):
    server = make_server(f"tcp://{host}:0", limits=Limits(**limits))
    server.service(lambda client, request: request)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        client.request(b"x")
        (data,) = server.clients.values()
        assert options(data.fd) == wanted


def test_never(make_server):
    server = make_server("tcp://127.0.0.1:0", limits=Limits(vanish_timeout=None))
    server.service(lambda client, request: request)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        client.request(b"x")
        (data,) = server.clients.values()
        assert (options(data.fd)[0], options(data.fd)[4]) == (0, 0)


def test_by_hand(backend):
    with MasterSocket("tcp://127.0.0.1:0", backend) as master:
        master.create()
        master.bind()
        master.listen(vanish_timeout=12)
        with plug(master.address), master.accept() as data:
            assert options(data.fd) == (1, 6, 2, 3, 12_000, 1)


def test_clients(make_server, backend):
    server = make_server("tcp://127.0.0.1:0")
    server.service(lambda client, request: request)
    with server, connect(server.addresses[0], backend=backend) as client:
        client.request(b"x")
        descriptors = map(int, os.listdir("/proc/self/fd"))
        found = [options(fd) for fd in descriptors if is_connected_to(fd, server.addresses[0].port)]
        assert found == [(1, 30, 10, 3, 60_000, 1)]


def is_connected_to(fd, port):
    try:
        with borrowed(fd) as handle:
            return handle.family == socket.AF_INET and handle.getpeername()[1] == port
    except OSError:
        return False


@pytest.fixture
def maker():
    """Somebody else's listening socket."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def test_at_an_inherited_socket(make_server, maker):
    """The options are set on what comes from it; it stays as it was, for it is somebody else's."""
    before = options(maker.fileno())
    server = make_server(f"fd://{os.dup(maker.fileno())}")
    server.service(lambda client, request: b"%d" % client.fd)
    with server, connect(join_host_port(*maker.getsockname()), backend=server.backend) as client:
        assert options(int(client.request(b""))) == (1, 30, 10, 3, 60_000, 1)
    assert options(maker.fileno()) == before


def test_by_hand_at_an_inherited_socket(backend, maker):
    before = options(maker.fileno())
    with MasterSocket(f"fd://{os.dup(maker.fileno())}", backend) as master:
        master.adopt()
        with plug(join_host_port(*maker.getsockname())), master.accept() as data:
            assert options(data.fd) == (1, 30, 10, 3, 60_000, 1)
    assert options(maker.fileno()) == before


@pytest.mark.slow
def test_a_client_that_lives_and_reads_nothing_is_no_vanished_one(make_server):
    """TCP_USER_TIMEOUT ends it, too, so it isn't shorter than the time for which it may do so."""
    reply = b"x" * 15_000_000
    server = make_server("tcp://127.0.0.1:0", framing="line", limits=Limits(vanish_timeout=1, output_timeout=60))
    server.service(lambda client, request: reply)
    with server, plug(server.addresses[0]) as client:
        client.settimeout(20)
        client.sendall(b"please\n")
        time.sleep(6)  # the kernel looks at 1, 2, 4 seconds and so on
        got = 0
        while got < len(reply) and (part := client.recv(1 << 20)):
            got += len(part)
        assert got >= len(reply)


# A machine that really vanishes: a network namespace, whose end of the cable is pulled


CLIENT = """
import sys, pysock
client = pysock.connect(sys.argv[1], timeout=10)
print(client.request(b"here"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine():
    """What runs a command there, what pulls the cable, and the address of this end. Tests may run beside each other."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED that a machine vanishes: only root can make a network namespace")
    tool("ip")
    name, ours, theirs = f"psk{os.getpid()}", f"pa{os.getpid()}", f"pb{os.getpid()}"

    net = f"10.{100 + (os.getpid() >> 8) % 100}.{os.getpid() & 255}"

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    if (
        ip("netns", "add", name).returncode
        or ip("link", "add", ours, "type", "veth", "peer", "name", theirs).returncode
    ):
        ip("netns", "del", name)
        missing("no network namespace can be made here")
    try:
        ip("link", "set", theirs, "netns", name)
        ip("addr", "add", f"{net}.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{net}.2/24", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield ["ip", "netns", "exec", name], lambda: ip("link", "set", ours, "down"), f"{net}.1"
    finally:
        ip("link", "del", ours)
        ip("netns", "del", name)


@pytest.mark.slow
def test_a_client_whose_cable_is_pulled_is_dropped(machine, make_server):
    inside, pull, host = machine
    server = make_server(f"tcp://{host}:0", insecure=True, limits=Limits(vanish_timeout=2, output_timeout=2))
    server.service(lambda client, request: request)
    gone = []
    server.on_disconnect(lambda client, reason: gone.append(str(reason)))
    with server:
        command = [*inside, sys.executable, "-c", CLIENT, str(server.addresses[0])]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
        ) as client:
            assert client.stdout.readline() == "b'here'\n"
            pull()
            began = time.monotonic()
            wait_for(lambda: gone, "the end of its connection", timeout=20)
            assert gone == ["closed by peer"]
            assert time.monotonic() - began > 1  # not because of the pull itself
            client.kill()
