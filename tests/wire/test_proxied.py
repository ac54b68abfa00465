"""Clients that come through a proxy: a header of the PROXY protocol says first who they are. Nothing is believed that
isn't one, or doesn't come from a proxy that is trusted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys

import proxying as by
import pytest
import wire
from programs import tool
from proxying import ORIGIN, ssl, summed, tcp4, tcp6, tlv, v2
from support import PATIENCE, RawPeer, wait_for
from wire import Services, cir, next_frame, parse, refused, replied, rest_of, srm

from pysock import Limits, ProxyHeader, ProxyTLS, RemoteError, connect, control
from pysock.wire import texts

HELLO = cir(name=b"me") + srm(b"a")
NO_HEADER = refused(wire.REFUSED_MALFORMED, texts.NO_PROXY_HEADER)
BROKEN = refused(wire.REFUSED_MALFORMED, texts.BROKEN_PROXY_HEADER)
CHECKSUM = refused(wire.REFUSED_MALFORMED, texts.PROXY_CHECKSUM)
UNTRUSTED = refused(wire.REFUSED_NOT_ALLOWED, texts.UNTRUSTED)
PEER_FULL = refused(wire.FULL, texts.PEER_FULL)
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 9000\r\n"


@pytest.fixture
def serve(make_server, transport, socket_dir):
    """``serve(proxy="v2", ...)``: a server that is reached through proxies."""

    def start(proxy="v2", trust="127.0.0.1", framing="pysock", connected=None, prepared=None, **options):
        unix = f"unix:{socket_dir}/s?proxy={proxy}"
        server = make_server(
            unix if transport == "unix" else f"tcp://127.0.0.1:0?proxy={proxy}&trust={trust}",
            framing=framing,
            **options,
        )
        if framing == "pysock":
            server.asked = Services(server)
        else:
            server.seen = []
            server.service(lambda client, request: server.seen.append((client.address, request)) or request.upper())
        if connected is not None:
            server.on_connect(connected)
        if prepared is not None:
            prepared(server)
        server.start()
        return server

    return start


@pytest.fixture
def over_tcp(transport):
    if transport == "unix":
        pytest.skip("a Unix socket's peers have no addresses")


def of_real_end(server, sock):
    """How a connection without a known origin is shown."""
    if sock.family == socket.AF_UNIX:
        return server.addresses[0].bare()
    return "{}:{}".format(*sock.getsockname())


def let_in(server, header):
    peer = wire.dial(server)
    peer.send(header + cir(name=b"me"))
    assert next_frame(peer).kind == wire.CIR_ACCEPTED
    return peer


# Who it is


def test_the_client_is_whom_the_proxy_names(serve, cut):
    """In the row, to handlers and hooks, and in the log's words; and the proxy's own address is known, too."""
    seen = []
    server = serve(connected=lambda client: seen.append((client.address, client.via, client.peer)))
    facts = [
        tlv(by.ALPN, b"h2"),
        tlv(by.AUTHORITY, b"api.example"),
        tlv(by.UNIQUE_ID, b"\0\x01"),
        tlv(0xE4, b"our own"),
    ]
    header = summed(v2(None, *facts, tlv(by.CRC32C, bytes(4)), ssl(7, 0, cn=b"joe", version=b"TLSv1.3"), tlv(4, b"")))
    with wire.dial(server) as peer:
        wire.send_cut(server, peer.sock, header + HELLO, cut)
        assert next_frame(peer).kind == wire.CIR_ACCEPTED
        assert next_frame(peer) == replied(b"A")
        proxy = of_real_end(server, peer.sock)
        (client,), (row,) = server.clients.values(), server.clients.snapshot()
        assert (client.address, client.via, client.peer) == (ORIGIN, proxy, None)
        assert seen == [(ORIGIN, proxy, None)]
        assert (row.address, row.via, row.transport, row.uid) == (ORIGIN, proxy, "tcp", None)
        assert ORIGIN in repr(client)
        said = client.proxy
        assert (said.source, said.destination) == (ORIGIN, "10.0.0.1:9000")
        assert (said.alpn, said.authority, said.unique_id, said.netns) == ("h2", "api.example", b"\0\x01", None)
        assert said.ssl == ProxyTLS(client=7, verify=0, cn="joe", version="TLSv1.3")
        assert said.ssl.verified
        assert (0xE4, b"our own") in said.items
        assert client.bytes_in == len(header + HELLO)
    wait_for(server.clients.left)
    assert (server.clients.left()[0].row.address, server.clients.left()[0].row.via) == (ORIGIN, proxy)
    assert (client.address, client.via, client.proxy) == (ORIGIN, proxy, said)


ADDRESSES = {
    v2(tcp6(), kind=by.TCP6): "[2001:db8::7]:4711",
    v2(kind=0x12): ORIGIN,
    v2(tcp6("::ffff:192.0.2.7"), kind=0x22): "[::ffff:192.0.2.7]:4711",
    v2(by.paths(b"/run/app"), kind=by.UNIX): "unix:/run/app",
    v2(by.paths(b"\0abstract"), kind=0x32): "unix:@abstract",
    v2(by.paths(b"/\xff a\n\0rest"), kind=by.UNIX): "unix:/??a?",
    v2(by.paths(b"x" * 108), kind=by.UNIX): "unix:" + "x" * 108,
    v2(by.paths(b""), kind=by.UNIX): "unix:",
    V1: ORIGIN,
    b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n": "[2001:db8::7]:65535",
}


def test_addresses_of_every_kind(serve):
    server = serve("any")
    for header, address in ADDRESSES.items():
        with let_in(server, header):
            (row,) = server.clients.snapshot()
            assert (row.address, row.transport, row.pid) == (address, address[:4] if "unix" in address else "tcp", None)
            assert server.clients.by_name("me").proxy.source == address
        wire.counted(server)


UNKNOWN = [
    v2(b"", kind=0),
    v2(b"\x01\x02\x03", kind=0),
    v2(b"", tlv(by.ALPN, b"x"), kind=0),
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n",
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
]


def test_a_proxy_that_does_not_say_for_whom(serve):
    """The real other end is all that is known; that it is a proxy is known, too."""
    server = serve("any")
    for header in UNKNOWN:
        with let_in(server, header) as peer:
            client = server.clients.by_name("me")
            assert (client.address, client.via) == 2 * (of_real_end(server, peer.sock),)
            assert client.proxy.source == ""
            assert client.proxy.alpn == ("x" if tlv(by.ALPN, b"x") in header else None)
            (row,) = server.clients.snapshot()
            assert (client.peer, row.uid, row.pid) == (None, None, None)  # the process there isn't the client
            assert server.clients.where(uid=os.getuid()) == []
        wire.counted(server)


def test_nobody_commands_a_server_as_the_user_of_his_proxy(serve):
    server = serve(prepared=control)
    wait = {"timeout": PATIENCE, "proxy": ProxyHeader(source="")}
    with connect(server.addresses[0], **wait) as client, pytest.raises(RemoteError, match="only the server's own user"):
        client.request(b"", "_drain")
    assert not server.is_lame


def test_a_connection_of_the_proxys_own(serve):
    """LOCAL: what else there is counts for nothing, or anybody who may check the health could choose who he is."""
    server = serve()
    wrong_sum = tcp4() + tlv(by.CRC32C, b"\1" * 4)
    for block, kind in [(b"", 0), (tcp4(), by.TCP4), (tcp4(), 0), (b"\0" * 5, by.TCP6), (wrong_sum, 0xFF)]:
        with let_in(server, v2(block, command=by.LOCAL, kind=kind)) as peer:
            client = server.clients.by_name("me")
            assert client.address == of_real_end(server, peer.sock)
            assert (client.via, client.proxy) == (None, None)
        wire.counted(server)


def test_a_health_check_needs_no_cir(serve):
    server = serve()
    with wire.dial(server) as peer:
        peer.send(v2(b"", command=by.LOCAL, kind=0) + wire.ping())
        assert next_frame(peer) == wire.ponged()


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
@pytest.mark.parametrize("bytewise", [False, True])
def test_every_framing(serve, framing, bytewise):
    """Without a CIR the client is let in when its header is whole, not before."""
    joined = []
    server = serve(framing=framing, connected=lambda client: joined.append(client.address))
    request, reply = {
        "u32": (struct.pack("!I", 2) + b"hi", struct.pack("!I", 2) + b"HI"),
        "line": (b"hi\n", b"HI\n"),
        "raw": (b"hi", b"HI"),
    }[framing]
    with wire.dial(server) as peer:
        header = v2(None, tlv(by.NOOP, b"n" * 9))
        if bytewise:
            wire.send_cut(server, peer.sock, header[:-1], "bytes")
            assert (server.stats()["clients"], server.stats()["pending"]) == (0, 1)
            peer.send(header[-1:])
        peer.send(request if bytewise else header + request)
        assert peer.read(len(reply)) == reply
        assert (joined, server.seen) == ([ORIGIN], [(ORIGIN, b"hi")])
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.rest() == b""
    wire.counted(server, established=1, refused=0, refused_header=0)


def test_facts_beyond_four_kilobytes_are_let_go(serve):
    """The header may have 64 KiB; what is kept is whole."""
    server = serve()
    many = [tlv(0xE0, bytes([n]) * 997) for n in range(65)]
    header = v2(None, *many, tlv(0xE1, b"z" * (65535 - 12 - 65000 - 3)))
    assert len(header) == 16 + 65535
    with let_in(server, header):
        client = server.clients.by_name("me")
        assert client.address == ORIGIN
        assert client.proxy.items == tuple((0xE0, bytes([n]) * 997) for n in range(4))


# What is none, or a broken one

BAD = {
    "nothing at all": (HELLO, NO_HEADER),
    "late": (HELLO + v2(), NO_HEADER),
    "one byte that is wrong": (b"\r\n\r\n\0\r\nQUIX", NO_HEADER),
    "version 1": (V1, NO_HEADER),
    "version 3 of the second": (v2(command=0x31), BROKEN),
    "version 1 of the second": (v2(command=0x11), BROKEN),
    "an unknown command": (v2(command=0x22), BROKEN),
    "an unknown family": (v2(kind=0x41), BROKEN),
    "an unknown protocol": (v2(kind=0x13), BROKEN),
    "a family without a protocol": (v2(kind=0x10), BROKEN),
    "no addresses": (v2(b""), BROKEN),
    "half the addresses": (v2(tcp4()[:-1]), BROKEN),
    "addresses of the other family": (v2(tcp4(), kind=by.TCP6), BROKEN),
    "a TLV that is cut": (v2(None, tlv(by.ALPN, b"h2")[:-1]), BROKEN),
    "a TLV without its length": (v2(None, b"\x01\x00"), BROKEN),
    "a TLV that says that it is longer": (v2(None, b"\x01\xff\xff"), BROKEN),
    "a checksum that is wrong": (v2(None, tlv(by.CRC32C, bytes(4))), CHECKSUM),
    "a checksum of three bytes": (v2(None, tlv(by.CRC32C, bytes(3))), BROKEN),
    "two checksums": (v2(None, tlv(by.CRC32C, bytes(4)), tlv(by.CRC32C, bytes(4))), BROKEN),
    "an id that is too long": (v2(None, tlv(by.UNIQUE_ID, bytes(129))), BROKEN),
    "TLS without its head": (v2(None, tlv(by.SSL, bytes(4))), BROKEN),
    "TLS with a TLV that is cut": (v2(None, tlv(by.SSL, bytes(5) + b"\x22\0\3ab")), BROKEN),
    "TLS twice": (v2(None, ssl(7, 0, cn=b"joe"), ssl(7, 0, cn=b"root")), BROKEN),
}


def test_what_is_no_good_header(serve, caplog):
    """Who sent it is told so, nothing of it is believed, and no handler or hook sees it."""
    connected = []
    server = serve(connected=connected.append)
    for count, (what, (header, answer)) in enumerate(BAD.items(), 1):
        assert parse(wire.say(server, header + HELLO)) == [answer], what
        wire.counted(server, refused=count, refused_header=count, violations=0, established=0, requests=0)
    assert (connected, server.asked.calls) == ([], [])
    assert {record.getMessage().partition(";")[0] for record in caplog.records} == {
        "refused: no header of the PROXY protocol came first, or a broken one (?proxy=)"
    }
    with let_in(server, v2()) as peer:
        peer.send(srm(b"a"))
        assert next_frame(peer) == replied(b"A")


BAD_LINES = {
    "no CR": V1.replace(b"\r\n", b"\n"),
    "107 bytes without an end": b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    "another family": V1.replace(b"TCP4", b"UDP4"),
    "the other family": V1.replace(b"TCP4", b"TCP6"),
    "two blanks": V1.replace(b" 10", b"  10"),
    "a blank at the end": V1.replace(b"\r", b" \r"),
    "a word too few": V1.replace(b" 9000", b""),
    "a word too many": V1.replace(b" 9000", b" 9000 1"),
    "a port that is too large": V1.replace(b"4711", b"65536"),
    "a port with a zero before": V1.replace(b"4711", b"04711"),
    "a port with a sign": V1.replace(b"4711", b"+4711"),
    "a NUL in an address": V1.replace(b"10.0.0.1", b"10.0.0.1\0"),
    "an address that is none": V1.replace(b"192.0.2.7", b"192.0.2"),
    "a word like UNKNOWN": b"PROXY UNKNOWNS\r\n",
    "nothing behind PROXY": b"PROXY \r\n",
    "small letters": V1.replace(b"PROXY", b"proxy"),
    "the other version": v2(),
}


def test_what_is_no_good_line(serve):
    server = serve("v1")
    for count, (what, line) in enumerate(BAD_LINES.items(), 1):
        answer = NO_HEADER if what in {"small letters", "the other version"} else BROKEN
        assert parse(wire.say(server, line + HELLO)) == [answer], what
        wire.counted(server, refused=count, refused_header=count, requests=0)


def test_a_second_header_is_no_frame(serve):
    """It breaks the rules like anything else that isn't one."""
    server = serve()
    (answer,) = parse(wire.say(server, v2() + v2(tcp4("198.51.100.1")) + HELLO))
    assert answer.kind == wire.CIR_REFUSED
    wire.counted(server, violations=1, refused_header=0)


