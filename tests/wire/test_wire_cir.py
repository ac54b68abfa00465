"""The connection initiation request on the wire, up to CIR_ACCEPTED or CIR_REFUSED."""

from __future__ import annotations

import struct

import pytest
import wire
from support import wait_for
from wire import Services, cir, field, frame, goaway, parse, ping, ponged, pushed, refused, replied, say, srm, talk

from pysock import ConnectionRefused, FrameTooLarge, Limits, ServerFull, __version__, connect
from pysock.wire import texts


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=1000, max_in_flight=7, max_cir_bytes=400))
    server.asked = Services(server)
    with server:
        yield server


def test_accepted(server, cut):
    """CIR_ACCEPTED: the client's id, the limits, every named service with its number, the software."""
    (answer,) = parse(say(server, cir(name=b"me"), cut))
    assert answer[:4] == (wire.CIR_ACCEPTED, 0, 0, 0)
    assert wire.fields_of(answer.payload) == [
        (wire.CLIENT_ID, struct.pack("!II", 1, 0)),
        (wire.MAX_PAYLOAD, struct.pack("!I", 1000)),
        (wire.MAX_IN_FLIGHT, struct.pack("!I", 7)),
        (wire.SERVICE, b"\0\1\4size"),
        (wire.SERVICE, b"\0\2\4fail"),
        (wire.SERVICE, b"\0\3\3say"),
        (wire.SERVICE, b"\0\4\6gather"),
        (wire.SOFTWARE, b"pysock/" + __version__.encode()),
    ]


def test_every_client_has_its_own_id(server):
    """A slot that is used again has another generation, so an id never means two clients."""
    ids = set()
    for _ in range(5):
        (answer,) = parse(say(server, cir()))
        ids.add(dict(wire.fields_of(answer.payload))[wire.CLIENT_ID])
        wire.counted(server)
    assert len(ids) == 5


def test_ping_before_the_cir(server, cut):
    """A health check needs no CIR; the PONG has the PING's payload and id."""
    before, accepted, after = parse(say(server, ping(b"x" * 64, 2**32 - 1) + cir() + ping(id=0), cut))
    assert before == ponged(b"x" * 64, 2**32 - 1)
    assert accepted.kind == wire.CIR_ACCEPTED
    assert after == ponged(id=0)


def test_ping_without_a_cir(server, cut):
    """Who only asks for health is no client, and none is counted."""
    assert parse(say(server, ping(b"a", 1) + ping(b"b", 2), cut)) == [ponged(b"a", 1), ponged(b"b", 2)]
    wire.counted(server, accepted=1, established=0, refused=0)
    assert server.asked.gone == []


def test_requests_may_follow_the_cir_at_once(server, cut):
    """Who doesn't wait for CIR_ACCEPTED is served all the same, behind it."""
    assert talk(server, srm(b"a", 1) + srm(b"b", 2), cut) == [replied(b"A", 1), replied(b"B", 2)]


@pytest.mark.parametrize("tag", [0, wire.CLIENT_ID, wire.MAC, wire.MAX_IN_FLIGHT, wire.SERVICE, 11, 12, 255])
def test_unknown_tags_are_skipped(server, tag):
    """Whatever their length; so are known ones that a CIR doesn't have."""
    fields = field(tag, b""), field(tag, b"\xff" * 300), field(wire.NAME, b"me"), field(tag, b"x")
    assert parse(say(server, cir(*fields) + srm(b"a")))[1:] == [replied(b"A")]
    assert server.asked.called_for("me") == [("upper", b"a")]


def test_unknown_tags_in_any_cut(server, cut):
    """Skipping doesn't depend on how the bytes come."""
    assert parse(say(server, cir(field(99, bytes(100)), name=b"me") + srm(b"a"), cut))[1:] == [replied(b"A")]
    assert server.asked.called_for("me") == [("upper", b"a")]


@pytest.mark.parametrize("name", ["x", "sensor-7", "ü" * 127, "x" * 255, "a\nb", "日本"])
def test_name(server, name):
    """The table knows the client under the name it gave."""
    with wire.let_in(server, name=name.encode()):
        assert server.clients.by_name(name).name == name


