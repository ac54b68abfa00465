from __future__ import annotations

import socket

import pytest
from support import RawPeer

import pysock
from pysock import FrameTooLarge, Limits, PysockError, RemoteError, Server, connect
from pysock.base.ids import shown
from pysock.wire.format import ErrorCode, Kind, Refusal, encode

# Services


@pytest.fixture
def server(make_server, address):
    return make_server(address, name="test")


def test_services(server):
    @server.service
    def upper(client, request):
        return request.upper()

    @server.service("reverse")
    def reverse(client, request):
        return request[::-1]

    @server.batch_service("lengths")
    def lengths(clients, requests):
        return [str(len(request)).encode() for request in requests]

    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"hello") == b"HELLO"
        assert client.request(b"hello", service="reverse") == b"olleh"
        assert client.request_many([b"a", b"bb", b"ccc"], service="lengths") == [b"1", b"2", b"3"]


def test_decorators_return_the_function_unchanged(server):
    def handler(client, request):
        return request

    assert server.service(handler) is handler
    assert server.service("a")(handler) is handler
    assert server.batch_service("b")(handler) is handler
    assert server.batch_service("c", max_batch=5, max_wait=0.1)(handler) is handler
    for register in (server.on_disconnect, server.on_state):
        assert register(handler) is handler
    assert server.on_connect(bool) is bool


@pytest.mark.parametrize("reply", [b"x", bytearray(b"x"), memoryview(b"x"), memoryview(b"axb")[1:2]])
def test_a_handler_returns_any_bytes_like_object(server, reply):
    server.service(lambda client, request: reply)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"") == b"x"


def test_none_is_an_empty_reply(server):
    server.service(lambda client, request: None)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"anything") == b""


@pytest.mark.parametrize("wrong", ["text", 5, [b"x"], object()], ids=lambda value: type(value).__name__)
def test_a_handler_that_returns_the_wrong_type(server, caplog, wrong):
    server.service(lambda client, request: wrong if request == b"wrong" else b"right")
    with server, connect(server.addresses[0], name="me", backend=server.backend) as client:
        with pytest.raises(RemoteError, match=r"^TypeError$") as caught:
            client.request(b"wrong")
        assert caught.value.code == ErrorCode.HANDLER_FAILED
        assert client.request(b"good") == b"right"
    assert type(wrong).__name__ in caplog.text