@pytest.mark.parametrize("framing", ["pysock", "u32"])
def test_a_header_that_does_not_come(serve, framing):
    """It has as long as a CIR, and both together no longer."""
    server = serve(framing=framing, limits=Limits(cir_timeout=0.2))
    late = [refused(wire.CIR_LATE, texts.CIR_TOO_LATE)] if framing == "pysock" else []
    with wire.dial(server) as silent, wire.dial(server) as half, wire.dial(server) as without_cir:
        half.send(v2()[:-1])
        without_cir.send(v2() if framing == "pysock" else v2()[:1])
        assert [rest_of(peer) for peer in (silent, half, without_cir)] == 3 * [late]
        wire.counted(server, refused_late=3, refused_header=0)


def test_one_that_goes_before_its_header_is_whole(serve):
    """Half a header is a fault. That somebody is there is seen by connecting alone, as proxies do."""
    server = serve()
    for _ in range(3):
        assert wire.say(server, b"") == b""
    wire.counted(server, accepted=3, refused_header=0)
    assert wire.say(server, v2()[:20]) == b""
    wire.counted(server, refused_header=1, established=0)
    with contextlib.closing(wire.dial(server).sock) as sock:
        sock.sendall(v2()[:20])
        wait_for(lambda: server.stats()["bytes_in"] == 40)
        wire.reset(sock)
    wire.counted(server, refused_header=2)


