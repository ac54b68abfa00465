"""The auth key: from the CIR's nonce to CIR_ACCEPTED. The MACs are computed here, by hmac."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time

import pytest
import wire
from support import WELCOME, until_bye
from wire import Good, Services, cir, field, frame, goaway, parse, ping, ponged, pushed, refused, replied, say, srm

from pysock import ConnectionRefused, Limits, ProtocolError, RequestTimeout, Server, connect
from pysock.calls.handshake import Handshake
from pysock.errors import ConnectionLost
from pysock.wire import format as p
from pysock.wire import texts

KEY = b"between the two of us"
NONCE = bytes(range(32))
WRONG = refused(wire.WRONG_PROOF, texts.WRONG_PROOF)
BROKEN = refused(wire.REFUSED_MALFORMED, texts.BROKEN_PROOF)


def mac(*parts, key=KEY):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def proof(*fields):
    return frame(wire.PROOF, b"".join(fields))


def good_proof(servers, name=b"me", nonce=NONCE, key=KEY):
    return proof(field(wire.MAC, mac(b"pysock1 client", nonce, servers, name, key=key)))


@pytest.fixture
def serve(make_server, address):
    def start(*, authkey=KEY, **limits):
        server = make_server(address, authkey=authkey, limits=Limits(**limits))
        server.asked = Services(server)
        server.start()
        return server

    return start


@pytest.fixture
def server(serve):
    return serve(max_cir_bytes=400)


def challenged(server, name=b"me", nonce=NONCE, cut="whole"):
    """A client that was challenged, and the server's nonce."""
    peer = wire.dial(server)
    wire.send_cut(server, peer.sock, cir(field(wire.NONCE, nonce), name=name), cut)
    return peer, nonce_of(wire.next_frame(peer), nonce)


def nonce_of(answer, nonce=NONCE):
    """The server's nonce of a CHALLENGE, which must be as it should."""
    assert answer[:4] == (wire.CHALLENGE, 0, 0, 0)
    (first, servers), (second, servers_mac) = wire.fields_of(answer.payload)
    assert (first, second) == (wire.NONCE, wire.MAC)
    assert len(servers) == 32
    assert servers_mac == mac(b"pysock1 server", nonce, servers)
    return servers


class GoodWithKey(Good):
    """A client that behaves, and has the key."""

    def __init__(self, server):
        self.peer, servers = challenged(server, b"good")
        self.peer.send(good_proof(servers, b"good"))
        assert wire.next_frame(self.peer).kind == wire.CIR_ACCEPTED
        self.count = 0


# On the wire


def test_both_ends_prove_it(server, cut):
    """CIR with a nonce, CHALLENGE, PROOF, CIR_ACCEPTED; in any cuts, and with requests behind the proof."""
    peer, servers = challenged(server, cut=cut)
    with peer:
        wire.counted(server, pending=1, refused=0)
        wire.send_cut(server, peer.sock, good_proof(servers) + srm(b"a", 1) + srm(b"b", 2), cut)
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
        assert [wire.next_frame(peer) for _ in range(2)] == [replied(b"A", 1), replied(b"B", 2)]
        wire.counted(server, clients=1, established=1, refused=0, violations=0)
        assert server.clients.by_name("me").name == "me"


def test_a_client_without_a_name(server):
    peer, servers = challenged(server, b"")
    with peer:
        peer.send(good_proof(servers, b""))
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED


def test_a_name_that_is_not_ascii(server):
    """It counts in the MAC as the bytes that the CIR had."""
    peer, servers = challenged(server, "ä€😀".encode())
    with peer:
        peer.send(good_proof(servers, "ä€😀".encode()))
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED


def test_no_two_challenges_are_alike(server):
    nonces = set()
    for _ in range(20):
        peer, servers = challenged(server)
        peer.close()
        nonces.add(servers)
    assert len(nonces) == 20


