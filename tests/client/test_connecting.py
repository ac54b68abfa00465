from __future__ import annotations

import math
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from support import WELCOME, FakeServer, RawPeer, run_python, until_bye, welcomed

import pysock
from pysock import Address, ConnectionRefused, ProtocolError, RequestTimeout, ServerFull, connect
from pysock.calls import handshake
from pysock.errors import ConnectionLost
from pysock.limits import STREAM_WINDOW
from pysock.wire.cir import decode_cir
from pysock.wire.features import CLIENT_FEATURES
from pysock.wire.format import Kind, Refusal, encode, encode_text


def test_the_cir_says_who_it_is(backend, fake):
    seen = []

    def play(peer):
        seen.append(peer.frame())
        peer.send(WELCOME)
        until_bye(peer)

    connect(fake(play), name="sensor-7", backend=backend, max_payload=5000).close()
    (frame,) = seen
    assert (frame.kind, frame.code, frame.request_id, frame.flags) == (Kind.CIR, 1, 0, 0)
    assert decode_cir(frame.payload) == (
        "sensor-7",
        5000,
        f"pysock/{pysock.__version__}",
        None,
        CLIENT_FEATURES,
        STREAM_WINDOW,
    )


def test_no_such_socket_file(backend, socket_dir):
    with pytest.raises(
        FileNotFoundError, match=f"unix:{socket_dir}/no: there is no such socket file; is the server running"
    ):
        connect(f"unix:{socket_dir}/no", backend=backend)


def test_nobody_listens_at_the_socket_file(backend, socket_dir):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{socket_dir}/s")
    with pytest.raises(
        ConnectionRefusedError, match=f"unix:{socket_dir}/s: nobody listens there; is the server running"
    ):
        connect(f"unix:{socket_dir}/s", backend=backend)


def test_nobody_listens_at_the_port(backend):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ConnectionRefusedError, match=f"tcp://127.0.0.1:{port}: nobody listens there"):
        connect(f"127.0.0.1:{port}", backend=backend)
    assert time.monotonic() - started < 1  # it isn't tried again


def test_a_file_that_is_no_socket(backend, socket_dir):
    (socket_dir / "file").touch()
    with pytest.raises(OSError, match=f"unix:{socket_dir}/file: "):
        connect(f"unix:{socket_dir}/file", backend=backend)


def test_a_host_that_does_not_exist(backend):
    with pytest.raises(OSError, match="can't be resolved"):
        connect("no.such.host.invalid:9", backend=backend)


def test_the_next_address_of_a_host_is_tried(make_server, unix_address, socket_dir, monkeypatch):
    targets = [(socket.AF_UNIX, f"{socket_dir}/no"), (socket.AF_UNIX, f"{socket_dir}/s")]
    monkeypatch.setattr(Address, "resolve", lambda *_, **__: targets)
    server = make_server(unix_address)
    with pytest.raises(FileNotFoundError):
        connect(unix_address, backend=server.backend)
    monkeypatch.undo()
    with server:
        monkeypatch.setattr(Address, "resolve", lambda *_, **__: targets)
        connect(unix_address, backend=server.backend).close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "nonsense"}, "bad address 'nonsense'"),
        ({"address": "fd://3"}, "only something to listen at"),
        ({"address": "tcp://127.0.0.1:0"}, "only something to listen at"),
        ({"name": "x" * 256}, "a name is at most 255 bytes of UTF-8"),
        ({"timeout": -1}, "a timeout must be 0 or more seconds"),
        ({"timeout": math.nan}, "a timeout must be 0 or more seconds"),
        ({"linger": -1}, "linger must be"),
        ({"max_payload": 0}, "max_payload must be from 1"),
        ({"backend": "rust"}, "unknown backend 'rust'"),
    ],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        connect(**{"address": "unix:/x", "backend": "pure", **options})


def test_a_full_backlog_is_waited_for(backend, socket_dir):
    path = f"{socket_dir}/s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)

        def make_room():
            listener.accept()[0].close()
            with RawPeer(listener.accept()[0]) as peer:
                welcomed(until_bye)(peer)

        thread = threading.Timer(0.2, make_room)
        thread.start()
        started = time.monotonic()
        connect(f"unix:{path}", backend=backend).close()
        assert time.monotonic() - started > 0.15
        thread.join()


def test_a_backlog_that_stays_full(backend, socket_dir):
    path = f"{socket_dir}/s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(RequestTimeout, match=rf"unix:{path}: no connection within 0\.2 seconds"):
            connect(f"unix:{path}", timeout=0.2, backend=backend)


def test_a_server_that_does_not_answer(backend, fake):
    with pytest.raises(RequestTimeout, match=r"the server didn't answer within 0\.1 seconds"):
        connect(fake(lambda peer: peer.rest()), timeout=0.1, backend=backend)


