"""The directory of a cluster, without I/O: its messages, what is done with bad ones, and what a client costs."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import simulated

from pysock.cluster.directory import messages
from pysock.cluster.directory.events import NodeEvent
from pysock.cluster.directory.machine import Directory
from pysock.cluster.directory.messages import HEAD, MAJOR, MessageKind, NodeInfo, Tag
from pysock.cluster.directory.rows import decode_rows, encode_rows, pack, unpack
from pysock.cluster.directory.words import NODES_MAX, REMEMBERED, ClusterState, NodeChange
from pysock.wire.format import Malformed, encode_field

CLIENTS = 20_000
BYTES = 300


def quiet_world(hosts, **options):
    """Nothing is lost in it, and nothing late."""
    return simulated.World(1, hosts, loss=0.0, latest=0.001, **options)


def changes(machine):
    return [event.change for event in machine.events if isinstance(event, NodeEvent)]


def test_a_message_comes_out_as_it_went_in():
    fields = [messages.number(Tag.NUMBER, 7), messages.text(Tag.SERVICE, "ä"), encode_field(200, b"of later")]
    data = messages.encode(MessageKind.BATCH, 2**64 - 1, 5, fields, b"body")
    message = messages.decode(data)
    assert (message.kind, message.epoch, message.clock, message.body) == (MessageKind.BATCH, 2**64 - 1, 5, b"body")
    assert (message.number(Tag.NUMBER), message.text(Tag.SERVICE), message.number(Tag.COUNT, 3)) == (7, "ä", 3)
    for cut in range(HEAD.size + 10):
        with pytest.raises(Malformed):
            messages.decode(data[:cut])


def test_a_row_comes_out_as_it_went_in():
    rows = [pack(0, 2**64 - 1, 5, 6, b"x" * 255), pack(0, 1, 2, 3, b"")]
    data = encode_rows(rows)
    assert [unpack(row)[1:] for row in decode_rows(data, 9)] == [unpack(row)[1:] for row in rows]
    assert {unpack(row)[0] for row in decode_rows(data, 9)} == {9}
    with pytest.raises(Malformed):
        decode_rows(data[:-1], 9)


def test_what_a_node_says_of_itself():
    info = NodeInfo("alpha", "host", ("tcp://a:1", "unix:/x"), 10_000, 5, "pysock/9")
    field = messages.encode_node(info)
    assert messages.decode_node(field[3:] + encode_field(99, b"?")) == info
    for name in ("", "a/b", "a b", "a\n", "x" * 129):
        with pytest.raises(Malformed):
            messages.decode_node(messages.encode_node(info._replace(name=name))[3:])


def test_foreign_messages_are_counted_and_dropped():
    """Random bytes, ours with one bit or byte changed, every kind without its fields: nothing is raised."""
    world = quiet_world(2)
    world.run(1.0)
    machine, chance = world.hosts[0].machine, random.Random(3)
    epoch = world.hosts[1].epoch
    for _ in range(300):
        machine.heard(chance.randbytes(chance.randrange(1, 60)), world.now)
    assert machine.foreign == 300
    for kind in range(256):
        machine.heard(messages.encode(kind, epoch, 1), world.now)
        machine.heard(messages.encode(kind, 5, 1, [encode_field(Tag.NODE, b"\x01\x00")], b"\xff"), world.now)
    good = messages.encode(MessageKind.BATCH, epoch, 1, [messages.number(Tag.NUMBER, 1)], b"\x01" + bytes(21))
    for _ in range(200):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= chance.randrange(1, 256)
        machine.heard(bytes(bad), world.now)
    assert machine.decoded(b"") is None  # somebody looks whether the bus works
    assert machine.decoded(messages.encode(MessageKind.CALL, epoch, 1)).kind == MessageKind.CALL
    machine.step(world.now)


def test_another_version_is_counted_and_a_later_one_of_ours_is_understood():
    world = quiet_world(2)
    world.run(1.0)
    one, other = world.hosts
    heartbeat = bytearray(messages.encode(MessageKind.HEARTBEAT, 77, 1))
    heartbeat[2] = MAJOR + 1
    one.machine.heard(bytes(heartbeat), world.now)
    assert one.machine.other_versions == {MAJOR + 1: 1}
    assert (one.machine.foreign, len(one.machine.nodes)) == (0, 1)
    other.machine.heard(messages.encode(200, one.epoch, 1, [encode_field(222, b"new")]), world.now)
    assert other.machine.foreign == 0


def test_a_forged_crowd_of_nodes_is_bounded():
    world = quiet_world(1)
    machine, node = world.hosts[0].machine, messages.encode_node(NodeInfo("n"))
    fields = [messages.number(tag, 0) for tag in (Tag.NUMBER, Tag.COUNT, Tag.HASH)]
    for epoch in range(NODES_MAX + 50):
        machine.heard(messages.encode(MessageKind.HEARTBEAT, epoch, 2**64 - 1, [*fields, node]), world.now)
    assert len(machine.nodes) == NODES_MAX
    world.hosts[0].join(b"a")  # the clock of a forger is no harm to ours
    world.run(1.0)


def test_a_silent_node_is_suspected_and_then_gone_with_all_its_clients_in_one_event():
    world = quiet_world(2)
    for _ in range(100):
        world.hosts[1].join(b"x")
    world.run(1.0)
    one, other = world.hosts
    machine = one.machine
    assert len(machine.names.of(b"x")) == 100
    one.settle = lambda: setattr(one, "due", world.now + machine.step(world.now))  # the events are left to be seen
    world.kill(other)
    world.run(3.5)
    assert changes(machine) == [NodeChange.SUSPECT]
    assert machine.rivals._is_doubtful(machine.names.of(b"x")[0])
    world.run(1.5)
    assert changes(machine) == [NodeChange.SUSPECT, NodeChange.GONE]
    assert (machine.names.of(b"x"), machine.nodes, machine.by_index) == ([], {}, {})


def test_the_goodbye_is_the_last_word():
    """What else is due in that moment comes before it, or not at all, or others would take the node for a new one."""
    world = quiet_world(2)
    world.run(1.0)
    one, other = world.hosts
    one.machine.described(NodeInfo("one", state=1), world.now)
    one.machine.goodbye()
    one.settle()
    world.run(1.0)
    assert one.epoch not in other.machine.nodes


def test_who_was_stopped_takes_its_own_silence_for_nobody_elses():
    world = quiet_world(2)
    world.run(1.0)
    one, other = world.hosts
    one.is_paused = True
    world.run(20.0)
    assert one.epoch not in other.machine.nodes
    one.is_paused = False
    one.machine.step(world.now)
    assert not changes(one.machine)
    one.resume()
    world.run(2.0)
    world.check_healed()


def test_while_the_bus_is_down_others_are_stale_and_then_forgotten():
    world = quiet_world(2)
    world.hosts[1].join(b"x")
    world.run(1.0)
    one = world.hosts[0]
    one.disconnect()
    world.run(REMEMBERED - 2)
    assert [node.is_stale for node in one.machine.nodes.values()] == [True]
    assert one.machine.names.of(b"x")
    one.join(b"y")
    world.run(4.0)
    assert not one.machine.nodes
    assert not one.machine.names.of(b"x")
    assert one.machine.state is ClusterState.LOST
    world.heal()
    world.run(2.0)
    world.check_healed()


@pytest.mark.parametrize(("unique", "stays"), [("newest", 2), ("oldest", 0), (None, None)])
def test_of_one_name_one_stays_also_after_a_split(unique, stays):
    world = quiet_world(3, unique=unique)
    world.run(1.0)
    for host in world.hosts:
        world.cuts |= {(host, other) for other in world.hosts if other is not host}
    for at, host in enumerate(world.hosts):
        host.machine.clock = 1000 * (at + 1)
        host.join(b"x")
    world.run(2.0)
    assert [len(host.clients) for host in world.hosts] == [1, 1, 1]
    world.heal()
    world.run(3.0)
    world.check_healed()
    left = [at for at, host in enumerate(world.hosts) if host.clients]
    assert left == ([0, 1, 2] if stays is None else [stays])


@pytest.mark.parametrize("unique", ["newest", "oldest"])
def test_who_has_moved_is_not_its_own_rival(unique):
    world = quiet_world(2, unique=unique)
    old, new = world.hosts
    world.run(1.0)
    old.join(b"x")
    world.run(1.0)
    (client_id,) = new.clients = dict(old.clients)
    new.machine.rivals.moved(client_id, world.now)
    new.machine.joined(client_id, b"x", 0.0, world.now)
    new.settle()
    world.run(1.0)
    assert [*new.clients] == [client_id]
    for client in [*old.clients]:
        old.leave(client)
    new.join(b"x")  # a rival in earnest
    world.run(1.0)
    assert (client_id in new.clients, len(new.clients)) == (unique == "oldest", 1)
    world.check_healed()


def test_ten_thousand_joins_are_few_messages():
    world = quiet_world(3)
    world.run(1.0)
    sent, send = [], world.send
    world.send = lambda *given: (sent.append(given), send(*given))
    for n in range(10_000):
        world.hosts[0].join(b"client-%d" % n)
        world.now += 0.00005
    world.run(0.1)
    assert len(sent) < 60
    assert max(len(payload) for _, _, payload in sent) < 40_000
    assert [len(host.machine.names._holders) for host in world.hosts] == [10_000] * 3


def test_a_client_of_another_node_costs_few_bytes():
    rows = [pack(0, (n >> 14) + 1 << 32 | n, n, 1_900_000_000, b"client-%08d" % n) for n in range(CLIENTS)]
    machine = Directory(1, NodeInfo("one"), 0.0, random.Random(1))
    machine.connected(0.0)
    fields = [messages.number(tag, 0) for tag in (Tag.NUMBER, Tag.COUNT, Tag.HASH)]
    machine.heard(messages.encode(MessageKind.HEARTBEAT, 2, 1, [*fields, messages.encode_node(NodeInfo("two"))]), 0.0)
    batches = []
    for number, at in enumerate(range(0, CLIENTS, 500), 1):
        body = encode_rows(rows[at : at + 500])
        batches.append(messages.encode(MessageKind.BATCH, 2, 2, [messages.number(Tag.NUMBER, number)], body))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for batch in batches:
        machine.heard(batch, 0.0)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    (node,) = machine.nodes.values()
    assert len(node.roster) == CLIENTS
    assert used / CLIENTS <= BYTES, used / CLIENTS
    print(f"{used / CLIENTS:.0f} bytes a client")
