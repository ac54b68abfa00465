"""The page "wire" is enough for a client in another language: its bytes are those of pysock, and such a one works."""

from __future__ import annotations

import os
import subprocess

import pytest
from pages import marked, topic
from programs import tool
from support import ROOT, RawPeer

import pysock
from pysock.wire import auth, texts
from pysock.wire import format as p
from pysock.wire.cir import encode_accepted, encode_cir, encode_welcome
from pysock.wire.features import encode_deadline
from pysock.wire.framing import FRAMINGS
from pysock.wire.health import DRAINING
from pysock.wire.tracing import Trace, encode_trace

CLIENT = ROOT / "pysock" / "examples" / "client.js"

KEY, C, S = bytes(range(0x20)), bytes(range(0x20, 0x40)), bytes(range(0x40, 0x60))

VECTORS = {
    name: bytes.fromhex("".join(line.partition("|")[0] for line in block.splitlines()))
    for name, block in marked(topic("wire"), "vector").items()
}


@pytest.fixture
def known_nonces(monkeypatch):
    """The server's nonce is that of the page."""
    monkeypatch.setattr("pysock.wire.auth.secrets.token_bytes", lambda _size: S)


@pytest.fixture
def expected(known_nonces):
    """The same frames, as pysock's own encoder makes them."""
    proof = auth.ClientProof(KEY)
    proof.nonce = C
    challenge, _ = auth.ServerProof(KEY).challenge(C, b"anna")
    return {
        "a CIR": encode_cir("anna", "demo/1", 65536),
        "the answer to it": encode_accepted(
            1 << 32 | 7, encode_welcome(16 * 1024 * 1024, 1024, [(1, "add")], "pysock/0.1.0")
        ),
        "or a refusal": p.encode_text(p.Kind.CIR_REFUSED, p.Refusal.SERVER_FULL, texts.SERVER_FULL),
        "a CIR with a nonce": encode_cir("anna", nonce=C),
        "the CHALLENGE": p.encode(p.Kind.CHALLENGE, challenge),
        "the PROOF": p.encode(p.Kind.PROOF, proof.answer(challenge, "anna")),
        "a request": p.encode(p.Kind.SRM, b"1 2", code=1, request_id=1),
        "the reply to it": p.encode(p.Kind.REPLY, b"3", request_id=1),
        "a request without a reply": p.encode(p.Kind.SRM, b"hi", request_id=2, flags=p.FLAG_NO_REPLY),
        "an ERROR": p.encode_text(p.Kind.ERROR, p.ErrorCode.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE, 3),
        "a push": p.encode(p.Kind.PUSH, b"news"),
        "a push that tells of 3 others": p.encode(p.Kind.PUSH, p.GAP.pack(3) + b"news", flags=p.FLAG_GAP),
        "a PING": p.encode(p.Kind.PING, b"?", request_id=4),
        "the PONG": p.encode(p.Kind.PONG, b"?", request_id=4),
        "the PONG of a server that drains, or is lame": p.encode(p.Kind.PONG, b"?", code=DRAINING, request_id=4),
        "a GOAWAY": p.encode_text(p.Kind.GOAWAY, p.GOAWAY_SETTLED, texts.SHUTTING_DOWN),
        "a BYE": p.encode(p.Kind.BYE),
        "a CIR with features": encode_cir("a", features=3),
        "the answer that agrees": encode_accepted(
            1 << 32 | 7, encode_welcome(16 * 1024 * 1024, 1024, [], "pysock/0.1.0"), 3
        ),
        "a request with a deadline": p.encode(
            p.Kind.SRM, encode_deadline(1.5) + b"hi", code=1, request_id=5, flags=p.FLAG_DEADLINE
        ),
        "a TRACE, and its request": p.encode(
            p.Kind.TRACE, encode_trace(Trace(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 1)), request_id=7
        )
        + p.encode(p.Kind.SRM, b"hi", code=1, request_id=7),
        "a CANCEL": p.encode(p.Kind.CANCEL, request_id=5),
        "the ERROR of a request that was cancelled": p.encode(
            p.Kind.ERROR, texts.CANCELLED.encode(), code=p.ErrorCode.CANCELLED, request_id=5, flags=p.FLAG_NOT_STARTED
        ),
        "a request that takes a stream": p.encode(p.Kind.SRM, b"hi", code=1, request_id=6, flags=p.FLAG_TAKES_STREAM),
        "a piece of the reply to it": p.encode(p.Kind.REPLY, b"first", request_id=6, flags=p.FLAG_MORE),
        "a CREDIT": p.encode(p.Kind.CREDIT, p.CREDIT.pack(131072), request_id=6),
        "an ASK": p.encode(p.Kind.ASK, b"\x04rolld6", request_id=1),
        "the ANSWER": p.encode(p.Kind.ANSWER, b"4", request_id=1),
        "an ANSWER_ERROR": p.encode_text(p.Kind.ANSWER_ERROR, p.ErrorCode.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE, 2),
        "an ASK_CANCEL": p.encode(p.Kind.ASK_CANCEL, request_id=3),
        "hi in the framing u32": FRAMINGS[p.Framing.U32].message(b"hi"),
        "hi in the framing line": FRAMINGS[p.Framing.LINE].message(b"hi"),
    }


def test_all_vectors_are_checked(expected):
    assert VECTORS.keys() == expected.keys()


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_encoder_makes(name, expected):
    assert VECTORS[name] == expected[name]