def test_a_server_that_hangs_up(backend, fake):
    with pytest.raises(ConnectionLost, match="ended before the server let this client in; it is just stopping"):
        connect(fake(lambda peer: peer.frame()), backend=backend)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, encode(Kind.REPLY, b"x")])
def test_what_is_no_pysock_server(backend, fake, answer):
    with pytest.raises(ConnectionError, match=r"pysock|of kind 0x83"):
        connect(fake(lambda peer: (peer.frame(), peer.send(answer))), backend=backend)


def test_a_broken_welcome(backend, fake):
    with pytest.raises(ProtocolError, match=r"CIR_ACCEPTED is broken: .* has no client id"):
        connect(fake(lambda peer: (peer.frame(), peer.send(encode(Kind.CIR_ACCEPTED)))), backend=backend)


def test_a_challenge_that_nothing_had_asked_for(backend, fake):
    with pytest.raises(ProtocolError, match="a CHALLENGE that nothing had asked for"):
        connect(fake(lambda peer: (peer.frame(), peer.send(encode(Kind.CHALLENGE)))), backend=backend)


def test_a_server_that_wants_a_key(backend, fake):
    answer = encode_text(Kind.CIR_REFUSED, Refusal.WRONG_PROOF, "because")
    with pytest.raises(ConnectionRefused, match=r"^because: pass authkey= to connect\(\)$") as caught:
        connect(fake(lambda peer: (peer.frame(), peer.send(answer))), backend=backend)
    assert caught.value.code == 3


@pytest.mark.parametrize("refusal", [refusal for refusal in Refusal if refusal is not Refusal.WRONG_PROOF])
def test_refusals(backend, fake, refusal):
    answer = encode_text(Kind.CIR_REFUSED, refusal, "because ü")
    with pytest.raises(ConnectionRefused, match=r"^because ü$") as caught:
        connect(fake(lambda peer: (peer.frame(), peer.send(answer))), backend=backend)
    assert (caught.value.code, caught.value.reason) == (refusal, "because ü")
    assert isinstance(caught.value, ServerFull) is (refusal is Refusal.SERVER_FULL)


def test_a_refusal_that_comes_before_the_cir_was_sent(backend, socket_dir, monkeypatch):
    """A full server refuses and closes at once; the client's CIR then meets a broken pipe."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{socket_dir}/s")
    listener.listen()
    send_cir = handshake._send_cir

    def refused_first(*arguments):
        with RawPeer(listener.accept()[0]) as peer:
            peer.send(encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, "the server is full"))
        send_cir(*arguments)

    monkeypatch.setattr(handshake, "_send_cir", refused_first)
    with listener, pytest.raises(ServerFull):
        connect(f"unix:{socket_dir}/s", backend=backend)


def test_a_refusal_that_comes_before_the_cir_kills_nobody(backend, socket_dir):
    """Not even where SIGPIPE would."""
    code = """
import signal, socket, sys, pysock
from pysock.calls import handshake
from pysock.wire.format import Kind, Refusal, encode_text

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()

def refused_first(*arguments, send_cir=handshake._send_cir):
    with listener.accept()[0] as peer:
        peer.send(encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, "the server is full"))
    send_cir(*arguments)

handshake._send_cir = refused_first
try:
    pysock.connect(f"unix:{sys.argv[1]}", backend=sys.argv[2])
except pysock.ServerFull as error:
    print(error)
"""
    done = run_python(code, f"{socket_dir}/s", backend)
    assert (done.returncode, done.stdout) == (0, "the server is full\n"), done.stderr


def test_a_refusal_is_heard_where_the_socket_takes_no_options_any_more(backend, fake, monkeypatch):
    """macOS: EINVAL where the peer is gone already. Here the system doesn't know the option at all."""
    monkeypatch.setattr("pysock.base.sigpipe.sys", SimpleNamespace(platform="darwin"))
    answer = encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, "the server is full")
    with pytest.raises(ServerFull, match=r"^the server is full$"):
        connect(fake(lambda peer: (peer.frame(), peer.send(answer))), backend=backend)


def test_a_server_serves_where_a_socket_takes_no_options_any_more(make_server, address, monkeypatch):
    monkeypatch.setattr("pysock.base.sigpipe.sys", SimpleNamespace(platform="darwin"))
    server = make_server(address)
    server.service(lambda client, request: request.upper())
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"x") == b"X"


def test_a_failed_connect_leaves_no_descriptor_behind(backend, socket_dir):
    good = FakeServer(f"{socket_dir}/good", welcomed(until_bye))
    connect(good.address, backend=backend).close()  # whatever is loaded lazily is loaded now
    good.close()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        connect(f"unix:{socket_dir}/no", backend=backend)
    bad = FakeServer(f"{socket_dir}/bad", lambda peer: peer.frame())
    with pytest.raises(ConnectionLost):
        connect(bad.address, backend=backend)
    bad.close()
    assert os.listdir("/proc/self/fd") == before