def test_a_wrong_key(server, cut):
    """Refused, and no handler and no hook hears of it; others notice nothing."""
    with GoodWithKey(server) as good:
        peer, servers = challenged(server, b"stranger")
        with peer:
            wrong = good_proof(servers, b"stranger", key=b"guessed") + srm(b"x")
            wire.send_cut(server, peer.sock, wrong, cut)
            assert wire.rest_of(peer) == [WRONG]
        good.check()
        wire.counted(server, clients=1, refused=1, refused_proof=1, violations=0, established=1)
    assert server.asked.called_for("stranger") == []


@pytest.mark.parametrize(
    "made",
    [
        lambda servers: good_proof(servers, b"you"),
        lambda servers: good_proof(servers, nonce=bytes(32)),
        lambda servers: good_proof(NONCE),
        lambda servers: proof(field(wire.MAC, mac(b"pysock1 server", NONCE, servers))),
        lambda servers: proof(field(wire.MAC, mac(b"pysock1 client", servers, NONCE, b"me"))),
        lambda servers: proof(field(wire.MAC, bytes(32))),
    ],
    ids=["another name", "another nonce", "not the server's nonce", "its own MAC sent back", "turned round", "zeros"],
)
def test_a_proof_of_something_else(server, made):
    peer, servers = challenged(server)
    with peer:
        peer.send(made(servers))
        assert wire.rest_of(peer) == [WRONG]
        wire.counted(server, refused=1, refused_proof=1, violations=0)


def test_a_replayed_proof(server):
    """What was recorded of a good client lets nobody in: the server's nonce is another."""
    peer, servers = challenged(server)
    recorded = good_proof(servers)
    with peer:
        peer.send(recorded)
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED
    again, _ = challenged(server)
    with again:
        again.send(recorded)
        assert wire.rest_of(again) == [WRONG]
    wire.counted(server, established=1, refused=1, refused_proof=1)


def test_no_nonce(server, cut):
    """A client without a key is told what is missing."""
    answers = parse(say(server, cir(name=b"me") + srm(b"x"), cut))
    assert answers == [refused(wire.WRONG_PROOF, texts.KEY_WANTED)]
    wire.counted(server, refused=1, refused_proof=1, violations=0, established=0)
    assert server.asked.calls == []


@pytest.mark.parametrize("authkey", [KEY, None], ids=["key", "no key"])
@pytest.mark.parametrize(
    "fields",
    [
        [field(wire.NONCE, bytes(31))],
        [field(wire.NONCE, bytes(33))],
        [field(wire.NONCE, b"")],
        [field(wire.NONCE, NONCE), field(wire.NONCE, NONCE)],
    ],
    ids=["short", "long", "empty", "two"],
)
def test_a_broken_nonce(serve, authkey, fields):
    """Malformed, whether there is a key or not."""
    server = serve(authkey=authkey)
    assert parse(say(server, cir(*fields))) == [refused(wire.REFUSED_MALFORMED, texts.BROKEN_FIELD)]
    wire.counted(server, refused=1, violations=1, refused_proof=0)


def test_a_nonce_where_there_is_no_key(serve):
    """It isn't looked at."""
    server = serve(authkey=None)
    accepted, answer = parse(say(server, cir(field(wire.NONCE, NONCE)) + srm(b"a")))
    assert (accepted.kind, answer) == (wire.CIR_ACCEPTED, replied(b"A"))


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (cir(field(wire.NONCE, NONCE)), refused(wire.REFUSED_MALFORMED, texts.SECOND_CIR_WAITING)),
        (cir(), refused(wire.REFUSED_MALFORMED, texts.SECOND_CIR_WAITING)),
        (srm(b"x"), refused(wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR)),
        (proof(), BROKEN),
        (proof(field(wire.MAC, bytes(31))), BROKEN),
        (proof(field(wire.MAC, bytes(33))), BROKEN),
        (proof(2 * field(wire.MAC, bytes(32))), BROKEN),
        (proof(field(wire.MAC, bytes(32)), b"\4"), BROKEN),
        (proof(field(wire.NONCE, bytes(32))), BROKEN),
        (frame(wire.PROOF, length=401), refused(wire.REFUSED_MALFORMED, texts.LONG_PROOF)),
        (frame(wire.PROOF, length=2**32 - 1), refused(wire.REFUSED_MALFORMED, texts.LONG_PROOF)),
        (frame(wire.PROOF, bytes(35), flags=1), refused(wire.REFUSED_MALFORMED, texts.BAD_FLAGS)),
        (frame(wire.CHALLENGE), refused(wire.REFUSED_MALFORMED, texts.SERVER_KIND)),
    ],
    ids=[
        "a second CIR", "one without a nonce", "an SRM", "no MAC", "a short MAC", "a long MAC", "two MACs",
        "a cut field", "no MAC but a nonce", "too long", "far too long", "flags", "a server's kind",
    ],
)  # fmt: skip
def test_what_may_not_come_in_place_of_the_proof(server, data, answer, cut):
    """A violation: refused, closed, and what follows isn't looked at."""
    with GoodWithKey(server):
        peer, _ = challenged(server)
        with peer:
            wire.send_cut(server, peer.sock, data, cut)
            assert wire.rest_of(peer) == [answer]
        wire.counted(server, clients=1, refused=1, violations=1, refused_proof=0, established=1)


