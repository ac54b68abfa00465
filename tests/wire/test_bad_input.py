"""Bytes that are not the protocol: each gets the refusal or the error that is due, no handler is called for it, and
every other client is served as if nothing had happened."""

from __future__ import annotations

import contextlib
import logging
import random
import struct

import pytest
import wire
from wire import Good, Services, cir, failed, frame, parse, ping, refused, replied, say, srm

from pysock import Limits
from pysock.wire import texts

UNKNOWN = refused(wire.REFUSED_MALFORMED, texts.UNKNOWN_KIND)

#: What comes instead of a CIR: strangers, and what they are told.
STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n", UNKNOWN),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40), UNKNOWN),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(700), UNKNOWN),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", UNKNOWN),
    "JSON": (b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2]}\n', UNKNOWN),
    "zeroes": (bytes(500), UNKNOWN),
    "ones": (b"\xff" * 500, UNKNOWN),
    "u32 framing": (struct.pack("!I", 11) + b"hello world", UNKNOWN),
    "another magic": (cir(magic=b"PSK9"), refused(wire.BAD_MAGIC, texts.BAD_MAGIC)),
    "another version": (cir(version=2), refused(wire.BAD_MAGIC, texts.BAD_VERSION)),
    "an SRM": (srm(b"too early"), refused(wire.REFUSED_MALFORMED, texts.SRM_BEFORE_CIR)),
    "a broken field": (cir(b"\2\0"), refused(wire.REFUSED_MALFORMED, texts.BROKEN_FIELD)),
    "a server": (frame(wire.CIR_ACCEPTED, bytes(11)), refused(wire.REFUSED_MALFORMED, texts.SERVER_KIND)),
    "a long PING": (ping(bytes(100)), refused(wire.REFUSED_MALFORMED, texts.LONG_PING)),
    "a CIR of 4 GiB": (frame(wire.CIR, code=1, length=2**32 - 1), refused(wire.REFUSED_MALFORMED, texts.LONG_CIR)),
}

#: What comes after a good CIR.
LAPSES = {
    "a second CIR": (cir(name=b"again"), texts.SECOND_CIR),
    "a server's kind": (frame(wire.REPLY, b"x"), texts.SERVER_KIND),
    "an unknown kind": (frame(0x20, b"x"), texts.UNKNOWN_KIND),
    "unknown flags": (srm(b"x", 0, flags=0x10), texts.BAD_FLAGS),
    "a PROOF": (frame(wire.PROOF), texts.UNASKED_PROOF),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", texts.UNKNOWN_KIND),
}


@pytest.fixture
def server(make_server, address):
    server = make_server(address, limits=Limits(max_payload=1000))
    server.asked = Services(server)
    with server:
        yield server


@pytest.mark.parametrize(("data", "told"), STRANGERS.values(), ids=STRANGERS)
def test_strangers(server, cut, data, told):
    """Told in words what is wrong, and closed."""
    with Good(server) as good:
        assert parse(say(server, data, cut, end=False)) == [told]
        good.check()
        wire.counted(server, clients=1, violations=1, refused=1, established=1, errors=0)
        assert {name for _, name, _ in server.asked.calls} == {"good"}


@pytest.mark.parametrize(("data", "text"), LAPSES.values(), ids=LAPSES)
def test_lapses(server, cut, data, text):
    """A client that loses its way: answered what it asked before, told what is wrong, and closed."""
    with Good(server) as good:
        answers = parse(say(server, cir(name=b"bad") + srm(b"a", 9) + data, cut, end=False))[1:]
        assert answers[0] == replied(b"A", 9)
        assert [answer._replace(id=0) for answer in answers[1:]] == [failed(wire.MALFORMED, text, 0)]
        good.check()
        wire.counted(server, clients=1, violations=1, established=2, errors=1, disconnected=1)
        assert server.asked.called_for("bad") == [("upper", b"a")]
        server.asked.wait_gone(("bad", "protocol violation"))


def test_random_bytes(server):
    """Whatever they are, the server answers in whole frames, or closes; nobody else notices."""
    chance = random.Random(7)
    with Good(server) as good:
        for number in range(150):
            data = chance.randbytes(chance.randint(12, 200))
            (answer,) = parse(say(server, data))
            assert answer.kind in {wire.CIR_REFUSED, wire.PONG}, data
            if number % 30 == 0:
                good.check()
    assert {name for _, name, _ in server.asked.calls} == {"good"}


def test_random_bytes_behind_a_cir(server):
    """The same for one who was let in first."""
    chance = random.Random(8)
    with Good(server) as good:
        for number in range(150):
            accepted, *answers = parse(say(server, cir() + chance.randbytes(chance.randint(12, 200))))
            assert accepted.kind == wire.CIR_ACCEPTED
            assert {answer.kind for answer in answers} <= {wire.ERROR, wire.PONG, wire.REPLY}
            if number % 30 == 0:
                good.check()


def test_almost_good_bytes(server):
    """Good conversations with a few bytes changed: never a crash, never half a frame, and nobody else notices."""
    chance = random.Random(9)
    good_bytes = b"".join(
        [
            ping(b"p"),
            cir(name=b"me"),
            srm(b"a", 1),
            ping(),
            srm(b"9", 2, service=1),
            srm(b"g", 3, service=4),
            wire.BYE_FRAME,
        ]
    )
    with Good(server) as good:
        for number in range(200):
            data = bytearray(good_bytes)
            for _ in range(chance.randint(1, 3)):
                data[chance.randrange(len(data))] = chance.choice([0, 1, 2, 4, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            parse(say(server, bytes(data)))
            if number % 40 == 0:
                good.check()
        wire.counted(server, clients=1)


@pytest.mark.parametrize("size", [1001, 2**31 - 1, 2**31, 2**32 - 1])
def test_impossible_lengths(server, size):
    """A length near 2**32 costs nothing: no memory is asked for it, nobody waits."""
    with Good(server) as good, wire.let_in(server) as peer:
        for number in range(3):
            if number:
                peer.close()
                peer = wire.let_in(server)  # noqa: PLW2901
            peer.send(frame(wire.SRM, b"\x00" * 100, id=5, length=size))
            assert wire.next_frame(peer) == failed(wire.TOO_LARGE, texts.REQUEST_TOO_LARGE % (size, 1000), 5)
            good.check()
        peer.close()


def test_a_crowd_of_strangers(server):
    """100 at once, and the good client between them."""
    with Good(server) as good, contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(wire.dial(server)) for _ in range(100)]
        good.check()
        for number, (peer, data) in enumerate(zip(crowd, list(STRANGERS.values()) * 10, strict=False)):
            peer.send(data[0])
            if number % 20 == 0:
                good.check()
        for peer, (_, told) in zip(crowd, list(STRANGERS.values()) * 10, strict=False):
            assert wire.rest_of(peer) == [told]
        good.check()
        wire.counted(server, clients=1, refused=100, violations=100)
    assert {name for _, name, _ in server.asked.calls} == {"good"}


def test_a_log_handler_that_closes_who_broke_the_protocol(make_server, address):
    """It is told what was wrong, as anybody else who had been let in."""
    server = make_server(address)
    log, closes = logging.getLogger("pysock.server"), logging.Handler()
    closes.emit = lambda record: [client.close() for client in server.clients.values()]
    log.addHandler(closes)
    try:
        with server, wire.let_in(server) as peer:
            peer.send(frame(0x20, b"x"))
            assert wire.next_frame(peer).kind == wire.ERROR
            wire.counted(server, errors=1, refused=0, violations=1)
    finally:
        log.removeHandler(closes)
