"""Nodes of a cluster without a bus, without each other, at their end, and wrong words to them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cluster_fixtures import wait_until_known
from support import environment, wait_for

import pysock
from pysock import ClusterState
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind, Tag, number

_NODE = """
import sys, pysock
url, name, address = sys.argv[1:]
server = pysock.Server(address, cluster=pysock.Cluster(url, name=name, node="killed", required=10.0))
server.service(lambda client, request: request)
with server, pysock.connect(address, name="zombie") as client:
    client.request(b"")
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def bus_url(bus_engine):
    """It is no node's, and stays when nodes go, or goes alone."""
    return bus_engine.url


def test_while_the_bus_is_down_the_node_serves_its_own_clients(bus_engine, two_nodes):
    one, other = two_nodes
    anna, bert = one.client("anna", "red"), other.client("bert", "red")
    wait_until_known(two_nodes, ["anna", "bert"])
    bus_engine.freeze()
    for each in two_nodes:
        each.cluster._bus.reconnect()
        wait_for(lambda each=each: each.cluster.state is ClusterState.LOST)
    row = one.cluster.by_name("bert")
    assert row.stale
    assert [node.stale for node in one.cluster.nodes] == [False, True]
    for call in (
        lambda: one.cluster.send("bert", b"lost"),
        lambda: one.cluster.send("bert", b"lost", ack=False),
        lambda: one.cluster.request("bert", b"lost", "upper"),
        lambda: one.cluster.disconnect("bert"),
        lambda: one.cluster.call("any"),
    ):
        with pytest.raises(pysock.BusDown, match="is down"):
            call()
    assert one.cluster.send("anna", b"own") is True
    assert one.cluster.group("red").send(b"red") == (1, False)
    assert one.cluster.broadcast(b"all") == (1, False)
    wait_for(lambda: anna.pushed == [b"own", b"red", b"all"])
    carl = one.client("carl")
    bus_engine.thaw()
    wait_until_known(two_nodes, ["anna", "bert", "carl"])
    for each in two_nodes:
        wait_for(lambda each=each: each.cluster.state is ClusterState.CONNECTED)
    wait_for(lambda: not one.cluster.by_name("bert").stale)
    assert one.cluster.send("bert", b"new") is True
    assert other.cluster.send("carl", b"new") is True
    wait_for(lambda: carl.pushed == bert.pushed == [b"new"])


@pytest.mark.slow
def test_the_clients_of_a_node_that_was_killed_are_gone(cluster_node, bus_url, cluster_name, socket_dir):
    one = cluster_node("a")
    command = [sys.executable, "-c", _NODE, bus_url, cluster_name, f"unix:{socket_dir}/killed"]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        wait_until_known([one], ["zombie"])
        row = one.cluster.by_name("zombie")
        process.kill()
        process.wait()
    with pytest.raises((pysock.NodeGone, pysock.DeliveryUnknown)):  # its kernel may have taken it
        one.cluster.send(row, b"", timeout=0.5)
    wait_until_known([one], [])
    assert [node.name for node in one.cluster.nodes] == ["a"]
    with pytest.raises(pysock.NodeGone, match="'killed' has gone"):
        one.cluster.send(row, b"")


def test_a_node_that_ends_says_goodbye(two_nodes):
    one, other = two_nodes
    bert = other.client("bert")
    wait_until_known(two_nodes, ["bert"])
    row = one.cluster.by_name("bert")
    other.server.stop()
    wait_for(lambda: len(one.cluster.nodes) == 1)
    assert not one.cluster.clients
    with pytest.raises(pysock.NodeGone):
        one.cluster.send(row, b"")
    for call in (lambda: other.cluster.nodes, lambda: other.cluster.send("bert", b"")):
        with pytest.raises(pysock.PysockError, match="doesn't run"):
            call()
    assert other.cluster.state is ClusterState.LOST
    bert.close()


def test_a_lame_node_says_so(two_nodes):
    one, other = two_nodes
    other.server.lame()
    wait_for(lambda: one.cluster.nodes[1].draining)
    other.server.resume()
    wait_for(lambda: not one.cluster.nodes[1].draining)


def test_a_server_that_needs_the_bus_does_not_start_without(bus_engine, cluster_node):
    bus_engine.freeze()
    with pytest.raises(pysock.BusDown, match="required="):
        cluster_node("a", required=0.05)


