"""What may be wrong with a cluster as its server meets it: the server's own clients never notice, and it says what."""

from __future__ import annotations

import socket
import threading

import pytest
from buses import Nats, Redis
from cluster_fixtures import wait_until_known
from support import PATIENCE, own_host, run_python, wait_for

import pysock
from pysock.cluster.bus.spine import Spine

NATS_USERS = """
authorization { users: [
  {user: u, password: p},
  {user: small, password: p, permissions: {publish: "pysock.other.>", subscribe: "pysock.other.>"}}
] }
"""
REDIS_USERS = """
user default off
user u on >p ~* &* +@all
user small on >p resetchannels &pysock.other.* +@pubsub +@connection
"""
BUSES = {"nats": (Nats, NATS_USERS), "redis": (Redis, REDIS_USERS)}


@pytest.fixture
def lonely(make_server, unix_address):
    """``lonely(url)``: a node that can't use its bus, and has found that out; it serves."""
    made = []

    def make(url):
        server = make_server(unix_address, cluster=pysock.Cluster(url, node="a"))
        server.service(lambda client, request: bytes(request).upper())
        made.append(server)
        server.start()
        wait_for(lambda: server.cluster._bus.has_failed)
        return server

    yield make
    for server in made:
        server.stop()


def served_all_the_same(server):
    """Its own client is served and reached; whatever needs the bus says at once that it is down, and why."""
    with pysock.connect(server.addresses[0], name="anna") as anna:
        assert anna.request(b"served") == b"SERVED"
        wait_for(lambda: server.cluster.all_by_name("anna"))
        assert server.cluster.send("anna", b"own") is True
        assert next(anna.pushes(PATIENCE)) == b"own"
        assert server.cluster.broadcast(b"all") == (1, False)
        with pytest.raises(pysock.BusDown) as caught:
            server.cluster.call("any")
    assert server.cluster.status()["why"] in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", BUSES)
@pytest.mark.parametrize(
    ("user", "words"), [("u:wr0ng", "the server refuses this user"), ("small:p", "allows this user too little")]
)
def test_a_user_that_the_bus_refuses(bus_server, lonely, caplog, monkeypatch, kind, user, words):
    failed, unlinked = [], Spine.unlinked
    monkeypatch.setattr(Spine, "unlinked", lambda *args, **how: failed.append(unlinked(*args, **how)))
    host = bus_server(*BUSES[kind]).host
    server = lonely(f"{kind}://{user}@{host}")
    wait_for(lambda: words in server.cluster._bus.why)
    text = served_all_the_same(server)
    wait_for(lambda: len(failed) >= 3, "it to be tried again")
    assert "wr0ng" not in text + caplog.text
    assert len([line for line in caplog.messages if words in line]) == 1  # though it is tried again and again


@pytest.mark.parametrize("kind", BUSES)
def test_a_bus_that_speaks_something_else(lonely, kind):
    with socket.create_server((own_host(), 0)) as listener:

        def serve():
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                with client:
                    client.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        server = lonely(f"{kind}://{own_host()}:{listener.getsockname()[1]}")
        assert "what listens there is no" in served_all_the_same(server)
        server.stop()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@pytest.mark.parametrize(("kind", "library"), [("nats", "nats"), ("redis", "hiredis"), ("redis+sentinel", "hiredis")])
@pytest.mark.parametrize("call", ["Cluster('", "connect('cluster+"])
def test_without_its_library_no_cluster_is_made_or_found(kind, library, call):
    code = f"""
import sys
sys.modules[{library!r}] = None
import pysock
try:
    pysock.{call}{kind}://host/x')
except ImportError as error:
    print(error)
"""
    assert f"pip install 'pysock-engine[{kind.partition('+')[0]}]'" in run_python(code).stdout


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "x" * 65, "ä", 7])
def test_a_name_that_is_no_subject(name):
    with pytest.raises(ValueError, match="letters, digits, - and _"):
        pysock.Cluster("local:x", name=name)


def test_two_clusters_of_one_bus_do_not_meet_and_two_of_one_name_are_one(cluster_node, cluster_name):
    one, other = cluster_node("a"), cluster_node("b", name=f"{cluster_name}x")
    third = cluster_node("c")
    one.client("anna")
    other.client("bert")
    wait_until_known([one, third], ["anna"])
    wait_until_known([other], ["bert"])
    assert sorted(node.name for node in one.cluster.nodes) == ["a", "c"]
    assert [node.name for node in other.cluster.nodes] == ["b"]
