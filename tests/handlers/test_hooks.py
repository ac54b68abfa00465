from __future__ import annotations

import logging
import threading
import weakref

import pytest
import wire
from support import RawPeer, wait_for

from pysock import ConnectionRefused, Limits, connect
from pysock.base.ids import shown
from pysock.errors import ConnectionLost
from pysock.states import ConnectionState, DisconnectReason
from pysock.wire.cir import encode_cir
from pysock.wire.format import Kind, Refusal, encode


@pytest.fixture
def server(make_server, address):
    return make_server(address, name="test")


def handler(client, request):
    return request


# on_connect and on_disconnect


@pytest.mark.parametrize("answer", [None, True])
def test_on_connect_lets_in(server, answer):
    seen = []

    @server.on_connect
    def check(client):
        seen.append((client.name, client.state.name))
        return answer

    server.service(handler)
    with server, connect(server.addresses[0], name="me", backend=server.backend) as client:
        assert client.request(b"x") == b"x"
    assert seen == [("me", "ACCEPTED")]


def refuse(client):
    return False


def refuse_with_reason(client):
    raise ConnectionRefused(f"no {client.name}s here")


def fail(client):
    raise KeyError("secret")


def refuse_later(client):
    async def refuse():
        return False

    return refuse()


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (refuse, "not allowed"),
        (refuse_with_reason, "no robots here"),
        (fail, "not allowed"),
        (refuse_later, "not allowed"),
    ],
)
def test_on_connect_refuses(server, caplog, hook, reason):
    gone = []
    server.on_connect(hook)
    server.on_disconnect(lambda client, reason: gone.append(client))
    with server:
        with pytest.raises(ConnectionRefused, match=f"^{reason}$") as caught:
            connect(server.addresses[0], name="robot", backend=server.backend)
        assert caught.value.code == Refusal.NOT_ALLOWED
        assert len(server.clients) == 0
        assert server.stats()["refused"] == 1
    assert gone == []  # it was never let in
    assert ("KeyError: 'secret'" in caplog.text) is (hook is fail)
    assert ("TypeError: it returned a coroutine" in caplog.text) is (hook is refuse_later)


@pytest.mark.parametrize("hook", [refuse, refuse_with_reason, fail, refuse_later])
def test_refusals_are_logged_once_a_second(server, caplog, monkeypatch, hook):
    """Anybody who can connect could fill the log otherwise; or write lines of its own into it, by its name."""
    now = [100.0]
    monkeypatch.setattr("pysock.base.logs.monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "pysock.server")
    server.on_connect(hook)
    with server:
        caplog.clear()
        for moment in (100.0, 100.2, 100.9, 101.0, 101.5):
            now[0] = moment
            wire.say(server, wire.cir(name=b"robot\nforged"))
        wire.counted(server, refused=5)
        records = [record for record in caplog.records if "refused" in record.getMessage()]
    assert [record.getMessage().endswith("; 3 times") for record in records] == [False, True]
    assert [r"'robot\nforged'" in record.getMessage() for record in records] == [True, True]
    assert not any("\n" in record.getMessage() for record in records)
    assert len([record for record in caplog.records if record.exc_info]) == (2 if hook in {fail, refuse_later} else 0)


def test_a_refused_clients_object_answers_still(server):
    seen = []

    @server.on_connect
    def check(client):
        seen.append(client)
        return False

    with server, pytest.raises(ConnectionRefused):
        connect(server.addresses[0], name="robot", backend=server.backend)
    (client,) = seen
    assert (client.name, client.state.name, client.fd) == ("robot", "CLOSED", -1)
    with pytest.raises(ConnectionLost, match="isn't connected any more"):
        client.send(b"x")


@pytest.mark.parametrize("framing", ["pysock", "line"])
def test_a_client_that_its_on_connect_closes_is_forgotten(make_server, address, framing):
    """It was never let in, so no on_disconnect comes; its object is only kept by who wants it."""
    kept, others, told = [], [], []
    server = make_server(address, framing=framing)
    server.on_disconnect(lambda client, reason: told.append(client))

    @server.on_connect
    def close(client):
        (others if kept else kept).append(weakref.ref(client) if kept else client)
        client.close()

    server.service(handler)
    with server:
        for _ in range(3):
            wire.say(server, wire.cir(name=b"robot") if framing == "pysock" else b"hello\n")
        wire.counted(server, refused=3, established=0)
        assert [ref() for ref in others] == [None, None]
    (client,) = kept
    assert (client.name, client.state.name, client.fd) == ("robot" if framing == "pysock" else "", "CLOSED", -1)
    assert told == []


def test_all_on_connect_hooks_must_agree(server):
    asked = []
    server.on_connect(lambda client: asked.append(1))
    server.on_connect(lambda client: client.name == "friend")
    with server:
        with pytest.raises(ConnectionRefused):
            connect(server.addresses[0], name="robot", backend=server.backend)
        connect(server.addresses[0], name="friend", backend=server.backend).close()
    assert len(asked) == 2


def test_what_on_connect_sends_follows_the_admission(server):
    server.on_connect(lambda client: client.send(b"welcome"))
    with server, RawPeer.connect(server.addresses[0]) as peer:
        peer.hello()
        frame = peer.frame()
        assert (frame.kind, frame.payload) == (Kind.PUSH, b"welcome")


def leave(peer, server):
    peer.send(encode(Kind.BYE))


def vanish(peer, server):
    peer.close()


def violate(peer, server):
    peer.send(encode_cir())


def get_closed(peer, server):
    next(iter(server.clients.values())).close()


def get_stopped(peer, server):
    threading.Thread(target=server.stop).start()


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (leave, "left"),
        (vanish, "closed by peer"),
        (violate, "protocol violation"),
        (get_closed, "closed by server"),
        (get_stopped, "server stopping"),
    ],
)
def test_on_disconnect_says_why(server, way, reason):
    seen = []
    server.on_disconnect(lambda client, reason: seen.append((client.name, client.state.name, client.fd, reason)))
    server.service(handler)
    with server, RawPeer.connect(server.addresses[0]) as peer:
        peer.hello("me")
        way(peer, server)
        wait_for(lambda: seen, "on_disconnect")
        assert seen == [("me", "CLOSED", -1, reason)]
        assert isinstance(seen[0][-1], DisconnectReason)


