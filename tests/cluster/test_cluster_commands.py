"""``pysock cluster``: what its commands print, whom they reach, and their exit codes, on every bus."""

from __future__ import annotations

import json
import re
import signal
from types import SimpleNamespace

import pytest
from buses import Nats, Redis
from cluster_fixtures import wait_until_known
from programs import Module
from support import PATIENCE, wait_for

import pysock
from pysock.cli import main as cli
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusReport
from pysock.cluster.directory import messages
from pysock.cluster.directory.messages import MessageKind
from pysock.cluster.examining import bus_findings, cluster_findings


@pytest.fixture
def command(capfd, bus_url, cluster_name):
    """``command(what, *options)``: exit code, output and errors."""

    def call(what, *options):
        code = cli.main(["cluster", what, bus_url, "--cluster-name", cluster_name, *map(str, options)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def people(two_nodes):
    """Clients by name; anna and bert are at a, emil at b, and the last two in a group."""
    one, other = two_nodes
    made = {"anna": one.client("anna"), "bert": one.client("bert", "red"), "emil": other.client("emil", "red")}
    wait_until_known(two_nodes, made)
    return made


def test_nodes(command, people, two_nodes):
    two_nodes[1].server.lame()
    wait_for(lambda: two_nodes[0].cluster.nodes[1].draining)
    code, out, err = command("nodes")
    assert (code, err) == (0, "")
    head, first, second, total = out.splitlines()
    assert head.split() == ["NODE", "STATE", "CLIENTS", "ROOM", "HOST", "SOFTWARE", "ADDRESSES"]
    assert first.split()[:3] == ["a", "serving", "2"]
    assert second.split()[:3] == ["b", "draining", "1"]
    assert second.split()[-1] == str(two_nodes[1].server.addresses[0])
    assert total == "2 nodes, 3 clients"
    assert [node.name for node in two_nodes[0].cluster.nodes] == ["a", "b"]  # which didn't notice


def test_clients_as_json_and_in_columns(command, people):
    code, out, _ = command("clients", "--json")
    told = json.loads(out)["clients"]
    assert code == 0
    assert {(row["name"], row["node"], row["stale"]) for row in told} == {
        ("anna", "a", False),
        ("bert", "a", False),
        ("emil", "b", False),
    }
    code, out, err = command("clients", "--node", "a", "--name", "b*")
    assert (code, err) == (0, "")
    _, line, total = out.splitlines()
    assert line.split()[:3] == [next(row["address"] for row in told if row["name"] == "bert"), "bert", "a"]
    assert total == "1 client of 2 nodes"


def test_send(command, people, two_nodes):
    address = two_nodes[0].cluster.by_name("emil").address
    assert command("send", "--to", "anna", "one") == (
        0,
        f"in the queue of client {two_nodes[0].cluster.by_name('anna').address}\n",
        "",
    )
    assert json.loads(command("send", "--to", address, "two", "--json")[1])["to"] == address
    assert command("send", "--group", "red", "three")[:2] == (0, "told the nodes that have members of group 'red'\n")
    assert command("send", "--all", "four")[:2] == (0, "told all 2 nodes\n")
    wanted = {"anna": [b"one", b"four"], "bert": [b"three", b"four"], "emil": [b"two", b"three", b"four"]}
    wait_for(lambda: {name: client.pushed for name, client in people.items()} == wanted)


@pytest.mark.parametrize("backend", ["native"], indirect=True)
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--to", "nobody", "x"], 1, "no client of cluster 't\\d+' is 'nobody': see pysock cluster clients"),
        (["--to", "a/7.7", "x"], 1, "is 'a/7.7'"),
        (["--group", "blue", "x"], 1, "has a member of group 'blue'"),
        (["x"], 2, "say to whom: one of --to CLIENT, --group NAME and --all"),
        (["x", "--to", "anna", "--all"], 2, "say to whom"),
    ],
)
def test_send_to_nobody(command, cluster_node, options, code, words):
    cluster_node("a")
    found, out, err = command("send", *options)
    assert (found, out) == (code, "")
    assert re.search(words, err)
    assert err.count("\n") == 1


def test_what_is_too_large_to_send(command, cluster_node, tmp_path, monkeypatch):
    cluster_node("a")
    monkeypatch.setattr("pysock.cli.cluster.send.standard_input", lambda: bytes(2**25))
    code, _, err = command("send", "--all")
    assert code == 1
    assert "is over what the cluster's bus takes" in err


def test_watch(bus_url, cluster_name, cluster_node):
    one = cluster_node("a")
    anna = one.client("anna")
    with Module("pysock", "cluster", "watch", bus_url, "--cluster-name", cluster_name, "--json") as program:
        told = []

        def until(*wanted):
            while wanted not in told:
                entry = json.loads(program.line())
                told.append((entry["event"], entry["change"], entry["name"], entry.get("node", entry.get("clients"))))

        until("node", "there", "a", 1)
        other = cluster_node("b")
        until("node", "joined", "b", 0)
        bert = other.client("bert")
        until("client", "joined", "bert", "b")
        anna.close()
        until("client", "left", "anna", "a")
        other.server.lame()
        until("node", "changed", "b", 1)
        bert.close()
        until("client", "left", "bert", "b")
        other.server.stop()
        until("node", "left", "b", 0)
        assert len(told) == 7
        program.signal(signal.SIGINT)
        code, _, errors = program.end()
        assert (code, errors.strip()) == (130, "")


