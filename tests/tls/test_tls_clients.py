"""Both kinds of clients over TLS: whom they trust, what they go on with, what is for good, and what is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time

import pytest
from certificates import certificates
from support import PATIENCE, own_host, wait_for

import pysock
import pysock.aio
from pysock import TLS, ConnectionLost, Limits, RequestTimeout, Server, ServerFull, TLSError
from pysock.wire.format import Refusal


@pytest.fixture(scope="module")
def made():
    return certificates()


@pytest.fixture
def serve(make_server, made, driver):
    def start(address="tls://127.0.0.1:0", tls=None, **options):
        server = make_server(address, tls=tls or made.served, **options)
        server.service(lambda client, request: request.upper())
        server.service("resumed")(lambda client, request: b"%d" % client.tls.resumed)
        server.start()
        return server

    return start


def blocking(address, request=b"x", service=None, **options):
    with pysock.connect(address, **options) as client:
        return client.request(request, service), client.tls


def awaiting(address, request=b"x", service=None, **options):
    async def ask():
        async with pysock.aio.connect(address, **options) as client:
            return await client.request(request, service), client.tls

    return asyncio.run(ask())


@pytest.fixture(params=[blocking, awaiting], ids=["blocking", "asyncio"])
def ask(request):
    """``ask(address, request, service)``: the reply, and what came of the handshake."""
    return request.param


def test_both_ends(serve, made, ask):
    reply, info = ask(serve().addresses[0], tls=made.trusting)
    assert reply == b"X"
    assert (info.version, info.alpn, info.sni, info.driver) == ("TLSv1.3", "pysock/1", "127.0.0.1", "ssl")
    assert info.sans == ("localhost", "127.0.0.1", "::1")
    assert len(info.fingerprint) == 64


def test_all_in_the_address(serve, made, ask):
    """Of the client; it has a certificate, too."""
    server = serve(tls=TLS(made.server, ca=made.ca), allow={"san": "*.workers.example"})
    address = server.addresses[0]
    assert ask(f"{address}?ca={made.ca}&cert={made.client}")[0] == b"X"
    assert ask(f"{address}?ca={made.ca}&cert={made.client}&name=localhost")[1].sni == "localhost"


def test_a_context_of_the_programs(serve, made, ask):
    context = ssl.create_default_context(cafile=made.ca)
    assert ask(serve(tls=made.served.server_context()).addresses[0], tls=context)[0] == b"X"


def test_a_key_inside(serve, made, ask):
    server = serve(authkey=b"k")
    assert ask(server.addresses[0], tls=made.trusting, authkey=b"k")[0] == b"X"
    with pytest.raises(pysock.ConnectionRefused, match="another auth key"):
        ask(server.addresses[0], tls=made.trusting, authkey=b"l")


def test_a_session_goes_on(serve, made, ask):
    server, tls = serve(), TLS(ca=made.ca)
    assert [ask(server.addresses[0], b"", "resumed", tls=tls)[0] for _ in range(3)] == [b"0", b"1", b"1"]
    assert ask(server.addresses[0], b"", "resumed", tls=TLS(ca=made.ca))[0] == b"0"


SERVERS = {
    "of another CA": ("stranger", "{ca}", "unable to get local issuer certificate; its CA isn't known here"),
    "signed by itself": ("itself", "{ca}", "self-signed certificate; it is signed by itself"),
    "of a CA that the system doesn't know": ("good", "", "self-signed certificate in certificate chain|unable to get"),
    "expired": ("expired", "{ca}", "certificate has expired; have it renewed"),
    "of another host": ("elsewhere", "{ca}", r"IP address mismatch.*name= says which name"),
    "for clients": ("for clients", "{ca}", "unsuitable certificate purpose|unsupported certificate purpose"),
    "with a NUL in its name": ("nul", "{ca}&name=a.example", "Hostname mismatch"),
}


def server_context(made, kind):
    paths = {
        "good": lambda: made.server,
        "stranger": lambda: made.issue("s_stranger", "127.0.0.1", by=made.stranger),
        "itself": lambda: made.crafted("s_itself", "localhost", by="itself"),
        "expired": lambda: made.issue("s_expired", "127.0.0.1", days=-1),
        "elsewhere": lambda: made.issue("s_elsewhere", "b.example"),
        "for clients": lambda: made.crafted("s_clients", "localhost", use="client"),
        "nul": lambda: made.crafted("s_nul", "a.example\0.b.example", subject="a.example"),
    }
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a TLS takes none that has expired
    context.load_cert_chain(paths[kind]())
    return context


@pytest.mark.parametrize(("kind", "query", "message"), SERVERS.values(), ids=SERVERS)
def test_servers_that_are_not_trusted(serve, made, ask, kind, query, message):
    """It is for good: it isn't tried again, however long may be waited."""
    server = serve(tls=server_context(made, kind))
    query = f"?ca={query.format(ca=made.ca)}" if query else ""
    for options in ({}, {"wait": PATIENCE}, {"reconnect": True}):
        with pytest.raises(TLSError, match=f"(?s)TLS failed: the certificate isn't good: .*({message})"):
            ask(f"{server.addresses[0]}{query}", **options)
    assert server.stats()["accepted"] == 3


