"""How a cluster is, for who looks after a server: ``status()``, ``/readyz``, ``/statusz`` and the doctor."""

from __future__ import annotations

import json
import signal
import urllib.request
from contextlib import closing
from urllib.error import HTTPError

import pytest
from buses import RUBBISH
from cluster_fixtures import wait_until_known
from haproxy import free_ports
from programs import Module, serving
from support import own_host, wait_for

import pysock
from pysock import ClusterState
from pysock.admin.doctor.checks import doctor
from pysock.admin.doctor.facts import gathered
from pysock.cluster.bus.choice import bus_of
from pysock.metrics import Exporter

#: Where nobody listens.
NO_BUS = "redis://127.0.0.1:1"


def ask(exporter, path):
    """-> status, and what is said."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{exporter.address.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with closing(error):
            return error.code, error.read().decode()


def told_by_the_doctor(server):
    findings = doctor(lambda: gathered(server, lambda: 0.0), {})["findings"]
    return [(row["text"], row["remedy"]) for row in findings if row["check"] == "cluster"]


@pytest.fixture
def without_bus(make_server, unix_address):
    """``without_bus(**options)``: a node that has found out that there is no bus, and its exporter; both run."""
    ends = []

    def make(**options):
        server = make_server(unix_address, cluster=pysock.Cluster(NO_BUS, node="a", **options))
        server.service(lambda client, request: request)
        exporter = Exporter(server, "127.0.0.1:0")
        ends.extend((exporter.stop, server.stop))
        server.start()
        exporter.start()
        wait_for(lambda: server.cluster._bus.has_failed)
        return server, exporter

    yield make
    for end in ends:
        end()


def test_without_its_bus_a_server_is_ready_and_says_what_is_missing(without_bus):
    server, exporter = without_bus()
    assert ask(exporter, "/readyz") == (200, "ok\n")
    told = json.loads(ask(exporter, "/statusz")[1])
    assert told["ready"] == "yes"
    status = server.cluster.status()
    assert told["cluster"] == status
    assert (status["name"], status["node"], status["state"], status["nodes"]) == ("default", "a", "lost", 1)
    assert "nobody listens there" in status["why"]
    assert ask(exporter, "/livez")[0] == 200
    ((text, remedy),) = told_by_the_doctor(server)
    assert text.startswith(f"the bus {NO_BUS} is down (nobody listens there")
    assert "pysock cluster check" in remedy


def test_it_is_not_ready_without_its_bus_where_that_is_wanted(without_bus):
    server, exporter = without_bus(ready_without_bus=False)
    code, text = ask(exporter, "/readyz")
    assert code == 503
    assert text.startswith(f"the cluster's bus {NO_BUS} is down: nobody listens there")
    assert ask(exporter, "/livez") == (200, "ok\n")
    server.lame()
    assert "drains" in ask(exporter, "/readyz")[1]


def test_with_its_bus_all_is_well(cluster_node):
    exporters = []
    prepare = lambda server: exporters.append(Exporter(server, "127.0.0.1:0"))  # noqa: E731
    one = cluster_node("a", prepare, ready_without_bus=False)
    other = cluster_node("b")
    other.client("bert")
    wait_until_known([one, other], ["bert"])
    with exporters[0] as exporter:
        wait_for(lambda: one.cluster.state is ClusterState.CONNECTED)
        assert ask(exporter, "/readyz") == (200, "ok\n")
        status = json.loads(ask(exporter, "/statusz")[1])["cluster"]
    assert "why" not in status
    assert (status["state"], status["nodes"], status["clients"], status["foreign"]) == ("connected", 2, 1, 0)
    assert 0 < status["round_trip"] < 2
    assert told_by_the_doctor(one.server) == []


def test_what_the_doctor_finds(cluster_node, bus_url, cluster_name):
    one = cluster_node("a", prepare=lambda server: setattr(server.cluster, "node", "twin"))
    other = cluster_node("b", prepare=lambda server: setattr(server.cluster, "node", "twin"))
    stranger = bus_of(bus_url, node="stranger", prefix=f"pysock.{cluster_name}")
    stranger.start(lambda state: None)
    wait_for(lambda: stranger.state.value == "connected")
    wait_for(lambda: len(one.cluster.nodes) == len(other.cluster.nodes) == 2)
    for payload in RUBBISH:
        stranger.publish(f"pysock.{cluster_name}.a", payload)
    wait_for(lambda: one.cluster.status()["foreign"] == len(RUBBISH) - 1)  # the empty one is a look at the bus
    stranger.close()
    one.cluster._bus.round_trip, one.cluster._bus.dropped = 0.3, 7
    texts = [text for text, _ in told_by_the_doctor(one.server)]
    assert texts[0] == "a message to oneself takes 300 ms to come back"
    assert texts[1].startswith("the bus has dropped 7 messages")
    assert texts[2].startswith("2 nodes are called 'twin'")
    assert texts[3].startswith(f"{len(RUBBISH) - 1} messages under the subjects of cluster")


def test_a_server_that_is_no_node(make_server, unix_address):
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    exporter = Exporter(server, "127.0.0.1:0")
    with server, exporter:
        assert "cluster" not in json.loads(ask(exporter, "/statusz")[1])
        assert told_by_the_doctor(server) == []


def test_before_and_after_it_runs():
    status = pysock.Cluster(NO_BUS, node="a").status()
    assert (status["state"], status["why"]) == ("lost", "the server doesn't run")


def test_by_the_command_line(unix_address):
    (port,) = free_ports(own_host(), 1)
    options = ["--bind", unix_address, "--cluster", NO_BUS, "--cluster-ready", "with-bus"]
    metrics = ["--metrics", f"{own_host()}:{port}"]
    with Module("pysock", "serve", "pysock.examples.upper:upper", *options, *metrics) as program:
        serving(program)
        with pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(f"http://{own_host()}:{port}/readyz")
        with closing(caught.value) as error:
            assert (error.code, NO_BUS in error.read().decode()) == (503, True)
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
