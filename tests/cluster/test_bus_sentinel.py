"""The bus over a Redis that Sentinels look after: it is the one that they name, also after a failover."""

from __future__ import annotations

import functools
import re
import socket
import threading
from contextlib import suppress

import pytest
from buses import Redis, Sentinel
from haproxy import free_ports
from support import PATIENCE, own_host, wait_for

from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.url import parted
from pysock.errors import BusDown, ParameterError


@pytest.fixture
def redis(bus_server):
    return functools.partial(bus_server, Redis)


@pytest.fixture
def sentinel(bus_server):
    """A function that runs one for a primary, which it calls shop."""

    def make(primary, conf=""):
        lines = f"sentinel monitor shop {own_host()} {primary.port} 1\nsentinel down-after-milliseconds shop 300\n"
        return bus_server(Sentinel, f"{lines}sentinel failover-timeout shop 2000\n{conf}\n")

    return make


def test_the_primary_is_the_bus(redis, sentinel, node_at):
    url = sentinel(redis()).url
    one = node_at(url)
    one.hear("a", bytes.upper)
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert one.bus.where == url
    assert one.bus.check(("pysock.t.a",), PATIENCE).findings == ()


@pytest.mark.slow
def test_after_a_failover_it_is_the_new_one(redis, sentinel, node_at):
    primary = redis()
    replica = redis(f"replicaof {own_host()} {primary.port}\nreplica-announce-ip {own_host()}")
    wait_for(lambda: b"state=online" in primary.say("INFO", "replication"), "the replica")
    watcher = sentinel(primary)
    wait_for(lambda: b"slaves=1" in watcher.say("INFO", "sentinel"), "the Sentinel to know of it")
    nodes = [node_at(watcher.url), node_at(watcher.url)]
    for one in nodes:
        one.hear("a", bytes.upper)
        one.settle()
    primary.kill()
    for one in nodes:
        wait_for(lambda one=one: one.states[1:] == [BusState.LOST, BusState.CONNECTED], "the new one", timeout=20)
        one.settle()
    assert b"role:master" in replica.say("INFO", "replication")
    assert nodes[0].ask("a", b"x") == (Outcome.ANSWERED, b"X")


def test_one_that_was_demoted_is_left_for_the_new_one(redis, sentinel, node_at):
    primary, other = redis(), redis()
    watcher = sentinel(primary)
    one = node_at(watcher.url)
    one.settle()
    assert watcher.say("SENTINEL", "REMOVE", "shop") == b"OK"
    assert watcher.say("SENTINEL", "MONITOR", "shop", own_host(), str(other.port), "1") == b"OK"
    assert primary.say("REPLICAOF", own_host(), str(other.port)) == b"OK"
    one.wait(BusState.LOST)
    one.wait(BusState.CONNECTED)
    one.settle()
    assert other.say("PUBSUB", "CHANNELS", "pysock.t.*")


def test_of_several_sentinels_one_that_answers_is_enough(redis, sentinel, node_at):
    watcher = sentinel(redis())
    (nobody,) = free_ports(own_host(), 1)
    with socket.create_server((own_host(), 0)) as other:
        threading.Thread(target=_answers, args=(other, b"220 mail.example ESMTP\r\n"), daemon=True).start()
        hosts = f"{own_host()}:{nobody},{own_host()}:{other.getsockname()[1]},{watcher.host}"
        node_at(f"redis+sentinel://{hosts}/shop").settle()


def _answers(listener, answer):
    """To whoever comes."""
    with suppress(OSError):  # it is closed in the end
        while True:
            with listener.accept()[0] as client:
                client.settimeout(PATIENCE)
                client.recv(4096)
                client.sendall(answer)


def test_the_password_is_for_the_primary_and_for_sentinels_that_want_one(redis, sentinel, node_at, caplog):
    primary = redis("requirepass s3cret")
    for conf in ("", "requirepass s3cret"):
        watcher = sentinel(primary, f"sentinel auth-pass shop s3cret\n{conf}")
        node_at(f"redis+sentinel://:s3cret@{watcher.host}/shop").settle()
    with pytest.raises(BusDown, match="says: NOAUTH"):
        node_at(watcher.url, start=False).bus.check((), 1.0)
    assert "s3cret" not in caplog.text


def test_a_master_that_it_does_not_know(redis, sentinel, node_at):
    host = sentinel(redis()).host
    with pytest.raises(BusDown, match=r"the Sentinel at \S+ knows no master 'other': see its configuration"):
        node_at(f"redis+sentinel://{host}/other", start=False).bus.check((), 0.5)


def test_a_sentinel_itself_is_no_bus(redis, sentinel, node_at):
    host = sentinel(redis()).host
    with pytest.raises(BusDown, match=r"it is a Sentinel, .* say redis\+sentinel://HOST:PORT/MASTER"):
        node_at(f"redis://{host}", start=False).bus.check((), PATIENCE)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"220 mail.example ESMTP\r\n", "what listens there is no Redis"),
        (b"*1\r\n$1\r\nx\r\n", "what listens there is no Redis"),
        (b"+OK\r\n", "what listens there is no Redis"),
        (b"-ERR unknown command\r\n", "older than Redis 6|says: ERR unknown command"),
        (b"", "has closed the connection"),
    ],
)
def test_what_is_no_sentinel_is_told_of(node_at, answer, words):
    with socket.create_server((own_host(), 0)) as listener:
        threading.Thread(target=_answers, args=(listener, answer), daemon=True).start()
        one = node_at(f"redis+sentinel://{own_host()}:{listener.getsockname()[1]}/shop", start=False)
        one.start(wait=False)
        wait_for(lambda: one.bus.has_failed)
        assert re.search(words, one.bus.why)


@pytest.mark.parametrize("url", ["redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel://:s3cret@h/a/b/c"])
def test_a_url_without_a_master(url):
    with pytest.raises(ParameterError, match="must end with the name that the Sentinels have") as caught:
        bus_of(url, node="n")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "bus", "name"),
    [
        ("redis+sentinel://a,b/shop", "redis+sentinel://a,b/shop", "default"),
        ("redis+sentinel://a,b/shop/", "redis+sentinel://a,b/shop/", "default"),
        ("redis+sentinel://a:1,b:2/shop/prod", "redis+sentinel://a:1,b:2/shop", "prod"),
        ("rediss+sentinel://u:p@a/shop/prod/", "rediss+sentinel://u:p@a/shop", "prod"),
    ],
)
def test_the_clusters_name_follows_the_masters(url, bus, name):
    assert parted(url) == (bus, name)
    bus_of(bus, node="n").close()