def test_an_exception_becomes_an_error_and_one_log_record(server, caplog):
    @server.service("divide")
    def divide(client, request):
        return b"%d" % (100 // int(request))

    with server, connect(server.addresses[0], name="me\n", backend=server.backend) as client:
        with pytest.raises(RemoteError, match=r"^ZeroDivisionError$") as caught:
            client.request(b"0", service="divide")
        assert caught.value.code == ErrorCode.HANDLER_FAILED
        assert client.request(b"5", service="divide") == b"20"
        assert server.stats()["errors"] == 1
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert record.name == "pysock.server"
        assert record.getMessage().startswith(
            f"service 'divide' failed for client {shown(client.id)} 'me\\n': request 1, after "
        )
        assert f"divide ({__file__}:{divide.__code__.co_firstlineno})" in record.getMessage()
        assert record.exc_info[0] is ZeroDivisionError


def test_a_remote_error_sends_its_text_and_is_no_incident(server, caplog):
    @server.service
    def picky(client, request):
        raise RemoteError("I don't like this: ü", code=6)

    with server, connect(server.addresses[0], backend=server.backend) as client:
        with pytest.raises(RemoteError, match=r"^I don't like this: ü$") as caught:
            client.request(b"")
        assert caught.value.code == 6
    assert not [record for record in caplog.records if record.levelno >= 30]


@pytest.mark.parametrize("code", [0, -1, 65536])
def test_a_remote_error_with_an_impossible_code_gets_code_1(server, code):
    @server.service
    def picky(client, request):
        raise RemoteError("no", code)

    with server, connect(server.addresses[0], backend=server.backend) as client:
        with pytest.raises(RemoteError, match=r"^no$") as caught:
            client.request(b"")
        assert caught.value.code == ErrorCode.HANDLER_FAILED


def test_a_reply_over_the_limit(make_server, address, caplog):
    server = make_server(address, limits=Limits(max_payload=1000))
    server.service(lambda client, request: b"x" * int(request))
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert len(client.request(b"1000")) == 1000
        with pytest.raises(RemoteError, match="1000") as caught:
            client.request(b"1001")
        assert caught.value.code == ErrorCode.PAYLOAD_TOO_LARGE
        assert client.request(b"1") == b"x"
    assert "FrameTooLarge" in caplog.text


def test_a_batch_that_answers_with_the_wrong_number(server):
    server.batch_service(lambda clients, requests: [b"x"] * (len(requests) + (b"more" in requests)))
    with server, connect(server.addresses[0], backend=server.backend) as client:
        with pytest.raises(RemoteError) as caught:
            client.request(b"more")
        assert caught.value.code == ErrorCode.HANDLER_FAILED
        assert client.request(b"fine") == b"x"


def test_a_handler_is_given_the_same_object_for_the_same_client(server):
    seen = []

    @server.service
    def count(client, request):
        seen.append(client)
        client.data = (client.data or 0) + 1
        return b"%d" % client.data

    with server, connect(server.addresses[0], name="me", backend=server.backend) as client:
        assert client.request_many([b"", b"", b""]) == [b"1", b"2", b"3"]
        assert client.request(b"") == b"4"
        assert len(set(map(id, seen))) == 1
        assert server.clients[client.id] is seen[0]
        assert server.clients.by_name("me") is seen[0]


def handler(client, request):
    return request


# Parameters


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, r"a server needs at least one address, for example"),
        (["unix:@"], {}, r"bad address 'unix:@': the abstract name is empty"),
        (["unix:/x"], {"framing": "json"}, r"unknown framing 'json': choose one of pysock, u32, line, raw"),
        (["unix:/x"], {"backend": "rust"}, r"unknown backend 'rust': choose one of auto, native, pure"),
        (["unix:/x"], {"linger": -1}, r"linger must be a number of seconds from 0 to 1, not -1"),
        (["unix:/x"], {"linger": 2}, r"linger must be"),
        (["unix:/x"], {"linger": float("nan")}, r"linger must be"),
    ],
)
def test_wrong_parameters(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Server(*arguments, **{"backend": "pure", **options})


@pytest.mark.parametrize("limits", [{"max_clients": 1}, 5, ()])
def test_limits_of_a_wrong_type(limits):
    with pytest.raises(TypeError, match=r"limits= takes a Limits, for example Limits\(max_clients=100\), not "):
        Server("unix:/x", limits=limits, backend="pure")


@pytest.mark.parametrize("wrong", [None, "x", 5])
def test_serve_needs_a_handler(backend, unix_address, monkeypatch, wrong):
    monkeypatch.setattr(Server, "serve_forever", lambda server: server.stop())
    with pytest.raises(TypeError, match=f"a handler must be callable, not {type(wrong).__name__}"):
        pysock.serve(unix_address, wrong, backend=backend)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), "5"])
def test_grace(server, grace):
    with pytest.raises(ValueError, match="grace must be 0 or more seconds"):
        server.stop(grace)
    with pytest.raises(ValueError, match="grace must be 0 or more seconds"):
        server.serve_forever(grace=grace)


# Pushes


def test_push(server):
    @server.service
    def ask(client, request):
        client.send(b"first " + request)
        client.send(memoryview(b"second"))
        return b"done"

    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"x") == b"done"
        pushes = client.pushes(timeout=5)
        assert [next(pushes), next(pushes)] == [b"first x", b"second"]


