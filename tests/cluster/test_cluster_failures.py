"""What may happen to a cluster, and what it then does: on every bus.

| what happens | right | test: of this file, where no other one is named |
|---|---|---|
| no bus at the start, or later | local service goes on; ``BusDown`` at once | ``test_cluster_trouble.py`` |
| a node is killed | ``NodeGone``; gone within 5 s, with its clients | ``test_cluster_trouble.py``, ``lab/chaos.py`` |
| it is stopped, and goes on | gone, then back as the same node | ``test_a_node_that_was_stopped...`` |
| halves, both with clients of one name | each is consistent; then one decision | ``test_two_halves...`` |
| it hears, and isn't heard | gone for others; its own probe notices | ``test_a_node_that_hears...`` |
| a message is lost | its list is fetched within 3 s | ``test_a_lost...``, ``test_of_many...`` |
| very many clients come at once | few messages, nobody is too slow | ``test_very_many...`` |
| it is too slow, and the bus cuts it | it is back, and knows all | ``test_a_node_that_the_bus_has_cut...`` |
| the bus dies, and another one is there | all know all again | ``test_when_another...``, ``test_bus_redis.py`` |
| what a connection had in it comes after newer ones | it is dropped | ``test_what_was_on_its_way...`` |
| clocks an hour apart | nothing | ``test_clocks...`` |
| a payload over the bus's limit | ``FrameTooLarge`` | ``test_cluster_trouble.py`` |
| two versions of the protocol | neither is a node for the other; told of once | ``test_a_node_of_another_version...`` |
| forged messages | counted and dropped | ``test_cluster_trouble.py``, ``test_bus_trouble.py`` |
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from buses import Node
from cluster_fixtures import wait_until_known
from programs import missing
from support import wait_for

import pysock
from pysock import ClusterState
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind
from pysock.cluster.directory.words import GONE
from pysock.errors import BusDown

#: How long a node that is gone is one, with what it takes to look.
NOTICED = 5.3


@pytest.fixture
def bus_url(bus_engine):
    """It is no node's."""
    return bus_engine.url


def deaf_to(node, is_lost):
    """A node that doesn't hear the messages of which this is true."""
    bus = node.cluster._bus
    hear = type(bus).hear.__get__(bus)

    def heard(route, payload, answer):
        message = messages.decode(payload) if payload else None
        if message is None or not is_lost(message):
            hear(route, payload, answer)

    bus.hear = heard


def names_at(node):
    return sorted(row.name for row in node.cluster.clients.values())


@pytest.mark.slow
def test_a_node_that_was_stopped_is_gone_and_comes_back(cluster_node, node_process):
    one, other = cluster_node("a"), node_process("b", "x", "y")
    anna = one.client("anna")
    wait_until_known([one], ["anna", "x", "y"])
    epoch = one.cluster.nodes[1].epoch
    other.stop()
    begin = time.monotonic()
    wait_for(lambda: names_at(one) == ["anna"], "it to be gone")
    assert GONE - 1.1 < time.monotonic() - begin < NOTICED
    anna.close()
    other.go_on()
    wait_until_known([one], ["x", "y"])
    assert [node.epoch for node in one.cluster.nodes[1:]] == [epoch]
    wait_for(lambda: other.look()["clients"] == ["", "x", "y"], "that anna has gone to be known")
    assert other.look()["epoch"] == epoch


def test_a_node_that_the_bus_has_cut_as_too_slow_is_back_and_knows_all(cluster_node, node_process):
    one, other = cluster_node("a"), node_process("b", "x")
    wait_until_known([one], ["x"])
    row = one.cluster.by_name("x")._replace(id=7)  # no client: what it is sent is dropped where it comes
    other.stop()
    payload = bytes(one.cluster._bus.max_payload - 4096)
    for _ in range(100):
        wait_for(lambda: pushed(one, row, payload), "room")
    one.client("anna")
    wait_until_known([one], ["anna", "x"])
    other.go_on()
    wait_for(lambda: other.look()["clients"] == ["", "anna", "x"], "it to know all")
    wait_for(lambda: other.look()["state"] == "connected", "the state")
    assert one.cluster.send("x", b"") is True


