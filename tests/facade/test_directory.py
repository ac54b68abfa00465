"""The directory: a row for each client, who is meant by fields, who has gone and why."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import wire
from support import plug, wait_for

import pysock
from pysock import ConnectionState, DisconnectReason, Limits
from pysock.access.process import program_of
from pysock.directory.rows import ClientRow

KIB = 1024


@pytest.fixture
def server(make_server, unix_address):
    """It echoes; ``join NAME`` puts a client into a group, and what begins with ``later`` isn't answered."""
    server = make_server(unix_address, limits=Limits(max_payload=64 * KIB))
    server.kept = []

    @server.service
    def echo(client, request):
        if request.startswith(b"join"):
            client.join(request[5:].decode())
        if request.startswith(b"later"):
            server.kept.append(pysock.later())
            return server.kept[-1]
        return request

    with server:
        yield server
        for reply in server.kept:
            reply.send(b"")


def the_row(server) -> ClientRow:
    (row,) = server.clients.snapshot()
    return row


def test_a_row_says_who_it_is(make_server, address, transport):
    server = make_server(address)
    before = time.time()
    with server, wire.let_in(server, wire.field(wire.SOFTWARE, b"by hand/1"), name=b"anna") as peer:
        (client,) = server.clients.values()
        row = the_row(server)
        assert row[:4] == (client.id, "anna", "by hand/1", wire.socket_of(transport))
        assert row.address == client.address
        peer_of_it = (os.getpid(), os.getuid(), os.getgid()) if transport == "unix" else (None, None, None)
        assert (row.pid, row.uid, row.gid) == peer_of_it
        assert row.state is ConnectionState.ESTABLISHED
        assert row.connected_at == client.connected_at
        assert before - 0.01 < row.connected_at <= row.idle_since + 0.01 < time.time() + 0.02
        assert client.software == "by hand/1"
        if transport != "unix":
            assert row.address == "{}:{}".format(*peer.sock.getsockname())


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"", ""),
        (b"a\0b", "a"),
        (b"\xff!", "\ufffd!"),
        (b"x" * 300, "x" * 255),
        ("ä".encode() * 128, "ä" * 127 + "\ufffd"),
    ],
)
def test_software_is_shown_whatever_it_is(server, sent, shown):
    with wire.let_in(server, wire.field(wire.SOFTWARE, b"no"), wire.field(wire.SOFTWARE, sent)):
        assert the_row(server).software == shown
        assert the_row(server).name == ""
        with pytest.raises(KeyError):
            server.clients.by_name("")


def test_requests_frames_and_bytes_are_counted_each_way(server):
    notify = wire.srm(b"x", 4, flags=wire.NO_REPLY)
    asked = wire.srm(b"abc", 1) + wire.srm(b"d" * 40_000, 2) + wire.ping(b"p", 3) + notify
    with wire.let_in(server) as peer:
        (client,) = server.clients.values()
        first = the_row(server)
        assert (first.requests, first.frames_in, first.frames_out) == (0, 1, 1)
        peer.send(asked)
        for _ in range(3):
            wire.next_frame(peer)
        wait_for(lambda: client.requests == 3)
        client.send(b"push")
        server.clients.broadcast(b"to all")
        peer.send(wire.srm(b"y" * 65 * KIB, 5))  # too large: a frame, and no request
        frames = [wire.next_frame(peer) for _ in range(3)]
        (error,) = (frame for frame in frames if frame.kind == wire.ERROR)
        received = first.bytes_in + len(asked) + 12 + 65 * KIB
        row = wait_for(lambda: (row := the_row(server)).bytes_in == received and row)
    assert (row.requests, row.frames_in, row.frames_out) == (3, 6, 7)
    sent = sum(12 + size for size in (3, 40_000, 1, 4, 6, len(error.payload)))
    assert row.bytes_out == first.bytes_out + sent


@pytest.mark.parametrize("framing", ["u32", "line"])
def test_frames_of_other_framings_are_messages(make_server, unix_address, framing):
    server = make_server(unix_address, framing=framing)
    server.service(lambda _client, request: None if request == b"none" else request)

    def message(payload):
        return len(payload).to_bytes(4, "big") + payload if framing == "u32" else payload + b"\n"

    answered = [message(payload) for payload in (b"a", b"", b"b" * 20_000)]
    with server, plug(server.addresses[0]) as peer:
        peer.sendall(b"".join(answered) + message(b"none"))
        received = b""
        while received != b"".join(answered):
            received += peer.recv(65536)
        wait_for(lambda: the_row(server).requests == 4)
        server.clients.broadcast(b"push")
        assert peer.recv(100) == message(b"push")
        row = the_row(server)
    assert (row.frames_in, row.frames_out) == (4, 4)  # nothing is sent for None


