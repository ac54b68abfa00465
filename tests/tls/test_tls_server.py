"""A server that speaks TLS, and whoever comes: OpenSSL's own client, others who speak something else, certificates of
all kinds."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import wire
from certificates import certificates, secure
from programs import tool
from support import PATIENCE, RawPeer, plug, wait_for
from wire import Good, cir, replied, srm

from pysock import TLS, Limits
from pysock.wire import texts


@pytest.fixture(scope="module")
def made():
    return certificates()


@pytest.fixture
def serve(make_server, made, driver):
    """``serve(tls)``: a server that runs, whose handler answers in capitals."""

    def start(tls=None, **options):
        server = make_server("tls://127.0.0.1:0", tls=tls or made.served, **options)
        server.service(lambda client, request: request.upper())
        server.start()
        return server

    return start


def counted(server, **expected):
    wait_for(lambda: {name: server.stats()[name] for name in expected} == expected, f"{expected}, {server.stats()}")


def s_client(server, *options, stdin=b"", ca=True):
    address = server.addresses[0]
    trust = ("-CAfile", certificates().ca, "-verify_return_error") if ca else ()
    command = (tool("openssl"), "s_client", "-connect", f"127.0.0.1:{address.port}", *trust, *options)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE, check=False)


def started(server, stdout=subprocess.PIPE):
    """One that goes on."""
    command = [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{server.addresses[0].port}"]
    return subprocess.Popen(
        [*command, "-CAfile", certificates().ca], stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.STDOUT
    )


# OpenSSL's client


def test_it_is_answered(serve):
    server = serve(framing="line")
    done = s_client(
        server, "-quiet", "-no_ign_eof", "-servername", "localhost", "-verify_hostname", "localhost", stdin=b"hello\n"
    )
    assert done.returncode == 0, done.stderr
    assert b"verify return:1" in done.stderr
    counted(server, requests=1, tls_failures=0)


def test_the_newest_version_alone(serve, caplog):
    server = serve()
    done = s_client(server, "-tls1_2")
    assert b"alert protocol version" in done.stderr
    counted(server, tls_failures=1, refused=1)
    wait_for(lambda: "the TLS handshake failed: the two ends have no version of TLS in common" in caplog.text)


def test_the_version_before(serve, made):
    server = serve(TLS(made.server, minimum="1.2"), framing="line")
    done = s_client(server, "-tls1_2", stdin=b"x\nR\n")
    assert b"Protocol  : TLSv1.2" in done.stdout
    assert b"Secure Renegotiation IS supported" in done.stdout


def test_what_is_spoken_inside(serve, caplog):
    """Who offers other protocols alone is refused; who offers none isn't asked."""
    server = serve()
    assert b"ALPN protocol: pysock/1" in s_client(server, "-alpn", "h2,pysock/1").stdout
    assert b"No ALPN negotiated" in s_client(server).stdout
    counted(server, tls_failures=0, refused=0)
    done = s_client(server, "-alpn", "h2,pysock/10")
    assert done.returncode == 1
    assert b"alert no application protocol" in done.stderr
    counted(server, tls_failures=1, refused=1)
    wait_for(lambda: "failed: the client offers other protocols than are spoken here" in caplog.text)


def test_a_session_that_goes_on(serve):
    server = serve(framing="line")
    with secure(plug_plain(server)) as first:
        first.sendall(b"x\n")
        assert first.recv(10) == b"X\n"  # the ticket comes before it
    with secure(plug_plain(server), session=first) as second:
        assert second.tls.session_reused
        second.sendall(b"y\n")
        assert second.recv(10) == b"Y\n"


def test_a_certificate_that_is_asked_for_is_shown_each_time(serve, made):
    """Else one that expires would do for ever: a session that goes on is as good as a new one."""
    server, before = serve(TLS(made.server, ca=made.ca), framing="line"), None
    context = ssl.create_default_context(cafile=made.ca)
    context.load_cert_chain(made.client)
    for _ in range(2):
        with context.wrap_socket(plug_plain(server), server_hostname="localhost", session=before) as sock:
            sock.sendall(b"x\n")
            assert sock.recv(10) == b"X\n"
            assert not sock.session_reused
            before = sock.session


