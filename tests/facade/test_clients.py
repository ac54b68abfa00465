from __future__ import annotations

import errno
import threading
from collections.abc import Mapping

import pytest
import wire
from support import RawPeer, plug, wait_for

from pysock import ClientTable, Limits, connect
from pysock.base.ids import shown
from pysock.data import DataSocket


@pytest.fixture
def server(make_server, address):
    server = make_server(address)
    server.service(lambda client, request: request)
    server.service("broadcast")(lambda client, request: b"%d" % server.clients.broadcast(bytes(int(request))))
    with server:
        yield server


@pytest.fixture
def join(server):
    """``join(name)``: a connected client; all leave at the end."""
    clients = []

    def join(name="", **options):
        clients.append(connect(server.addresses[0], name=name, backend=server.backend, **options))
        return clients[-1]

    yield join
    for client in clients:
        client.close()


def test_a_server_that_was_never_started_has_nobody(make_server, unix_address):
    table = make_server(unix_address).clients
    assert isinstance(table, ClientTable)
    assert (len(table), list(table), dict(table), table.broadcast(b"x")) == (0, [], {}, 0)
    with pytest.raises(KeyError):
        table.by_name("x")
    with pytest.raises(KeyError):
        table[1]
    assert 1 not in table


def test_it_is_a_mapping(server, join):
    table = server.clients
    assert isinstance(table, Mapping)
    clients = [join(f"c{number}") for number in range(3)]
    ids = [client.id for client in clients]
    assert len(table) == 3
    assert list(table) == ids  # oldest first
    assert list(table.keys()) == ids
    assert [data.name for data in table.values()] == ["c0", "c1", "c2"]
    assert list(table.items()) == [(number, table[number]) for number in ids]
    assert all(isinstance(data, DataSocket) for data in table.values())
    assert ids[0] in table
    assert table.get(ids[0]) is table[ids[0]]
    assert repr(table) == "<ClientTable of 3>"


@pytest.mark.parametrize("wrong", [0, -1, 1 << 64, 12345, "c0", None, 1.5, b"c0"])
def test_what_is_no_client(server, join, wrong):
    join("c0")
    assert wrong not in server.clients
    assert server.clients.get(wrong) is None
    with pytest.raises(KeyError):
        server.clients[wrong]


def test_the_same_client_is_the_same_object(server, join):
    client = join("me")
    data = server.clients[client.id]
    data.data = {"visits": 3}
    assert server.clients[client.id] is data
    assert next(iter(server.clients.values())) is data
    assert server.clients.by_name("me") is data
    assert server.clients.by_name("me").data == {"visits": 3}


def test_a_client_that_left_is_no_longer_there(server, join):
    client, other = join("me"), join("other")
    data = server.clients[client.id]
    client.close()
    wait_for(lambda: data.state.name == "CLOSED")
    assert client.id not in server.clients
    wait_for(lambda: len(server.clients) == 1)
    assert list(server.clients) == [other.id]
    with pytest.raises(KeyError):
        server.clients[client.id]
    with pytest.raises(KeyError, match="me"):
        server.clients.by_name("me")
    wait_for(lambda: client.id not in server.clients._sockets)  # no object is kept


def test_a_client_that_comes_again_is_another_one(server, join):
    first = join("me")
    data = server.clients[first.id]
    first.close()
    wait_for(lambda: not server.clients)
    second = join("me")
    assert second.id != first.id
    assert server.clients.by_name("me") is not data


def test_the_order_is_that_of_coming_even_if_places_are_taken_again(server, join):
    first, second = join("first"), join("second")
    first.close()
    wait_for(lambda: len(server.clients) == 1)
    third = join("third")
    assert list(server.clients) == [second.id, third.id]


def test_by_name_is_who_connected_last(server, join):
    first, second = join("me"), join("me")
    assert server.clients.by_name("me").id == second.id
    second.close()
    wait_for(lambda: len(server.clients) == 1)
    assert server.clients.by_name("me").id == first.id


def test_a_connection_without_its_cir_is_not_in_the_table(server):
    with RawPeer(plug(server.addresses[0])) as peer:
        wait_for(lambda: server.stats()["pending"] == 1)
        assert len(server.clients) == 0
        assert list(server.clients) == []
        peer.hello("late")
        assert [data.name for data in server.clients.values()] == ["late"]


def test_broadcast(server, join):
    clients = [join() for _ in range(3)]
    assert server.clients.broadcast(memoryview(b"to all")) == 3
    for client in clients:
        assert next(client.pushes(timeout=5)) == b"to all"
    with pytest.raises(TypeError, match="a payload must be bytes-like, not str"):
        server.clients.broadcast("text")