def test_anybody_may_be_the_server(serve, made, ask):
    """Only if the client says so."""
    server = serve(tls=server_context(made, "itself"))
    reply, info = ask(f"{server.addresses[0]}?verify=none")
    assert (reply, info.subject, info.sans, len(info.fingerprint)) == (b"X", "", (), 64)


def test_a_certificate_that_is_missing(serve, made, ask):
    server = serve(tls=TLS(made.server, ca=made.ca))
    with pytest.raises(TLSError, match="it wants a certificate of this end: give cert= and key="):
        ask(server.addresses[0], tls=made.trusting, wait=PATIENCE)
    tls = TLS(made.issue("by_stranger", "x.example", by=made.stranger), ca=made.ca)
    with pytest.raises(TLSError, match="the other end says: it doesn't know the CA of this end's certificate"):
        ask(server.addresses[0], tls=tls)


def test_a_server_without_tls(make_server, made, ask):
    server = make_server("tcp://127.0.0.1:0")
    server.service(lambda client, request: request)
    with server:
        where = server.addresses[0]
        with pytest.raises(TLSError, match="the server there speaks no TLS; is it one for tcp://"):
            ask(f"tls://{where.host}:{where.port}", tls=made.trusting)


@contextlib.contextmanager
def silent(play):
    """Somebody who accepts one connection, and does this with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            sock, _ = listener.accept()
            with sock:
                play(sock)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"tls://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_server_that_says_nothing(made, ask):
    done = threading.Event()
    with silent(lambda sock: done.wait(PATIENCE)) as address:
        with pytest.raises(RequestTimeout, match=r"the server didn't answer in the TLS handshake within 0.1 seconds"):
            ask(address, tls=made.trusting, timeout=0.1)
        done.set()


def test_a_server_that_closes(made, ask):
    with silent(lambda sock: sock.recv(100_000)) as address:  # noqa: SIM117  # the end comes behind it
        with pytest.raises(ConnectionLost, match="the connection ended in the TLS handshake"):
            ask(address, tls=made.trusting)


def test_another_protocol_inside(serve, made, ask):
    """What ``()`` offers is nothing, which goes."""
    server = serve()
    assert ask(server.addresses[0], tls=TLS(ca=made.ca, alpn=()))[1].alpn is None
    with pytest.raises(TLSError, match=r"it speaks none of the protocols of alpn= \(no application protocol\)"):
        ask(server.addresses[0], tls=TLS(ca=made.ca, alpn=("pysock/2", "h2")))
    assert ask(serve(tls=TLS(made.server, alpn="h2")).addresses[0], tls=TLS(ca=made.ca, alpn="h2"))[1].alpn == "h2"


def test_a_full_server(serve, made, ask):
    """Before a handshake it can only send an alert, which says so; who waits tries again."""
    server = serve(limits=Limits(max_clients_per_ip=1))
    address = server.addresses[0]
    with pysock.connect(address, tls=made.trusting) as first:
        for _ in range(3):
            with pytest.raises(ServerFull, match=rf"{address.bare()}: the server turned this client away .*it is full"):
                ask(address, tls=made.trusting)
        later = threading.Thread(target=lambda: (wait_for(lambda: server.stats()["refused_peer"] > 3), first.close()))
        later.start()
        assert ask(address, tls=made.trusting, wait=PATIENCE)[0] == b"X"
        later.join()
    assert server.stats()["tls_failures"] == 0


@pytest.mark.parametrize("framing", ["pysock", "line"])
def test_a_server_that_is_not_for_everybody(make_server, made, ask, framing):
    """Nothing was read of who is turned away, whatever it is that is spoken inside."""
    server = make_server("tls://127.0.0.1:0?proxy=v2&trust=10.0.0.0/8", tls=made.served, framing=framing)
    server.service(lambda client, request: request)
    server.start()
    with pytest.raises(pysock.ConnectionRefused, match=r"turned this client away .*isn't allowed to connect") as caught:
        ask(server.addresses[0].bare(), tls=made.trusting)
    assert caught.value.code == Refusal.NOT_ALLOWED
    assert server.stats()["refused_untrusted"] == 1


def test_a_name_that_can_not_be(made, ask):
    with silent(lambda sock: None) as address:  # noqa: SIM117
        with pytest.raises(ValueError, match="can't be the name of a server"):
            ask(f"{address}?ca={made.ca}&name=.x")


def test_much_at_once(serve, made):
    """Large and many, both ways, of several threads, on a connection of few."""
    server = serve()
    with pysock.connect(server.addresses[0], tls=made.trusting) as client:
        large = bytes(range(256)) * 8000
        assert client.request(large) == large.upper()
        assert client.request_many([b"x" * 100] * 5000) == [b"X" * 100] * 5000
        wrong = []

        def some(number):
            for count in range(100):
                request = b"%d %d" % (number, count) * (1 + 1000 * (count % 7))
                if client.request(request) != request.upper():
                    wrong.append(request)

        threads = [threading.Thread(target=some, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_much_at_once_in_a_loop(serve, made):
    server = serve()

    async def main():
        async with pysock.aio.connect(server.addresses[0], tls=made.trusting) as client:
            large = bytes(range(256)) * 8000
            requests = [b"%d" % n + (b"" if n % 100 else large) for n in range(1000)]
            answers = await asyncio.gather(*map(client.request, requests))
            assert [*map(len, answers)] == [*map(len, requests)]
            assert answers == [request.upper() for request in requests]

    asyncio.run(main())


def test_pushes(serve, made):
    server = serve()
    with pysock.connect(server.addresses[0], tls=made.trusting) as client:
        (data,) = server.clients.values()
        for count in range(200):
            data.send(b"%d" % count * (count * 50))
        got = []
        for push in client.pushes(timeout=PATIENCE):
            got.append(push)
            if len(got) == 200:
                break
        assert got == [b"%d" % count * (count * 50) for count in range(200)]


def test_a_pool(serve, made):
    server = serve()
    with pysock.Pool(server.addresses[0], 3, tls=made.trusting) as pool:
        assert [pool.request(b"x") for _ in range(3)] == [b"X"] * 3


def test_leaving_in_order(serve, made, ask):
    server = serve()
    assert ask(server.addresses[0], tls=made.trusting)[0] == b"X"
    wait_for(lambda: server.stats()["disconnected"] == 1)
    assert {server.stats()[name] for name in ("tls_truncated", "violations", "tls_failures")} == {0}


def free_port():
    with socket.socket() as probe:
        probe.bind((own_host(), 0))
        return probe.getsockname()[1]


def test_a_server_that_comes_back(made, backend, driver):
    """Its clients connect again, and go on with their session, which another context doesn't know."""
    address, tls = f"tls://{own_host()}:{free_port()}", TLS(ca=made.ca, name="localhost")

    def server():
        one = Server(address, tls=made.served, backend=backend, tls_driver=driver)
        one.service(lambda client, request: b"%d" % client.tls.resumed)
        one.start()
        return one

    first = server()
    with pysock.connect(address, tls=tls, reconnect=True) as client:
        assert client.request(b"") == b"0"
        first.stop(1)
        second = server()
        try:
            assert client.request(b"") == b"1"  # the same context
            assert client.tls.resumed
        finally:
            second.stop(1)


