"""Broadcasts to some: by what a server knows of its clients, and to all but one."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
import wire
from support import wait_for

from pysock import Limits

NAMES = ("sensor-1", "sensor-2", "actor-1", "")


@pytest.fixture(params=[None, {"mode": "0600"}, {"limit": 100}], ids=["usual", "unchecked", "counted"])
def unix_server(request, make_server, unix_address):
    """Servers that look at the users of their peers when they come, and one that doesn't."""
    options = request.param or {}
    address = f"{unix_address}?mode={options['mode']}" if "mode" in options else unix_address
    return make_server(address, limits=Limits(max_clients_per_uid=options.get("limit")))


@pytest.fixture
def crowd(make_server, address):
    """A server, and peers by their names; the sensors are in a group."""
    server = make_server(address)

    @server.service
    def tell_others(client, request):
        return b"%d" % server.clients.broadcast(request, but=client)

    with ExitStack() as stack:
        stack.enter_context(server)
        peers = {name: stack.enter_context(wire.let_in(server, name=name.encode())) for name in NAMES}
        wait_for(lambda: len(server.clients) == len(NAMES))
        for client in server.clients.values():
            if client.name.startswith("sensor"):
                client.join("sensors")
        yield server, peers


def reached(server, peers, *, outside=True, **wanted):
    """The names of those whom a broadcast reaches, each once; what it returns must be their number."""
    told = server.clients.broadcast(b"some", **wanted)
    server.clients.broadcast(b"all")
    names = set()
    for name, peer in peers.items():
        frame = wire.next_frame(peer)
        if frame == wire.pushed(b"some"):
            names.add(name)
            frame = wire.next_frame(peer)
        assert frame == wire.pushed(b"all")
    assert told == len(names)
    return names


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, set(NAMES)),
        ({}, set(NAMES)),
        ({"name": "sensor-*"}, {"sensor-1", "sensor-2"}),
        ({"name": "*-1"}, {"sensor-1", "actor-1"}),
        ({"name": ""}, {""}),
        ({"name": "nobody"}, set()),
        ({"name": "*"}, set(NAMES)),
        ({"group": "sensors"}, {"sensor-1", "sensor-2"}),
        ({"group": "sensors", "name": "*-2"}, {"sensor-2"}),
        ({"group": "actors"}, set()),
        ({"uid": 4_000_000_000}, set()),
    ],
)
def test_where(crowd, where, expected):
    assert reached(*crowd, where=where) == expected


@pytest.mark.parametrize("but", NAMES)
def test_but(crowd, but):
    server, peers = crowd
    other = next(client for client in server.clients.values() if client.name == but)
    assert reached(server, peers, but=other) == set(NAMES) - {but}
    assert reached(server, peers, but=other, where={"name": "sensor-*"}) == {"sensor-1", "sensor-2"} - {but}
    group = server.clients.group("sensors")
    assert group.send(b"x", but=other) == 2 - (other in group)


def test_a_handler_tells_all_but_the_one_that_asks(crowd):
    _, peers = crowd
    peers["sensor-1"].send(wire.srm(b"news", 1))
    assert wire.next_frame(peers["sensor-1"]) == wire.replied(b"3", 1)
    assert all(wire.next_frame(peers[name]) == wire.pushed(b"news") for name in NAMES[1:])


def test_one_that_has_gone_is_left_out_all_the_same(crowd):
    server, peers = crowd
    other = server.clients.by_name("sensor-1")
    peers.pop("sensor-1").close()
    wait_for(lambda: len(server.clients) == len(NAMES) - 1)
    assert reached(server, peers, but=other) == set(NAMES) - {"sensor-1"}


def test_by_user(unix_server):
    with unix_server as server, wire.let_in(server, name=b"me") as peer:
        assert reached(server, {"me": peer}, where={"uid": os.getuid()}) == {"me"}
        assert reached(server, {"me": peer}, where={"uid": os.getuid() + 1}) == set()
        assert reached(server, {"me": peer}, where={"uid": os.getuid(), "name": "m?"}) == {"me"}


def test_over_tcp_nobody_is_a_user(make_server):
    server = make_server("tcp://127.0.0.1:0")
    with server, wire.let_in(server, name=b"me") as peer:
        assert reached(server, {"me": peer}, where={"uid": os.getuid()}) == set()
        assert reached(server, {"me": peer}, where={"uid": 0}) == set()


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (lambda client: True, TypeError, r"takes fields.*not a function, for it would run for each client: go through"),
        ("sensor-*", TypeError, r"where= takes fields, for example where=\{'name': 'sensor-\*'\}, not 'sensor-\*'"),
        ([("name", "x")], TypeError, "where= takes fields"),
        ({"nane": "x"}, ValueError, "where= has a field 'nane': a client is told by uid, name, group"),
        ({"name": b"x"}, TypeError, "takes a pattern for names"),
        ({"uid": "root"}, TypeError, "takes the number of a user, not 'root'"),
        ({"uid": True}, TypeError, "takes the number of a user"),
        ({"uid": -1}, ValueError, "must be the number of a user, not -1"),
        ({"group": ""}, ValueError, "a group's name must not be empty"),
        ({"group": 7}, TypeError, "a group's name is a str, not 7"),
    ],
)
def test_a_wrong_where(crowd, where, error, words):
    server, peers = crowd
    with pytest.raises(error, match=words):
        server.clients.broadcast(b"some", where=where)
    assert reached(server, peers, where={"group": "sensors"}) == {"sensor-1", "sensor-2"}


def test_a_wrong_but(crowd, make_server, unix_address):
    server, _ = crowd
    with pytest.raises(TypeError, match="but= takes a client, a DataSocket, not 'sensor-1'"):
        server.clients.broadcast(b"x", but="sensor-1")
    other = make_server(f"{unix_address}.2")
    with other, wire.let_in(other, name=b"sensor-1"):
        client = other.clients.by_name("sensor-1")
        with pytest.raises(ValueError, match=r"but= must be a client of this server, not <DataSocket"):
            server.clients.broadcast(b"x", but=client)
        with pytest.raises(ValueError, match="of this server"):
            server.clients.group("sensors").send(b"x", but=client)