def test_what_else_a_proof_says_is_skipped(server):
    peer, servers = challenged(server)
    right = field(wire.MAC, mac(b"pysock1 client", NONCE, servers, b"me"))
    with peer:
        peer.send(proof(field(99, b"?"), right, field(wire.NAME, b"you"), field(wire.NONCE, b"")))
        assert wire.next_frame(peer).kind == wire.CIR_ACCEPTED


def test_a_proof_that_nobody_asked_for(server, serve):
    """Before the CIR, and after it was accepted."""
    assert parse(say(server, proof(field(wire.MAC, bytes(32))))) == [
        refused(wire.REFUSED_MALFORMED, texts.UNASKED_PROOF)
    ]
    peer, servers = challenged(server)
    with peer:
        peer.send(good_proof(servers) + good_proof(servers))
        accepted, error = wire.rest_of(peer)
    assert (accepted.kind, error) == (wire.CIR_ACCEPTED, wire.failed(wire.MALFORMED, texts.UNASKED_PROOF, 0))
    wire.counted(server, violations=2)


def test_ping_and_bye_before_the_proof(server, cut):
    peer, _ = challenged(server)
    with peer:
        wire.send_cut(server, peer.sock, ping(b"x", 7) + wire.BYE_FRAME, cut)
        assert wire.rest_of(peer) == [ponged(b"x", 7)]
    wire.counted(server, refused=0, violations=0, disconnected=0)


# Time and limits


def test_a_proof_that_does_not_come(serve):
    """The CIR's deadline goes on; a PING doesn't prolong it."""
    server = serve(cir_timeout=0.6)
    with GoodWithKey(server) as good:
        started = time.monotonic()
        with wire.dial(server) as peer:
            time.sleep(0.2)
            peer.send(cir(field(wire.NONCE, NONCE)))
            nonce_of(wire.next_frame(peer))
            peer.send(ping(b"x"))
            assert wire.rest_of(peer) == [ponged(b"x"), refused(wire.CIR_LATE, texts.CIR_TOO_LATE)]
        assert 0.55 < time.monotonic() - started < 1.6
        good.check()
        wire.counted(server, clients=1, refused=1, refused_late=1, timeouts=1, violations=0)


def test_who_is_challenged_makes_way(serve):
    """It waits to be let in like those whose CIR is awaited."""
    server = serve(max_pending_cir=1)
    oldest, _ = challenged(server)
    newcomer, servers = challenged(server)
    with oldest, newcomer:
        assert wire.rest_of(oldest) == [refused(wire.CIR_LATE, texts.CIR_CROWD)]
        newcomer.send(good_proof(servers))
        assert wire.next_frame(newcomer).kind == wire.CIR_ACCEPTED
    wire.counted(server, refused=1, refused_crowd=1, over_limit=1)


def test_the_server_stops(server):
    peer, _ = challenged(server)
    with peer, GoodWithKey(server) as good:
        server.stop(5)
        assert wire.rest_of(peer) == [refused(wire.REFUSED_SHUTTING_DOWN, texts.SHUTTING_DOWN)]
        assert wire.rest_of(good.peer) == [goaway(texts.SHUTTING_DOWN)]
        good.check = lambda: None
    wire.counted(server, refused=1)