def test_a_certificate_that_has_expired_since(serve, made, backend, driver, monkeypatch, caplog):
    """Of version 1.2 the module ssl has sessions that go on, whatever it is told: with a certificate that was good."""
    server, before = serve(TLS(made.server, ca=made.ca, minimum="1.2"), framing="line"), None
    context = ssl.create_default_context(cafile=made.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(made.client)

    def visited(session):
        with context.wrap_socket(plug_plain(server), server_hostname="localhost", session=session) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"x\n")
                return sock.session, sock.session_reused, sock.recv(10)
            return None, True, b""

    before, reused, answer = visited(None)
    assert (reused, answer) == (False, b"X\n")
    monkeypatch.setattr("pysock.tls.session.wall_clock", lambda: time.time() + 31 * 86400)
    goes_on = backend == "pure" or driver == "ssl"
    assert visited(before)[1:] == ((True, b"") if goes_on else (False, b"X\n"))
    counted(server, tls_failures=int(goes_on), pending=0)
    assert visited(before)[1:] == (False, b"X\n")  # that session is gone; OpenSSL's clock says that it is good
    assert ("failed: the certificate isn't good: certificate has expired;" in caplog.text) == goes_on


def test_new_keys(serve):
    """``K`` has it send a KeyUpdate, and ask for one."""
    server = serve(framing="line")
    client = subprocess.Popen(
        [
            tool("openssl"),
            "s_client",
            "-connect",
            f"127.0.0.1:{server.addresses[0].port}",
            "-CAfile",
            certificates().ca,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with client:
        for count, line in enumerate((b"one\n", b"K\n", b"two\n", b"k\n", b"three\n")):
            client.stdin.write(line)
            client.stdin.flush()
            if len(line) > 2:
                counted(server, requests=count // 2 + 1)
            else:
                time.sleep(0.05)  # s_client takes a command only where it stands alone in what is read
        client.stdin.write(b"Q\n")
        out = client.communicate(timeout=PATIENCE)[0]
    assert out.count(b"KEYUPDATE") == 2
    for line in (b"ONE\n", b"TWO\n", b"THREE\n"):
        assert line in out
    counted(server, violations=0, tls_truncated=0)


# What a scanner says


@pytest.mark.slow
def test_the_verdict_of_sslscan(serve):
    """Of a server with a plain ``TLS(cert)``: the newest version alone, and no known weakness."""
    server = serve()
    target = f"127.0.0.1:{server.addresses[0].port}"
    command = (tool("sslscan"), "--no-colour", "--no-check-certificate", "--no-groups", target)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    versions = dict(re.findall(r"^(SSLv\d|TLSv1\.\d) +(\w+)$", done.stdout, re.MULTILINE))
    old = ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2")
    assert versions == {**dict.fromkeys(old, "disabled"), "TLSv1.3": "enabled"}
    ciphers = re.findall(r"^(?:Preferred|Accepted) +(\S+) +(\d+) bits", done.stdout, re.MULTILINE)
    assert len(ciphers) >= 2
    assert {version for version, _ in ciphers} == {"TLSv1.3"}
    assert min(int(bits) for _, bits in ciphers) >= 128
    assert "Session renegotiation not supported" in done.stdout
    assert "Compression enabled" not in done.stdout  # a scanner that can't try it says that
    assert re.findall(r"^(\S+) (not )?vulnerable to heartbleed$", done.stdout, re.MULTILINE) == [("TLSv1.3", "not ")]
    counted(server, pending=0, clients=0)


# Others


def plug_plain(server):
    """A connection without TLS, to a server that speaks it."""
    address = server.addresses[0]
    return socket.create_connection((address.host, address.port), PATIENCE)


def test_a_client_without_tls(serve, caplog):
    server = serve()
    with plug_plain(server) as sock:
        sock.sendall(cir())
        assert RawPeer(sock).rest()[:3] == b"\x15\x03\x03"  # an alert
    counted(server, refused_no_tls=1, tls_failures=0, refused=1, pending=0)
    assert "a client without TLS at a tls:// address" in caplog.text


def test_a_client_with_tls_at_an_address_without(make_server, backend, caplog):
    server = make_server("tcp://127.0.0.1:0")
    server.service(lambda client, request: request.upper())
    with server, Good(server) as good:
        with plug(server.addresses[0]) as sock, pytest.raises(ssl.SSLError):
            secure(sock)
        good.check()
        counted(server, refused_only_tls=1, violations=0, refused=1)
        assert "a client with TLS at an address without" in caplog.text
        with RawPeer.connect(server.addresses[0]) as peer:
            for byte in bytes.fromhex("16030102000100 01fc0303") + bytes(20):
                with contextlib.suppress(OSError):
                    peer.send(bytes([byte]))
            assert wire.parse(peer.rest()) == [wire.refused(wire.BAD_MAGIC, texts.NO_TLS_HERE)]


def test_one_that_says_nothing_after_it_has_begun(serve):
    server = serve(limits=Limits(cir_timeout=0.2))
    for begun in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
        with plug_plain(server) as sock:
            sock.sendall(begun)
            assert sock.recv(100) == b""
    counted(server, refused_late=3, pending=0)


def test_the_cir_is_late(serve):
    """Handshake and CIR have one deadline."""
    server = serve(limits=Limits(cir_timeout=0.3))
    with secure(plug_plain(server)) as sock:
        assert wire.parse(RawPeer(sock).rest()) == [wire.refused(wire.CIR_LATE, texts.CIR_TOO_LATE)]


def test_a_crowd_in_its_handshakes(serve):
    server = serve(limits=Limits(max_pending_cir=5))
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(plug_plain(server)) for _ in range(8)]
        counted(server, refused_crowd=3)
        assert [sock.recv(1) for sock in crowd[:3]] == [b""] * 3
        with secure(plug_plain(server)) as sock:
            sock.sendall(cir())
            assert RawPeer(sock).frame().kind == wire.CIR_ACCEPTED


def test_garbage(serve):
    server = serve()
    for data in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x03\xff\xff" + b"x" * 70000, b"\x15\x03\x03\0\2\2\x28"):
        with plug_plain(server) as sock, contextlib.suppress(OSError):
            sock.sendall(data)
            RawPeer(sock).rest()
    counted(server, tls_failures=3, pending=0)


def test_garbage_after_the_handshake(serve):
    server = serve()
    with secure(plug_plain(server)) as sock:
        sock.sendall(cir() + srm(b"x"))
        assert RawPeer(sock).frame().kind == wire.CIR_ACCEPTED
        sock.plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(ssl.SSLError, OSError):
            RawPeer(sock).rest()
    counted(server, violations=1, clients=0, disconnected=1)


def test_bytes_one_at_a_time(serve):
    """Records of one byte, and each byte of a record by itself."""
    server = serve()
    with secure(plug_plain(server)) as sock:
        sock.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = RawPeer(sock)
        for byte in cir(name=b"small") + srm(b"ab"):
            sock.sendall(bytes([byte]))
        assert peer.frame().kind == wire.CIR_ACCEPTED
        assert wire.next_frame(peer) == replied(b"AB")
        sock.tls.write(srm(b"cd", 2))
        for byte in sock.taken():
            sock.plain.sendall(bytes([byte]))
        assert wire.next_frame(peer) == replied(b"CD", 2)


# The end


@pytest.mark.parametrize(
    ("framing", "sent", "violations"),
    [
        ("pysock", cir() + srm(b"x"), 0),
        ("pysock", cir() + srm(b"x") + srm(b"y")[:5], 1),
        ("line", b"x\n", 0),
        ("line", b"x\ny", 1),
        ("u32", b"\0\0\0\1x", 0),
        ("u32", b"\0\0\0\1x\0\0", 1),
        ("raw", b"x", 1),
    ],
)
def test_cut_off(serve, framing, sent, violations):
    server = serve(framing=framing)
    with secure(plug_plain(server)) as sock:
        sock.sendall(sent)
        counted(server, bytes_in=len(sent), requests=1)
        sock.plain.shutdown(socket.SHUT_WR)
        counted(server, tls_truncated=1, violations=violations, clients=0)


def test_closed_in_order(serve):
    """Half of it, and what was asked for is answered; then the server says that it ends, too."""
    server = serve()
    with secure(plug_plain(server)) as sock:
        sock.sendall(cir() + srm(b"x") + srm(b"y" * 100_000, 2))
        sock.shutdown(socket.SHUT_WR)
        peer = RawPeer(sock)
        assert peer.frame().kind == wire.CIR_ACCEPTED
        assert wire.rest_of(peer) == [replied(b"X"), replied(b"Y" * 100_000, 2)]
        assert sock.ended
    counted(server, tls_truncated=0, violations=0, clients=0)


def test_much_that_nobody_reads(serve):
    """What the kernel doesn't take waits, is counted once, and comes whole."""
    server = serve()
    size, count = 300_000, 40
    with secure(plug_plain(server)) as sock:
        peer = RawPeer(sock)
        sock.sendall(cir())
        assert peer.frame().kind == wire.CIR_ACCEPTED
        for number in range(count):
            server.clients.broadcast(bytes([number]) * size)
        wait_for(lambda: server.clients.snapshot()[0].output_waiting > 0)
        for number in range(count):
            assert wire.next_frame(peer) == wire.pushed(bytes([number]) * size)
    counted(server, pushes=count, clients=0)


def test_records_that_bring_nothing(serve, made):
    """KeyUpdates without end are a violation."""
    server = serve(framing="line")
    client = started(server, stdout=subprocess.DEVNULL)
    with client:
        counted(server, established=1)
        deadline = time.monotonic() + PATIENCE
        while not server.stats()["violations"]:
            assert time.monotonic() < deadline
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(b"k\n")
                client.stdin.flush()
            time.sleep(0.002)
        client.kill()
        with contextlib.suppress(BrokenPipeError):
            client.stdin.close()
    counted(server, clients=0)


# Certificates of clients

CERTIFICATES = {
    "good": (None, None),
    "none": ("none", "the client has no certificate"),
    "of another CA": ("stranger", "unable to get local issuer certificate|unknown"),
    "signed by itself": ("itself", "self-signed certificate"),
    "expired": ("expired", "certificate has expired"),
    "for servers": ("for servers", "unsuitable certificate purpose|unsupported certificate purpose"),
}


def certificate(made, kind):
    match kind:
        case None:
            return made.client
        case "stranger":
            return made.issue("stranger", "one.workers.example", by=made.stranger)
        case "itself":
            return made.crafted("itself", "one.workers.example", by="itself")
        case "expired":
            return made.issue("expired", "one.workers.example", days=-1)
        case "for servers":
            return made.crafted("servers", "one.workers.example", use="server")
    return None


@pytest.mark.parametrize(("kind", "reason"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_certificates_of_clients(serve, made, caplog, kind, reason):
    server = serve(TLS(made.server, ca=made.ca))
    path = certificate(made, kind)
    with plug_plain(server) as plain:
        try:
            with secure(plain, path) as sock:
                sock.sendall(cir())
                assert RawPeer(sock).frame().kind == wire.CIR_ACCEPTED
        except ssl.SSLError:
            assert reason is not None
        else:
            assert reason is None
    if reason is None:
        counted(server, established=1, tls_failures=0)
        return
    counted(server, established=0, tls_failures=1, refused=1, pending=0)
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(reason, line), line


NAMES = {
    "the name": ({"san": "one.workers.example"}, True),
    "a URI": ({"san": ["x.example", "spiffe://example/worker"]}, True),
    "a wildcard": ({"san": "*.workers.example"}, True),
    "another": ({"san": "two.workers.example"}, False),
    "a part": ({"san": "workers.example"}, False),
    "the subject": ({"san": "worker"}, False),
    "a function": (lambda info: "spiffe://example/worker" in info.sans, True),
    "a function that says no": (lambda info: False, False),
    "one that fails": (lambda info: 1 / 0, False),
    "one about something else": (lambda peer: peer.uid == 0, False),
}


@pytest.mark.parametrize(("allow", "allowed"), NAMES.values(), ids=NAMES)
def test_who_may_come_in(serve, made, allow, allowed):
    server = serve(TLS(made.server, ca=made.ca), allow=allow)
    with secure(plug_plain(server)) as sock:
        sock.sendall(cir(name=b"x"))
        answer = wire.next_frame(RawPeer(sock))
    if allowed:
        assert answer.kind == wire.CIR_ACCEPTED
    else:
        assert answer == wire.refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)
        counted(server, established=0)


def test_a_hook_is_not_asked_about_who_may_not_come_in(make_server, made, driver):
    server, asked = make_server("tls://127.0.0.1:0", tls=TLS(made.server, ca=made.ca), allow={"san": "a.b"}), []
    server.on_connect(asked.append)
    server.service(lambda client, request: request)
    with server, secure(plug_plain(server)) as sock:
        sock.sendall(cir())
        assert RawPeer(sock).frame().kind == wire.CIR_REFUSED
        assert asked == []


@pytest.mark.parametrize(
    "name", ["one.workers.example\0.evil", "*.workers.example", "*.example", "w*.example", "10.0.0.1"]
)
def test_names_that_trick(serve, made, name):
    """They are signed by the right CA."""
    server = serve(TLS(made.server, ca=made.ca), allow={"san": ["one.workers.example", "*.example", "10.0.0.1"]})
    with secure(plug_plain(server), made.crafted("trick", name, subject="one.workers.example\0x")) as sock:
        sock.sendall(cir())
        assert RawPeer(sock).frame().kind == wire.CIR_REFUSED


def test_names_of_who_was_not_verified(serve, made):
    """With ``optional`` somebody without a certificate has none."""
    server = serve(TLS(made.server, ca=made.ca, verify="optional"), allow={"san": "*.workers.example"})
    for path, kind in ((None, wire.CIR_REFUSED), (made.client, wire.CIR_ACCEPTED)):
        with secure(plug_plain(server), path) as sock:
            sock.sendall(cir())
            assert RawPeer(sock).frame().kind == kind


def test_what_is_known_of_a_client(make_server, made, driver):
    server = make_server("tls://127.0.0.1:0", "tcp://127.0.0.1:0", tls=TLS(made.server, ca=made.ca))
    server.service(lambda client, request: repr(client.tls).encode())
    with server:
        with secure(plug_plain(server)) as sock:
            sock.sendall(cir() + srm(b""))
            peer = RawPeer(sock)
            assert peer.frame().kind == wire.CIR_ACCEPTED
            said = wire.next_frame(peer).payload.decode()
            (client,) = server.clients.values()
            info = client.tls
        assert said == repr(info)
        assert (info.version, info.sni, info.subject, info.resumed) == ("TLSv1.3", "localhost", "CN=worker", False)
        assert info.sans == ("one.workers.example", "spiffe://example/worker")
        assert len(info.fingerprint) == 64
        assert info.alpn is None
        wait_for(lambda: not server.clients)
        assert client.tls == info
        with RawPeer.connect(server.addresses[1]) as peer:
            peer.hello()
            (plain,) = server.clients.values()
            assert plain.tls is None


def hello_for(name):
    """What a client begins with that asks for this server; a certificate isn't looked at; and the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return up.read(), client, down, up


def test_a_name_that_is_no_ascii_is_nothing_to_be_told_of(serve, capfd):
    """Nor was the handshake to fail: who offers such a name gets the certificate as anybody does."""
    hello, *_ = hello_for("a.example")
    with plug_plain(serve()) as sock:
        sock.sendall(hello.replace(b"a.example", b"\xff.example"))
        assert sock.recv(1) == b"\x16"
    assert capfd.readouterr().err == ""


def test_the_name_is_known_from_pieces(serve):
    server = serve(framing="raw")
    hello, client, down, up = hello_for("a.example")
    with plug_plain(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(5, len(hello), 100):
            piece = hello[at : at + 100]
            sock.sendall(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece)
        while client.version() is None or up.pending == 0:
            down.write(sock.recv(4096))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
        sock.sendall(up.read())
        wait_for(lambda: server.clients)
        (one,) = server.clients.values()
        assert one.tls.sni == "a.example"


# Certificates that change


def test_another_certificate(serve, made, tmp_path):
    path = tmp_path / "server.pem"
    path.write_bytes(Path(made.server).read_bytes())
    server = serve(TLS(path))
    with Old(server) as old:
        first = fingerprint(server)
        path.write_bytes(Path(made.issue("next", "localhost")).read_bytes())
        assert fingerprint(server) == first
        server.reload_tls()
        second = fingerprint(server)
        assert second != first
        for wrong, message in ((b"nonsense", "holds no certificate"), (Path(made.ca).read_bytes(), "is missing")):
            path.write_bytes(wrong)
            with pytest.raises(ValueError, match=message):
                server.reload_tls()
            assert fingerprint(server) == second
        old.check()


def test_nothing_to_load_again(make_server, made, unix_address):
    server = make_server(unix_address)
    with pytest.raises(Exception, match="no certificates that it could load again: it has none"):
        server.reload_tls()
    server = make_server("tls://127.0.0.1:0", tls=made.served.server_context())
    with pytest.raises(Exception, match="its contexts are the program's: call their load_cert_chain"):
        server.reload_tls()


class Old:
    """A client that has been there for a while."""

    def __init__(self, server):
        self.sock = secure(plug_plain(server))
        self.sock.sendall(cir())
        self.peer = RawPeer(self.sock)
        assert self.peer.frame().kind == wire.CIR_ACCEPTED

    def check(self):
        self.peer.send(srm(b"still there"))
        assert wire.next_frame(self.peer) == replied(b"STILL THERE")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def fingerprint(server):
    with secure(plug_plain(server)) as sock:
        return sock.tls.getpeercert(True)
