"""Which server a client goes to: by a fake clock and a chance that is none, without any I/O."""

from __future__ import annotations

import errno
import itertools
import random
import socket
from collections import Counter
from types import SimpleNamespace

import pytest

from pysock import Address, ConnectionLost, ConnectionRefused, RemoteError, RequestTimeout
from pysock.balance.balancer import Balancer, balancer_of
from pysock.balance.nodes import Nodes
from pysock.balance.opening import Ask, Connect, LookUp, opening
from pysock.balance.policy import tries_the_next
from pysock.balance.rendezvous import ranked
from pysock.balance.round import Round, Verdict
from pysock.balance.targets import Target, checked_targets, key_of, nodes_of
from pysock.errors import ProtocolError, ServerFull
from pysock.wire.format import Malformed, encode_field
from pysock.wire.nodes import NODES_MAX, NodeList, NodeRow, NodeState, decode_nodes, encode_nodes

GONE = ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
SEEDS = tuple(Address.parse(f"tcp://10.0.0.{n}:9") for n in range(1, 5))
KEYS = [key_of(seed) for seed in SEEDS]
TARGETS = [Target(seed, key_of(seed)) for seed in SEEDS]


def balancer(mode, seeds=SEEDS, **options):
    return Balancer(seeds, mode, chance=random.Random(7), **options)


def tried(one, now=100.0, targets=TARGETS):
    """The keys in the order of a round in which all fail."""
    attempts, keys = one.round(targets, now), []
    while (target := attempts.next()) is not None:
        keys.append(target.key)
        attempts.failed(target, GONE)
    return keys


# Addresses


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("tcp://a:1,tcp://b:2", ["tcp://a:1", "tcp://b:2"]),
        ("a:1, b:2,[::1]:3", ["tcp://a:1", "tcp://b:2", "tcp://[::1]:3"]),
        ("unix:/x,unix:@y,ipc:///z", ["unix:/x", "unix:@y", "unix:/z"]),
        ("unix:/a,b", ["unix:/a,b"]),
        ("unix:/a,b,unix:/c", ["unix:/a,b", "unix:/c"]),
        ("unix:/a%2Cb:1", ["unix:/a,b:1"]),
        (["a:1,b:2", "c:3", "a:1"], ["tcp://a:1", "tcp://b:2", "tcp://c:3"]),
        ("unix:?name=a,unix:?name=b", ["unix:?name=a", "unix:?name=b"]),
    ],
)
def test_several_addresses_in_one_text(given, texts):
    found = checked_targets(given)
    assert [str(address) for address in found] == texts
    assert len({key_of(address) for address in found}) == len(texts)


@pytest.mark.parametrize("wrong", ["a:1,", "a:1,,b:2", "a:1,b", "tcp://a:1,nonsense://b:2"])
def test_what_isnt_a_list_of_addresses(wrong):
    with pytest.raises(ValueError, match="bad address"):
        checked_targets(wrong)


def test_which_words_there_are():
    with pytest.raises(ValueError, match=r"^balance must be one of 'first', 'p2c', 'round', not 'random'$"):
        balancer_of("a:1", "random", discovers=False)


