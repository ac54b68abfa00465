"""Clients that find the nodes of a cluster by its bus: on every bus, both clients, pools; and what they are told where
that fails.
"""

from __future__ import annotations

import asyncio

import pytest
from support import wait_for

import pysock
import pysock.aio
from pysock.balance import opening
from pysock.cluster.url import parted


@pytest.fixture
def bus_url(bus_engine):
    """It stays when nodes go."""
    return bus_engine.url


@pytest.fixture
def cluster(bus_url, cluster_name):
    """What a client connects to."""
    return (
        f"cluster+{bus_url}?name={cluster_name}"
        if bus_url.startswith("local:")
        else f"cluster+{bus_url}/{cluster_name}"
    )


def test_a_client_finds_a_node_by_the_bus_and_goes_to_the_other_when_that_ends(two_nodes, cluster):
    with pysock.connect(cluster, name="moves", reconnect=True) as client:
        client.request(b"", "join")
        at = next(one for one in two_nodes if one.server.clients)
        other = two_nodes[1 - two_nodes.index(at)]
        at.server.stop()
        client.request(b"", "join", idempotent=True)
        wait_for(lambda: [row.name for row in other.server.clients.values()] == ["moves"])


def test_an_asyncio_client_does_so_too(two_nodes, cluster):
    async def moves():
        async with pysock.aio.connect(cluster, name="moves", reconnect=True) as client:
            await client.request(b"", "join")
            at = next(one for one in two_nodes if one.server.clients)
            await asyncio.to_thread(at.server.stop)
            await client.request(b"", "join", idempotent=True)
            assert two_nodes[1 - two_nodes.index(at)].server.clients

    asyncio.run(moves())


def test_the_connections_of_a_pool_lead_to_all_of_a_few_nodes(two_nodes, cluster):
    with pysock.Pool(cluster, 4, "pooled") as pool:
        pool.request(b"", "join")
        assert [len(one.server.clients) for one in two_nodes] == [1, 1]

    async def pooled():
        async with pysock.aio.Pool(cluster, 4, "pooled") as pool:
            await pool.request(b"", "join")

    asyncio.run(pooled())


def test_where_the_bus_is_down_the_nodes_that_are_known_are_used(two_nodes, cluster, bus_engine, monkeypatch):
    monkeypatch.setattr(opening, "ASKED_WITHIN", 0.2)
    with pysock.connect(cluster, reconnect=True) as client:
        client.request(b"", "join")
        wait_for(lambda: len(client._balancer.wanted()) == 2, "it to learn of both")
        bus_engine.freeze()
        client._balancer.at_a_loss()  # so it asks the bus
        for one in two_nodes:
            for each in list(one.server.clients.values()):
                each.close()
        client.request(b"", "join", idempotent=True)
        bus_engine.thaw()


def test_a_node_that_comes_later_is_found_when_none_of_the_known_is_there(two_nodes, cluster, cluster_node):
    with pysock.connect(cluster, reconnect=pysock.Backoff(first=0.01, longest=0.05)) as client:
        client.request(b"", "join")
        client._balancer.discovers = False
        late = cluster_node("c")
        for one in two_nodes:
            one.server.stop()
        client.request(b"", "join", idempotent=True)
        assert late.server.clients


def test_where_no_node_is_there_it_says_so(bus_engine, cluster, bus_node):
    bus_node()  # of the local bus somebody runs it
    with pytest.raises(ConnectionRefusedError, match=r"the bus is there, but nobody there is a node of cluster 't\d+'"):
        pysock.connect(cluster)

    async def connects():
        await pysock.aio.connect(cluster)

    with pytest.raises(ConnectionRefusedError, match="start one, or correct the name"):
        asyncio.run(connects())


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1/x", "redis://127.0.0.1:1/x", "local:/nowhere/bus.sock"])
def test_where_the_bus_is_not_there_it_says_so(url):
    with pytest.raises(pysock.BusDown, match=r"can't be used: .*(nobody|Connect call failed|refused)"):
        pysock.connect(f"cluster+{url}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("cluster+amqp://host", "must begin with the kind of the bus"),
        ("cluster+nats://", "must name a host"),
        ("cluster+redis://h:99999999", "must name a host"),
        ("cluster+nats://h/a.b", "letters, digits, - and _"),
        ("cluster+local:", "must name the local bus"),
        ("cluster+local:bus/a b", "letters, digits, - and _"),
    ],
)
def test_a_wrong_url_is_told_at_once(url, words):
    with pytest.raises(ValueError, match=words):
        pysock.connect(url)
    with pytest.raises(ValueError, match=words):
        pysock.aio.connect(url)


@pytest.mark.parametrize(
    ("url", "bus", "name"),
    [
        ("nats://h:1/prod", "nats://h:1", "prod"),
        ("nats://u:p@a:1,nats://b:2/prod", "nats://u:p@a:1,nats://b:2", "prod"),
        ("nats://a,b/prod/", "nats://a,b", "prod"),
        ("redis://h", "redis://h", "default"),
        ("redis://h/", "redis://h", "default"),
        ("local:bus", "local:bus", "default"),
        ("local:bus/prod", "local:bus", "prod"),
        ("local:/run/bus.sock", "local:/run/bus.sock", "default"),
        ("local:/run/bus.sock?name=prod", "local:/run/bus.sock", "prod"),
    ],
)
def test_a_url_has_the_clusters_name_behind_the_bus(url, bus, name):
    found, said = parted(url)
    assert (found.rstrip("/"), said) == (bus, name)


def test_a_name_is_said_once_or_twice_the_same():
    assert parted("nats://h/prod", "prod") == ("nats://h", "prod")
    with pytest.raises(ValueError, match="the name of the cluster is 'other', and the URL ends with 'prod'"):
        parted("nats://h/prod", "other")
    assert pysock.Cluster("local:bus/prod", node="a").name == "prod"