def test_what_waits_is_shown(server):
    with wire.let_in(server) as peer:
        (client,) = server.clients.values()
        peer.send(wire.srm(b"later", 1) + wire.srm(b"later", 2))
        wait_for(lambda: the_row(server).in_flight == 2)
        assert the_row(server).output_waiting == 0
        for _ in range(200):
            client.send(bytes(60 * KIB))
        wait_for(lambda: the_row(server).output_waiting > 1 << 20)
        idle_since = the_row(server).idle_since
        time.sleep(0.02)
        assert the_row(server).idle_since == pytest.approx(idle_since, abs=0.005)


def test_a_snapshot_is_a_sequence_that_does_not_change(server):
    empty = server.clients.snapshot()
    assert (len(empty), list(empty), empty[:]) == (0, [], [])
    with wire.let_in(server, name=b"a"), wire.let_in(server, name=b"b") as peer, wire.let_in(server, name=b"c"):
        wait_for(lambda: len(server.clients) == 3)
        snapshot = server.clients.snapshot()
        assert [row.name for row in snapshot] == ["a", "b", "c"]  # oldest first
        assert [row.name for row in snapshot[1:]] == ["b", "c"]
        assert snapshot[-1] == snapshot[2] == list(snapshot)[2]
        assert snapshot[0] in snapshot
        assert repr(snapshot) == "<Snapshot of 3: {} 'a', {} 'b', {} 'c'>".format(*map(shown_id, snapshot))
        with pytest.raises(IndexError):
            snapshot[3]
        peer.send(wire.srm(b"join red", 1))
        wire.next_frame(peer)
        assert snapshot[1].groups == ()
        assert server.clients.snapshot()[1].groups == ("red",)
    wait_for(lambda: not server.clients)
    assert [row.state for row in snapshot] == [ConnectionState.ESTABLISHED] * 3


def shown_id(row: ClientRow) -> str:
    return f"{row.id >> 32}.{row.id & 0xFFFFFFFF}"


def test_who_is_not_let_in_is_in_no_row(server):
    with plug(server.addresses[0]), wire.let_in(server, name=b"in"):
        assert [row.name for row in server.clients.snapshot()] == ["in"]


def test_where_finds_clients_by_fields_and_snapshots_take_the_same(make_server, unix_address):
    server = make_server(unix_address, "tcp://127.0.0.1:0")
    found = [
        ({}, {"sensor-1", "desk", "sensor-2"}),
        ({"name": "sensor-*"}, {"sensor-1", "sensor-2"}),
        ({"name": "sensor-[!1]"}, {"sensor-2"}),
        ({"uid": os.getuid()}, {"sensor-1", "desk"}),
        ({"uid": os.getuid() + 1}, set()),
        ({"group": "red"}, {"desk", "sensor-2"}),
        ({"group": "red", "name": "sensor-*", "uid": os.getuid()}, set()),
        ({"group": "nobody's"}, set()),
    ]
    with ExitStack() as stack:
        stack.enter_context(server)
        stack.enter_context(wire.let_in(server, name=b"sensor-1"))
        stack.enter_context(wire.let_in(server, name=b"desk"))
        stack.enter_context(plug(server.addresses[1])).sendall(wire.cir(name=b"sensor-2"))
        wait_for(lambda: len(server.clients) == 3)
        server.clients.by_name("sensor-2").join("red")
        server.clients.by_name("desk").join("red")
        for fields, names in found:
            assert {client.name for client in server.clients.where(**fields)} == names, fields
            assert {row.name for row in server.clients.snapshot(**fields)} == names, fields
        assert server.clients.where(name="desk") == [server.clients.by_name("desk")]


def test_where_refuses_what_no_client_can_be(server):
    for fields, error in [({"uid": "root"}, TypeError), ({"uid": -1}, ValueError), ({"name": 1}, TypeError)]:
        with pytest.raises(error):
            server.clients.where(**fields)
        with pytest.raises(error):
            server.clients.snapshot(**fields)
    with pytest.raises(ValueError, match="must not be empty"):
        server.clients.where(group="")


def test_before_the_start_and_after_the_end_nobody_is_there(make_server, unix_address):
    server = make_server(unix_address)
    assert list(server.clients.snapshot(name="*")) == server.clients.where() == server.clients.left() == []
    with server, wire.let_in(server, name=b"last"):
        pass
    assert list(server.clients.snapshot()) == server.clients.where(name="*") == []
    assert [left.row.name for left in server.clients.left()] == ["last"]


