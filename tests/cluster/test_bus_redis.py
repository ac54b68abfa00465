"""The bus over a Redis: whom it lets in and to what, TLS, replicas, queues that it doesn't have, what is no Redis."""

from __future__ import annotations

import functools
import random
import socket
import threading

import hiredis
import pytest
from buses import Redis
from certificates import Certificates
from haproxy import free_ports
from support import PATIENCE, own_host, run_python, wait_for

from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.bus.over_redis import queues
from pysock.errors import BusDown, ParameterError

USERS = """
user default off
user all on >s3cret ~* &* +@all
user some on >s3cret resetchannels &pysock.t.* +@pubsub +@connection
user mute on >s3cret resetchannels &pysock.t.* &other.* +@connection +subscribe +unsubscribe
"""


HELLO = b"%1\r\n+proto\r\n:3\r\n"


@pytest.fixture
def redis(bus_server):
    """A function that runs one with lines of a configuration."""
    return functools.partial(bus_server, Redis)


@pytest.fixture
def node_at(node_at):
    """Its name has a space: that goes through channels' names."""
    return functools.partial(node_at, name="n 1")


def test_who_has_the_password_comes_in_and_nobody_else(redis, node_at, caplog):
    host = redis(USERS).host
    one = node_at(f"redis://all:s3cret@{host}")
    one.hear("a", bytes.upper)
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    for user in ("all:wr0ng@", ":wr0ng@", ""):
        other = node_at(f"redis://{user}{host}", start=False)
        with pytest.raises(BusDown, match=r"can't be used: the server refuses this user: .*PASSWORD@HOST") as caught:
            other.bus.check((), PATIENCE)
        assert "wr0ng" not in str(caught.value) + caplog.text
        assert host in str(caught.value)
    assert "s3cret" not in caplog.text


def test_a_password_alone_is_enough_where_the_server_wants_one(redis, node_at):
    node_at(f"redis://:p%40ss@{redis('requirepass p@ss').host}").settle()


def test_a_permission_for_its_prefix_is_all_that_it_needs(redis, node_at):
    one = node_at(f"redis://some:s3cret@{redis(USERS).host}")
    one.hear("a", bytes.upper)
    one.hear("q", bytes.lower, queue=True)
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert one.ask("q", b"X") == (Outcome.ANSWERED, b"x")
    report = one.bus.check(("pysock.t.a", "other.a"), PATIENCE)
    (finding,) = report.findings
    assert "messages under other.a don't come back: allow this user" in finding


def test_who_may_not_even_hear_itself_is_told_so(redis, node_at):
    one = node_at(f"redis://mute:s3cret@{redis(USERS).host}", start=False)
    with pytest.raises(BusDown, match=r"allows this user too little: ACL SETUSER .* \+@pubsub .*&pysock.t\.\*"):
        one.bus.check((), PATIENCE)


def test_over_tls_the_servers_certificate_is_verified(redis, node_at, monkeypatch):
    made = Certificates()
    pem = made.issue("redis", "localhost", own_host())
    conf = f"tls-cert-file {pem}\ntls-key-file {pem}\ntls-ca-cert-file {made.ca}\ntls-auth-clients no"
    url = f"rediss://{redis(conf, is_tls=True).host}"
    with pytest.raises(BusDown, match=r"certificate isn't trusted: .*SSL_CERT_FILE"):
        node_at(url, start=False).bus.check((), PATIENCE)
    monkeypatch.setenv("SSL_CERT_FILE", made.ca)
    one = node_at(url)
    one.hear("a", bytes.upper)
    one.settle()
    for _ in range(10):
        assert one.ask("a", b"x" * 500_000) == (Outcome.ANSWERED, b"X" * 500_000)


def test_a_replica_is_no_bus(redis, node_at):
    primary = redis()
    replica = redis(f"replicaof {own_host()} {primary.port}")
    with pytest.raises(BusDown, match="it is a replica, where few would hear: name the primary"):
        node_at(replica.url, start=False).bus.check((), PATIENCE)


def test_who_stays_on_a_primary_that_was_demoted_notices_it(redis, node_at):
    """As in a failover behind an address that moves. Its probes would go on coming back."""
    primary, other = redis(), redis()
    one = node_at(primary.url)
    one.settle()
    assert primary.say("REPLICAOF", own_host(), str(other.port)) == b"OK"
    one.wait(BusState.LOST)
    assert "it is a replica" in one.bus.why
    assert primary.say("REPLICAOF", "NO", "ONE") == b"OK"
    one.wait(BusState.CONNECTED)


def test_a_node_that_comes_later_knows_the_members_of_queues(redis, node_at):
    host = redis().url
    for one in (node_at(host), node_at(host)):
        one.hear("q", bytes.upper, queue=True)
        one.settle()
    assert node_at(host).ask("q", b"x") == (Outcome.ANSWERED, b"X")


