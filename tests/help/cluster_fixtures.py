"""Fixtures of clusters: nodes with clients, which are ended after the test. On every bus: see ``bus_engine``."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from cluster_program import NodeProcess
from support import environment, wait_for

import pysock
from pysock.cluster.directory.messages import MAJOR


class ClusterNode:
    """One server that is a node, and its clients, which answer and note what is pushed to them."""

    def __init__(self, server, stack):
        self.server = server
        self.cluster = server.cluster
        self._stack = stack

    def client(self, name="", group=None):
        """One that is let in, and in a group; ``pushed`` is what it gets."""
        services = {"upper": lambda _, request: bytes(request).upper(), "fail": lambda _, request: request.missing}
        client = pysock.connect(self.server.addresses[0], name=name, services=services)
        self._stack.enter_context(client)
        client.pushed = []
        client.on_push(client.pushed.append)
        client.request(b"" if group is None else group.encode(), "join")
        return client


def wait_until_known(nodes, names):
    """Every node knows of just these clients."""
    wanted = sorted(names)
    for one in nodes:
        wait_for(lambda one=one: sorted(row.name for row in one.cluster.clients.values()) == wanted, f"{wanted}")


@pytest.fixture
def bus_url(bus_engine, socket_dir):
    """A bus. Of the local one the nodes run the hub themselves, as they usually do."""
    return f"local:{socket_dir}/bus.sock" if bus_engine.kind == "local" else bus_engine.url


@pytest.fixture
def cluster_name(bus_prefix):
    """The name of this test's cluster: others are on the same bus."""
    return bus_prefix.partition(".")[2]


@pytest.fixture
def cluster_node(make_server, socket_dir, bus_url, cluster_name):
    """``cluster_node(node, prepare, **options)``: a node that runs; ``prepare`` gets its server first."""
    with ExitStack() as stack:

        def make(node, prepare=None, server=(), **options):
            cluster = pysock.Cluster(bus_url, **{"name": cluster_name, "node": node, "required": 10.0, **options})
            made = make_server(f"unix:{socket_dir}/{node}", cluster=cluster, **dict(server))

            @made.service("join")
            def join(client, request):
                if request:
                    client.join(bytes(request).decode())

            if prepare is not None:
                prepare(made)
            stack.enter_context(made)
            return ClusterNode(made, stack)

        yield make


@pytest.fixture
def two_nodes(cluster_node):
    """Two that know each other; they become nodes at the same time."""
    nodes = [cluster_node(name, required=False) for name in "ab"]
    for one in nodes:
        wait_for(lambda one=one: len(one.cluster.nodes) == 2, "the other node")
        wait_for(lambda one=one: one.cluster.state is pysock.ClusterState.CONNECTED, "the state")
    return nodes


@pytest.fixture
def node_process(socket_dir, bus_url, cluster_name):
    """``node_process(node, *clients, **variables)``: a node in a process of its own; it is killed in the end."""
    made = []

    def make(node, *clients, major=MAJOR, **variables):
        given = {"url": bus_url, "name": cluster_name, "node": node, "clients": clients, "major": major}
        made.append(NodeProcess(f"unix:{socket_dir}/{node}", environment(**variables), **given))
        return made[-1]

    yield make
    for one in made:
        one.kill()
