"""The bus of one machine: its hub is one of the nodes, until another one has to be."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from buses import LocalHub, Node
from support import left_in, run_python, wait_for

from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.bus.local import records
from pysock.errors import BusDown


@pytest.fixture
def url(socket_dir):
    return f"local:{socket_dir}/bus.sock"


@pytest.fixture
def nodes(url):
    made = [Node(url, f"n{number}", "pysock.t") for number in range(3)]
    yield made
    for one in made:
        one.bus.close()


def test_of_nodes_that_start_together_one_is_the_hub(nodes, socket_dir):
    for one in nodes:
        one.hear("a", bytes.upper)
        one.start(wait=False)
    for one in nodes:
        one.wait(BusState.CONNECTED)
    assert sum(one.bus._hub is not None for one in nodes) == 1
    nodes[0].say("a", b"x")
    for one in nodes:
        assert one.got("a", 1) == [b"x"]
    for one in nodes:
        one.bus.close()
    assert left_in(socket_dir) == []


def test_where_the_hubs_node_ends_another_one_takes_over(nodes):
    for one in nodes:
        one.hear("a", bytes.upper)
        one.start()
    assert nodes[0].bus._hub is not None
    nodes[0].bus.close()
    for one in nodes[1:]:
        wait_for(lambda one=one: len(one.states) == 3, "to be lost and found")
        one.wait(BusState.CONNECTED)
        one.settle()
    assert nodes[1].ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert sum(one.bus._hub is not None for one in nodes[1:]) == 1


def test_where_the_hub_is_killed_another_one_takes_over(nodes, socket_dir):
    hub = LocalHub(socket_dir)
    for one in nodes:
        one.hear("a", bytes.upper)
        one.start()
    hub.kill()
    for one in nodes:
        wait_for(lambda one=one: len(one.states) == 3, "to be lost and found", timeout=3)
        one.wait(BusState.CONNECTED)
    assert sum(one.bus._hub is not None for one in nodes) == 1
    nodes[0].settle()
    assert nodes[1].ask("a", b"x") == (Outcome.ANSWERED, b"X")


def test_the_name_is_a_file_in_the_users_own_directory(socket_dir, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    one = Node("local:demo", "n", "pysock.t").start()
    assert left_in(socket_dir / "pysock") == ["bus-demo.sock", "bus-demo.sock.lock"]
    one.bus.close()
    assert left_in(socket_dir / "pysock") == []


def test_bytes_that_are_no_records_end_that_connection_alone(nodes, socket_dir):
    one = nodes[0].start()
    hello = records.node_hello(b"12345678", "stranger")
    short = struct.pack("!I", 3) + bytes((records.REQUEST, 0, 0))
    for rubbish in (b"\0\0\0\4abcd", b"\0\0\0\1", b"\0\0\0\0\0", records.route(9, (b"a", False)), hello + short):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(f"{socket_dir}/bus.sock")
            stranger.sendall(struct.pack("!I", len(rubbish)) + rubbish)
            while stranger.recv(1000):
                pass
    one.settle()
    assert one.states == [BusState.CONNECTED]


def test_a_hub_of_another_version_is_told_of(nodes, socket_dir):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{socket_dir}/bus.sock")
        listener.listen()
        nodes[0].start(wait=False)
        peer, _ = listener.accept()
        hello = records.hub_hello(records.Welcome(9, 1, 1000, False, "pysock 99"))
        peer.sendall(struct.pack("!I", len(hello)) + hello)
        assert peer.recv(1000)
        wait_for(lambda: "pysock 99, which speaks version 9" in nodes[0].bus.why, "the version to be noticed")
        peer.close()
        with pytest.raises(BusDown, match="run one version of pysock on this machine"):
            nodes[0].say("a", b"")


def test_something_else_at_the_path_is_told_of(nodes, socket_dir):
    (socket_dir / "bus.sock").write_text("no socket")
    with pytest.raises(BusDown, match=r"can't be used: .*bus\.sock"):
        nodes[0].bus.check((), 5.0)
    assert (socket_dir / "bus.sock").read_text() == "no socket"


def test_where_there_is_no_directory_the_check_says_so_at_once():
    with pytest.raises(BusDown, match=r"can't be used: .*no/such/directory"):
        bus_of("local:/no/such/directory/bus.sock", node="n").check((), 5.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_not_let_in(nodes, socket_dir):
    nodes[0].start()
    os.chmod(socket_dir, 0o755)
    os.chmod(socket_dir / "bus.sock", 0o666)
    code = (
        "import os, sys; from pysock.cluster.bus.choice import bus_of; import pysock.cluster.bus.checking, logging\n"
        "bus = bus_of(sys.argv[1], node='n'); os.setuid(65534)\n"
        "try: bus.check((), 5.0)\n"
        "except ConnectionError as error: print(error)"
    )
    run = run_python(code, f"local:{socket_dir}/bus.sock")
    assert "can't be used: who listens" in run.stdout, run
    assert nodes[0].states == [BusState.CONNECTED]


def test_a_hub_that_was_stopped_goes_on(nodes, socket_dir):
    hub = LocalHub(socket_dir)
    try:
        one = nodes[0].start()
        hub.freeze()
        hub.thaw()
        one.settle()
    finally:
        hub.close()
