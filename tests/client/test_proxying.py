"""Clients that are proxies: they say first for whom they connect."""

from __future__ import annotations

import asyncio

import pytest
from support import wait_for

import pysock
from pysock import ProxyHeader, ProxyTLS, aio, connect

#: Whom it is for, in ways that mean the same.
FOR = {
    "texts": ("192.0.2.7:4711", "10.0.0.1:9000"),
    "pairs": (("192.0.2.7", 4711), ("10.0.0.1", 9000)),
    "header": ProxyHeader(source="192.0.2.7:4711", destination="10.0.0.1:9000"),
}


@pytest.fixture
def whose(make_server, transport, socket_dir):
    """A server that says whose the request is, as the proxy said."""
    server = make_server(
        f"unix:{socket_dir}/s?proxy=v2" if transport == "unix" else "tcp://127.0.0.1:0?proxy=v2&trust=127.0.0.1"
    )
    server.service(lambda client, request: f"{client.address} {client.proxy and client.proxy.destination}".encode())
    with server:
        yield server


@pytest.mark.parametrize("proxy", FOR.values(), ids=list(FOR))
def test_a_client_that_is_a_proxy(whose, backend, proxy):
    with connect(whose.addresses[0], backend=backend, proxy=proxy) as client:
        assert client.request(b"") == b"192.0.2.7:4711 10.0.0.1:9000"


def test_one_of_asyncio(whose, backend):
    async def ask():
        async with aio.connect(whose.addresses[0], backend=backend, proxy=FOR["texts"]) as client:
            return await client.request(b"")

    assert asyncio.run(ask()) == b"192.0.2.7:4711 10.0.0.1:9000"


def test_one_that_connects_again_says_it_again(whose, backend):
    """And so does each of a pool."""
    options = {"backend": backend, "proxy": FOR["pairs"]}
    with connect(whose.addresses[0], reconnect=True, **options) as client:
        whose.clients[client.id].close()
        wait_for(lambda: not whose.clients)
        assert client.request(b"", idempotent=True).startswith(b"192.0.2.7:4711 ")
        assert whose.stats()["established"] == 2
    with pysock.Pool(whose.addresses[0], 2, **options) as pool:
        assert pool.request(b"").startswith(b"192.0.2.7:4711 ")


def test_what_came_may_be_passed_on(whose, backend, make_server, socket_dir):
    """A proxy written in Python is a server and a client."""
    front = make_server(f"unix:{socket_dir}/front?proxy=any")

    @front.service(threads=1)
    def _pass(client, request):
        with connect(whose.addresses[0], backend=backend, proxy=client.proxy) as behind:
            return behind.request(request)

    tls = ProxyTLS(client=7, verify=0, cn="joe")
    first = ProxyHeader(source="192.0.2.9:1", destination="10.0.0.1:2", ssl=tls, items=((0xE0, b"own"),))
    with front, connect(front.addresses[0], backend=backend, proxy=first) as client:
        assert client.request(b"") == b"192.0.2.9:1 10.0.0.1:2"
        wait_for(whose.clients.left)
        assert whose.clients.left()[-1].row.address == "192.0.2.9:1"


def test_one_that_sees_whether_the_server_is_well(whose, backend):
    with connect(whose.addresses[0], backend=backend, proxy=ProxyHeader(source=None)) as client:
        assert client.ping() > 0
        assert client.request(b"").endswith(b" None")


def test_without_it_the_client_is_told(whose, backend):
    with pytest.raises(pysock.ConnectionRefused, match="no header of the PROXY protocol came first") as caught:
        connect(whose.addresses[0], backend=backend)
    assert caught.value.code == 7


def test_a_server_that_expects_none(make_server, unix_address, backend):
    """To it a header is no frame."""
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    with server, pytest.raises(pysock.ConnectionRefused, match="not a frame of the pysock protocol"):
        connect(server.addresses[0], backend=backend, proxy=FOR["texts"])


WRONG = [
    "192.0.2.7:4711",
    ("a:1", "b:2"),
    ("192.0.2.7", 1),
    ProxyHeader(source="192.0.2.7:1", ssl=ProxyTLS(client=256)),
    ProxyHeader(source="192.0.2.7:1", ssl=ProxyTLS(verify=-1)),
]


@pytest.mark.parametrize("proxy", WRONG)
def test_what_is_no_proxy_is_told_before_anything_is_sent(whose, backend, proxy):
    for open_one in (connect, aio.connect):
        with pytest.raises((TypeError, ValueError), match="proxy"):
            open_one(whose.addresses[0], backend=backend, proxy=proxy)
    assert whose.stats()["accepted"] == 0


def test_tls_behind_the_header(make_server, backend):
    """A proxy that passes TLS on sends its header before the handshake, in the clear."""
    pytest.importorskip("trustme")
    from certificates import certificates  # noqa: PLC0415  # it takes a while to make them

    address = "tls://127.0.0.1:0?proxy=v2&trust=127.0.0.1"
    server = make_server(address, tls=certificates().served)
    server.service(lambda client, request: f"{client.address} {client.tls.version}".encode())
    with server:
        target, trusting = server.addresses[0].bare(), certificates().trusting
        with connect(target, backend=backend, tls=trusting, proxy=FOR["texts"]) as client:
            assert client.request(b"") == b"192.0.2.7:4711 TLSv1.3"

        async def ask():
            async with aio.connect(target, backend=backend, tls=trusting, proxy=FOR["texts"]) as client:
                return await client.request(b"")

        assert asyncio.run(ask()) == b"192.0.2.7:4711 TLSv1.3"
        with pytest.raises(ConnectionError):
            connect(target, backend=backend, tls=trusting)
        wait_for(lambda: server.stats()["refused_header"] == 1)