def test_a_push_over_the_limit(make_server, unix_address):
    server = make_server(unix_address, limits=Limits(max_payload=1000))
    with server, connect(unix_address, backend=server.backend) as client:
        data = server.clients[client.id]
        data.send(b"x" * 1000)
        with pytest.raises(FrameTooLarge, match=r"1001 bytes is over Limits\.max_payload of 1000 bytes"):
            data.send(b"x" * 1001)
        with pytest.raises(FrameTooLarge):
            server.clients.broadcast(b"x" * 1001)
        with pytest.raises(TypeError, match="a payload must be bytes-like, not str"):
            data.send("text")
        assert next(client.pushes(timeout=5)) == b"x" * 1000


# Bad clients: each gets the error that is due, and the others notice nothing


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode(Kind.SRM, b"too early", request_id=1), Refusal.MALFORMED),
        (encode(Kind.CIR, b"XXXX", code=1), Refusal.BAD_MAGIC_OR_VERSION),
        (encode(Kind.CIR, b"PSK1", code=99), Refusal.BAD_MAGIC_OR_VERSION),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), None),
        (b"\xff" * 64, None),
    ],
    ids=["SRM first", "magic", "version", "HTTP", "TLS", "random"],
)
def test_a_bad_start_disturbs_nobody(server, data, code):
    server.service(handler)
    with server, connect(server.addresses[0], backend=server.backend) as good:
        with RawPeer.connect(server.addresses[0]) as bad:
            bad.send(data)
            if code is None:
                bad.rest()  # it is closed, with or without a refusal
            else:
                frame = bad.frame()
                assert (frame.kind, frame.code) == (Kind.CIR_REFUSED, code)
                assert bad.frame() is None
        assert good.request(b"x") == b"x"
        assert len(server.clients) == 1


def test_a_full_server(make_server, address):
    server = make_server(address, limits=Limits(max_clients=1))
    server.service(handler)
    with server, connect(server.addresses[0], backend=server.backend) as first:
        with pytest.raises(pysock.ServerFull) as caught:
            connect(server.addresses[0], backend=server.backend)
        assert caught.value.code == Refusal.SERVER_FULL
        assert first.request(b"x") == b"x"


def test_listen_at(make_server, socket_dir):
    """Other addresses than those it was made with, until it starts."""
    server = make_server(f"unix:{socket_dir}/a")
    with pytest.raises(ValueError, match="at least one address"):
        server.listen_at()
    with pytest.raises(ValueError, match="unknown scheme"):
        server.listen_at("ftp://x")
    server.listen_at(f"unix:{socket_dir}/b", f"unix:{socket_dir}/c")
    with server:
        assert [address.path for address in server.addresses] == [f"{socket_dir}/b", f"{socket_dir}/c"]
        assert not (socket_dir / "a").exists()
        with pytest.raises(PysockError, match="can't listen elsewhere any more"):
            server.listen_at(f"unix:{socket_dir}/a")
    with pytest.raises(PysockError, match="can't listen elsewhere any more"):
        server.listen_at(f"unix:{socket_dir}/a")


@pytest.mark.parametrize(
    ("hosts", "ways"),
    [
        (["0.0.0.0", "[::]"], ["127.0.0.1", "[::1]"]),
        (["[::]", "0.0.0.0"], ["127.0.0.1", "[::1]"]),
        (["127.0.0.1", "[::]"], ["127.0.0.1", "[::1]"]),
        (["127.0.0.1", "[::1]"], ["127.0.0.1", "[::1]"]),
        (["", "[::]"], ["127.0.0.1", "[::1]"]),
        (["[::]"], ["127.0.0.1", "[::1]"]),
    ],
)
def test_both_families_at_one_port(make_server, backend, hosts, ways):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server(*(f"tcp://{host}:{port}" for host in hosts), insecure=True)
    server.service(lambda client, request: request)
    with server:
        for host in ways:
            with connect(f"tcp://{host}:{port}", backend=backend) as client:
                assert client.request(b"x") == b"x"