@pytest.mark.parametrize("where", ["another thread", "the loop"])
def test_a_broadcast_counts_those_who_take_so_much(server, join, where):
    """One that said in its CIR that it takes less gets nothing, and isn't counted, whoever asks."""
    takes_all, takes_less = join(), join(max_payload=100)
    server_says = lambda size: server.clients.broadcast(bytes(size))  # noqa: E731
    if where == "the loop":
        server_says = lambda size: int(takes_all.request(b"%d" % size, service="broadcast"))  # noqa: E731
    assert server_says(101) == 1
    assert server_says(100) == 2
    assert [len(push) for push in (next(takes_all.pushes(timeout=5)), next(takes_all.pushes(timeout=5)))] == [101, 100]
    assert len(next(takes_less.pushes(timeout=5))) == 100


def test_close_from_the_server(server, join):
    client = join("me")
    data = server.clients.by_name("me")
    data.close()
    wait_for(lambda: not server.clients)
    with pytest.raises(ConnectionError):
        client.request(b"x")
    data.close()


def test_what_waits_for_a_loop_that_is_held_up_is_bounded(make_server, address):
    """By 64 MiB: what is too much raises and nobody gets it; what was taken is sent. To close a client works always."""
    server = make_server(
        address, limits=Limits(output_drop=128 * 2**20, output_pause=128 * 2**20, push_hard=128 * 2**20)
    )
    held, go_on = threading.Event(), threading.Event()

    @server.service
    def hold(client, request):
        held.set()
        assert go_on.wait(10)

    piece, fitting = bytes(4 * 2**20), 15  # each takes a little more than its bytes
    with server, wire.let_in(server, name=b"holds") as holds, wire.let_in(server, name=b"goes") as goes:
        holds.send(wire.srm(b"", 1))
        assert held.wait(10)
        data = server.clients.by_name("holds")
        for _ in range(fitting):
            data.send(piece)
        with pytest.raises(OSError, match="64 MiB that other threads send wait for it already") as raised:
            data.send(piece)
        assert raised.value.errno == errno.ENOBUFS
        with pytest.raises(OSError, match="64 MiB"):
            server.clients.broadcast(piece)
        data.send(b"small")
        server.clients.by_name("goes").close()
        go_on.set()
        assert wire.next_frame(holds) == wire.replied(b"", 1)
        assert all(wire.next_frame(holds) == wire.pushed(piece) for _ in range(fitting))
        assert wire.next_frame(holds) == wire.pushed(b"small")
        assert wire.rest_of(goes) == []
        data.send(piece)
        assert wire.next_frame(holds) == wire.pushed(piece)


def test_values_leave_out_who_goes_meanwhile(server, join):
    clients = [join(f"c{number}") for number in range(3)]
    values, items = iter(server.clients.values()), iter(server.clients.items())
    assert next(values).name == "c0"
    assert next(items)[1].name == "c0"
    clients[1].close()
    wait_for(lambda: len(server.clients) == 2)
    assert [data.name for data in values] == ["c2"]
    assert [data.name for _, data in items] == ["c2"]


def test_what_a_data_socket_knows(server, join, transport):
    client = join("me")
    client.request(b"hello")
    data = server.clients[client.id]
    assert data.id == client.id
    assert data.name == "me"
    assert data.fd > 2
    assert data.state.name == "ESTABLISHED"
    assert data.requests == 1
    assert data.connected_at > 1e9
    assert (data.peer is None) is (transport != "unix")
    if transport == "unix":
        assert data.address == str(server.addresses[0])
    assert repr(data) == f"<DataSocket {shown(data.id)} 'me' ESTABLISHED fd={data.fd} {data.address}>"


def test_a_name_cannot_write_into_a_log(server, join):
    client = join("me\n\x1b[31mERROR")
    assert repr(server.clients[client.id]).count("\n") == 0
    assert "\x1b" not in repr(server.clients[client.id])


def repeated(work, done, errors):
    def run():
        try:
            while not done.is_set():
                work()
        except Exception as error:
            errors.append(error)

    return threading.Thread(target=run)


@pytest.mark.slow
def test_looking_while_clients_come_and_go(make_server, unix_address):
    """Threads look at everything while clients come and go: no exception, and no object left at the end."""
    server = make_server(unix_address, limits=Limits(max_clients=100))
    server.service(lambda client, request: request)
    done, errors = threading.Event(), []

    def look():
        for data in server.clients.values():
            data.name, data.state, data.requests, repr(data)
        for key in list(server.clients):
            server.clients.get(key)

    def visit():
        with connect(unix_address, name="visitor", backend=server.backend) as client:
            client.request(b"x")

    with server:
        threads = [repeated(look, done, errors) for _ in range(2)] + [repeated(visit, done, errors) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.stats()["established"] >= 300 or errors, timeout=40)
        done.set()
        for thread in threads:
            thread.join()
        assert errors == []
        wait_for(lambda: not server.clients)
        wait_for(lambda: server.clients._sockets == {})