def test_a_name_with_several_records_is_several_nodes(monkeypatch):
    def resolve(host, port, **_):
        if host == "none":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        hosts = [(socket.AF_INET, "10.0.0.1"), (socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fe80::1%lo")]
        return [(family, 1, 6, "", (host, port)) for family, host in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = nodes_of(checked_targets("name:9,none:9,10.0.0.1:9,[::1]:9,unix:/x"))
    assert [target.key for target in found] == [
        *("tcp://10.0.0.1:9", "tcp://10.0.0.2:9", "tcp://[fe80::1%lo]:9"),
        *("tcp://none:9", "tcp://[::1]:9", "unix:/x"),
    ]
    assert [target.given for target in found[:3]] == ["tcp://name:9"] * 3
    assert [target.key for target in found if target.error] == ["tcp://none:9"]


# Nodes that fail


def test_three_attempts_that_fail_put_a_node_aside_for_ever_longer():
    nodes, now, times = Nodes(), 100.0, []
    for _ in range(7):
        for _ in range(3):
            assert nodes.aside(KEYS, now) == set()
            nodes[KEYS[0]].failed(now)
        assert nodes.aside(KEYS, now) == {KEYS[0]}
        times.append(nodes[KEYS[0]].until - now)
        now = nodes[KEYS[0]].until
    assert times == [30, 60, 120, 240, 480, 960, 960]


def test_one_that_lets_in_between_isnt_put_aside():
    nodes = Nodes()
    for _ in range(5):
        nodes[KEYS[0]].failed(100.0)
        nodes[KEYS[0]].failed(100.0)
        nodes[KEYS[0]].let_in(100.0)
    assert nodes.aside(KEYS, 100.0) == set()


def test_five_that_are_lost_in_a_row():
    nodes = Nodes()
    for lost in [True] * 4 + [False] + [True] * 4:  # a goodbye is none
        nodes[KEYS[0]].let_in(100.0)
        nodes[KEYS[0]].ended(101.0, lost)
        assert nodes.aside(KEYS, 101.0) == set()
    nodes[KEYS[0]].let_in(101.0)
    nodes[KEYS[0]].ended(102.0, True)
    assert nodes.aside(KEYS, 102.0) == {KEYS[0]}


def test_a_connection_that_has_lived_has_all_forgotten():
    nodes, node = Nodes(), None
    node = nodes[KEYS[0]]
    for _ in range(6):
        node.failed(100.0)
    assert node.until == 160.0
    node.let_in(200.0)
    assert node.until == 0
    for _ in range(4):
        node.ended(201.0, True)
    node.let_in(201.0)
    node.ended(231.0, True)  # it is the first in a row again
    for _ in range(3):
        node.failed(300.0)
    assert node.until == 330.0


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_never_more_than_half_are_aside(count, most):
    nodes, keys = Nodes(), list("abcde")[:count]
    for key in keys:
        for _ in range(3):
            nodes[key].failed(100.0)
    assert len(nodes.aside(keys, 100.0)) == most
    assert nodes.aside(keys, 130.0) == set()


def test_what_isnt_known_any_more_is_forgotten():
    nodes = Nodes()
    for key in "abc":
        nodes[key].failed(1.0)
    nodes["c"].begins()
    nodes.keep("a")
    assert set(nodes._nodes) == {"a", "c"}


# The order


def test_first_is_their_order_and_those_aside_come_last():
    one = balancer("first")
    assert tried(one) == KEYS
    for _ in range(3):
        one.failed(SEEDS[0], 100.0)
    assert tried(one) == [*KEYS[1:], KEYS[0]]
    assert tried(one, now=130.0) == KEYS


def test_round_goes_on_with_each():
    one = balancer("round")
    rounds = [tried(one) for _ in range(4)]
    assert {keys[0] for keys in rounds} == set(KEYS)
    assert all(rounds[at][1] == rounds[(at + 1) % 4][0] for at in range(4))
    begins = {tried(Balancer(SEEDS, "round", chance=random.Random(seed)))[0] for seed in range(40)}
    assert begins == set(KEYS)


def test_chance_is_a_parameter():
    orders = [tried(Balancer(SEEDS, "p2c", chance=random.Random(3))) for _ in range(2)]
    assert orders[0] == orders[1]
    assert len({tuple(tried(balancer_)) for balancer_ in [balancer("p2c")] for _ in range(50)}) > 10


def test_a_pools_nodes_are_its_own_and_fill_up_evenly():
    one = Balancer(tuple(Address.parse(f"tcp://10.0.0.{n}:9") for n in range(1, 11)), "pool", chance=random.Random(1))
    targets = [Target(seed, key_of(seed)) for seed in one.seeds]
    firsts = []
    for _ in range(9):
        target = one.round(targets, 100.0).next()
        one.begins(target.address)
        firsts.append(target.key)
    assert sorted(Counter(firsts).values()) == [3, 3, 3]
    one.ended(Address.parse(firsts[4]), 100.0, lost=True)
    assert one.round(targets, 100.0).next().key == firsts[4]
    for _ in range(3):
        one.failed(Address.parse(firsts[4]), 100.0)
    assert one.round(targets, 100.0).next().key not in firsts  # another one takes its place
    assert one.spread() == 3


def test_rendezvous_spreads_and_moves_few():
    keys = [f"client {n}".encode() for n in range(1000)]
    nodes = [f"tcp://10.0.0.{n}:9" for n in range(10)]
    firsts = {key: set(ranked(key, nodes)[:3]) for key in keys}
    shares = Counter(itertools.chain(*firsts.values()))
    assert max(shares.values()) < 1.3 * min(shares.values())
    moved = [key for key in keys if firsts[key] != set(ranked(key, nodes[1:])[:3])]
    assert set(moved) == {key for key in keys if nodes[0] in firsts[key]}


# One round


def rows(*counts):
    return [None if count is None else NodeRow((), count, 10) for count in counts]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(3, 2, 1), (2, 3, 0), (2, 2, 0), (2, None, 0), (0, 0, 0)],
)
def test_of_two_the_one_with_fewer_clients_is_kept(first, second, kept):
    attempts = Round(TARGETS, 4)
    one, two = rows(first, second)
    assert attempts.compares
    attempts.next()
    assert attempts.came(one) is Verdict.HOLD
    attempts.next()
    assert attempts.came(two) is (Verdict.TAKE if kept else Verdict.DROP)


def test_one_that_drains_is_the_worse_one():
    attempts = Round(TARGETS, 4)
    attempts.next()
    attempts.came(NodeRow((), 0, 10, NodeState.DRAINING))
    attempts.next()
    assert attempts.came(NodeRow((), 9, 10)) is Verdict.TAKE


def test_who_says_nothing_of_its_clients_is_taken():
    attempts = Round(TARGETS, 4)
    attempts.next()
    assert attempts.came(None) is Verdict.TAKE


def test_a_second_one_that_fails_is_enough():
    attempts = Round(TARGETS, 4)
    attempts.next()
    attempts.came(rows(5)[0])
    assert attempts.share(10.0) == 1.0
    assert attempts.share(None) == 1.0
    assert attempts.failed(attempts.next(), ConnectionRefused("no", 3))  # whatever it is
    assert attempts.next() is None


def test_one_that_is_aside_isnt_compared():
    attempts = Round(TARGETS[:2], 1)
    attempts.next()
    assert attempts.came(rows(5)[0]) is Verdict.TAKE


def test_a_silent_one_leaves_time_to_the_others():
    attempts, left, shares = Round(TARGETS), 12.0, []
    while (target := attempts.next()) is not None:
        shares.append(attempts.share(left))
        left -= shares[-1]
        attempts.failed(target, RequestTimeout(""))
    assert shares == [3.0, 3.0, 3.0, 3.0]
    assert Round(TARGETS).share(None) is None


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (GONE, True),
        (PermissionError(errno.EACCES, ""), True),
        (socket.gaierror(socket.EAI_NONAME, ""), True),
        (ProtocolError("it isn't a pysock server"), True),
        (RequestTimeout(""), True),
        (ConnectionLost(""), True),
        (ServerFull(), True),
        (ConnectionRefused("shutting down", 5), True),
        (ConnectionRefused("not allowed", 2), False),
        (ConnectionRefused("wrong proof", 3), False),
        (ValueError(""), False),
    ],
    ids=repr,
)
def test_what_lets_the_next_be_tried(error, goes_on):
    assert tries_the_next(error) is goes_on
    attempts = Round(TARGETS)
    assert attempts.failed(attempts.next(), error) is goes_on