def pushed(node, row, payload):
    try:
        return node.cluster.send(row, payload, ack=False)
    except BusDown:
        return False


@pytest.mark.slow
def test_two_halves_decide_the_same_of_a_name_when_they_are_one_again(cluster_node):
    nodes = [cluster_node(name, unique="newest") for name in "abc"]
    wait_for(lambda: all(len(node.cluster.nodes) == 3 for node in nodes))
    halves = [nodes[:1], nodes[1:]]
    for half, others in (halves, halves[::-1]):
        epochs = {node.cluster._member.directory.epoch for node in others}
        for node in half:
            deaf_to(node, lambda message, epochs=epochs: message.epoch in epochs)
    wait_for(lambda: [len(node.cluster.nodes) for node in nodes] == [1, 2, 2], "the halves")
    kept = nodes[1].client("other")
    clients = [nodes[0].client("x"), nodes[2].client("x")]
    wait_until_known(halves[0], ["x"])
    wait_until_known(halves[1], ["other", "x"])
    assert [node.cluster.by_name("x").node for node in nodes] == ["a", "c", "c"]
    for node in nodes:
        deaf_to(node, lambda message: False)
    wait_for(lambda: sum(len(node.server.clients) for node in nodes) == 2, "one of them to be told")
    wait_until_known(nodes, ["other", "x"])
    (winner,) = {node.cluster.by_name("x").node for node in nodes}
    for client in (clients["ac".index(winner)], kept):
        client.request(b"", "join")
    with pytest.raises(ConnectionError, match="replaced"):
        clients["ca".index(winner)].request(b"", "join")


@pytest.mark.slow
def test_a_node_that_hears_and_isnt_heard_notices_it_itself(cluster_node):
    one, other = cluster_node("a"), cluster_node("b")
    other.client("x")
    wait_until_known([one], ["x"])
    bus, begin = other.cluster._bus, time.monotonic()
    bus.send_publish = lambda *_: None
    wait_for(lambda: other.cluster.state is ClusterState.LOST, "it to notice", timeout=7)
    noticed = time.monotonic() - begin
    wait_for(lambda: names_at(one) == [], "the others to notice")
    assert noticed < 6.3
    assert time.monotonic() - begin < max(NOTICED, noticed + 0.3)
    del bus.send_publish
    wait_until_known([one, other], ["x"])
    assert other.cluster.by_name("x").is_local


def test_a_lost_announcement_is_made_good_in_time(cluster_node):
    one, other = cluster_node("a"), cluster_node("b")
    lost = []
    deaf_to(one, lambda message: message.kind == MessageKind.BATCH and not lost and not lost.append(message))
    other.client("x")
    wait_for(lambda: lost, "it to be lost")
    begin = time.monotonic()
    wait_until_known([one], ["x"])
    assert time.monotonic() - begin < 3


def test_of_many_announcements_some_are_lost(cluster_node):
    one, other = cluster_node("a"), cluster_node("b")
    chance = random.Random(5)
    lost = []
    deaf_to(one, lambda message: chance.random() < 0.05 and not lost.append(message))
    station = other.cluster._member.station
    for number in range(100):
        station.joined(number << 32 | 1, b"c%d" % number, 0.0, False)
        if number % 3 == 0:
            station.left(number << 32 | 1)
        time.sleep(0.004)  # into several batches
    wait_for(lambda: len(one.cluster.clients) == 66 and other.cluster.state is ClusterState.CONNECTED, timeout=5)


def test_very_many_clients_that_come_at_once_are_few_messages(cluster_node, bus_engine, bus_prefix):
    """As after the death of their node, at the two others."""
    nodes = [cluster_node(name) for name in "abc"]
    listener = Node(bus_engine.url, "listener", nodes[0].cluster._subjects.prefix)
    heard = []
    listener.bus.subscribe(nodes[0].cluster._subjects.all, lambda message: heard.append(len(message.payload)))
    listener.start()
    listener.settle()
    try:
        for number in range(10_000):
            for node in nodes[1:]:
                node.cluster._member.station.joined(number << 32 | 1, b"client-%d" % number, 1.0, False)
        for node in nodes:
            wait_for(lambda node=node: len(node.cluster.clients) == 20_000, "all to know all")
            assert node.cluster._bus.dropped == 0
            assert node.cluster.state is ClusterState.CONNECTED
        assert len(heard) < 200
        assert sum(heard) < 20_000 * 50
        assert max(heard) < 64 * 1024
    finally:
        listener.bus.close()