@pytest.mark.parametrize("limit", [0, 1, 500, 1000, 1001, 2**32 - 1])
def test_the_clients_own_limit(server, cut, limit):
    """Tag 5: no reply has more bytes than the client takes; the request gets ERROR 3 in its place, with as much of the
    text as the client takes."""
    most = min(limit, 1000)
    sizes = [most, most + 1, 0]
    requests = b"".join(srm(b"%d" % size, number, service=Services.SIZE) for number, size in enumerate(sizes))
    answers = parse(say(server, cir(field(wire.MAX_PAYLOAD, struct.pack("!I", limit))) + requests, cut))[1:]
    text = texts.REPLY_TOO_LARGE % (most + 1, most)
    assert answers == [replied(b"s" * most, 0), wire.failed(wire.TOO_LARGE, text[:most], 1), replied(b"", 2)]


def test_of_two_limits_the_smaller_counts(server):
    """Tag 5 twice: the promise that is easiest to keep."""
    two = [field(wire.MAX_PAYLOAD, struct.pack("!I", limit)) for limit in (10, 20)]
    for fields in (two, two[::-1]):
        answers = parse(say(server, cir(*fields) + srm(b"11", service=Services.SIZE)))[1:]
        assert [(answer.kind, answer.code) for answer in answers] == [(wire.ERROR, wire.TOO_LARGE)]


BROKEN = texts.BROKEN_FIELD
BAD_CIRS = {
    "wrong magic": (cir(magic=b"PSK2"), wire.BAD_MAGIC, texts.BAD_MAGIC),
    "magic in lower case": (cir(magic=b"psk1"), wire.BAD_MAGIC, texts.BAD_MAGIC),
    "version 0": (cir(version=0), wire.BAD_MAGIC, texts.BAD_VERSION),
    "version 2": (cir(version=2), wire.BAD_MAGIC, texts.BAD_VERSION),
    "version 2, long": (cir(field(99, bytes(500)), version=2), wire.BAD_MAGIC, texts.BAD_VERSION),
    "version 256": (cir(version=256), wire.BAD_MAGIC, texts.BAD_VERSION),
    "empty": (frame(wire.CIR, code=1), wire.REFUSED_MALFORMED, texts.SHORT_CIR),
    "3 bytes": (frame(wire.CIR, b"PSK", code=1), wire.REFUSED_MALFORMED, texts.SHORT_CIR),
    "too long": (cir(field(99, bytes(394))), wire.REFUSED_MALFORMED, texts.LONG_CIR),
    "a length of 4 GiB": (frame(wire.CIR, code=1, length=2**32 - 1), wire.REFUSED_MALFORMED, texts.LONG_CIR),
    "flags": (frame(wire.CIR, b"PSK1", code=1, flags=1), wire.REFUSED_MALFORMED, texts.BAD_FLAGS),
    "a tag and nothing": (cir(b"\2"), wire.REFUSED_MALFORMED, BROKEN),
    "half a length": (cir(b"\2\0"), wire.REFUSED_MALFORMED, BROKEN),
    "a value cut short": (cir(b"\2\0\3me"), wire.REFUSED_MALFORMED, BROKEN),
    "an unknown value cut short": (cir(b"\x63\xff\xff"), wire.REFUSED_MALFORMED, BROKEN),
    "an empty name": (cir(field(wire.NAME, b"")), wire.REFUSED_MALFORMED, BROKEN),
    "a name of 256 bytes": (cir(field(wire.NAME, b"x" * 256)), wire.REFUSED_MALFORMED, BROKEN),
    "a name with NUL": (cir(field(wire.NAME, b"a\0b")), wire.REFUSED_MALFORMED, BROKEN),
    "a name in Latin-1": (cir(field(wire.NAME, b"\xfc")), wire.REFUSED_MALFORMED, BROKEN),
    "a surrogate in a name": (cir(field(wire.NAME, b"\xed\xa0\x80")), wire.REFUSED_MALFORMED, BROKEN),
    "an overlong name": (cir(field(wire.NAME, b"\xc1\x81")), wire.REFUSED_MALFORMED, BROKEN),
    "two names": (cir(field(wire.NAME, b"b"), name=b"a"), wire.REFUSED_MALFORMED, BROKEN),
    "a limit of 3 bytes": (cir(field(wire.MAX_PAYLOAD, b"\0\0\1")), wire.REFUSED_MALFORMED, BROKEN),
    "a limit of 5 bytes": (cir(field(wire.MAX_PAYLOAD, bytes(5))), wire.REFUSED_MALFORMED, BROKEN),
    "an SRM": (srm(b"too early", 5), wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR),
    "an SRM without reply": (srm(b"x", 5, flags=wire.NO_REPLY), wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR),
    "a huge SRM": (frame(wire.SRM, length=2**32 - 1), wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR),
    "an SRM with flags": (srm(flags=6), wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR),
    "a PROOF": (frame(wire.PROOF), wire.REFUSED_MALFORMED, texts.UNASKED_PROOF),
    "a PING of 65 bytes": (ping(bytes(65)), wire.REFUSED_MALFORMED, texts.LONG_PING),
    "a PING with flags": (frame(wire.PING, flags=1), wire.REFUSED_MALFORMED, texts.BAD_FLAGS),
    "a BYE with a payload": (frame(wire.BYE, b"x"), wire.REFUSED_MALFORMED, texts.LONG_BYE),
    **{
        f"kind {kind:#x}": (frame(kind, b"x", id=3, flags=0x20), wire.REFUSED_MALFORMED, texts.SERVER_KIND)
        for kind in wire.SERVERS_KINDS
    },
    **{
        f"kind {kind:#x}": (frame(kind, b"x", id=3, flags=0x20), wire.REFUSED_MALFORMED, texts.UNKNOWN_KIND)
        for kind in wire.UNKNOWN_KINDS
    },
}