def test_watch_of_nodes_ends_after_so_many_lines(command, cluster_node):
    cluster_node("a")
    code, out, err = command("watch", "--nodes", "--count", "1")
    assert (code, err) == (0, "")
    assert out.endswith("  node a there, 0 clients, at " + out.split()[-1] + "\n")


def test_check(command, two_nodes, people, bus_engine):
    code, out, err = command("check")
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "8 checks: all is well"
    assert "2 nodes with 3 clients, pysock/" in out
    code, out, _ = command("check", "--json")
    told = json.loads(out)
    assert (code, told["kind"], told["nodes"], told["findings"]) == (0, bus_engine.kind, 2, [])
    assert 0 < told["round_trip"] < 1


def test_what_a_check_finds_among_the_nodes(command, cluster_node, bus_url, cluster_name):
    for number in range(2):
        cluster_node(f"n{number}", prepare=lambda server: setattr(server.cluster, "node", "twin"))
    stranger = bus_of(bus_url, node="stranger", prefix=f"pysock.{cluster_name}")
    stranger.start(lambda state: None)
    wait_for(lambda: stranger.state.value == "connected")
    wrong = [b"rubbish", messages.encode(MessageKind.HEARTBEAT, 7, 1).replace(b"PC\x01", b"PC\x09", 1)]

    with Module("pysock", "cluster", "check", bus_url, "--cluster-name", cluster_name, "--json") as program:

        def said_again():
            for one in wrong:
                stranger.publish(f"pysock.{cluster_name}.a", one)
            return program.process.poll() is not None

        wait_for(said_again, timeout=3 * PATIENCE)
        code, out, errors = program.end()
    stranger.close()
    assert (code, errors) == (1, "")
    findings = {one["check"]: one for one in json.loads(out)["findings"]}
    assert set(findings) == {"nodes", "messages", "versions"}
    assert "2 nodes are called 'twin'" in findings["nodes"]["text"]
    assert "are of version 9 of the protocol" in findings["versions"]["text"]
    assert "--node" in findings["nodes"]["remedy"]


def test_where_no_node_is(command, bus_node, bus_engine):
    bus_node()  # of the local bus somebody runs it
    for what, options in (("nodes", []), ("clients", []), ("send", ["--all", "x"])):
        code, out, err = command(what, *options)
        assert (code, out) == (1, "")
        words = "nobody is there: no node runs" if bus_engine.kind == "local" else "start one, or correct the name"
        assert words in err
        assert err.count("\n") == 1


def test_a_user_that_may_too_little(bus_server, capfd):
    conf = 'authorization {users: [{user: u, password: p, permissions: {publish: {deny: "pysock.default.b"}}}]}'
    url = f"nats://u:p@{bus_server(Nats, conf).host}"
    assert cli.main(["cluster", "check", url]) == 1
    out, err = capfd.readouterr()
    assert err == ""
    assert "permissions: messages under pysock.default.b don't come back\n  -> allow this user" in out
    assert "no node is there yet" in out
    assert "1 to look after" in out
    conf = "user default off\nuser u on >p resetchannels &pysock.other.* +@pubsub +@connection"
    assert cli.main(["cluster", "check", f"redis://u:p@{bus_server(Redis, conf).host}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "allows this user too little: ACL SETUSER" in err


def test_what_is_small_or_slow_or_many():
    report = BusReport("nats", "nats-server 1", 0.2, 8192, ("nats-server 1 is old: run 2.2 or newer",))
    assert [finding.check for finding in bus_findings(report)] == ["bus", "round trip", "payload"]
    nodes = [
        pysock.ClusterNode(f"n{at}", "h", (), 0, 9, False, f"pysock/{at % 2}", at, False, not at, False)
        for at in range(33)
    ]
    directory = SimpleNamespace(other_versions={}, foreign=0)
    texts = [f"{one.check}: {one.text}" for one in cluster_findings("x", nodes, directory)]
    assert "nodes: node 'n0' has been silent for 3 seconds" in texts
    assert "nodes: node 'n1' tells no address, so that no client finds it by the cluster" in texts
    assert "versions: the nodes are of several versions: pysock/0, pysock/1" in texts
    assert texts[-1].startswith("size: 33 nodes with 0 clients")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amqp://u:s3cret@host", "URL must begin with the kind of the bus, not as 'amqp://host'"),
        ("nats://", "URL must name a host"),
        ("nats://h/a.b", "the name of the cluster, which URL ends with, must be of 1 to 64 letters"),
        ("cluster+local:bus", "URL is that of the bus, as the nodes have it: local:bus"),
        ("local:a b", "URL must name the local bus"),
    ],
)
@pytest.mark.parametrize("what", ["nodes", "check"])
def test_a_wrong_url(what, url, words, capfd):
    assert cli.main(["cluster", what, url]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err
    assert "s3cret" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "redis://127.0.0.1:1", "local:/nowhere/bus.sock"])
def test_a_bus_that_is_not_there(url, capfd):
    assert cli.main(["cluster", "check", url]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "can't be used: nobody" in err
    assert err.count("\n") == 1
