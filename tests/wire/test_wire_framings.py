"""The framings without frames of ours: ``u32``, ``line`` and ``raw``. The kernel's connect is the CIR there."""

from __future__ import annotations

import struct

import pytest
import wire
from support import wait_for
from wire import say

from pysock import Limits

CAP = 1000


def u32(*messages):
    return b"".join(struct.pack("!I", len(message)) + message for message in messages)


def line(*messages):
    return b"".join(message + b"\n" for message in messages)


def raw(*messages):
    return b"".join(messages)


ENCODERS = {"u32": u32, "line": line, "raw": raw}


@pytest.fixture(params=ENCODERS)
def framing(request):
    return request.param


@pytest.fixture(params=["u32", "line"])
def cutting(request):
    """The framings that say where a message ends."""
    return request.param


class Plain:
    """A server that answers with capitals, fails on ``fail``, says nothing to ``quiet`` and too much to ``flood``."""

    def __init__(self, server):
        self.server = server
        self.calls = []
        self.gone = []
        server.service(self.handle)
        server.on_disconnect(lambda client, reason: self.gone.append(reason.value))

    def handle(self, client, request):
        self.calls.append(request)
        if request == b"fail":
            raise ZeroDivisionError
        if request == b"quiet":
            return None
        if request == b"flood":
            return b"x" * (self.server.limits.max_payload + 1)
        if request == b"text":
            return "text"
        return bytearray(request.upper()) if request == b"array" else request.upper()

    def ended(self, reason):
        """One client is gone, for this reason."""
        wait_for(lambda: self.gone)
        assert self.gone == [reason]


@pytest.fixture
def serve(make_server, address):
    def start(framing, **options):
        server = make_server(address, framing=framing, limits=Limits(**{"max_payload": CAP, **options}))
        server.asked = Plain(server)
        server.start()
        return server

    return start


WORDS = [b"hello", b"", b"x" * CAP, b"array", b"a\r", b"quiet", b"\0\xff", b"end"]
ANSWERS = [word.upper() for word in WORDS if word != b"quiet"]


def test_messages(serve, cutting, cut):
    """Each is answered, in order, whatever the cuts; nothing answers where the handler returned ``None``."""
    server, encode = serve(cutting), ENCODERS[cutting]
    assert say(server, encode(*WORDS), cut) == encode(*ANSWERS)
    assert server.asked.calls == WORDS
    wire.counted(server, requests=len(WORDS), errors=0, disconnected=1)
    server.asked.ended("closed by peer")


def test_half_close(serve, cutting, cut):
    """100 requests, 100 replies, in order, then the end."""
    server, encode = serve(cutting), ENCODERS[cutting]
    words = [b"word%d" % number for number in range(100)]
    assert say(server, encode(*words), cut) == encode(*[word.upper() for word in words])


def test_half_close_in_the_middle_of_a_message(serve, cutting, cut):
    """What isn't whole is nothing, also a last line without its newline."""
    server, encode = serve(cutting), ENCODERS[cutting]
    assert say(server, encode(b"a") + encode(b"bcd")[:-1], cut) == encode(b"A")
    assert server.asked.calls == [b"a"]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 300_000, 3_000_000])
