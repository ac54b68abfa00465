"""What a server says of its services and of itself, and names of which there is one each."""

from __future__ import annotations

import threading

import pytest
from support import RawPeer, wait_for

import pysock
from pysock import ConnectionLost, Limits, aio
from pysock.wire import texts
from pysock.wire.cir import decode_welcome
from pysock.wire.format import GOAWAY_REPLACED, Kind, ServiceOption


def upper(client, request):
    return request.upper()


@pytest.mark.parametrize("wrong", ["", "one", None, True])
def test_the_words_for_names(backend, wrong):
    with pytest.raises(ValueError, match="names must be 'any' or 'unique'"):
        pysock.Server("unix:x", backend=backend, names=wrong)
    with pytest.raises(ValueError, match="names='unique' needs the framing 'pysock'"):
        pysock.Server("unix:x", backend=backend, names="unique", framing="line")


def test_by_default_there_may_be_two(make_server, address):
    with make_server(address) as server, RawPeer.connect(server.addresses[0]) as one:
        one.hello("anna")
        with RawPeer.connect(server.addresses[0]) as two:
            two.hello("anna")
            assert len(server.clients) == 2


def test_who_comes_by_a_name_takes_its_place(make_server, address):
    server = make_server(address, names="unique")
    server.service(upper)
    gone = []
    server.on_disconnect(lambda client, reason: gone.append((client.name, str(reason))))
    with server, RawPeer.connect(server.addresses[0]) as one, RawPeer.connect(server.addresses[0]) as other:
        one.hello("anna")
        other.hello("otto")
        one.srm(b"in time")
        assert one.frame().payload == b"IN TIME"
        with RawPeer.connect(server.addresses[0]) as two:
            two.hello("anna")
            goodbye = one.frame()
            assert (goodbye.kind, goodbye.code, goodbye.payload) == (
                Kind.GOAWAY,
                GOAWAY_REPLACED,
                texts.REPLACED.encode(),
            )
            assert one.frame() is None
            two.srm(b"here")
            assert two.frame().payload == b"HERE"
            other.srm(b"me too")
            assert other.frame().payload == b"ME TOO"
            assert wait_for(lambda: gone) == [("anna", "closed by server")]
            assert sorted(client.name for client in server.clients.values()) == ["anna", "otto"]


def test_those_without_a_name_replace_nobody(make_server, address):
    with make_server(address, names="unique") as server, RawPeer.connect(server.addresses[0]) as one:
        one.hello()
        with RawPeer.connect(server.addresses[0]) as two:
            two.hello()
            assert len(server.clients) == 2


def test_one_that_is_refused_replaces_nobody(make_server, address):
    server = make_server(address, names="unique")
    times = []
    server.on_connect(lambda client: times.append(client) or len(times) == 1)
    with server, RawPeer.connect(server.addresses[0]) as one:
        one.hello("anna")
        with pytest.raises(pysock.ConnectionRefused):
            pysock.connect(server.addresses[0], "anna")
        assert [client.name for client in server.clients.values()] == ["anna"]


def test_a_healing_client_that_was_replaced_stays_away(make_server, address, backend):
    with make_server(address, names="unique") as server:
        where = server.addresses[0]
        with pysock.connect(where, "anna", backend=backend, reconnect=True) as one:
            told = []

            def listen():
                try:
                    list(one.pushes())
                except ConnectionLost as error:
                    told.append(str(error))

            thread = threading.Thread(target=listen)
            thread.start()
            with pysock.connect(where, "anna", backend=backend, reconnect=True) as two:
                thread.join(10)
                assert one.closed
                assert one.ended == ("goodbye", texts.REPLACED)
                assert len(told) == 1
                assert texts.REPLACED in told[0]
                wait_for(lambda: len(server.clients) == 1)
                assert two.ping() < 5


def test_an_asyncio_one_as_well(run, make_server, address, backend):
    async def main():
        async with (
            aio.connect(server.addresses[0], "anna", backend=backend, reconnect=True) as one,
            aio.connect(server.addresses[0], "anna", backend=backend, reconnect=True) as two,
        ):
            with pytest.raises(ConnectionLost, match="replaced"):
                async for _ in one:
                    pass
            assert one.ended == ("goodbye", texts.REPLACED)
            assert await two.ping() < 5

    with make_server(address, names="unique") as server:
        run(main())


# What the server says of its services


def test_a_server_says_which_services_may_run_twice(make_server, address):
    server = make_server(address)
    server.service(idempotent=True)(upper)
    server.service("once")(upper)
    server.service("twice", idempotent=True)(upper)
    with server, RawPeer.connect(server.addresses[0]) as peer:
        welcome = decode_welcome(peer.hello().payload)
        assert welcome.options == {0: ServiceOption.IDEMPOTENT, 2: ServiceOption.IDEMPOTENT}
        assert welcome.idle_timeout is None


def test_a_client_believes_it(make_server, address, backend):
    server = make_server(address)
    server.service("twice", idempotent=True)(upper)
    with server, pysock.connect(server.addresses[0], backend=backend) as client:
        assert client._services.is_idempotent("twice")
        assert not client._services.is_idempotent(None)
        assert not client._services.is_idempotent("none")


def test_a_listener_follows_the_servers_idle_timeout(make_server, address, backend):
    """It beats often enough by itself, on a Unix socket, too."""
    with (
        make_server(address, limits=Limits(idle_timeout=0.4)) as server,
        pysock.connect(server.addresses[0], backend=backend) as client,
    ):
        assert list(client.pushes(timeout=1.2)) == []
        assert client.ended is None


def test_an_asyncio_listener_as_well(run, make_server, address, backend):
    async def main():
        async with aio.connect(server.addresses[0], backend=backend) as client:
            assert [push async for push in client.pushes(timeout=1.2)] == []
            assert client.ended is None

    with make_server(address, limits=Limits(idle_timeout=0.4)) as server:
        run(main())
