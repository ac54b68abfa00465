"""The service `_nodes`: where the servers of a service are, how many clients they have, and who is told of changes."""

from __future__ import annotations

import os
import threading
import time

import pytest
from support import RawPeer, wait_for

import pysock
from pysock import ConnectionState, Limits, PysockError, Server
from pysock.wire.cir import encode_cir
from pysock.wire.features import encode_deadline
from pysock.wire.format import FLAG_DEADLINE, Kind, encode
from pysock.wire.nodes import NodeRow, NodeState, decode_nodes

OTHERS = ("tcp://10.0.0.2:9000", "tcp://10.0.0.3:9000")


@pytest.fixture
def advertising(make_server, unix_address):
    """A server that tells where the others are."""

    def make(*others, **options):
        server = make_server(unix_address, advertise=[unix_address, *others], **options)

        @server.service("close")
        def close(client, request):
            client.close()
            return b"closed"

        @server.service
        def upper(client, request):
            return request.upper()

        server.start()
        return server

    return make


class Asking(RawPeer):
    """A client by hand, which asks for the nodes."""

    @classmethod
    def of(cls, server, name=""):
        peer = cls.connect(server.addresses[0])
        peer.send(encode_cir(name))
        assert peer.frame().kind == Kind.CIR_ACCEPTED
        return peer

    def ask(self, version=b"", request_id=7):
        self.srm(version, service=1, request_id=request_id)

    def nodes(self, request_id=7):
        frame = self.frame()
        assert (frame.kind, frame.request_id) == (Kind.REPLY, request_id)
        return decode_nodes(frame.payload)

    def hold(self, server):
        """Ask, and ask what is new; the former answer."""
        self.ask()
        nodes = self.nodes()
        self.ask(nodes.version)
        wait_for(lambda: server.clients.nodes._waiting)
        return nodes


def test_it_tells_who_is_there_and_how_many_clients_there_are(advertising, unix_address):
    server = advertising(*OTHERS, limits=Limits(max_clients=50))
    with Asking.of(server) as one, Asking.of(server):
        one.ask()
        nodes = one.nodes()
        assert nodes.nodes == (NodeRow((unix_address,), 2, 50, NodeState.SERVING), *(NodeRow((o,)) for o in OTHERS))
        assert nodes.addresses == (unix_address, *OTHERS)


def test_a_relative_path_becomes_a_whole_one(make_server, socket_dir, monkeypatch):
    """By the list the server knows itself, and clients may be in other directories."""
    monkeypatch.chdir(socket_dir)
    server = make_server("unix:own", advertise=["unix:own", "unix:./other"])
    server.start()
    with Asking.of(server) as one:
        one.ask()
        nodes = one.nodes()
        assert nodes.own.addresses == (f"unix:{socket_dir}/own",)
        assert nodes.addresses == (f"unix:{socket_dir}/own", f"unix:{socket_dir}/other")


def test_who_knows_the_list_is_told_of_the_next_one(advertising, unix_address):
    server = advertising()
    with Asking.of(server) as one, Asking.of(server) as two:
        old = one.hold(server)
        two.ask(b"12345678")  # of another server, say
        assert two.nodes().version == old.version
        one.srm(b"x", request_id=8)  # meanwhile all else is answered
        assert one.frame().payload == b"X"
        server.advertise(unix_address, OTHERS[0])
        new = one.nodes()
        assert new.addresses == (unix_address, OTHERS[0])
        assert new.version != old.version


def test_the_same_list_is_no_news(advertising, unix_address):
    server = advertising()
    with Asking.of(server) as one:
        one.hold(server)
        server.advertise(unix_address)
        assert server.clients.nodes._waiting
        server.advertise(f"{unix_address},{OTHERS[0]}")
        assert one.nodes().addresses == (unix_address, OTHERS[0])


def test_its_goodbye_comes_with_what_it_does(advertising):
    server = advertising()
    with Asking.of(server) as one:
        one.hold(server)
        began = time.monotonic()
        server.stop(5)
        assert time.monotonic() - began < 2
        frames = {frame.kind: frame.payload for frame in iter(one.frame, None)}
        assert decode_nodes(frames[Kind.REPLY]).own.state == NodeState.DRAINING
        assert Kind.GOAWAY in frames


def test_a_lame_server_says_so_and_is_waited_for_on(advertising):
    server = advertising()
    with Asking.of(server) as one:
        one.hold(server)
        for tell, state in [(server.lame, NodeState.DRAINING), (server.resume, NodeState.SERVING)]:
            tell()
            nodes = one.nodes()
            assert nodes.own.state == state
            one.ask(nodes.version)
            wait_for(lambda: server.clients.nodes._waiting)  # until there is more


def test_whoever_is_closed_by_the_server_doesnt_wait_for_news(advertising):
    """In the loop, and by another thread."""
    server = advertising()
    with Asking.of(server) as one:
        one.hold(server)
        one.srm(b"", service=2, request_id=8)
        assert {frame.request_id for frame in iter(one.frame, None)} == {7, 8}
    with Asking.of(server) as one:
        one.hold(server)
        (client,) = server.clients.values()
        client.close()
        assert {frame.kind for frame in iter(one.frame, None)} == {Kind.REPLY}
        assert client.state is ConnectionState.CLOSED


