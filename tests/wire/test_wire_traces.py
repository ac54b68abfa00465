"""TRACE on the wire: who may send it, what it may be, and that it tells of the request behind it."""

from __future__ import annotations

import pytest
import wire
from wire import Got, cir, failed, features, frame, parse, replied, say, srm

from pysock.wire import texts
from pysock.wire.tracing import SIZE, Trace, decode_trace, encode_trace

SAID = encode_trace(Trace(7, 8, 1))


@pytest.fixture
def told(make_server, address):
    """A server, and what it was told of traces."""
    server, told = make_server(address), []
    server.service(lambda client, request: request.upper())
    server._running.hooks.traced = lambda client_id, request_id, said: told.append((request_id, said))
    with server:
        yield server, told


def trace(said: bytes, id: int = 1, **fields: int) -> bytes:  # noqa: A002
    return frame(0x07, said, id=id, **fields)


def answers(server, data: bytes, cut: str = "whole") -> list[Got]:
    """Of one that speaks of traces alone."""
    _, *found = parse(say(server, cir(features(wire.SPEAKS_TRACE)) + data, cut))
    return found


def test_it_tells_of_the_request_behind_it(told, cut):
    server, heard = told
    data = srm(b"a", 1) + trace(SAID, 2) + srm(b"b", 2) + srm(b"c", 3)
    assert answers(server, data, cut) == [replied(b"A", 1), replied(b"B", 2), replied(b"C", 3)]
    assert heard == [(2, SAID)]


@pytest.mark.parametrize("said", [b"", b"x", bytes(SIZE), SAID + b"more", bytes(64)])
def test_what_makes_no_sense_is_no_harm(told, said):
    server, heard = told
    assert answers(server, trace(said) + srm(b"a")) == [replied(b"A")]
    assert heard == [(1, said)]
    assert decode_trace(said) is None


@pytest.mark.parametrize("data", [trace(bytes(65)), trace(SAID, flags=1)], ids=["long", "flags"])
def test_what_breaks_the_rules(told, data):
    server, heard = told
    text = texts.BAD_FLAGS if data[5] else texts.LONG_TRACE
    assert answers(server, srm(b"a") + data + srm(b"b")) == [replied(b"A"), failed(wire.MALFORMED, text)]
    assert heard == []


@pytest.mark.parametrize("bits", [None, 0, 31, wire.RESERVED])
def test_who_doesnt_speak_of_it_may_not(told, bits):
    server, heard = told
    fields = [] if bits is None else [features(bits)]
    _, *found = parse(say(server, cir(*fields) + srm(b"a") + trace(SAID, 2), end=False))
    assert found == [replied(b"A"), failed(wire.MALFORMED, texts.UNKNOWN_KIND, 2)]
    assert heard == []


def test_a_server_that_isnt_interested(make_server, address):
    server = make_server(address)
    server.service(lambda client, request: request.upper())
    with server:
        assert answers(server, trace(SAID) + srm(b"a")) == [replied(b"A")]


def test_one_that_cant_be_taken_costs_nobody_else(make_server, address, caplog):
    server = make_server(address)
    server.service(lambda client, request: request.upper())
    server._running.hooks.traced = lambda *_: 1 / 0
    with server:
        assert answers(server, trace(SAID) + srm(b"a")) == [replied(b"A")]
    assert "pysock's own callback 'traced' failed" in caplog.text


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (SAID, Trace(7, 8, 1)),
        (b"\x01" + SAID[1:], Trace(7, 8, 1)),  # a later version has these, too
        (b"\xff" + SAID[1:], None),
        (SAID[:1] + bytes(16) + SAID[17:], None),
        (SAID[:17] + bytes(8) + SAID[25:], None),
        (SAID[:-1], None),
        (b"\0" + bytes(range(1, 25)) + b"\xff", Trace(0x0102030405060708090A0B0C0D0E0F10, 0x1112131415161718, 255)),
    ],
)
def test_what_26_bytes_say(said, found):
    assert decode_trace(said) == found
    assert found is None or encode_trace(found)[1:] == said[1:]