def test_the_server_stops_meanwhile(serve):
    server = serve()
    with wire.dial(server) as peer:
        peer.send(v2()[:20])
        wait_for(lambda: server.stats()["bytes_in"] == 20)
        server.stop()
        assert rest_of(peer) == [refused(wire.REFUSED_SHUTTING_DOWN, texts.SHUTTING_DOWN)]


def test_a_crowd_of_headers_that_do_not_come(serve):
    """They make way like those who are silent elsewhere."""
    server = serve(limits=Limits(max_pending_cir=1))
    with wire.dial(server) as silent:
        silent.send(v2()[:5])
        wait_for(lambda: server.stats()["bytes_in"] == 5)
        with let_in(server, v2()):
            assert rest_of(silent) == [refused(wire.CIR_LATE, texts.CIR_CROWD)]


# From where


def test_only_from_proxies_that_are_trusted(serve, over_tcp, caplog):
    """Before a byte is believed, or read."""
    server = serve(trust="127.0.0.64/26,127.0.0.1,2001:db8::/32")
    hosts = {"127.0.0.1": True, "127.0.0.2": False, "127.0.0.63": False, "127.0.0.64": True, "127.0.0.127": True}
    for host, trusted in hosts.items():
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.bind((host, 0))
            sock.connect(("127.0.0.1", server.addresses[0].port))
            peer = RawPeer(sock)
            with contextlib.suppress(OSError):
                peer.send(v2() + HELLO)
                sock.shutdown(socket.SHUT_WR)
            answers = rest_of(peer)
            assert (answers == [UNTRUSTED]) != trusted, host
            assert (answers[-1] == replied(b"A")) == trusted
    wire.counted(server, accepted=5, established=3, refused=2, refused_untrusted=2, refused_header=0)
    assert server.stats()["bytes_in"] == 3 * len(v2() + HELLO)
    assert any("it is none (?trust=)" in record.getMessage() for record in caplog.records)