def test_waiting_for_a_server(made, backend, driver):
    address = f"tls://{own_host()}:{free_port()}"
    server = Server(address, tls=made.served, backend=backend, tls_driver=driver)
    server.service(lambda client, request: request.upper())

    def later():
        time.sleep(0.1)
        server.start()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        tls = TLS(ca=made.ca, name="localhost")
        with pysock.connect(address, tls=tls, wait=PATIENCE) as client:
            assert client.request(b"x") == b"X"
    finally:
        thread.join()
        server.stop(0)


def test_one_side_in_another_process_goes(serve, made):
    """A server that is gone without a word."""
    server = serve()
    with pysock.connect(server.addresses[0], tls=made.trusting) as client:
        (data,) = server.clients.values()
        data.close()
        wait_for(lambda: not server.clients)
        with pytest.raises(ConnectionLost):
            client.request(b"x")


# Several servers


def test_of_several_servers_of_a_name_the_certificate_is_the_names(serve, made, ask, monkeypatch):
    """Whichever of its addresses a client goes to; that one isn't in the certificate."""
    port = serve(f"tls://{own_host()}:0", advertise=[]).addresses[0].port
    plain = socket.getaddrinfo

    def resolve(host, *given, **options):
        return plain(own_host() if host == "localhost" else host, *given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for balance in ("first", "p2c", "round"):
        reply, info = ask(f"tls://localhost:{port}", tls=made.trusting, balance=balance, reconnect=True)
        assert (reply, info.sni) == (b"X", "localhost")
    with pytest.raises(TLSError):
        ask(f"tls://{own_host()}:{port}", tls=made.trusting, balance="p2c")


def test_a_list_of_servers_leads_from_tls_to_tls(serve, made):
    server = serve()
    server_two = serve(advertise=[f"tcp://127.0.0.1:{server.addresses[0].port}", server.addresses[0]])
    with pysock.connect(server_two.addresses[0], tls=made.trusting, balance="first", reconnect=True) as client:
        wanted = [address.bare() for address in client._connections._balancer.wanted()]
        assert wanted == [str(server_two.addresses[0]), str(server.addresses[0])]
        server_two.stop()
        assert client.request(b"x") == b"X"
        assert client.address.bare() == str(server.addresses[0])
