"""Servers that behave as one: who is where, and what reaches a client on whatever node."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

import pytest
from cluster_fixtures import wait_until_known
from support import wait_for

import pysock
from pysock import ClusterState, NodeChange
from pysock.wire.nodes import NodeState, decode_nodes


def test_each_node_knows_the_clients_of_all(two_nodes):
    one, other = two_nodes
    assert one.cluster.state is ClusterState.CONNECTED
    anna, bert = one.client("anna"), other.client("bert")
    wait_until_known(two_nodes, ["anna", "bert"])
    row = one.cluster.by_name("bert")
    (client_id,) = other.server.clients
    assert (row.node, row.id, row.is_local, row.stale) == ("b", client_id, False, False)
    assert one.cluster.clients[row.address] == row
    assert row.address == f"b/{pysock.base.ids.shown(client_id)}"
    assert one.cluster.by_name("anna").is_local
    assert set(one.cluster.clients) == set(other.cluster.clients) == {row.address, one.cluster.by_name("anna").address}
    assert len(one.cluster.clients) == 2
    assert "b/77.77" not in one.cluster.clients
    nodes = one.cluster.nodes
    assert [(node.name, node.clients, node.is_local, node.draining) for node in nodes] == [
        ("a", 1, True, False),
        ("b", 1, False, False),
    ]
    assert nodes[1].addresses == (str(other.server.addresses[0]),)
    bert.close()
    wait_until_known(two_nodes, ["anna"])
    with pytest.raises(KeyError):
        one.cluster.by_name("bert")
    anna.close()


def test_of_one_name_the_last_one_is_meant(two_nodes):
    one, other = two_nodes
    one.client("x")
    wait_until_known(two_nodes, ["x"])
    last = other.client("x")
    wait_until_known(two_nodes, ["x", "x"])
    assert [row.node for row in one.cluster.all_by_name("x")] == ["a", "b"]
    for each in two_nodes:
        assert each.cluster.by_name("x").node == "b"
        assert each.cluster.send("x", b"to the last")
    wait_for(lambda: len(last.pushed) == 2)


def test_a_push_reaches_a_client_on_whatever_node(two_nodes):
    one, other = two_nodes
    anna, bert = one.client("anna"), other.client("bert")
    wait_until_known(two_nodes, ["anna", "bert"])
    for number in range(50):
        assert one.cluster.send("bert", b"%d" % number, ack=number % 3 > 0) is True
        assert one.cluster.send("anna", b"%d" % number) is True
    assert one.cluster.send(one.cluster.by_name("bert"), b"the row") is True
    wait_for(lambda: len(bert.pushed) == 51)
    wait_for(lambda: len(anna.pushed) == 50)
    assert bert.pushed == [*(b"%d" % number for number in range(50)), b"the row"]
    row = one.cluster.by_name("bert")
    bert.close()
    wait_until_known(two_nodes, ["anna"])
    assert one.cluster.send(row, b"") is False
    assert one.cluster.send("bert", b"") is False
    assert one.cluster.send("bert", b"", ack=False) is False


def test_groups_and_broadcasts_reach_all_nodes(cluster_node):
    nodes = [cluster_node(name) for name in "abc"]
    members = [nodes[0].client("m0", "red"), nodes[2].client("m2", "red")]
    others = [nodes[0].client("o0"), nodes[1].client("o1", "blue")]
    wait_until_known(nodes, ["m0", "m2", "o0", "o1"])
    assert wait_for(lambda: nodes[1].cluster.group("red").send(b"red")) == pysock.Spread(0, True)
    for member in members:
        wait_for(lambda member=member: member.pushed == [b"red"])
    assert nodes[0].cluster.group("red").send(b"again") == pysock.Spread(1, True)
    assert nodes[0].cluster.broadcast(b"all") == pysock.Spread(2, True)
    for member in members:
        wait_for(lambda member=member: len(member.pushed) == 3)
        assert sorted(member.pushed) == [b"again", b"all", b"red"]
    for other in others:
        wait_for(lambda other=other: other.pushed == [b"all"])


def test_a_client_is_asked_through_its_node(two_nodes):
    two_nodes[1].client("bert")
    wait_until_known(two_nodes, ["bert"])
    for each in two_nodes:
        assert each.cluster.request("bert", b"x", "upper") == b"X"
        with pytest.raises(pysock.RemoteError, match="AttributeError") as failed:
            each.cluster.request("bert", b"x", "fail")
        assert (failed.value.code, failed.value.type) == (1, "AttributeError")
        with pytest.raises(pysock.RemoteError) as failed:
            each.cluster.request("bert", b"x", "nothing")
        assert failed.value.code == pysock.ErrorCode.NO_SUCH_SERVICE
        with pytest.raises(pysock.ConnectionLost, match="isn't connected"):
            each.cluster.request("carl", b"x")


def test_a_client_that_does_not_answer_in_time_is_told(two_nodes):
    one, other = two_nodes
    begun, over = threading.Event(), threading.Event()

    def slow(client, request):
        begun.set()
        over.wait(10)

    with pysock.connect(other.server.addresses[0], name="slow", services={"slow": slow}):
        wait_until_known(two_nodes, ["slow"])
        with pytest.raises(pysock.RequestTimeout):
            one.cluster.request("slow", b"", "slow", timeout=0.2)
        assert begun.wait(10)
        over.set()


def test_a_client_is_disconnected_through_its_node(two_nodes):
    one, other = two_nodes
    bert = other.client("bert")
    wait_until_known(two_nodes, ["bert"])
    assert one.cluster.disconnect("bert") is True
    wait_until_known(two_nodes, [])
    assert one.cluster.disconnect("bert") is False
    with pytest.raises(ConnectionError):
        bert.request(b"", "join")


def test_a_service_of_the_cluster_is_run_by_a_node_that_has_it(cluster_node):
    def prepare(server):
        @server.cluster.service("plain")
        def plain(node, request):
            return b"%s %s" % (node.encode(), request.upper())

        @server.cluster.service("an async one")
        async def late(node, request):
            await asyncio.sleep(0.001)
            return request + b"!"

        @server.cluster.service("fails")
        def fails(node, request):
            raise ValueError("no")

    one, other = cluster_node("a"), cluster_node("b", prepare)
    for each in (one, other):
        assert wait_for(lambda each=each: each.cluster.call("plain", b"x")) == f"{each.cluster.node} X".encode()
        assert each.cluster.call("an async one", b"x") == b"x!"
        with pytest.raises(pysock.RemoteError, match="ValueError: no"):
            each.cluster.call("fails")
        with pytest.raises(pysock.RemoteError, match="no node of the cluster has a service 'none'") as failed:
            each.cluster.call("none")
        assert (failed.value.code, failed.value.started) == (pysock.ErrorCode.NO_SUCH_SERVICE, False)


def test_where_it_may_wait(cluster_node):
    """A task awaits, a worker blocks, and a handler in the loop is told that it must not."""

    def prepare(server):
        cluster = server.cluster

        @server.service("task")
        async def task(client, request):
            return b"%d %s" % (await cluster.send("bert", b"task"), await cluster.request("bert", b"x", "upper"))

        @server.service("worker", threads=1)
        def worker(client, request):
            return b"%d %s" % (cluster.send("bert", b"worker"), cluster.request("bert", b"x", "upper"))

        @server.service("loop")
        def loop(client, request):
            for call in (cluster.send, cluster.request):
                with pytest.raises(pysock.PysockError, match="in the thread of the server's loop"):
                    call("bert", b"")
            return b"%d" % cluster.send("bert", b"loop", ack=False)

    one, other = cluster_node("a", prepare), cluster_node("b")
    anna, bert = one.client("anna"), other.client("bert")
    wait_until_known([one, other], ["anna", "bert"])
    assert anna.request(b"", "task") == b"1 X"
    assert anna.request(b"", "worker") == b"1 X"
    assert anna.request(b"", "loop") == b"1"
    wait_for(lambda: bert.pushed == [b"task", b"worker", b"loop"])


@pytest.mark.parametrize(("unique", "stays"), [("newest", 1), ("oldest", 0)])
def test_of_a_unique_name_one_client_stays(cluster_node, unique, stays):
    nodes = [cluster_node(name, unique=unique) for name in "ab"]
    with ExitStack() as stack:
        clients = []
        for one in nodes:
            clients.append(stack.enter_context(pysock.connect(one.server.addresses[0], name="x")))
            wait_for(lambda: "x" in [row.name for row in nodes[1].cluster.clients.values()])
        wait_for(lambda: not nodes[1 - stays].server.clients)
        wait_until_known(nodes, ["x"])
        for one in nodes:
            assert one.cluster.by_name("x").node == "ab"[stays]
        clients[stays].request(b"", "join")
        with pytest.raises(ConnectionError):
            clients[1 - stays].request(b"", "join")


def test_clients_learn_of_all_nodes_from_one(two_nodes, cluster_node):
    """By the service _nodes, as those with balance= ask it; who waits for news is told when a node comes or goes."""
    one, other = two_nodes
    other.client("bert")
    wait_until_known(two_nodes, ["bert"])
    with pysock.connect(one.server.addresses[0], name="asks") as client:
        version, nodes = decode_nodes(client.request(b"", "_nodes"))
        assert [(row.addresses, row.clients) for row in nodes] == [
            ((str(each.server.addresses[0]),), 1) for each in two_nodes
        ]
        waiting = threading.Timer(0.05, cluster_node, ["c"])
        waiting.start()
        while len(nodes) < 3:
            version, nodes = decode_nodes(client.request(version, "_nodes"))
        waiting.join()
        other.server.lame()
        _, nodes = decode_nodes(client.request(version, "_nodes"))
        assert [row.state for row in nodes] == [NodeState.SERVING, NodeState.DRAINING, NodeState.SERVING]


def test_clients_go_to_another_node_when_theirs_ends(two_nodes):
    one, other = two_nodes
    with pysock.connect(one.server.addresses[0], name="moves", balance="first", reconnect=True) as client:
        client.request(b"", "join")
        wait_for(lambda: len(client._balancer.wanted()) == 2, "it to learn of the other one")
        one.server.stop()
        client.request(b"", "join")
        wait_for(lambda: [row.name for row in other.cluster.clients.values()] == ["moves"])


def test_hooks_tell_of_nodes_in_the_loop(cluster_node):
    told, threads = [], set()

    def prepare(server):
        @server.cluster.on_node
        def on_node(node, change):
            told.append((node.name, change))
            threads.add(threading.current_thread().name)

        @server.cluster.on_state
        def on_state(old, new):
            told.append((old, new))

    cluster_node("a", prepare)
    other = cluster_node("b")
    wait_for(lambda: ("b", NodeChange.JOINED) in told)
    other.server.stop()
    wait_for(lambda: ("b", NodeChange.LEFT) in told)
    assert (ClusterState.SYNCING, ClusterState.CONNECTED) in told
    assert len(threads) == 1
    assert threads.pop().startswith("pysock-")