def test_an_ipv4_proxy_at_an_ipv6_socket(make_server):
    """The kernel shows its address mapped into IPv6."""
    server = make_server("tcp://[::]:0?proxy=v2&trust=127.0.0.0/8", insecure=True)
    server.service(lambda client, request: client.address.encode())
    with server:
        for host, trusted in {"127.0.0.1": True, "::1": False}.items():
            with socket.create_connection((host, server.addresses[0].port), PATIENCE) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(v2() + HELLO)
                    sock.shutdown(socket.SHUT_WR)
                answers = rest_of(RawPeer(sock))
            assert answers[-1] == (replied(ORIGIN.encode()) if trusted else UNTRUSTED)


#: Connects, sends what is said in hex, and says what it is answered.
FROM_ELSEWHERE = """
import contextlib, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as sock:
    with contextlib.suppress(OSError):
        sock.sendall(bytes.fromhex(sys.argv[3]))
        sock.shutdown(socket.SHUT_WR)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            answer += piece
print(answer.hex())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_from_another_host(make_server):
    """A proxy that is trusted, and a host beside it that isn't, each in a network namespace of its own."""
    tool("ip")
    net = f"10.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"

    def ip(*words):
        subprocess.run(["ip", *words], capture_output=True, check=True)

    with contextlib.ExitStack() as steps:
        hosts = []
        for address in ("2", "6"):
            name, ours, its = (f"{kind}{os.urandom(4).hex()}" for kind in ("psk", "psa", "psb"))
            ip("netns", "add", name)
            steps.callback(ip, "netns", "delete", name)
            ip("link", "add", ours, "type", "veth", "peer", "name", its, "netns", name)
            steps.callback(ip, "link", "delete", ours)
            ip("address", "add", f"{net}.{int(address) - 1}/30", "dev", ours)
            ip("link", "set", ours, "up")
            ip("-n", name, "address", "add", f"{net}.{address}/30", "dev", its)
            ip("-n", name, "link", "set", its, "up")
            hosts.append((name, f"{net}.{int(address) - 1}"))
        server = make_server(f"tcp://0.0.0.0:0?proxy=v2&trust={net}.2", insecure=True)
        server.service(lambda client, request: client.address.encode())
        steps.enter_context(server)
        port = str(server.addresses[0].port)
        said = [
            subprocess.run(
                ["ip", "netns", "exec", name, sys.executable, "-c", FROM_ELSEWHERE, host, port, (v2() + HELLO).hex()],
                capture_output=True, text=True, check=True, timeout=PATIENCE,
            ).stdout
            for name, host in hosts
        ]  # fmt: skip
        trusted, other = (parse(bytes.fromhex(answer)) for answer in said)
        assert trusted[-1] == replied(ORIGIN.encode())
        assert other == [UNTRUSTED]
        wire.counted(server, established=1, refused_untrusted=1)