def test_where_none_answers_each_is_named_with_its_reason():
    attempts = Round([*TARGETS[:2], Target(SEEDS[2], KEYS[2], socket.gaierror(socket.EAI_NONAME, "unknown name"))])
    attempts.failed(attempts.next(), ConnectionRefusedError(errno.ECONNREFUSED, f"{SEEDS[0]}: nobody listens there"))
    attempts.failed(attempts.next(), ServerFull())
    assert attempts.next() is None
    error = attempts.error()
    assert type(error) is ServerFull  # of those that pass the last
    assert error.code == 4
    assert str(error) == (
        "none of 3 addresses lets this client in: start one of them, or correct them:"
        " (1) tcp://10.0.0.1:9: nobody listens there (2) tcp://10.0.0.2:9: the server is full"
        " (3) tcp://10.0.0.3:9: unknown name"
    )


@pytest.mark.parametrize(
    "error",
    [GONE, FileNotFoundError(errno.ENOENT, "x"), RequestTimeout("x"), ConnectionLost("x"), ProtocolError("x"),
     socket.gaierror(socket.EAI_AGAIN, "x"), OSError("no number"), ServerFull()],
    ids=repr,
)  # fmt: skip
def test_what_is_raised_is_of_the_kind_of_one(error):
    attempts = Round(TARGETS[:2])
    for _ in range(2):
        attempts.failed(attempts.next(), error)
    made = attempts.error()
    assert type(made) is type(error)
    assert made.__cause__ is error
    assert "none of 2 addresses" in str(made)
    assert getattr(made, "errno", None) == getattr(error, "errno", None)
    alone = Round(TARGETS[:1])
    alone.failed(alone.next(), error)
    assert alone.error() is error


# What servers tell


