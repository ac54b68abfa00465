"""What HAProxy's agent-check is told, and that whoever asks costs the server nothing."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from support import PATIENCE, RawPeer, own_host, plug, running, wait_for

import pysock
from pysock import HealthAgent, Limits, PysockError


def told(agent: HealthAgent, said: bytes = b"") -> str:
    """One check: what HAProxy gets."""
    with plug(agent.address) as sock:
        sock.sendall(said)
        line = b""
        while part := sock.recv(100):
            line += part
    assert line.endswith(b"\n")
    return line.decode().removesuffix("\n")


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address, limits=Limits(max_clients=8))
    server.service(lambda client, request: request)
    return server


@pytest.fixture
def agent(server):
    with HealthAgent(server, f"{own_host()}:0") as agent:
        yield agent


def test_what_it_says(server, agent):
    assert told(agent) == "down"  # it doesn't serve yet
    with running(server), ExitStack() as stack:
        assert told(agent) == "ready up 100%"
        for _ in range(3):
            stack.enter_context(RawPeer.connect(server.addresses[0])).hello()
        assert told(agent) == "ready up 63%"
        server.lame()
        assert told(agent) == "drain"
        server.resume()
        assert told(agent) == "ready up 63%"  # "ready" takes its own "drain" back
        for _ in range(5):
            stack.enter_context(RawPeer.connect(server.addresses[0])).hello()
        assert told(agent) == "ready up 0%"
    assert told(agent) == "down"


def test_while_it_drains(server, agent):
    entered, go_on = threading.Event(), threading.Event()

    @server.service("slow", threads=1)
    def slow(client, request):
        entered.set()
        assert go_on.wait(PATIENCE)

    with running(server), RawPeer.connect(server.addresses[0]) as peer:
        peer.hello()
        peer.srm(b"", service=1)
        assert entered.wait(PATIENCE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_for(lambda: server.state is pysock.ServerState.DRAINING, "the drain")
        assert told(agent) == "drain"
        go_on.set()
        stopping.join(PATIENCE)


def test_a_handler_that_blocks_does_not_keep_it_from_answering(make_server, unix_address):
    server, entered, go_on = make_server(unix_address), threading.Event(), threading.Event()

    @server.service
    def slow(client, request):
        entered.set()
        assert go_on.wait(PATIENCE)

    with running(server), HealthAgent(server, f"{own_host()}:0") as agent, RawPeer.connect(unix_address) as peer:
        peer.hello()
        peer.srm(b"")
        assert entered.wait(PATIENCE)
        assert told(agent).startswith("ready up ")
        server.lame()
        assert told(agent) == "drain"
        go_on.set()


def test_what_it_is_sent_is_of_no_interest(server, agent):
    """HAProxy's agent-send; closing before it was read would take the answer with it."""
    assert told(agent, b"state?\n" * 1000) == "down"


def test_who_stays_is_closed(server, agent, monkeypatch):
    """Each has its line at once; of those that don't close the oldest has to make room, and none stays for long."""
    monkeypatch.setattr("pysock.health.agent._PATIENCE", 0.3)
    with ExitStack() as stack:
        idle = [stack.enter_context(plug(agent.address)) for _ in range(17)]
        for sock in idle:
            assert sock.recv(100) == b"down\n"
        began = time.monotonic()
        for sock in idle:
            while True:  # what it sends is dropped, and its time runs
                try:
                    sock.sendall(b"x")
                except OSError:
                    break
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.01)
    assert told(agent) == "down"


def test_a_connection_that_fails_ends_nobody_else(server, agent, monkeypatch):
    """Also by what isn't a ConnectionError: the other host is gone (tcp(7), ETIMEDOUT; ip(7), EHOSTUNREACH)."""
    read = socket.socket.recv

    def fails(sock, *arguments):
        if threading.current_thread().name == "pysock-agent":
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return read(sock, *arguments)

    monkeypatch.setattr(socket.socket, "recv", fails)
    for _ in range(2):
        with plug(agent.address) as sock:
            assert sock.recv(100) == b"down\n"
            sock.send(b"hello\n")
            assert sock.recv(100) == b""


def test_without_descriptors_it_goes_on_later(server, agent):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    with socket.socket() as waiting:
        waiting.settimeout(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, limits[1]))
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            waiting.connect((agent.address.host, agent.address.port))
            time.sleep(0.05)  # it accepts in vain, as nothing shows
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in taken:
                os.close(fd)
        assert waiting.recv(100) == b"down\n"


def test_stop_frees_the_port_and_the_thread(server):
    agent = HealthAgent(server, f"{own_host()}:0")
    agent.start()
    where = agent.address
    agent.stop()
    agent.stop()
    assert [thread.name for thread in threading.enumerate() if "agent" in thread.name] == []
    with HealthAgent(server, where) as other:
        assert told(other) == "down"
    with pytest.raises(PysockError, match="was started before: make a new one"):
        agent.start()


def test_a_forked_child_leaves_the_port_alone(server, agent):
    child = os.fork()
    if not child:
        os._exit(agent._aside.is_open)
    assert os.waitpid(child, 0)[1] == 0
    assert told(agent) == "down"


def test_where_it_cannot_listen(server, agent, unix_address):
    with pytest.raises(pysock.AddressInUse):
        HealthAgent(server, agent.address).start()
    with pytest.raises(ValueError, match="must be one of TCP, as HAProxy asks by TCP only, not unix:") as caught:
        HealthAgent(server, unix_address)
    assert caught.value.parameter == "address"