@pytest.mark.parametrize("cut", ["whole", "random"])
def test_large_messages(serve, cutting, cut, size):
    """Over many reads, between small ones."""
    server, encode = serve(cutting, max_payload=size), ENCODERS[cutting]
    large = bytes(number for number in range(256) if number != 10) * (size // 255 + 1)
    words = [b"a", large[:size], b"b", large[1:size], b"c"]
    assert say(server, encode(*words), cut) == encode(*[word.upper() for word in words])


@pytest.mark.parametrize("size", [CAP + 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_u32_over_the_limit(serve, cut, size):
    """No error frame: the connection ends behind the earlier replies, as soon as the length is there."""
    server = serve("u32")
    data = u32(b"a", b"b") + struct.pack("!I", size)
    assert say(server, data, cut, end=False) == u32(b"A", b"B")
    server.asked.ended("over a limit")
    wire.counted(server, over_limit=1, violations=0, disconnected=1)


@pytest.mark.parametrize("rest", [b"", b"\n", b"\nnot for you\n"], ids=repr)
def test_a_line_over_the_limit(serve, cut, rest):
    """As soon as it is too long, whether or not it ends."""
    server = serve("line")
    assert say(server, line(b"a", b"b") + b"x" * (CAP + 1) + rest, cut, end=False) == line(b"A", b"B")
    server.asked.ended("over a limit")
    assert server.asked.calls == [b"a", b"b"]


def test_a_line_without_an_end(serve):
    """A line that never ends costs ``max_payload`` bytes and no more."""
    server = serve("line", max_payload=100_000)
    assert say(server, line(b"a") + b"x" * 3_000_000, end=False) == line(b"A")
    server.asked.ended("over a limit")


def test_raw_is_whatever_arrives(serve):
    """One read is one message."""
    server = serve("raw")
    assert say(server, b"hello\nworld") == b"HELLO\nWORLD"
    assert server.asked.calls == [b"hello\nworld"]


@pytest.mark.parametrize("cut", ["bytes", "random"])
def test_raw_in_pieces(serve, cut):
    """The pieces as they come: nothing is joined, nothing is lost."""
    server = serve("raw")
    data = bytes(range(32, 127)) * 3
    assert say(server, data, cut) == data.upper()
    assert server.asked.calls == list(wire.pieces(data, cut))


def test_raw_over_the_limit(serve):
    """A handler gets at most ``max_payload`` bytes at a time."""
    server = serve("raw")
    data = bytes(range(256)) * 40
    assert say(server, data) == data.upper()
    assert b"".join(server.asked.calls) == data
    assert max(map(len, server.asked.calls)) == CAP


def test_large_raw(serve):
    """Much more than one read takes."""
    server = serve("raw", max_payload=1 << 24)
    data = bytes(range(256)) * 12_000
    assert say(server, data) == data.upper()


@pytest.mark.parametrize("word", [b"fail", b"text", b"flood"])
def test_a_request_that_fails(serve, cutting, cut, word):
    """There is no error frame, and a reply left out would shift all later ones: the connection ends behind the earlier
    replies, and no later request is served."""
    server, encode = serve(cutting), ENCODERS[cutting]
    assert say(server, encode(b"a", b"b", word, b"c"), cut, end=False) == encode(b"A", b"B")
    server.asked.ended("closed by server")
    assert server.asked.calls == [b"a", b"b", word]
    wire.counted(server, errors=1, requests=3, disconnected=1)


@pytest.mark.parametrize("word", [b"fail", b"text", b"flood"])
def test_a_raw_request_that_fails(serve, word):
    """The same for ``raw``."""
    server = serve("raw")
    with wire.dial(server) as peer:
        peer.send(b"a")
        assert peer.read(1) == b"A"
        peer.send(word)
        assert peer.rest() == b""
    server.asked.ended("closed by server")


def test_no_service(make_server, address, framing, cut):
    """A server that serves nobody closes at the first request."""
    server = make_server(address, framing=framing)
    with server:
        assert say(server, ENCODERS[framing](b"x"), cut, end=False) == b""
        wire.counted(server, errors=1, requests=1, disconnected=1)


def test_push(serve, framing):
    """One message of the framing."""
    server, encode = serve(framing), ENCODERS[framing]
    with wire.dial(server) as peer:
        wait_for(lambda: len(server.clients) == 1)
        (client,) = server.clients.values()
        client.send(b"one")
        assert server.clients.broadcast(b"all") == 1
        expected = encode(b"one", b"all")
        assert peer.read(len(expected)) == expected
        peer.send(encode(b"a"))
        assert peer.read(len(encode(b"a"))) == encode(b"A")


def test_a_client_is_let_in_by_its_connect(serve, framing):
    """Before it says a word; it has no name."""
    server = serve(framing)
    with wire.dial(server):
        wire.counted(server, clients=1, established=1)
        (client,) = server.clients.values()
        assert (client.name, client.state.name) == ("", "ESTABLISHED")


@pytest.mark.parametrize("hook", [lambda client: False, lambda client: client.close(), lambda client: 1 / 0])
def test_refused_by_the_server(make_server, address, framing, hook):
    """There is no word for it: closed at once."""
    server = make_server(address, framing=framing)
    asked = Plain(server)
    server.on_connect(hook)
    with server:
        assert say(server, ENCODERS[framing](b"x"), end=False) == b""
        wire.counted(server, refused=1, established=0)
    assert asked.calls == asked.gone == []


def test_pushes_of_the_connect_hook(make_server, address, framing):
    """They come first."""
    server, encode = make_server(address, framing=framing), ENCODERS[framing]
    Plain(server)
    server.on_connect(lambda client: client.send(b"welcome"))
    with server, wire.dial(server) as peer:
        assert peer.read(len(encode(b"welcome"))) == encode(b"welcome")
        peer.send(encode(b"a"))
        assert peer.read(len(encode(b"a"))) == encode(b"A")


@pytest.mark.not_over_tls(wire.AT_THE_DOOR)
def test_a_full_server(serve, framing):
    """There is no word for it: closed at once."""
    server, encode = serve(framing, max_clients=1), ENCODERS[framing]
    with wire.dial(server) as first:
        wire.counted(server, clients=1)
        assert say(server, encode(b"x"), end=False) == b""
        wire.counted(server, clients=1, refused=1)
        first.send(encode(b"a"))
        assert first.read(len(encode(b"a"))) == encode(b"A")


def test_stop(serve, framing):
    """What was accepted is answered; then the connection ends without a word."""
    server, encode = serve(framing), ENCODERS[framing]
    with wire.dial(server) as peer:
        peer.send(encode(b"a"))
        wire.counted(server, clients=1, requests=1)
        server.stop()
        assert peer.rest() == encode(b"A")
    assert server.asked.gone == ["server stopping"]


def test_a_batch(make_server, address, cutting, cut):
    """Batches answer in the order of the requests."""
    server, encode = make_server(address, framing=cutting), ENCODERS[cutting]
    server.batch_service(lambda clients, requests: [request[::-1] for request in requests])
    words = [b"word%d" % number for number in range(20)]
    with server:
        assert say(server, encode(*words), cut) == encode(*[word[::-1] for word in words])


@pytest.mark.parametrize("wrong", [ZeroDivisionError(), "text"], ids=repr)
def test_a_batch_that_fails_for_one_request(make_server, address, cutting, cut, wrong):
    """The connection ends behind the replies before it, also within one batch."""
    server, encode = make_server(address, framing=cutting), ENCODERS[cutting]
    server.batch_service(lambda clients, requests: [wrong if each == b"2" else each for each in requests], max_batch=3)
    with server:
        assert say(server, encode(b"0", b"1", b"2", b"3", b"4"), cut, end=False) == encode(b"0", b"1")
        wire.counted(server, errors=1, disconnected=1)
