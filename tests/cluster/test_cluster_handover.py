"""A node whose clients move to the process that follows: the others know of each once, and of none too long."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from support import wait_for

import pysock
from pysock.cluster import member
from pysock.wire.cir import encode_cir


@pytest.fixture
def bus_url(socket_dir):
    """Nodes alone matter here: the bus is the one that needs nothing."""
    return f"local:{socket_dir}/bus.sock"


class Generations:
    """A node and the one that follows it, ``old`` and ``new``, which doesn't run yet; and one that knows both."""

    def __init__(self, make_server, cluster_node, socket_dir, bus_url, name):
        self.watcher = cluster_node("watcher").cluster
        self.address = f"unix:{socket_dir}/s"
        self.may_go = threading.Event()
        self._make, self._bus = make_server, {"url": bus_url, "name": name, "required": 10.0}

    def made(self, node, **options):
        cluster = pysock.Cluster(node=node, **self._bus, **options)
        server = self._make(self.address, cluster=cluster, handover=f"{self.address}.next")

        @server.service("wait", threads=1)
        def wait(client, request):
            self.may_go.wait(20)
            return b"done"

        return server

    def known(self, *wanted):
        """Wait until this is who is known: names, with the nodes."""
        clients = self.watcher.clients
        wait_for(lambda: sorted(f"{row.name}@{row.node}" for row in clients.values()) == sorted(wanted), f"{wanted}")


@pytest.fixture
def generations(make_server, cluster_node, socket_dir, bus_url, cluster_name):
    made = Generations(make_server, cluster_node, socket_dir, bus_url, cluster_name)
    yield made
    made.may_go.set()


def test_each_is_at_one_node_alone_also_while_the_old_one_waits_for_who_is_busy(generations):
    old, new = generations.made("old"), generations.made("new")
    old.start()
    with pysock.connect(generations.address, name="idle"), pysock.connect(generations.address, name="busy") as busy:
        thread = threading.Thread(target=busy.request, args=(b"",), kwargs={"service": "wait"})
        thread.start()
        generations.known("idle@old", "busy@old")
        new.start()
        generations.known("idle@new", "busy@old")
        generations.may_go.set()
        generations.known("idle@new", "busy@new")
        thread.join(20)


def test_who_was_not_let_in_yet_is_known_by_its_name_when_it_is(generations, socket_dir):
    old, new = generations.made("old"), generations.made("new")
    old.start()
    with socket.socket(socket.AF_UNIX) as late, pysock.connect(generations.address, name="idle"):
        late.connect(f"{socket_dir}/s")
        wait_for(lambda: old.stats()["pending"] == 1)
        new.start()
        generations.known("idle@new")
        late.sendall(encode_cir(name="late"))
        generations.known("idle@new", "late@new")


@pytest.mark.parametrize("unique", ["newest", "oldest"])
def test_who_moves_is_not_its_own_rival(generations, unique):
    old, new = (generations.made(node, unique=unique) for node in ("old", "new"))
    old.start()
    with pysock.connect(generations.address, name="anna") as anna:
        generations.known("anna@old")
        generations.may_go.set()
        new.start()
        generations.known("anna@new")
        wait_for(lambda: old.state is pysock.ServerState.CLOSED)
        assert anna.request(b"", service="wait") == b"done"
        assert [row.name for row in new.clients.values()] == ["anna"]


@pytest.mark.parametrize("follows", [True, False])
def test_one_that_follows_may_have_the_same_name(generations, cluster_node, monkeypatch, caplog, follows):
    monkeypatch.setattr(member, "DOUBLED", 2.0)
    old = generations.made("a")
    old.start()
    if follows:
        generations.made("a").start()
        wait_for(lambda: old.state is pysock.ServerState.CLOSED)
    else:
        cluster_node("a")
    late = time.monotonic() + 3.0
    wait_for(lambda: "two nodes of the cluster are called 'a'" in caplog.text or time.monotonic() > late)
    assert ("two nodes of the cluster are called 'a'" in caplog.text) is not follows