def test_nor_one_that_asks_while_it_is_being_closed(advertising):
    server = advertising()
    with Asking.of(server) as one:
        one.ask()
        version = one.nodes().version
        one.send(encode(Kind.SRM, b"", code=2, request_id=8) + encode(Kind.SRM, version, code=1, request_id=9))
        assert one.rest()  # to the end


def test_nor_the_older_one_of_a_name(advertising):
    server = advertising(names="unique")
    with Asking.of(server, "me") as one:
        one.hold(server)
        with Asking.of(server, "me"):
            assert Kind.REPLY in {frame.kind for frame in iter(one.frame, None)}


@pytest.mark.parametrize("how", ["leaves", "cancels", "is late"])
def test_who_doesnt_wait_any_more_is_forgotten(advertising, backend, how):
    server = advertising()
    with pysock.connect(server.addresses[0], backend=backend) as client:
        version = decode_nodes(client.request(b"", service="_nodes")).version
        if how == "leaves":
            client._link.send(Kind.SRM, 1, 9, version, 1.0)
            wait_for(lambda: server.clients.nodes._waiting)
        elif how == "cancels":
            with pytest.raises(pysock.RequestTimeout):
                client.request(version, service="_nodes", timeout=0.05)
        else:
            link = client._link
            link.send(Kind.SRM, 1, 9, encode_deadline(0.2) + version, 1.0, FLAG_DEADLINE)
            wait_for(lambda: server.clients.nodes._waiting)
            wait_for(lambda: not server.clients.nodes._waiting)
    wait_for(lambda: not server.clients.nodes._waiting)
    server.advertise()  # nobody is told, and nothing breaks


def test_without_addresses_it_is_where_it_listens(make_server, unix_address, backend):
    server = make_server(unix_address, "tcp://127.0.0.1:0", "tcp://0.0.0.0:0", advertise=[], insecure=True)
    with server, pysock.connect(unix_address, backend=backend) as client:
        nodes = decode_nodes(client.request(b"", service="_nodes"))
        assert nodes.own.addresses == (unix_address, str(server.addresses[1]))
        assert len(nodes.nodes) == 1


def test_it_is_there_only_where_it_is_asked_for(make_server, unix_address, backend, caplog):
    server = make_server(unix_address)
    with server, pysock.connect(unix_address, backend=backend) as client:
        assert dict(client.services) == {}
        with pytest.raises(
            PysockError, match=r"made without advertise=, so that no client asks: give it an empty list"
        ):
            server.advertise("a:1")
    assert "has no service" in caplog.text
    caplog.clear()
    with make_server(unix_address, advertise=[]):
        pass
    assert "has no service" in caplog.text  # of the program's


@pytest.mark.parametrize("name", ["_nodes", "_x", "_"])
def test_names_with_a_line_in_front_are_the_servers_own(unix_address, name):
    for advertise in (None, []):
        server = Server(unix_address, advertise=advertise)
        with pytest.raises(ValueError, match=rf"the service name '{name}' begins with '_', as the server's own do: "):
            server.service(name)(lambda client, request: b"")


@pytest.mark.parametrize(
    ("advertise", "message"),
    [
        ("nonsense", "bad address 'nonsense'"),
        (["a:1", "fd://3"], "advertise= fd://3 is only something to listen at"),
        (["tcp://a:0"], "advertise= tcp://a:0 is only something to listen at: write where clients connect to"),
    ],
)
def test_what_cant_be_advertised(unix_address, advertise, message):
    with pytest.raises(ValueError, match=message) as caught:
        Server(unix_address, advertise=advertise)
    assert caught.value.parameter in {"advertise", "address"}


def test_other_framings_cant_tell(unix_address):
    with pytest.raises(ValueError, match=r"advertise= needs the framing 'pysock': clients of 'line' can't ask for it"):
        Server(unix_address, framing="line", advertise=[])
    with pytest.raises(TypeError):
        Server(unix_address, advertise=[3])


def test_many_threads_change_it_while_many_wait(advertising, unix_address):
    """Each is told at least once, and of the last list in the end."""
    server = advertising()
    peers = [Asking.of(server) for _ in range(8)]

    def change(number):
        for at in range(20):
            server.advertise(unix_address, f"tcp://10.0.{number}.{at}:9")

    def follow(peer):
        version = b""
        while True:
            peer.ask(version)
            nodes = peer.nodes()
            if nodes.addresses[-1] == OTHERS[0]:
                return
            assert nodes.version != version
            version = nodes.version

    threads = [threading.Thread(target=follow, args=(peer,)) for peer in peers]
    threads += [threading.Thread(target=change, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads[-3:]:
        thread.join(10)
    server.advertise(unix_address, OTHERS[0])
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for peer in peers:
        peer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_nobody_who_waits(advertising):
    server = advertising()
    with Asking.of(server) as one:
        one.hold(server)
        nodes, held, go_on = server.clients.nodes, threading.Event(), threading.Event()

        def hold():  # as another thread may at that moment
            with nodes._lock:
                held.set()
                go_on.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        child = os.fork()
        if not child:
            os._exit(0 if not nodes._waiting and nodes._lock.acquire(blocking=False) else 1)
        go_on.set()
        thread.join(10)
        assert os.waitpid(child, 0)[1] == 0
        server.advertise()
        assert one.nodes()