# Hooks


def test_the_connect_hook_is_asked_after_the_proof(make_server, address):
    """Never before; what it pushes follows CIR_ACCEPTED; it may refuse, and close."""
    server = make_server(address, authkey=KEY)
    asked = []

    @server.on_connect
    def member(client):
        asked.append(client.name)
        if client.name == "no":
            raise ConnectionRefused("members only")
        if client.name == "closed":
            client.close()
        client.send(b"welcome")

    with server:
        first, servers = challenged(server, b"yes")
        assert asked == []
        with first:
            first.send(good_proof(servers, b"yes"))
            assert wire.next_frame(first).kind == wire.CIR_ACCEPTED
            assert wire.next_frame(first) == pushed(b"welcome")
        for name, reason in ((b"no", "members only"), (b"closed", texts.NOT_ALLOWED)):
            peer, servers = challenged(server, name)
            with peer:
                peer.send(good_proof(servers, name))
                assert wire.rest_of(peer) == [refused(wire.REFUSED_NOT_ALLOWED, reason)]
        wire.counted(server, established=1, refused=2, refused_proof=0, violations=0)
    assert asked == ["yes", "no", "closed"]


# connect()


def test_connect(backend, server):
    with connect(server.addresses[0], name="mé", authkey=KEY, backend=backend) as client:
        assert client.request(b"hello") == b"HELLO"
    wire.counted(server, established=1, refused=0)


def test_connect_with_another_key(backend, server):
    """The client sees by the CHALLENGE that the server has another key, and proves nothing to it."""
    with pytest.raises(ConnectionRefused, match="the server has another auth key") as caught:
        connect(server.addresses[0], authkey=b"guessed", backend=backend)
    assert caught.value.code == wire.WRONG_PROOF
    # It left, and didn't say why; but whoever doesn't prove to have the key is worth a line.
    wire.counted(server, refused=0, refused_proof=1, violations=0, established=0)


def test_connect_without_a_key(backend, server):
    with pytest.raises(ConnectionRefused, match=r"this server wants an auth key: pass authkey=") as caught:
        connect(server.addresses[0], backend=backend)
    assert caught.value.code == wire.WRONG_PROOF


def test_connect_where_there_is_no_key(backend, serve):
    """It would be talking to anybody."""
    server = serve(authkey=None)
    with pytest.raises(ConnectionRefused, match="the server has no auth key: set authkey= there") as caught:
        connect(server.addresses[0], authkey=KEY, backend=backend)
    assert caught.value.code == wire.WRONG_PROOF
    wire.counted(server, established=1)


def challenge_with(key, seen):
    """The script of a server with this key."""

    def play(peer):
        said = peer.frame()
        nonce = dict(wire.fields_of(said.payload[4:]))[wire.NONCE]
        answer = field(wire.NONCE, bytes(32)) + field(wire.MAC, mac(b"pysock1 server", nonce, bytes(32), key=key))
        peer.send(frame(wire.CHALLENGE, answer))
        seen.append(peer.frame())
        if seen[-1] is not None:
            assert dict(wire.fields_of(seen[-1].payload)) == {
                wire.MAC: mac(b"pysock1 client", nonce, bytes(32), b"me", key=key)
            }
            peer.send(WELCOME)
            until_bye(peer)

    return play


def test_the_proof_of_a_client(backend, fake):
    seen = []
    connect(fake(challenge_with(KEY, seen)), "me", authkey=KEY, backend=backend).close()
    assert seen[0][:4] == (wire.PROOF, 0, 0, 0)


def test_nothing_is_proved_to_an_impostor(backend, fake):
    seen = []
    with pytest.raises(ConnectionRefused, match="the server has another auth key"):
        connect(fake(challenge_with(b"guessed", seen)), "me", authkey=KEY, backend=backend)
    while not seen:
        time.sleep(0.002)
    assert seen == [None]


def test_every_connection_has_its_own_nonce(backend, fake):
    nonces = []

    def play(peer):
        nonces.append(dict(wire.fields_of(peer.frame().payload[4:]))[wire.NONCE])

    for _ in range(3):
        with pytest.raises(ConnectionLost):
            connect(fake(play), authkey=KEY, backend=backend)
    assert len(set(nonces)) == 3
    assert {len(nonce) for nonce in nonces} == {32}


