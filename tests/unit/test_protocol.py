"""The wire format: exact bytes, and what isn't one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.challenge import decode_challenge, decode_proof, encode_challenge, encode_proof
from pysock.wire.cir import decode_cir, decode_welcome, encode_accepted, encode_cir, encode_welcome
from pysock.wire.features import FEATURES, decode_deadline, encode_deadline
from pysock.wire.format import Kind, Malformed, Refusal, Tag


def test_a_frame_byte_by_byte():
    frame = p.encode(Kind.SRM, b"hello", code=3, request_id=0x01020304, flags=1)
    assert frame == bytes.fromhex("00000005 02 01 0003 01020304") + b"hello"
    assert p.decode(frame) == (Kind.SRM, 1, 3, 0x01020304, b"hello")
    assert p.decode_header(b"xx" + frame, 2) == (5, 2, 1, 3, 0x01020304)


def test_a_text_frame():
    frame = p.encode_text(Kind.ERROR, 2, "näh", request_id=7)
    assert p.decode(frame) == (Kind.ERROR, 0, 2, 7, "näh".encode())


@given(
    st.integers(0, 255), st.binary(max_size=99), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 255)
)
def test_frames_there_and_back(kind, payload, code, request_id, flags):
    frame = p.encode(kind, payload, code=code, request_id=request_id, flags=flags)
    assert p.decode(frame) == (kind, flags, code, request_id, payload)


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0\0\0\1" + b"\0" * 8, b"\0" * 13])
def test_no_whole_frame(data):
    with pytest.raises(Malformed):
        p.decode(data)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))))
def test_fields_there_and_back(fields):
    data = b"".join(p.encode_field(tag, value) for tag, value in fields)
    assert p.decode_fields(data) == fields
    assert p.decode_fields(b"PSK1" + data, 4) == fields


@given(st.lists(st.binary(max_size=9), min_size=1), st.integers(1, 1000))
def test_a_field_that_is_cut_short(values, cut):
    data = b"".join(p.encode_field(9, value) for value in values)
    ends = {0}
    for value in values:
        ends.add(max(ends) + 3 + len(value))
    short = data[: len(data) - cut % len(data)]
    if len(short) in ends:
        assert b"".join(p.encode_field(*field) for field in p.decode_fields(short)) == short
    else:
        with pytest.raises(Malformed):
            p.decode_fields(short)


def test_a_field_that_is_too_long():
    assert len(p.encode_field(1, b"x" * 65535)) == 65538
    with pytest.raises(ValueError, match="65535"):
        p.encode_field(1, b"x" * 65536)


# --- the CIR ---


def test_a_cir_byte_by_byte():
    assert encode_cir() == bytes.fromhex("00000004 01 00 0001 00000000") + b"PSK1"
    frame = p.decode(encode_cir("me", "pysock/0.1", 1000))
    assert frame.payload == b"PSK1\2\0\2me\5\0\4\0\0\3\xe8\x08\0\x0apysock/0.1"
    assert decode_cir(frame.payload) == ("me", 1000, "pysock/0.1", None, 0, None)


def test_a_cir_says_as_little_as_it_likes():
    assert decode_cir(b"PSK1") == ("", None, "", None, 0, None)


def test_the_nonce_of_a_cir():
    nonce = bytes(range(32))
    frame = p.decode(encode_cir(nonce=nonce))
    assert frame.payload == b"PSK1\3\0\x20" + nonce
    assert decode_cir(frame.payload).nonce == nonce


def test_tags_from_the_future_are_skipped():
    payload = b"PSK1" + p.encode_field(200, b"?" * 50) + p.encode_field(Tag.NAME, b"me") + p.encode_field(0, b"")
    assert decode_cir(payload).name == "me"


def test_of_two_promises_the_smaller_counts():
    payload = b"PSK1" + b"".join(p.encode_field(Tag.MAX_PAYLOAD, struct.pack("!I", n)) for n in (70, 50, 90))
    assert decode_cir(payload).max_payload == 50


def test_features_in_a_cir():
    frame = p.decode(encode_cir("me", features=FEATURES))
    assert frame.payload == b"PSK1\2\0\2me\x09\0\4\0\0\0\x3f"
    assert decode_cir(frame.payload).features == 63
    assert decode_cir(b"PSK1\x09\0\4\xff\xff\xff\xff").features == 2**32 - 1
    assert encode_cir("me", features=0) == encode_cir("me")
    assert decode_cir(b"PSK1").features == 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, 0), (-1, 0), (1.5, 1_500_000), (4294.967, 4_294_967_000), (4294.967295, 2**32 - 1)]
)
def test_a_deadline_there_and_back(seconds, shown):
    assert encode_deadline(seconds) == shown.to_bytes(4, "big")
    assert decode_deadline(encode_deadline(seconds) + b"request") == shown / 1e6


@pytest.mark.parametrize("seconds", [4294.968, 1e12, float("inf")])
def test_a_deadline_that_is_too_far(seconds):
    assert encode_deadline(seconds) == b""


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"", Refusal.MALFORMED, texts.SHORT_CIR),
        (b"PSK", Refusal.MALFORMED, texts.SHORT_CIR),
        (b"PSK2", Refusal.BAD_MAGIC_OR_VERSION, texts.BAD_MAGIC),
        (b"GET / HTTP/1.1\r\n", Refusal.BAD_MAGIC_OR_VERSION, texts.BAD_MAGIC),
        (b"PSK1\2", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\2\0\3me", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\2\0\0", Refusal.MALFORMED, texts.BROKEN_FIELD),  # an empty name
        (b"PSK1\2\0\2\xff\xfe", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\2\0\3\xed\xa0\x80", Refusal.MALFORMED, texts.BROKEN_FIELD),  # a surrogate
        (b"PSK1\2\0\3a\0b", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\2\1\0" + b"x" * 256, Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\2\0\1a\2\0\1b", Refusal.MALFORMED, texts.BROKEN_FIELD),  # two names
        (b"PSK1\5\0\3\0\0\1", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\3\0\x1f" + bytes(31), Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\3\0\x21" + bytes(33), Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1" + 2 * (b"\3\0\x20" + bytes(32)), Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\x09\0\3\0\0\3", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1" + 2 * b"\x09\0\4\0\0\0\3", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1\x0a\0\3\0\0\3", Refusal.MALFORMED, texts.BROKEN_FIELD),
        (b"PSK1" + 2 * b"\x0a\0\4\0\0\0\3", Refusal.MALFORMED, texts.BROKEN_FIELD),
    ],
)
def test_a_bad_cir(payload, code, text):
    with pytest.raises(Malformed) as caught:
        decode_cir(payload)
    assert caught.value.code == code
    assert str(caught.value) == text


def test_a_challenge_byte_by_byte():
    nonce, mac = b"n" * 32, b"m" * 32
    payload = encode_challenge(nonce, mac)
    assert payload == b"\3\0\x20" + nonce + b"\4\0\x20" + mac
    assert decode_challenge(payload + p.encode_field(99, b"?")) == (nonce, mac)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\3\0\x20" + bytes(32),
        b"\4\0\x20" + bytes(32),
        b"\3\0\x1f" + bytes(31) + b"\4\0\x20" + bytes(32),
        b"\3\0\x20" + bytes(32) + b"\4\0\x21" + bytes(33),
        2 * (b"\3\0\x20" + bytes(32)) + b"\4\0\x20" + bytes(32),
        b"\3\0\x20" + bytes(32) + b"\4\0\x20" + bytes(31),
    ],
)
def test_a_broken_challenge(payload):
    with pytest.raises(Malformed):
        decode_challenge(payload)


def test_a_proof_byte_by_byte():
    payload = encode_proof(b"m" * 32)
    assert payload == b"\4\0\x20" + b"m" * 32
    assert decode_proof(payload) == b"m" * 32


@pytest.mark.parametrize("payload", [b"", b"\4", b"\4\0\x1f" + bytes(31), 2 * (b"\4\0\x20" + bytes(32))])
def test_a_broken_proof(payload):
    with pytest.raises(Malformed) as caught:
        decode_proof(payload)
    assert (caught.value.code, str(caught.value)) == (Refusal.MALFORMED, texts.BROKEN_PROOF)


@given(st.binary(max_size=60))
def test_a_cir_of_noise_is_good_or_malformed(noise):
    try:
        cir = decode_cir(b"PSK1" + noise)
    except Malformed:
        return
    assert len(cir.name.encode()) <= p.LARGEST_NAME


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128, "a\0b"])
def test_a_name_that_cannot_be_sent(name):
    with pytest.raises(ValueError, match="255"):
        encode_cir(name)


@pytest.mark.parametrize("name", [5, b"me", ["me"]])
def test_a_cirs_name_is_a_text(name):
    with pytest.raises(TypeError, match=f"a client's name is a str, not {type(name).__name__}"):
        encode_cir(name)


# --- the answer to a CIR ---


def test_a_welcome_there_and_back():
    fields = encode_welcome(1 << 24, 1024, [(0, ""), (5, "add"), (7, "größe")], "pysock/0.1")
    frame = p.decode(encode_accepted(0x0000000100000002, fields))
    assert frame.kind == Kind.CIR_ACCEPTED
    assert frame.payload.startswith(bytes.fromhex("01 0008 0000000100000002"))
    assert decode_welcome(frame.payload) == (
        0x100000002,
        1 << 24,
        1024,
        {"": 0, "add": 5, "größe": 7},
        "pysock/0.1",
        0,
        0,
        {},
        None,
    )


def test_the_window_of_streams_in_a_cir():
    frame = p.decode(encode_cir(features=4, stream_window=65536))
    assert frame.payload == b"PSK1\x09\0\4\0\0\0\4\x0a\0\4\0\1\0\0"
    assert decode_cir(frame.payload).stream_window == 65536
    assert decode_cir(p.decode(encode_cir(features=4, stream_window=0)).payload).stream_window == 0


def test_streams_in_a_welcome():
    fields = encode_welcome(1, 2, [(1, "add")], "x", [(1, 3), (0, 1)])
    payload = p.decode(encode_accepted(1, fields, 4, 65536)).payload
    assert bytes.fromhex("0a 0004 00010000") in payload
    assert bytes.fromhex("0b 0003 0001 03 0b 0003 0000 01") in payload
    welcome = decode_welcome(payload)
    assert (welcome.stream_window, welcome.options) == (65536, {1: 3, 0: 1})
    assert p.ServiceOption(3) == p.ServiceOption.STREAMS | p.ServiceOption.IDEMPOTENT


def test_features_in_a_welcome():
    payload = p.decode(encode_accepted(1, b"", FEATURES)).payload
    assert payload == bytes.fromhex("01 0008 0000000000000001 09 0004 0000003f")
    assert decode_welcome(payload).features == 63
    assert encode_accepted(1, b"", 0) == encode_accepted(1, b"")


CLIENT_ID = b"\1\0\x08" + b"\0" * 8


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        p.encode_field(Tag.SOFTWARE, b"x"),  # no client id
        b"\1\0\4\0\0\0\1",
        CLIENT_ID + b"\7\0\2\0\1",
        CLIENT_ID + b"\7\0\4\0\1\5a",
        CLIENT_ID + b"\7\0\4\0\1\1\xff",
        CLIENT_ID + b"\x08\0\1\xff",
        CLIENT_ID + b"\5\0\1\0",
        CLIENT_ID + b"\x09\0\1\3",
        CLIENT_ID + b"\x0a\0\1\3",
        CLIENT_ID + b"\x0b\0\2\0\1",
        CLIENT_ID + b"\x0b\0\4\0\1\1\1",
        CLIENT_ID[:-1],
    ],
)
def test_a_bad_welcome(payload):
    with pytest.raises(Malformed):
        decode_welcome(payload)


def test_a_service_whose_name_is_too_long():
    with pytest.raises(ValueError, match="255"):
        encode_welcome(1, 1, [(1, "x" * 256)], "")