def test_on_disconnect_over_a_deadline(make_server, address):
    seen = []
    server = make_server(address, limits=Limits(idle_timeout=0.1))
    server.on_disconnect(lambda client, reason: seen.append(reason))
    with server, RawPeer.connect(server.addresses[0]) as peer:
        peer.hello()
        wait_for(lambda: seen)
        assert seen == [DisconnectReason.TIMED_OUT]
        assert server.stats()["timeouts"] == 1


def test_a_gone_client_keeps_its_last_figures(server):
    seen = []
    server.service(handler)
    server.on_disconnect(lambda client, reason: seen.append(client))
    with server:
        with connect(server.addresses[0], name="me", backend=server.backend) as client:
            client.request(b"hello")
            data = server.clients[client.id]
        wait_for(lambda: seen)
        assert seen == [data]
        assert data.id not in server.clients
        assert (data.name, data.requests, data.state.name, data.fd) == ("me", 1, "CLOSED", -1)
        assert data.bytes_in > 5
        assert data.bytes_out > 5
        with pytest.raises(ConnectionLost, match=f"client {shown(data.id)} isn't connected any more"):
            data.send(b"x")
        data.close()  # does nothing
    assert data.requests == 1


def test_a_failing_on_disconnect_is_logged(server, caplog):
    @server.on_disconnect
    def broken(client, reason):
        raise ValueError("oh")

    server.service(handler)
    with server:
        connect(server.addresses[0], backend=server.backend).close()
        wait_for(lambda: "ValueError: oh" in caplog.text)
        with connect(server.addresses[0], backend=server.backend) as client:
            assert client.request(b"still here") == b"still here"


@pytest.mark.parametrize("framing", ["pysock", "u32"])
def test_on_disconnect_sees_what_was_there_before(make_server, address, framing):
    """Every attribute, but those that say that it is gone."""
    server = make_server(address, framing=framing)
    before, after = {}, {}

    def look(client, into):
        names = [name for name in dir(client) if not name.startswith("_") and not callable(getattr(client, name))]
        into.update({name: getattr(client, name) for name in names})

    @server.service
    def handler(client, request):
        client.data = ["mine"]
        look(client, before)
        return b"ok"

    server.on_disconnect(lambda client, reason: look(client, after))
    with server:
        peer = RawPeer.connect(server.addresses[0])
        if framing == "pysock":
            peer.hello("anna")
            peer.srm(b"hello")
            assert peer.frame().payload == b"ok"
        else:
            peer.send(b"\0\0\0\5hello")
            assert peer.read(6) == b"\0\0\0\2ok"
        peer.sock.close()
        wait_for(lambda: after, "the hook")
    assert after.pop("idle_since") == pytest.approx(before.pop("idle_since"), abs=0.1)  # reckoned when it is asked for
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"fd", "state", "bytes_out", "is_gone"}
    assert (after["fd"], after["state"]) == (-1, ConnectionState.CLOSED)
    assert (after["peer"] is None) != address.startswith("unix")