def test_a_member_that_has_died_without_a_word_is_found_when_it_is_missing(redis, node_at):
    one = node_at(redis().url)
    one.hear("q", bytes.upper, queue=True)
    one.settle()
    for number in range(20):
        one.bus._queues.join(f"pysock.t.q@{number:016x}".encode())
        one.bus._queues.join(f"pysock.t.gone@{number:016x}".encode())
    assert {one.ask("q", b"x") for _ in range(5)} == {(Outcome.ANSWERED, b"X")}
    assert one.ask("gone", b"x") == (Outcome.NOBODY, b"")
    assert b"pysock.t.gone" not in one.bus._queues


def test_the_members_of_queues_are_bounded_and_foreign_ones_dropped(monkeypatch):
    monkeypatch.setattr(queues, "MEMBERS_MAX", 10)
    table = queues.Queues()
    for foreign in (b"", b"@", b"a@1", b"a b@0123456789abcdef", b"a@0123456789abcdeg", b"\xff" * 30):
        table.join(foreign)
        table.leave(foreign)
    assert table._members == {}
    for number in range(30):
        table.join(b"a@%016x" % number)
    assert len(table._members[b"a"]) == 10
    for number in random.sample(range(30), 30):
        table.leave(b"a@%016x" % number)
    assert (table._members, table._count) == ({}, 0)


def test_where_nobody_listens_the_check_says_so_in_time(node_at):
    (port,) = free_ports(own_host(), 1)
    with pytest.raises(BusDown, match=r"nobody listens there: .*tried for 0.3 seconds"):
        node_at(f"redis://{own_host()}:{port}", start=False).bus.check((), 0.3)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            HELLO + b">0\r\n>1\r\n*0\r\n>3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n" + 3 * b"+OK\r\n",
            "what listens there is no Redis",
        ),
        (b"220 mail.example ESMTP\r\n", r"what listens there is no Redis: is the port right\?"),
        (b"INFO {}\r\n", r"what listens there is no Redis: is the port right\?"),
        (b"+OK\r\n", r"what listens there is no Redis: is the port right\?"),
        (b"-ERR unknown command 'HELLO'\r\n", "older than Redis 6"),
        (
            b"%3\r\n+proto\r\n:3\r\n+role\r\n+master\r\n+mode\r\n+cluster\r\n",
            "one of a Redis Cluster, which doesn't tell",
        ),
    ],
)
def test_what_can_be_no_bus_is_told_of(node_at, answer, told):
    with socket.create_server((own_host(), 0)) as listener:

        def serve():
            with listener.accept()[0] as client:
                client.settimeout(PATIENCE)
                client.sendall(answer)
                while client.recv(4096):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        one = node_at(f"redis://{own_host()}:{listener.getsockname()[1]}", start=False)
        with pytest.raises(BusDown, match=f"can't be used: .*{told}"):
            one.bus.check((), PATIENCE)


@pytest.mark.parametrize(
    "url",
    ["redis:", "redis://", "redis:HOST", "redis://:s3cret@:6379", "redis://h:x", "rediss://h:99999", "redis://a,b"],
)
def test_a_url_that_names_no_host_or_several_is_an_error(url):
    with pytest.raises(ParameterError, match=r"must name (a|one) host") as caught:
        bus_of(url, node="n")
    assert caught.value.parameter == "url"
    assert "s3cret" not in str(caught.value)


def test_without_the_library_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['hiredis'] = None\n"
        "from pysock.cluster.bus.choice import bus_of\n"
        "try: bus_of('redis://h', node='n')\n"
        "except ImportError as error: print(error)"
    )
    assert "pip install 'pysock-engine[redis]'" in run_python(code).stdout


def test_a_message_that_is_forged_in_any_way_harms_nothing(redis, node_at):
    server = redis()
    one = node_at(server.url)
    one.hear("a", bytes.upper)
    one.settle()
    chance = random.Random(7)
    channels = channels_of(one)
    with socket.create_connection((own_host(), server.port), PATIENCE) as sock:
        for _ in range(300):
            forged = bytes([chance.randrange(6)]) + chance.randbytes(chance.randrange(30))
            sock.sendall(hiredis.pack_command((b"PUBLISH", chance.choice(channels), forged)))
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert one.states == [BusState.CONNECTED]
    wait_for(lambda: one.ask("a", b"y") == (Outcome.ANSWERED, b"Y"), "an answer")


def channels_of(one):
    own = f"pysock.t._i.{one.bus.token}"
    return [name.encode() for name in ("pysock.t.a", own, f"{own}.r", "pysock.t._i.queues")]