def test_who_left_is_known_with_the_reason_and_the_time(server):
    """Also of whom no handler ever saw, with nobody watching."""
    before = time.time()
    peers = [wire.let_in(server, name=name) for name in (b"by bye", b"lost", b"shown out", b"wrong")]
    wait_for(lambda: len(server.clients) == 4)
    peers[0].send(wire.srm(b"join red", 1))
    wire.next_frame(peers[0])
    peers[0].send(wire.BYE_FRAME)
    wait_for(lambda: len(server.clients.left()) == 1)
    peers[1].close()
    wait_for(lambda: len(server.clients.left()) == 2)
    server.clients.by_name("shown out").close()
    wait_for(lambda: len(server.clients.left()) == 3)
    peers[3].send(wire.cir())
    left = wait_for(lambda: (found := server.clients.left())[3:] and found)
    assert [(one.row.name, one.reason) for one in left] == [
        ("by bye", DisconnectReason.LEFT),
        ("lost", DisconnectReason.CLOSED_BY_PEER),
        ("shown out", DisconnectReason.CLOSED_BY_SERVER),
        ("wrong", DisconnectReason.PROTOCOL_VIOLATION),
    ]
    assert [one.row.groups for one in left] == [("red",), (), (), ()]
    assert all(one.row.state is ConnectionState.CLOSED and one.row.pid == os.getpid() for one in left)
    times = [one.left_at for one in left]
    assert times == sorted(times)
    assert before - 0.01 < times[0]
    assert times[3] < time.time() + 0.01
    for peer in peers:
        peer.close()


def test_who_goes_is_there_or_has_left_at_any_time(make_server, unix_address):
    """Also while those are told who want to hear of it, and with the groups that it was in."""
    server, told, looks = make_server(unix_address), [], []

    @server.service
    def join(client, request):
        client.join("red")

    @server.on_disconnect
    def look(client, reason):
        looks.append((client.id in server.clients, *server.clients.left()))

    server.on_leave(lambda client, left: told.append(left.row._replace(idle_since=0.0)))
    with server:
        with wire.let_in(server, name=b"anna") as peer:
            peer.send(wire.srm(b"", 1) + wire.BYE_FRAME)
            wait_for(lambda: told)
        ((is_there, seen),) = looks
        (left,) = server.clients.left()
    assert not is_there
    assert (left.row.requests, left.row.frames_in, left.row.in_flight, left.row.groups) == (1, 3, 0, ("red",))
    assert told == [left.row._replace(idle_since=0.0)] == [seen.row._replace(idle_since=0.0)]
    assert seen[1:] == left[1:] == (DisconnectReason.LEFT, left.left_at)


def test_the_last_thousand_are_remembered(make_server, unix_address):
    server = make_server(unix_address, framing="raw")
    with server:
        for _ in range(1003):
            with plug(server.addresses[0]):
                pass
        wait_for(lambda: server.stats()["disconnected"] == 1003)
        left = server.clients.left()
    assert len(left) == 1000
    ids = [one.row.id for one in left]
    assert len(set(ids)) == 1000
    assert [one.left_at for one in left] == sorted(one.left_at for one in left)


def test_those_who_are_there_at_the_end_are_told_apart(make_server, unix_address):
    server = make_server(unix_address)
    with server:
        peer = wire.let_in(server, name=b"to the end")
    (left,) = server.clients.left()
    assert (left.row.name, left.reason) == ("to the end", DisconnectReason.SERVER_STOPPING)
    peer.close()


def test_looking_while_clients_come_and_go(server):
    """Every row is whole, and nobody is in twice; who isn't there any more is among those who have left."""
    chance, peers, there = random.Random(5), [], set()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        if peers and chance.random() < 0.5:
            peers.pop(chance.randrange(len(peers))).close()
        else:
            peers.append(wire.let_in(server, wire.field(wire.SOFTWARE, b"s" * 20), name=b"n" * chance.randint(1, 200)))
        rows = list(server.clients.snapshot())
        assert len({row.id for row in rows}) == len(rows)
        assert all(row.software == "s" * 20 and set(row.name) == {"n"} for row in rows)
        left = server.clients.left()
        assert all(set(one.row.name) == {"n"} for one in left[-3:])
        before, there = there, {row.id for row in rows}
        assert before - there <= {one.row.id for one in left}
    for peer in peers:
        peer.close()


# the program at the other end


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="it asks Linux")
def test_the_program_at_the_other_end(make_server, address, transport):
    server = make_server(address)
    with server, wire.let_in(server):
        (client,) = server.clients.values()
        assert client.exe == (os.readlink("/proc/self/exe") if transport == "unix" else None)


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="it asks Linux")
def test_a_process_that_got_the_number_later_is_not_it():
    now = time.time()
    assert program_of(os.getpid(), now) == os.readlink("/proc/self/exe")
    assert program_of(os.getpid(), now - 10 * 365 * 86400) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert program_of(ended.pid, now) is None
    assert program_of(0, now) is None
    assert program_of(-1, now) is None


def test_by_hand_there_are_idle_times_and_programs_too(unix_address):
    with pysock.MasterSocket(unix_address) as master, socket.socket(socket.AF_UNIX) as peer:
        master.create()
        master.bind()
        master.listen()
        peer.connect(unix_address.removeprefix("unix:"))
        with master.accept() as data:
            assert data.idle_since == data.connected_at
            peer.send(b"x")
            data.recv()
            assert data.idle_since >= data.connected_at
            assert (data.software, data.exe is not None) == ("", Path("/proc/self/exe").exists())