def told(*addresses, version=1, clients=0):
    return NodeList(version.to_bytes(8, "big"), (NodeRow(addresses[:1], clients, 10), *map(_row, addresses[1:])))


def _row(address):
    return NodeRow((address,))


def texts(one):
    return [str(address) for address in one.wanted()]


def test_a_list_brings_nodes_and_takes_them_away():
    one = balancer("first", SEEDS[:1], discovers=True)
    assert not one.told(SEEDS[0], told("tcp://10.0.0.1:9", "tcp://10.0.0.7:9"))
    assert texts(one) == ["tcp://10.0.0.1:9", "tcp://10.0.0.7:9"]
    assert one.told(SEEDS[0], told("tcp://10.0.0.8:9", version=2))  # it is to be left
    assert texts(one) == ["tcp://10.0.0.1:9", "tcp://10.0.0.8:9"]
    assert tried(one, targets=nodes_of(one.wanted())) == ["tcp://10.0.0.8:9", "tcp://10.0.0.1:9"]  # it comes last
    assert not one.told(SEEDS[0], told("tcp://10.0.0.1:9", version=3))
    assert tried(one, targets=nodes_of(one.wanted())) == ["tcp://10.0.0.1:9"]
    assert one.version == b"\0" * 7 + b"\3"


def test_only_the_latest_that_are_gone_are_remembered():
    one = balancer("first", SEEDS[:1], discovers=True)
    for n in range(3000):
        one.told(SEEDS[0], told(f"tcp://10.1.{n // 250}.{n % 250}:9", version=n))
    assert one.told(Address.parse("tcp://10.1.11.248:9"), told("tcp://10.0.0.9:9", version=3000))
    assert len(one._gone) <= 1024


def test_one_that_was_never_listed_isnt_left():
    """It may be reached by another name than the list has."""
    one = balancer("first", SEEDS[:1], discovers=True)
    for version in range(3):
        assert not one.told(SEEDS[0], told("tcp://10.0.0.7:9", version=version))
    assert tried(one, targets=nodes_of(one.wanted())) == ["tcp://10.0.0.1:9", "tcp://10.0.0.7:9"]


def test_a_list_leads_to_no_other_transport(caplog):
    one = Balancer((Address.parse("tcp://10.0.0.1:9?backlog=7"),), "first", discovers=True)
    one.told(SEEDS[0], told("unix:/etc/x", "nonsense", "tcp://10.0.0.7:9"))
    assert texts(one)[1:] == ["tcp://10.0.0.7:9?backlog=7"]  # with the options of ours
    assert "lists a node that can't be used: bad address 'nonsense'" in caplog.text


@pytest.mark.parametrize("node", ["tcp://a..b:9", f"tcp://{'a' * 64}:9", "tcp://10.0.0.7:0", "fd://3"])
def test_a_node_where_nobody_can_connect_isnt_in_the_way_of_the_others(node, caplog):
    """It would be an error of the program's own parameters, which ends a round."""
    one = balancer("first", SEEDS[:1], discovers=True)
    one.told(SEEDS[0], told("tcp://10.0.0.1:9", node, "tcp://10.0.0.8:9"))
    assert texts(one) == ["tcp://10.0.0.1:9", "tcp://10.0.0.8:9"]
    assert "lists a node that can't be used" in caplog.text


def test_a_single_address_alone_learns_nothing():
    assert Balancer(SEEDS[:1]).alone
    assert not Balancer(SEEDS[:1], discovers=True).discovers
    assert not Balancer(SEEDS[:1], "first").alone
    assert Balancer(SEEDS[:2], discovers=True).discovers


def test_a_list_to_bytes_and_back():
    nodes = (NodeRow(("tcp://a:1", "unix:/x"), 5, 2**40, 5), NodeRow(("tcp://b:1",)), NodeRow())
    decoded = decode_nodes(encode_nodes(7, nodes))
    assert decoded.version == b"\0" * 7 + b"\7"
    assert decoded.nodes == (nodes[0]._replace(capacity=2**32 - 1), *nodes[1:])
    assert decoded.addresses == ("tcp://a:1", "unix:/x", "tcp://b:1")
    assert decode_nodes(encode_nodes(7, nodes) + encode_field(99, b"later")) == decoded
    assert decode_nodes(encode_field(1, b"8" * 8) + encode_field(2, encode_field(9, b"later"))).own == NodeRow()