def test_a_server_that_does_not_need_the_bus_is_a_node_as_soon_as_it_is_there(bus_engine, cluster_node):
    there = cluster_node("there")
    bus_engine.freeze()
    one = cluster_node("a", required=False)
    anna = one.client("anna")
    assert one.cluster.state is ClusterState.LOST
    assert one.cluster.send("anna", b"own") is True
    assert one.cluster.broadcast(b"all") == (1, False)
    with pytest.raises(pysock.BusDown):
        one.cluster.call("any")
    bus_engine.thaw()
    wait_until_known([one, there], ["anna"])
    assert there.cluster.send("anna", b"here") is True
    wait_for(lambda: anna.pushed == [b"own", b"all", b"here"])


def test_what_is_too_large_is_told(two_nodes):
    one, other = two_nodes
    bert = other.client("bert")
    wait_until_known(two_nodes, ["bert"])
    most = one.cluster._bus.max_payload - 4096
    assert one.cluster.send("bert", bytes(most)) is True
    for call in (one.cluster.broadcast, lambda data: one.cluster.send("bert", data)):
        with pytest.raises(pysock.FrameTooLarge, match=f"over what the cluster's bus takes, {most} bytes"):
            call(bytes(most + 1))
    wait_for(lambda: [len(pushed) for pushed in bert.pushed] == [most])


def test_what_the_other_node_refuses_is_told(cluster_node):
    one = cluster_node("a")
    other = cluster_node("b", server={"limits": pysock.Limits(max_payload=1000)})
    other.client("bert")
    wait_until_known([one, other], ["bert"])
    with pytest.raises(pysock.FrameTooLarge, match=r"over Limits.max_payload of 1000 bytes"):
        one.cluster.send("bert", bytes(1001))


def test_forged_messages_disturb_nobody(two_nodes, bus_url):
    one, other = two_nodes
    other.client("bert")
    wait_until_known(two_nodes, ["bert"])
    epoch, subjects = other.cluster._member.directory.epoch, other.cluster._subjects
    client = number(Tag.CLIENT, next(iter(other.server.clients)))
    bad = [b"", b"x", b"PC\x01\xff\x00\x00", b"PC\x09\x01\x00\x00"]
    bad += [messages.encode(kind, 7, 1) for kind in MessageKind]
    bad += [messages.encode(kind, 7, 1, [client, number(Tag.TIMEOUT, 1)]) for kind in MessageKind]
    bus = bus_of(bus_url, node="stranger")
    bus.start(lambda state: None)
    wait_for(lambda: bus.state.value == "connected")
    ended = []
    for payload in bad:
        for subject in (subjects.all, subjects.broadcast, subjects.node(epoch)):
            bus.publish(subject, payload)
        bus.request(subjects.node(epoch), payload, 0.2, lambda *end: ended.append(end))
    wait_for(lambda: len(ended) == len(bad))
    bus.close()
    assert other.cluster._member.directory.foreign
    wait_for(lambda: not other.server.clients)  # which one of them has asked for, as any node may
    other.client("carl")
    wait_until_known(two_nodes, ["carl"])
    assert one.cluster.send("carl", b"") is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "nothing:x"}, "must begin with the kind of the bus"),
        ({"url": "local:a b"}, "must name the local bus"),
        ({"name": "a.b"}, "letters, digits, - and _"),
        ({"node": "a/b"}, "without blanks, / and commas"),
        ({"unique": "last"}, "'newest' or 'oldest'"),
        ({"required": -1}, "must be 0 or more seconds"),
    ],
)
def test_wrong_parameters_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        pysock.Cluster(**{"url": "local:x", **options})


def test_what_is_said_too_late_or_twice(make_server, unix_address, two_nodes):
    cluster = two_nodes[0].cluster
    with pytest.raises(pysock.PysockError, match="has a server already"):
        make_server(unix_address, cluster=cluster)
    with pytest.raises(pysock.PysockError, match="before its server is started"):
        cluster.service("late")
    with pytest.raises(pysock.PysockError, match="before its server is started"):
        cluster.on_node(lambda node, change: None)
    new = pysock.Cluster("local:x")
    new.service("a")(lambda node, request: b"")
    with pytest.raises(ValueError, match="registered already"):
        new.service("a")(lambda node, request: b"")
    with pytest.raises(TypeError, match="must take so many arguments"):
        new.service("b")(lambda request: b"")
    with pytest.raises(TypeError, match="by its name, or a row"):
        cluster.send(7, b"")
    with pytest.raises(pysock.PysockError, match="doesn't run"):
        new.broadcast(b"")


def test_in_a_forked_child_it_is_its_parents(two_nodes):
    cluster = two_nodes[0].cluster
    child = os.fork()
    if not child:
        try:
            cluster.broadcast(b"")
        except pysock.PysockError as error:
            os._exit(7 if "forked child" in str(error) else 8)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert cluster.broadcast(b"") == (0, True)