# How many of them


@pytest.mark.parametrize("framing", ["pysock", "u32"])
def test_so_many_of_one_address(serve, framing):
    """The clients' addresses count, and the proxy's doesn't."""
    server = serve(framing=framing, limits=Limits(max_clients_per_ip=2, max_clients_per_uid=1))

    def come(header, among):
        peer = steps.enter_context(wire.dial(server))
        peer.send(header + (cir() if framing == "pysock" else b""))
        if framing == "pysock":
            assert next_frame(peer).kind == wire.CIR_ACCEPTED
        wait_for(lambda: server.stats()["clients"] == among)
        return peer

    def is_refused(header):
        with wire.dial(server) as peer:
            peer.send(header + (cir() if framing == "pysock" else b""))
            return peer.rest() == (b"" if framing != "pysock" else wire.frame(
                wire.CIR_REFUSED, texts.PEER_FULL.encode(), code=wire.FULL
            ))  # fmt: skip

    with contextlib.ExitStack() as steps:
        first = come(v2(tcp4(port=1)), 1)
        come(v2(tcp6("::ffff:192.0.2.7"), kind=by.TCP6), 2)  # the same one
        assert is_refused(v2(tcp4(port=3)))
        come(v2(tcp4("192.0.2.8")), 3)
        come(v2(tcp6("2001:db8::1"), kind=by.TCP6), 4)
        come(v2(tcp6("2001:db8::2"), kind=by.TCP6), 5)
        assert is_refused(v2(tcp6("2001:db8::ffff:1"), kind=by.TCP6))  # one machine has all of these (RFC 6177)
        for count in range(6, 9):  # of the proxy's own there is no end
            come(v2(b"", command=by.LOCAL, kind=0), count)
        come(v2(b"", kind=0), 9)
        first.close()
        wait_for(lambda: server.stats()["clients"] == 8)
        come(v2(tcp4(port=5)), 9)
        wire.counted(server, clients=9, refused=2, refused_peer=2)
    wire.counted(server)