def test_when_another_bus_is_there_all_know_all_again(bus_engine, cluster_node):
    """The local one is run by a node then."""
    nodes = [cluster_node(name) for name in "ab"]
    nodes[0].client("anna")
    wait_until_known(nodes, ["anna"])
    bus_engine.kill()
    wait_for(lambda: nodes[0].cluster.state is not ClusterState.CONNECTED, "it to be noticed")
    nodes[1].client("bert")
    if bus_engine.kind != "local":
        bus_engine.mend()
    wait_until_known(nodes, ["anna", "bert"])
    for node in nodes:
        wait_for(lambda node=node: node.cluster.state is ClusterState.CONNECTED)
    assert nodes[0].cluster.send("bert", b"") is True


def test_what_was_on_its_way_over_a_connection_before_comes_too_late(cluster_node):
    """A kernel, or a bus that was stopped, may have kept it, and newer ones have overtaken it."""
    one, other = cluster_node("a"), cluster_node("b")
    one.client("own", "all")
    bert = other.client("bert", "all")
    wait_until_known([one, other], ["bert", "own"])
    bus, kept = other.cluster._bus, []
    hear = type(bus).hear.__get__(bus)

    def keep(route, payload, answer):
        if payload and messages.decode(payload).kind in {MessageKind.PUSH, MessageKind.GROUP, MessageKind.BROADCAST}:
            kept.append((route, payload, answer))
        else:
            hear(route, payload, answer)

    say = (
        lambda text: one.cluster.send("bert", text, ack=False),
        one.cluster.group("all").send,
        one.cluster.broadcast,
    )
    bus.hear = keep
    for each in say:
        each(b"old")
    wait_for(lambda: len(kept) == 3, "them to be on their way")
    one.cluster._bus.reconnect()
    wait_for(lambda: one.cluster.state is not ClusterState.CONNECTED, "the connection to be lost")
    wait_for(lambda: one.cluster.state is ClusterState.CONNECTED, "the next one")
    del bus.hear
    for each in say:
        each(b"new")
    wait_for(lambda: bert.pushed == [b"new"] * 3, f"{bert.pushed}")
    for old in kept:
        hear(*old)
    one.cluster.send("bert", b"last")
    wait_for(lambda: bert.pushed[-1] == b"last", f"{bert.pushed}")
    assert bert.pushed == [b"new"] * 3 + [b"last"]


def test_clocks_an_hour_apart_change_nothing(cluster_node, node_process):
    one = cluster_node("a", unique="newest")
    late, early = (node_process(node, **skewed(by)) for node, by in (("late", "-1h"), ("early", "+1h")))
    assert early.look()["time"] - late.look()["time"] > 7100
    for name, there in (("x", early), ("y", late)):
        with pysock.connect(there.address, name=name) as client:
            client.request(b"", "look")
            wait_for(lambda name=name: name in names_at(one), "it to be known")
            assert one.cluster.send(name, b"") is True
            one.client(name)
            assert one.cluster.by_name(name).node == "a"
    for each in (early, late):
        wait_for(lambda each=each: each.look()["clients"] == ["", "x", "y"], "the others to have gone")
    assert [node.suspect for node in one.cluster.nodes] == [False] * 3


def skewed(by):
    """The environment of a program whose clock is so wrong."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    library = library or missing("faketime isn't installed: nothing has been tested with clocks that are wrong")
    return {"LD_PRELOAD": str(library), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def test_a_node_of_another_version_is_none_and_is_told_of_once(cluster_node, node_process, caplog):
    one = cluster_node("a")
    other = node_process("b", "x", major=messages.MAJOR + 1)
    versions = one.cluster._member.directory.other_versions
    wait_for(lambda: versions.get(messages.MAJOR + 1, 0) > 3, "it to be heard")
    assert [node.name for node in one.cluster.nodes] == ["a"]
    assert names_at(one) == []
    assert other.look()["nodes"] == ["b"]
    assert caplog.text.count(f"speaks version {messages.MAJOR + 1}") == 1