@pytest.mark.parametrize(
    "payload", [b"", b"\3", field(wire.NONCE, bytes(32)), field(wire.NONCE, bytes(31)) + field(wire.MAC, bytes(32))]
)
def test_a_broken_challenge(backend, fake, payload):
    with pytest.raises(ProtocolError, match="the server's CHALLENGE is broken"):
        connect(
            fake(lambda peer: (peer.frame(), peer.send(frame(wire.CHALLENGE, payload)))), authkey=KEY, backend=backend
        )


@pytest.mark.parametrize("answer", [b"", wire.frame(wire.CHALLENGE, b"x")[:-1]], ids=["silence", "half a frame"])
def test_a_challenge_that_does_not_come(backend, fake, answer):
    with pytest.raises(RequestTimeout, match=r"within 0\.15 seconds"):
        connect(
            fake(lambda peer: (peer.frame(), peer.send(answer), peer.rest())),
            timeout=0.15,
            authkey=KEY,
            backend=backend,
        )


def test_a_server_that_does_not_answer_the_proof(backend, fake):
    """The timeout is for all of it."""

    def play(peer):
        nonce = dict(wire.fields_of(peer.frame().payload[4:]))[wire.NONCE]
        answer = field(wire.NONCE, bytes(32)) + field(wire.MAC, mac(b"pysock1 server", nonce, bytes(32)))
        peer.send(frame(wire.CHALLENGE, answer))
        peer.rest()

    started = time.monotonic()
    with pytest.raises(RequestTimeout, match=r"the server didn't answer within 0\.2 seconds"):
        connect(fake(play), timeout=0.2, authkey=KEY, backend=backend)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("together", [True, False])
def test_a_refusal_that_comes_before_the_proof_was_sent(backend, fake, monkeypatch, together):
    """A server that stops refuses and closes while the client works its proof out, which then meets a broken pipe."""
    working, refusing = threading.Event(), threading.Event()

    def play(peer):
        nonce = dict(wire.fields_of(peer.frame().payload[4:]))[wire.NONCE]
        answer = field(wire.NONCE, bytes(32)) + field(wire.MAC, mac(b"pysock1 server", nonce, bytes(32)))
        refusal = p.encode_text(p.Kind.CIR_REFUSED, p.Refusal.SHUTTING_DOWN, "stopping")
        peer.send(frame(wire.CHALLENGE, answer) + (refusal if together else b""))
        assert working.wait(10)
        peer.send(b"" if together else refusal)
        peer.close()
        refusing.set()

    def send_proof(*arguments, send=Handshake._send_proof):
        working.set()
        assert refusing.wait(10)
        send(*arguments)

    monkeypatch.setattr(Handshake, "_send_proof", send_proof)
    with pytest.raises(ConnectionRefused, match=r"^stopping$"):
        connect(fake(play), authkey=KEY, backend=backend)


def test_what_a_server_with_a_key_says_instead(backend, fake):
    """Its refusals, as they are; anything else is no pysock server's."""
    answer = p.encode_text(p.Kind.CIR_REFUSED, 3, "wrong")
    with pytest.raises(ConnectionRefused, match=r"^wrong$"):
        connect(fake(lambda peer: (peer.frame(), peer.send(answer))), authkey=KEY, backend=backend)
    with pytest.raises(ProtocolError, match="a frame of kind 0x83"):
        connect(fake(lambda peer: (peer.frame(), peer.send(frame(wire.REPLY)))), authkey=KEY, backend=backend)


# Keys


@pytest.mark.parametrize(
    ("key", "error"), [("text", TypeError), (bytearray(b"x"), TypeError), (7, TypeError), (b"", ValueError)]
)
def test_what_is_no_key(key, error):
    with pytest.raises(error, match="authkey"):
        Server("unix:/x", authkey=key, backend="pure")
    with pytest.raises(error, match="authkey"):
        connect("unix:/x", authkey=key, backend="pure")