VERSION = encode_field(1, b"8" * 8)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"x",
        VERSION,
        encode_nodes(7, [])[:-1],
        encode_nodes(7, [NodeRow()])[11:],
        encode_field(1, b"7") + encode_field(2, b""),
        VERSION + encode_field(2, b"\1"),
        VERSION + encode_field(2, encode_field(1, b"\xff")),
        VERSION + encode_field(2, encode_field(2, b"\0")),
        VERSION + encode_field(2, b"") * (NODES_MAX + 1),
    ],
)
def test_broken_lists(broken):
    with pytest.raises(Malformed):
        decode_nodes(broken)


# The steps of both kinds of clients


class Scripted:
    """A client of one connection."""

    def __init__(self, address, count):
        self.address, self.count, self.closed = address, count, False
        self.services = {} if count is None else {"_nodes": 1}

    def close(self):
        self.closed = True


def played(one, answers):
    """Drive it: of each key the clients that the node has, or what connecting fails with, or asking."""
    steps, made, done = opening(one, None), [], []

    def do(step):
        if isinstance(step, LookUp):
            return nodes_of(step.addresses)
        if isinstance(step, Ask):
            done.append(f"ask {step.client.address.host}")
            if isinstance(step.client.count, Exception):
                raise step.client.count
            return encode_nodes(1, [NodeRow((), step.client.count, 10)])
        assert isinstance(step, Connect)
        done.append(f"connect {step.address.host}")
        answer = answers[step.address.host]
        if isinstance(answer, OSError) and not isinstance(answer, (ConnectionLost, RequestTimeout)):
            raise answer
        made.append(Scripted(step.address, answer))
        return made[-1]

    try:
        step = next(steps)
        while True:
            try:
                result = do(step)
            except Exception as error:  # noqa: PERF203  # it is what is looped for
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as over:
        kept = over.value
    assert [client for client in made if not client.closed] == [kept]
    assert {key: one._nodes[key].connections for key in KEYS} == {key: int(key == key_of(kept.address)) for key in KEYS}
    return kept.address.host, done


def test_two_are_compared_and_one_is_closed():
    for seed in range(20):
        one = Balancer(SEEDS[:2], "p2c", chance=random.Random(seed))
        kept, done = played(one, {"10.0.0.1": 7, "10.0.0.2": 4})
        assert kept == "10.0.0.2"
        assert sorted(done) == ["ask 10.0.0.1", "ask 10.0.0.2", "connect 10.0.0.1", "connect 10.0.0.2"]


@pytest.mark.parametrize("second", [GONE, RemoteError("no"), RequestTimeout("late"), ConnectionLost("gone")], ids=repr)
def test_what_becomes_of_the_second_does_the_first_no_harm(second):
    for seed in range(20):
        one = Balancer(SEEDS[:2], "p2c", chance=random.Random(seed))
        kept, _ = played(one, {"10.0.0.1": 7, "10.0.0.2": second})
        if not isinstance(second, (RemoteError, RequestTimeout)):  # who lets in and says nothing may be kept
            assert kept == "10.0.0.1"


def test_who_has_no_such_service_isnt_asked():
    kept, done = played(balancer("p2c", SEEDS[:1]), {"10.0.0.1": None})
    assert (kept, done) == ("10.0.0.1", ["connect 10.0.0.1"])


def test_whatever_interrupts_it_leaves_no_connection():
    for step_at in range(4):
        one, made = balancer("p2c", SEEDS[:2]), []
        steps = opening(one, None)
        step = steps.send(None)
        step = steps.send(nodes_of(step.addresses))
        for _ in range(step_at):
            if isinstance(step, Connect):
                made.append(Scripted(step.address, 3))
                step = steps.send(made[-1])
            else:
                step = steps.send(encode_nodes(1, [NodeRow((), 3, 10)]))
        steps.close()  # as KeyboardInterrupt has it closed
        assert all(client.closed for client in made)
        assert sum(node.connections for node in one._nodes._nodes.values()) == 0


def test_a_forked_child_begins_anew():
    one = balancer("first")
    for _ in range(3):
        one.failed(SEEDS[0], 100.0)
    one._lock.acquire()
    one.forked()
    assert tried(one) == KEYS


def test_of_a_pools_connections_two_are_looked_at():
    one, all_ = balancer("pool"), [SimpleNamespace() for _ in range(5)]
    pairs = [one.two_of(all_) for _ in range(50)]
    assert {len(pair) for pair in pairs} == {2}
    assert {id(each) for pair in pairs for each in pair} == {*map(id, all_)}
    assert one.two_of(all_[:2]) == all_[:2]
    assert balancer("round").two_of(all_) == all_