# Certificates that the proxy has looked at


NAMED = {
    (ssl(7, 0, cn=b"alice"),): True,
    (ssl(5, 0, cn=b"alice"),): True,
    (ssl(7, 0, cn=b"bob"), tlv(by.NOOP, b"")): True,
    (ssl(7, 0, cn=b"mallory"),): False,
    (ssl(7, 0, cn=b"alice\0"),): False,
    (ssl(7, 0, cn=b"Alice"),): False,
    (ssl(7, 1, cn=b"alice"),): False,
    (ssl(1, 0, cn=b"alice"),): False,  # nobody has shown a certificate: then there is nothing wrong with it
    (ssl(6, 0, cn=b"alice"),): False,
    (ssl(7, 0),): False,
    (): False,
}


def test_only_those_with_a_name_that_was_verified(serve, caplog):
    caplog.set_level(logging.INFO, "pysock.server")
    connected = []
    server = serve(allow={"cn": ["alice", "bob"]}, connected=lambda client: connected.append(client.proxy.ssl.cn))
    for facts, may in NAMED.items():
        first, *rest = parse(wire.say(server, v2(None, *facts) + HELLO))
        assert rest == ([replied(b"A")] if may else []), facts
        assert (first == refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)) != may
    assert connected == ["alice", "alice", "bob"]
    assert server.asked.called_for("me") == 3 * [("upper", b"a")]
    assert any(f"{ORIGIN}>: 'not allowed'" in record.getMessage() for record in caplog.records)
    wire.counted(server, refused=8, established=3)


def test_the_proxy_itself_has_no_name(serve):
    """It sees by a PING that the server is well, and is no client."""
    server = serve(allow={"cn": "alice"})
    local = v2(b"", command=by.LOCAL, kind=0)
    (answer,) = parse(wire.say(server, local + HELLO))
    assert answer == refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)
    assert parse(wire.say(server, local + wire.ping())) == [wire.ponged()]


def test_names_and_users(make_server, socket_dir):
    """The users are those of proxies, the names of their clients; where no proxy is, no name is asked for."""
    addresses = [f"unix:{socket_dir}/s?proxy=v2", f"unix:{socket_dir}/plain"]
    server = make_server(*addresses, allow={"uid": os.geteuid(), "cn": "alice"})
    server.asked = Services(server)
    with server:
        assert parse(wire.say(server, v2(None, ssl(7, 0, cn=b"alice")) + HELLO))[-1] == replied(b"A")
        with RawPeer.connect(server.addresses[1]) as peer:
            peer.send(HELLO)
            assert next_frame(peer).kind == wire.CIR_ACCEPTED
    server = make_server(f"unix:{socket_dir}/t?proxy=v2", allow={"uid": os.geteuid() + 1, "cn": "alice"})
    with server:
        (answer,) = parse(wire.say(server, v2(None, ssl(7, 0, cn=b"alice")) + HELLO))
        assert answer == refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)
        wire.counted(server, refused_access=1)


@pytest.mark.parametrize(
    ("address", "allow", "words"),
    [
        ("unix:/x", {"cn": "alice"}, 'allow= has "cn", the name that a proxy has found in its client'),
        ("tcp://127.0.0.1:0", {"cn": "alice"}, 'allow= has "cn"'),
        ("unix:/x?proxy=v2", {"cn": []}, "takes the common name of a certificate, or several, not"),
        ("unix:/x?proxy=v2", {"cn": [""]}, "takes the common name"),
        ("unix:/x?proxy=v2", {"cn": 5}, "takes the common name"),
        ("tcp://127.0.0.1:0?proxy=v2&trust=127.0.0.1", {"uid": 0, "cn": "alice"}, "is about Unix sockets"),
    ],
)  # fmt: skip
def test_names_that_make_no_sense(make_server, address, allow, words):
    with pytest.raises(ValueError, match=words):
        make_server(address, allow=allow)


def test_where_other_machines_can_connect(make_server):
    """That only proxies may is no key; that they have found out who comes is."""
    address = "tcp://0.0.0.0:0?proxy=v2&trust=127.0.0.1"
    with pytest.raises(ValueError, match="other machines can connect there"):
        make_server(address).start()
    with make_server(address, allow={"cn": "alice"}):
        pass
