"""The connection protocol without a socket: what is allowed when, and which words answer what isn't.

This is the oracle for the engines, so answers are compared byte by byte.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysock.causes import Cause
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason, IllegalTransition
from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.cir import Cir, encode_cir
from pysock.wire.endings import End
from pysock.wire.features import Feature
from pysock.wire.format import ErrorCode, Framing, Kind, Refusal, encode, encode_text
from pysock.wire.framing import FRAMINGS
from pysock.wire.rules import (
    Answer,
    Credit,
    Ending,
    FrameProtocol,
    Initiation,
    NotServed,
    PlainProtocol,
    Request,
    Rules,
)

RULES = Rules(max_payload=1000, max_cir_bytes=100, services=frozenset({0, 3}))
VIOLATION = DisconnectReason.PROTOCOL_VIOLATION


def header(kind, length=0, code=0, request_id=9, flags=0):
    return struct.pack("!IBBHI", length, kind, flags, code, request_id)


def srm(payload=b"x", service=0, request_id=9, flags=0):
    return encode(Kind.SRM, payload, code=service, request_id=request_id, flags=flags)


def run(connection, *pieces):
    """Feed; carry out what comes as a server does that lets everybody in and echoes."""
    actions, sent = [], b""
    for piece in pieces:
        connection.feed(piece)
        while (action := connection.next()) is not None:
            actions.append(action)
            if isinstance(action, Initiation):
                sent += connection.accept(1 << 32, b"")
            elif isinstance(action, Request):
                if action.wants_reply:
                    sent += encode(Kind.REPLY, action.payload, request_id=action.request_id)
            elif not isinstance(action, Credit):
                sent += action.frame
    return actions, sent


@pytest.fixture
def waiting():
    """A connection that was accepted and whose CIR is awaited."""
    return FrameProtocol(RULES)


@pytest.fixture
def established(waiting):
    run(waiting, encode_cir("me"))
    assert waiting.state is ConnectionState.ESTABLISHED
    return waiting


def refused(text, code=Refusal.MALFORMED):
    return Ending(encode_text(Kind.CIR_REFUSED, code, text), VIOLATION, Cause.VIOLATION)


def malformed(text, request_id=9):
    return Ending(encode_text(Kind.ERROR, ErrorCode.MALFORMED, text, request_id), VIOLATION, Cause.VIOLATION)


def unproven(text):
    return Ending(
        encode_text(Kind.CIR_REFUSED, Refusal.WRONG_PROOF, text), DisconnectReason.CLOSED_BY_SERVER, Cause.PROOF
    )


# --- before the CIR ---


def test_a_good_cir(waiting):
    waiting.feed(encode_cir("me", "test/1", 500))
    assert waiting.next() == Initiation(Cir("me", 500, "test/1"))
    assert waiting.state is ConnectionState.ACCEPTED
    assert waiting.reply_limit == 500
    frame = p.decode(waiting.accept(0x100000007, b"\x08\0\1x"))
    assert frame.kind == Kind.CIR_ACCEPTED
    assert frame.payload == b"\1\0\x08\0\0\0\1\0\0\0\7" + b"\x08\0\1x"
    assert waiting.state is ConnectionState.ESTABLISHED
    assert waiting.name == "me"


def test_a_client_cannot_raise_the_limit_of_replies(waiting):
    run(waiting, encode_cir(max_payload=2**32 - 1))
    assert waiting.reply_limit == RULES.max_payload


def test_refusing_a_good_cir(waiting):
    waiting.feed(encode_cir() + srm())
    assert isinstance(waiting.next(), Initiation)
    assert waiting.dismiss(End.NOT_LET_IN, "no") == encode_text(Kind.CIR_REFUSED, 2, "no")
    assert waiting.state is ConnectionState.DRAINING
    assert waiting.next() is None


def test_a_ping_is_answered_before_the_cir(waiting):
    actions, _ = run(waiting, encode(Kind.PING, b"x" * 64, request_id=5))
    assert actions == [Answer(encode(Kind.PONG, b"x" * 64, request_id=5))]
    assert waiting.state is ConnectionState.ACCEPTED


def test_leaving_before_the_cir(waiting):
    actions, _ = run(waiting, encode(Kind.BYE), srm())
    assert actions == [Ending(b"", DisconnectReason.LEFT)]


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (header(Kind.SRM, 10), refused(texts.SRM_BEFORE_CIR)),
        (header(Kind.SRM, 2**32 - 1, flags=1), refused(texts.SRM_BEFORE_CIR)),
        (header(Kind.PROOF), refused(texts.UNASKED_PROOF)),
        (header(Kind.REPLY), refused(texts.SERVER_KIND)),
        (header(0x80), refused(texts.UNKNOWN_KIND)),
        (header(Kind.ASK), refused(texts.SERVER_KIND)),
        (header(Kind.ANSWER), refused(texts.UNKNOWN_KIND)),
        (header(0x8B), refused(texts.UNKNOWN_KIND)),
        (header(0), refused(texts.UNKNOWN_KIND)),
        (b"GET / HTTP/1.1\r\n", refused(texts.UNKNOWN_KIND)),
        (header(Kind.PING, 65), refused(texts.LONG_PING)),
        (header(Kind.PING, flags=1), refused(texts.BAD_FLAGS)),
        (header(Kind.BYE, 1), refused(texts.LONG_BYE)),
        (header(Kind.CIR, 101, code=1), refused(texts.LONG_CIR)),
        (header(Kind.CIR, 4, code=1, flags=2), refused(texts.BAD_FLAGS)),
        (header(Kind.CIR, 4, code=2), refused(texts.BAD_VERSION, Refusal.BAD_MAGIC_OR_VERSION)),
        (header(Kind.CIR, 9999, code=2), refused(texts.BAD_VERSION, Refusal.BAD_MAGIC_OR_VERSION)),
        (encode(Kind.CIR, b"PSK9", code=1), refused(texts.BAD_MAGIC, Refusal.BAD_MAGIC_OR_VERSION)),
        (encode(Kind.CIR, b"PSK", code=1), refused(texts.SHORT_CIR)),
        (encode(Kind.CIR, b"PSK1\2\0\1\xff", code=1), refused(texts.BROKEN_FIELD)),
        (encode_cir(nonce=bytes(31)), refused(texts.BROKEN_FIELD)),
        (encode_cir(nonce=bytes(33)), refused(texts.BROKEN_FIELD)),
        (encode(Kind.CIR, b"PSK1" + 2 * p.encode_field(3, bytes(32)), code=1), refused(texts.BROKEN_FIELD)),
    ],
)
def test_what_may_not_come_before_the_cir(waiting, data, ending):
    actions, sent = run(waiting, *[data[i : i + 1] for i in range(len(data))])
    assert actions == [ending]
    assert sent == ending.frame
    assert waiting.state is ConnectionState.DRAINING
    assert run(waiting, encode_cir()) == ([], b"")


def test_a_nonce_is_nothing_where_there_is_no_key(waiting):
    waiting.feed(encode_cir("me", nonce=bytes(32)))
    assert waiting.next() == Initiation(Cir("me", nonce=bytes(32)))
    assert waiting.state is ConnectionState.ACCEPTED


# --- with an auth key ---

NONCE, CHALLENGE, EXPECTED = bytes(range(32)), b"\3\0\0the fields", b"E" * 32


class Key:
    """In place of the arithmetic: what the protocol asks of it."""

    def __init__(self):
        self.asked = []

    def challenge(self, nonce, name):
        self.asked.append((nonce, name))
        return CHALLENGE, EXPECTED

    def prove(self, expected, got):
        self.asked.append((expected, got))
        return expected == got


@pytest.fixture
def key():
    return Key()


@pytest.fixture
def locked(key):
    """A connection whose CIR is awaited by a server with a key."""
    return FrameProtocol(RULES._replace(challenge=key.challenge, prove=key.prove))


@pytest.fixture
def challenged(locked):
    run(locked, encode_cir("mé", nonce=NONCE))
    assert locked.state is ConnectionState.CHALLENGED
    return locked


def proof(mac=EXPECTED, *more):
    return encode(Kind.PROOF, p.encode_field(4, mac) + b"".join(more))


def test_a_challenge_and_its_proof(locked, key):
    cir = encode_cir("mé", "test/1", 500, NONCE)
    assert run(locked, cir) == ([Answer(encode(Kind.CHALLENGE, CHALLENGE))], encode(Kind.CHALLENGE, CHALLENGE))
    assert locked.state is ConnectionState.CHALLENGED
    assert key.asked == [(NONCE, "mé".encode())]
    locked.feed(proof() + srm(b"abc"))
    assert locked.next() == Initiation(Cir("mé", 500, "test/1", NONCE))
    assert locked.state is ConnectionState.CHALLENGED
    assert key.asked[1:] == [(EXPECTED, EXPECTED)]
    assert p.decode(locked.accept(7, b"")).kind == Kind.CIR_ACCEPTED
    assert locked.state is ConnectionState.ESTABLISHED
    assert locked.next() == Request(0, 9, True, b"abc")


def test_refusing_who_proved_it(challenged):
    challenged.feed(proof())
    assert isinstance(challenged.next(), Initiation)
    assert challenged.dismiss(End.NOT_LET_IN, "no") == encode_text(Kind.CIR_REFUSED, 2, "no")
    assert challenged.state is ConnectionState.DRAINING


def test_no_nonce_where_a_key_is_set(locked, key):
    actions, _ = run(locked, encode_cir("me"), proof())
    assert actions == [unproven(texts.KEY_WANTED)]
    assert locked.state is ConnectionState.DRAINING
    assert key.asked == []


def test_what_is_unknown_in_a_proof_is_skipped(challenged):
    assert isinstance(run(challenged, proof(EXPECTED, p.encode_field(99, b"?")))[0][0], Initiation)


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (proof(b"F" * 32), unproven(texts.WRONG_PROOF)),
        (proof(b"E" * 31), refused(texts.BROKEN_PROOF)),
        (proof(b"E" * 33), refused(texts.BROKEN_PROOF)),
        (proof(EXPECTED, p.encode_field(4, EXPECTED)), refused(texts.BROKEN_PROOF)),
        (proof(EXPECTED, b"\4\0"), refused(texts.BROKEN_PROOF)),
        (encode(Kind.PROOF), refused(texts.BROKEN_PROOF)),
        (encode(Kind.PROOF, p.encode_field(3, EXPECTED)), refused(texts.BROKEN_PROOF)),
        (header(Kind.PROOF, 101), refused(texts.LONG_PROOF)),
        (header(Kind.PROOF, 35, flags=1), refused(texts.BAD_FLAGS)),
        (encode_cir("me", nonce=NONCE), refused(texts.SECOND_CIR_WAITING)),
        (header(Kind.CIR, 9999, code=2), refused(texts.SECOND_CIR_WAITING)),
        (header(Kind.SRM, 10), refused(texts.SRM_BEFORE_CIR)),
        (header(Kind.CHALLENGE), refused(texts.SERVER_KIND)),
        (header(0x55), refused(texts.UNKNOWN_KIND)),
        (encode(Kind.BYE), Ending(b"", DisconnectReason.LEFT)),
    ],
)
def test_what_ends_a_challenged_connection(challenged, data, ending):
    actions, sent = run(challenged, *[data[i : i + 1] for i in range(len(data))], proof())
    assert actions == [ending]
    assert sent == ending.frame
    assert challenged.state is ConnectionState.DRAINING


def test_a_ping_is_answered_before_the_proof(challenged):
    actions, _ = run(challenged, encode(Kind.PING, b"x", request_id=5))
    assert actions == [Answer(encode(Kind.PONG, b"x", request_id=5))]
    assert challenged.state is ConnectionState.CHALLENGED


def test_a_proof_is_judged_in_any_cuts(challenged):
    whole = proof()
    actions, _ = run(challenged, *[whole[at : at + 5] for at in range(0, len(whole), 5)])
    assert actions == [Initiation(Cir("mé", nonce=NONCE))]


# --- established ---


def test_an_srm(established):
    actions, _ = run(established, srm(b"abc", 3, 77), srm(b"", 0, 78, flags=1))
    assert actions == [Request(3, 77, True, b"abc"), Request(0, 78, False, b"")]


def test_an_srm_in_one_piece_with_the_cir(waiting):
    actions, _ = run(waiting, encode_cir() + srm(b"abc"))
    assert actions == [Initiation(Cir()), Request(0, 9, True, b"abc")]


def test_no_such_service(established):
    error = encode_text(Kind.ERROR, ErrorCode.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE, 9)
    actions, _ = run(established, srm(service=1), srm(service=1, flags=1), srm())
    assert actions == [NotServed(error, True, 1), NotServed(b"", True, 1), Request(0, 9, True, b"x")]


def test_a_request_that_is_too_large(established):
    error = encode_text(Kind.ERROR, ErrorCode.PAYLOAD_TOO_LARGE, texts.REQUEST_TOO_LARGE % (1001, 1000), 9)
    too_large = ErrorCode.PAYLOAD_TOO_LARGE
    assert run(established, header(Kind.SRM, 1001))[0] == [NotServed(error, False, 0, too_large)]
    assert run(established, b"x" * 1000)[0] == []
    assert run(established, b"x" + srm(b"next"))[0] == [Request(0, 9, True, b"next")]
    assert run(established, header(Kind.SRM, 1001, flags=1))[0] == [NotServed(b"", False, 0, too_large)]


def test_a_request_exactly_at_the_limit(established):
    assert run(established, srm(b"x" * 1000))[0] == [Request(0, 9, True, b"x" * 1000)]


def test_when_the_server_stops(established):
    established.shutting_down = True
    error = encode_text(Kind.ERROR, ErrorCode.SHUTTING_DOWN, texts.SHUTTING_DOWN, 9)
    actions, _ = run(established, srm() + srm(flags=1) + encode(Kind.PING))
    code = ErrorCode.SHUTTING_DOWN
    assert actions == [NotServed(error, True, 0, code), NotServed(b"", True, 0, code), Answer(encode(Kind.PONG))]


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (encode_cir(), malformed(texts.SECOND_CIR, 0)),
        (header(Kind.CIR, 4, code=2), malformed(texts.SECOND_CIR)),
        (header(Kind.PROOF), malformed(texts.UNASKED_PROOF)),
        (header(Kind.PUSH), malformed(texts.SERVER_KIND)),
        (header(0x7F), malformed(texts.UNKNOWN_KIND)),
        (header(Kind.SRM, flags=2), malformed(texts.BAD_FLAGS)),
        (header(Kind.SRM, flags=0x81), malformed(texts.BAD_FLAGS)),
        (header(Kind.SRM, 2000, flags=2), malformed(texts.BAD_FLAGS)),
        (header(Kind.BYE, flags=1), malformed(texts.BAD_FLAGS)),
        (header(Kind.PING, 65), malformed(texts.LONG_PING)),
        (header(Kind.BYE, 3), malformed(texts.LONG_BYE)),
        (encode(Kind.BYE), Ending(b"", DisconnectReason.LEFT)),
    ],
)
def test_what_ends_an_established_connection(established, data, ending):
    actions, _ = run(established, data, srm())
    assert actions == [ending]
    assert established.state is ConnectionState.DRAINING


def test_events_go_by_the_table(established):
    established.take(ConnectionEvent.DRAIN)
    assert run(established, srm()) == ([], b"")
    with pytest.raises(IllegalTransition):
        established.take(ConnectionEvent.SRM)
    established.take(ConnectionEvent.FLUSHED)
    assert established.state is ConnectionState.CLOSED


FRAMES = st.lists(
    st.one_of(
        st.just(encode_cir("me")),
        st.builds(srm, st.binary(max_size=50), st.integers(0, 3), st.integers(0, 9), st.sampled_from([0, 0, 0, 1])),
        st.just(encode(Kind.PING, b"?")),
        st.just(srm(b"x" * 1500)),
        st.sampled_from([encode(Kind.BYE), header(0x55, 10), header(Kind.SRM, 5, flags=4)]),
    ),
    max_size=12,
)


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_the_same_answers_in_any_cuts(frames, sizes):
    data = encode_cir() + b"".join(frames)
    pieces, at, index = [], 0, 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        pieces.append(data[at : at + size])
        at, index = at + size, index + 1
    whole, cut = FrameProtocol(RULES), FrameProtocol(RULES)
    assert run(whole, data) == run(cut, *pieces)
    assert whole.state is cut.state


@given(st.binary(max_size=200))
def test_noise_never_raises(noise):
    connection = FrameProtocol(RULES)
    run(connection, encode_cir(), noise)
    run(FrameProtocol(RULES), noise)


# --- the other framings ---


def test_the_other_framings_have_no_cir():
    connection = PlainProtocol(FRAMINGS[Framing.LINE], 100)
    assert connection.feed(b"early\n") == []
    connection.accept()
    assert connection.state is ConnectionState.ESTABLISHED
    assert connection.feed(b"a\nb") == [b"a"]
    connection.take(ConnectionEvent.END_OF_FILE)
    assert connection.feed(b"\n") == []


# --- streams ---

STREAM = int(Feature.STREAM)


@pytest.fixture
def streaming(established):
    """A client that takes streams, of a server that speaks of them."""
    established.features = STREAM
    return established


def test_a_request_that_takes_a_stream(streaming):
    assert run(streaming, srm(b"abc", flags=4), srm(b"", flags=0))[0] == [
        Request(0, 9, True, b"abc", takes_stream=True),
        Request(0, 9, True, b""),
    ]


def test_a_credit(streaming):
    data = encode(Kind.CREDIT, b"\0\0\1\0", request_id=7) + encode(Kind.CREDIT, b"\xff" * 4, request_id=0)
    assert run(streaming, data)[0] == [Credit(7, 256), Credit(0, 2**32 - 1)]


@pytest.mark.parametrize("size", [0, 1, 3, 5, 64])
def test_a_credit_of_another_size(streaming, size):
    assert run(streaming, encode(Kind.CREDIT, bytes(size), request_id=7))[0] == [malformed(texts.CREDIT_SIZE, 7)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (encode(Kind.CREDIT, bytes(4), request_id=7), texts.UNKNOWN_KIND),
        (encode(Kind.CREDIT, bytes(3), request_id=7), texts.UNKNOWN_KIND),
        (encode(Kind.SRM, b"x", request_id=7, flags=4), texts.BAD_FLAGS),
    ],
)
def test_streams_of_who_does_not_speak_of_them(established, data, text):
    established.features = 3
    assert run(established, data)[0] == [malformed(text, 7)]


def test_a_flag_of_streams_elsewhere(streaming):
    assert run(streaming, encode(Kind.PING, b"x", request_id=7, flags=4))[0] == [malformed(texts.BAD_FLAGS, 7)]
