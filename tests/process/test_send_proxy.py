"""A real HAProxy in front: what it sends is understood, its health checks pass, and who comes past it is refused."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest
import wire
from haproxy import haproxy
from programs import missing
from support import PATIENCE, environment, own_host, wait_for

import pysock
from pysock import Limits, connect

pytestmark = pytest.mark.not_over_tls("HAProxy speaks none to its servers here")

CONFIGURATION = """
global
    stats socket {directory}/admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind {host}:{port}
    default_backend servers
    unique-id-format %ci:%cp
backend servers
    option tcp-check
    tcp-check connect send-proxy
    tcp-check send-binary 000000000300000000000001
    tcp-check expect binary 000000008600000000000001
    server one {server} {how}
"""
CHECK = "check check-send-proxy inter 50ms"


@pytest.fixture
def behind(make_server, socket_dir, transport):
    """``behind(how)``: a server, and the port of a HAProxy in front of it, which runs."""
    with contextlib.ExitStack() as steps:
        yield lambda how, version="v2", **options: _run(
            steps, make_server, socket_dir, transport, how, version, options
        )


def _run(steps, make_server, socket_dir, transport, how, version, options):
    program = haproxy()
    unix = f"unix:{socket_dir}/s?proxy={version}"
    server = make_server(
        unix if transport == "unix" else f"tcp://127.0.0.1:0?proxy={version}&trust=127.0.0.1", **options
    )
    server.service(lambda client, request: client.address.encode())
    steps.enter_context(server)
    (address,), port = server.addresses, _free_port()
    where = f"unix@{address.path}" if transport == "unix" else f"127.0.0.1:{address.port}"
    file = socket_dir / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(directory=socket_dir, host=own_host(), port=port, server=where, how=how))
    process = subprocess.Popen(
        [program, "-db", "-f", str(file)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    steps.callback(process.communicate)
    steps.callback(process.terminate)
    is_there = Path(f"{socket_dir}/admin").exists
    wait_for(lambda: process.poll() is not None or (_listens(port) and is_there()), "HAProxy")
    if process.poll() is not None:
        missing(f"HAProxy doesn't start: {process.communicate()[0]}")
    return server, port


def _free_port():
    with socket.socket() as probe:
        probe.bind((own_host(), 0))
        return probe.getsockname()[1]


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex((own_host(), port)) == 0


def _status(socket_dir):
    """What HAProxy thinks of the server: UP, DOWN ..."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(f"{socket_dir}/admin")
        sock.sendall(b"show stat\n")
        rows = b"".join(iter(lambda: sock.recv(65536), b"")).decode().splitlines()
    columns = rows[0].lstrip("# ").split(",")
    (row,) = [row.split(",") for row in rows if row.startswith("servers,one,")]
    found = dict(zip(columns, row, strict=False))
    return found["status"], found["check_status"]


def test_who_comes_through_haproxy(behind, backend, socket_dir):
    """By his own address, on both engines, with the limits that are his."""
    options = "proxy-v2-options crc32c,unique-id,authority"
    server, port = behind(f"send-proxy-v2 {options} {CHECK}", limits=Limits(max_clients_per_ip=2))
    with socket.socket() as own, contextlib.ExitStack() as steps:
        own.settimeout(PATIENCE)
        own.bind(("127.0.0.9", 0))
        own.connect((own_host(), port))
        mine = f"127.0.0.9:{own.getsockname()[1]}"
        own.sendall(wire.cir() + wire.srm(b"who"))
        peer = wire.RawPeer(own)
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        assert wire.next_frame(peer) == wire.replied(mine.encode())
        (client,) = server.clients.values()
        assert client.proxy.destination == f"{own_host()}:{port}"
        assert client.proxy.unique_id == mine.encode()
        assert client.via.startswith(server.addresses[0].bare() if "unix" in client.via else "127.0.0.1:")
        two = [steps.enter_context(connect(f"tcp://{own_host()}:{port}", backend=backend)) for _ in range(2)]
        assert all(one.request(b"").startswith(b"127.") for one in two)
        with pytest.raises(pysock.ServerFull, match="too many connections from this user or address"):
            connect(f"tcp://{own_host()}:{port}", backend=backend)
    wait_for(lambda: _status(socket_dir) == ("UP", "L7OK"), "a health check that passes")
    wire.counted(server, refused_peer=1, refused_header=0, refused_untrusted=0, violations=0)


def test_a_health_check_that_fails(behind, socket_dir):
    server, _port = behind(f"send-proxy-v2 {CHECK}")
    wait_for(lambda: _status(socket_dir) == ("UP", "L7OK"), "a health check that passes")
    server.stop()
    wait_for(lambda: _status(socket_dir)[0] == "DOWN", "a health check that fails")


def test_haproxy_that_speaks_version_1(behind, backend):
    server, port = behind("send-proxy", "any")
    with connect(f"tcp://{own_host()}:{port}", backend=backend) as client:
        assert client.request(b"").startswith(b"127.")
        assert next(iter(server.clients.values())).proxy.destination == f"{own_host()}:{port}"
    wire.counted(server, refused_header=0)


def test_haproxy_that_says_nothing(behind, backend):
    """Its clients are told what is missing."""
    server, port = behind("")
    with pytest.raises(pysock.ConnectionRefused, match="no header of the PROXY protocol came first"):
        connect(f"tcp://{own_host()}:{port}", backend=backend)
    assert server.stats()["refused_header"] >= 1