def test_every_kind_has_a_vector():
    assert {frame[4] for name, frame in VECTORS.items() if "framing" not in name} == set(p.Kind)


def test_a_server_sends_the_vectors(make_server, address):
    """What the page has a client send is answered with the bytes of the page, on both engines."""
    server = make_server(address)

    @server.service("add")
    def add(client, request):
        client.send(b"news")
        return b"%d" % sum(map(int, request.split()))

    with server, RawPeer.connect(server.addresses[0]) as peer:
        peer.send(VECTORS["a CIR"])
        answer = peer.frame()
        assert p.encode(answer.kind, answer.payload)[12:15] == VECTORS["the answer to it"][12:15]
        peer.send(VECTORS["a request"])
        wanted = VECTORS["a push"] + VECTORS["the reply to it"]
        assert peer.read(len(wanted)) == wanted
        peer.send(VECTORS["a request without a reply"] + p.encode(p.Kind.SRM, b"", request_id=3) + VECTORS["a PING"])
        wanted = VECTORS["an ERROR"] + VECTORS["the PONG"]
        assert peer.read(len(wanted)) == wanted
        server.lame()
        peer.send(VECTORS["a PING"])
        wanted = VECTORS["the PONG of a server that drains, or is lame"]
        assert peer.read(len(wanted)) == wanted
        server.stop()
        assert peer.rest() == VECTORS["a GOAWAY"]


def test_a_server_with_the_key_takes_the_vectors(make_server, address, known_nonces):
    with make_server(address, authkey=KEY) as server, RawPeer.connect(server.addresses[0]) as peer:
        peer.send(VECTORS["a CIR with a nonce"])
        assert peer.read(len(VECTORS["the CHALLENGE"])) == VECTORS["the CHALLENGE"]
        peer.send(VECTORS["the PROOF"])
        assert peer.frame().kind == p.Kind.CIR_ACCEPTED
        assert next(iter(server.clients.values())).name == "anna"
        peer.send(VECTORS["a BYE"])
        assert peer.rest() == b""


# The client in JavaScript

SCRIPT = """
const { connect } = require(process.argv[1]);
(async () => {
  const [path, key] = process.argv.slice(2), pushes = [];
  const client = await connect({ path }, {
    name: "anna", key: key ? Buffer.from(key, "hex") : null, onPush: (push) => pushes.push(push.toString()),
  });
  console.log([...client.services.keys()].join());
  console.log((await Promise.all(["a", "bb", "ccc"].map((one) => client.request(one, "gathered")))).join());
  await client.request("1 x", "add").catch((error) => console.log(error.code, error.message));
  await client.request("", "none").catch((error) => console.log(error.message));
  console.log((await client.request(Buffer.alloc(3e6, "x"))).length, pushes.join());
  client.close();
})().catch((error) => console.log("refused:", error.code, error.message));
"""


def node(*arguments: str) -> tuple[int, str, str]:
    """Run it without the libraries that were loaded before ours to find faults in them."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [tool("node"), *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def path(socket_dir):
    return f"{socket_dir}/s"


def serving(make_server, path, **options):
    server = make_server(f"unix:{path}", **options)

    @server.service
    def upper(client, request):
        client.send(b"news of " + client.name.encode())
        return request.upper()

    @server.service("add")
    def add(client, request):
        if b"x" in request:
            raise pysock.RemoteError("only numbers", 77)
        return b"%d" % sum(map(int, request.split()))

    @server.batch_service("gathered")
    def gathered(clients, requests):
        return [b"%d" % len(request) for request in requests]

    return server


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "authkey"])
def test_the_client_in_javascript(make_server, path, key):
    with serving(make_server, path, authkey=key):
        code, out, err = node("-e", SCRIPT, str(CLIENT), path, "" if key is None else key.hex())
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        ",add,gathered",
        "1,2,3",
        "77 only numbers",
        "the server has no service 'none'",
        "3000000 news of anna",
    ]


@pytest.mark.parametrize(
    ("servers", "clients", "says"),
    [
        (KEY, None, "refused: 3 this server wants an auth key"),
        (None, KEY, "refused: undefined the server has not proved that it has the auth key"),
        (KEY, C, "refused: undefined the server has another auth key"),
    ],
    ids=["none", "no CHALLENGE", "another"],
)
def test_the_client_in_javascript_and_a_wrong_key(make_server, path, servers, clients, says):
    with serving(make_server, path, authkey=servers) as server:
        _, out, _ = node("-e", SCRIPT, str(CLIENT), path, "" if clients is None else clients.hex())
        assert server.stats()["requests"] == 0
    assert out == f"{says}\n"


def test_the_client_in_javascript_as_a_command(make_server, path, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    with serving(make_server, path, authkey=KEY):
        assert node(str(CLIENT), path, "hello", str(tmp_path / "key")) == (0, "HELLO", "")
        code, out, err = node(str(CLIENT), path, "hello")
    assert (code, out, err) == (1, "", "this server wants an auth key\n")


def test_the_client_in_javascript_needs_no_package_and_is_short():
    text = CLIENT.read_text()
    assert text.count("require(") == text.count('require("crypto")') + text.count('require("net")') + text.count(
        'require("fs")'
    )
    assert len([line for line in text.splitlines() if line.strip()]) <= 80
    assert max(map(len, text.splitlines())) <= 120