@pytest.mark.parametrize(("data", "code", "text"), BAD_CIRS.values(), ids=BAD_CIRS)
def test_refused(server, data, code, text):
    """A bad start is refused with the code and the words for it, and the server closes; what follows isn't read."""
    assert parse(say(server, ping(b"p") + data + srm(b"not for you"), end=False)) == [ponged(b"p"), refused(code, text)]
    wire.counted(server, refused=1, violations=1, established=0, errors=0)
    assert server.asked.calls == server.asked.gone == []


@pytest.mark.parametrize("name", ["wrong magic", "version 2", "too long", "a value cut short", "an SRM", "kind 0xff"])
def test_refused_in_any_cut(server, cut, name):
    """The same words however the bytes come."""
    data, code, text = BAD_CIRS[name]
    assert parse(say(server, data, cut)) == [refused(code, text)]


@pytest.mark.parametrize("name", ["too long", "a huge SRM", "a length of 4 GiB", "version 2", "kind 0x7f", "kind 0x83"])
def test_a_bad_header_is_refused_before_its_payload(server, name):
    """The 12 bytes of the header are enough to be refused."""
    data, code, text = BAD_CIRS[name]
    assert parse(say(server, data[:12], end=False)) == [refused(code, text)]


def test_a_cir_of_the_largest_size(server, cut):
    """``max_cir_bytes`` bytes are not too many."""
    assert talk(server, b"") == []
    answer, reply = parse(say(server, cir(field(99, bytes(393))) + srm(b"a"), cut))
    assert (answer.kind, reply) == (wire.CIR_ACCEPTED, replied(b"A"))


def test_bye_before_the_cir(server, cut):
    """An orderly leave, also of one who never came in: closed, without a word."""
    assert say(server, wire.BYE_FRAME + srm(b"not read"), cut, end=False) == b""
    wire.counted(server, accepted=1, violations=0, refused=0)


def _returns_false(client):
    return False


def _raises(client):
    raise ZeroDivisionError("nobody's business outside")


def _refuses(client):
    raise ConnectionRefused("members only")


def _closes(client):
    client.close()


def _pushes_and_refuses(client):
    client.send(b"never sent")
    return False


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (_returns_false, texts.NOT_ALLOWED),
        (_raises, texts.NOT_ALLOWED),
        (_refuses, "members only"),
        (_closes, texts.NOT_ALLOWED),
        (_pushes_and_refuses, texts.NOT_ALLOWED),
    ],
)
def test_refused_by_the_server(make_server, address, cut, hook, text):
    """Refusal 2 with the reason of the hook, if it gave one; the earlier answers go out first."""
    server = make_server(address)
    asked = Services(server)
    server.on_connect(hook)
    with server:
        data = ping(b"p") + cir(name=b"me") + srm(b"not for you")
        assert parse(say(server, data, cut)) == [ponged(b"p"), refused(wire.REFUSED_NOT_ALLOWED, text)]
        wire.counted(server, refused=1, established=0, violations=0)
    assert asked.calls == asked.gone == []


def test_pushes_of_the_connect_hook_follow_the_admission(make_server, address, cut):
    """CIR_ACCEPTED is the first thing a client hears that was let in, a PONG to an earlier PING apart."""
    server = make_server(address)
    Services(server)
    server.on_connect(lambda client: [client.send(word) for word in (b"", b"hello", b"x" * 100_000)])
    with server:
        pong, accepted, *others = parse(say(server, ping() + cir() + srm(b"a"), cut))
        assert (pong, accepted.kind) == (ponged(), wire.CIR_ACCEPTED)
        assert others == [pushed(b""), pushed(b"hello"), pushed(b"x" * 100_000), replied(b"A")]


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_full_server(make_server, address):
    """Refusal 4 at once, before any byte of a CIR; a place that becomes free is given away again."""
    server = make_server(address, limits=Limits(max_clients=2))
    Services(server)
    with server, wire.let_in(server) as first, wire.let_in(server):
        for _ in range(3):
            assert parse(say(server, b"", end=False)) == [refused(wire.FULL, texts.SERVER_FULL)]
        assert server.stats()["refused"] == 3
        first.close()
        wire.counted(server, clients=1)
        assert talk(server, srm(b"a")) == [replied(b"A")]


def test_the_client_library_knows_that_the_server_is_full(make_server, address):
    """The refusal arrives although the client has sent its CIR: it isn't overtaken by a reset."""
    server = make_server(address, limits=Limits(max_clients=1))
    with server, connect(server.addresses[0], backend=server.backend):
        for _ in range(20):
            with pytest.raises(ServerFull):
                connect(server.addresses[0], backend=server.backend)


def test_shutting_down_before_the_cir(make_server, address):
    """Who wasn't let in yet when the server stops gets refusal 5, clients get GOAWAY."""
    server = make_server(address)
    with server, wire.dial(server) as waiting, wire.dial(server) as halfway:
        halfway.send(cir()[:9])
        wait_for(lambda: server.stats()["bytes_in"] == 9)
        wait_for(lambda: server.stats()["pending"] == 2)
        with wire.let_in(server) as client:
            server.stop()
            assert wire.rest_of(client) == [goaway(texts.SHUTTING_DOWN)]
        for peer in (waiting, halfway):
            assert wire.rest_of(peer) == [refused(wire.REFUSED_SHUTTING_DOWN, texts.SHUTTING_DOWN)]
    assert server.stats()["refused"] == 2


def test_pushes_keep_to_the_clients_own_limit(server):
    """No PUSH has more bytes than the client takes: who sends it is told, and a broadcast leaves the client out."""
    little = field(wire.MAX_PAYLOAD, struct.pack("!I", 10))
    with wire.let_in(server, little, name=b"little") as peer, wire.let_in(server, name=b"other") as other:
        client = server.clients.by_name("little")
        client.send(b"x" * 10)
        with pytest.raises(FrameTooLarge, match="a payload of 11 bytes is more than this client takes"):
            client.send(b"x" * 11)
        server.clients.broadcast(b"y" * 11)
        server.clients.broadcast(b"z" * 10)
        assert [wire.next_frame(peer), wire.next_frame(peer)] == [pushed(b"x" * 10), pushed(b"z" * 10)]
        assert [wire.next_frame(other), wire.next_frame(other)] == [pushed(b"y" * 11), pushed(b"z" * 10)]


def test_pushes_of_a_handler_keep_to_the_clients_own_limit(make_server, address):
    """The same in the loop's own thread."""
    server = make_server(address)
    server.service(lambda client, request: client.send(b"x" * int(request)))
    server.service("all")(lambda client, request: b"%d" % server.clients.broadcast(b"y" * int(request)))
    server.on_connect(lambda client: client.send(b"w" * 11) if client.name == "too much" else client.send(b"w" * 10))
    with server:
        little = field(wire.MAX_PAYLOAD, struct.pack("!I", 10))
        assert parse(say(server, cir(little, name=b"too much"))) == [
            refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)
        ]
        data = srm(b"10", 1) + srm(b"11", 2) + srm(b"10", 3, service=1) + srm(b"11", 4, service=1)
        assert parse(say(server, cir(little) + data))[1:] == [
            pushed(b"w" * 10),
            pushed(b"x" * 10),
            replied(b"", 1),
            wire.failed(wire.TOO_LARGE, "a payload ", 2),
            pushed(b"y" * 10),
            replied(b"1", 3),
            replied(b"0", 4),
        ]
