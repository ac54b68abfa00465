"""Cutters: the same messages however the bytes arrive, and no memory for what is only announced."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysock.wire.format import Frame, Framing, Kind, encode
from pysock.wire.framing import FRAMINGS, FrameCutter, LineCutter, RawCutter, U32Cutter

LIMIT = 50
PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def cuts(data, sizes):
    """The data in pieces of these sizes, over and over."""
    at = index = 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        yield data[at : at + size]
        at += size
        index += 1


def judge(header):
    return ("too large", header) if header.length > LIMIT else None


def run_native(pieces):
    cutter, found = FrameCutter(judge), []
    for piece in pieces:
        cutter.feed(piece)
        while (one := cutter.next()) is not None:
            found.append(one)
    return found, cutter


frames = st.lists(
    st.builds(
        Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 9), st.integers(0, 9), st.binary(max_size=80)
    )
)


@given(frames, PIECES, st.binary(max_size=11))
def test_native_frames_in_any_cuts(frames, sizes, rest):
    data = b"".join(encode(f.kind, f.payload, code=f.code, request_id=f.request_id, flags=f.flags) for f in frames)
    found, cutter = run_native(cuts(data + rest, sizes))
    assert [f if isinstance(f, Frame) else f[0] for f in found] == [
        f if len(f.payload) <= LIMIT else "too large" for f in frames
    ]
    assert cutter.partial == bool(rest)
    assert not cutter.kept
    assert cutter.data == rest


def test_a_header_is_judged_before_its_payload():
    cutter = FrameCutter(judge)
    cutter.feed(struct.pack("!IBBHI", 2**32 - 1, Kind.SRM, 0, 0, 7)[:-1])
    assert cutter.next() is None
    cutter.feed(b"\7")
    assert cutter.next()[1].length == 2**32 - 1
    assert cutter.next() is None


def test_what_is_skipped_is_never_kept():
    cutter = FrameCutter(judge)
    cutter.feed(struct.pack("!IBBHI", 100_000, Kind.SRM, 0, 0, 7))
    assert cutter.next()[0] == "too large"
    for _ in range(100):
        cutter.feed(b"x" * 1000)
        assert cutter.next() is None
        assert cutter.data == b""
    assert not cutter.partial
    cutter.feed(encode(Kind.PING, b"alive"))
    assert cutter.next().payload == b"alive"


@pytest.mark.parametrize("size", [1, 3, 100, 4095, 4096, 10_000])
def test_a_payload_in_pieces_grows_with_what_arrives(size):
    payload = bytes(range(256)) * 100
    cutter = FrameCutter(lambda header: None)
    found = []
    for piece in cuts(encode(Kind.SRM, payload), [size]):
        cutter.feed(piece)
        found += [one] if (one := cutter.next()) else []
    assert [frame.payload for frame in found] == [payload]
    assert type(found[0].payload) is bytes


def test_going_on_with_what_was_kept():
    cutter = FrameCutter(judge)
    cutter.feed(encode(Kind.SRM, b"a") + encode(Kind.SRM, b"b") + b"\0")
    assert cutter.next().payload == b"a"
    assert cutter.kept
    cutter.feed(b"\0\0\1")
    assert cutter.next().payload == b"b"
    assert not cutter.kept
    assert cutter.next() is None
    assert cutter.partial
    cutter.clear()
    assert not cutter.partial


# --- the framings without a header of ours ---


def run_plain(cutter, pieces):
    return [message for piece in pieces for message in cutter.feed(piece)]


@given(st.lists(st.binary(max_size=LIMIT)), PIECES, st.binary(max_size=3))
def test_u32_in_any_cuts(messages, sizes, rest):
    cutter = U32Cutter(LIMIT)
    data = b"".join(FRAMINGS[Framing.U32].message(message) for message in messages)
    assert run_plain(cutter, cuts(data + rest, sizes)) == messages
    assert cutter.partial == bool(rest)
    assert not cutter.too_large


@given(st.lists(st.binary(max_size=LIMIT).map(lambda b: b.replace(b"\n", b"\r"))), PIECES)
def test_lines_in_any_cuts(messages, sizes):
    cutter = LineCutter(LIMIT)
    data = b"".join(FRAMINGS[Framing.LINE].message(message) for message in messages)
    assert run_plain(cutter, cuts(data + b"rest", sizes)) == messages
    assert cutter.partial
    assert not cutter.too_large


@given(st.binary(), PIECES)
def test_raw_loses_nothing(data, sizes):
    cutter = RawCutter(LIMIT)
    found = run_plain(cutter, cuts(data, sizes))
    assert b"".join(found) == data
    assert all(0 < len(message) <= LIMIT for message in found)
    assert not cutter.partial


@pytest.mark.parametrize("sizes", [[1], [7], [10_000]])
@pytest.mark.parametrize(
    ("framing", "good", "bad"),
    [
        (Framing.U32, b"\0\0\0\2ok", struct.pack("!I", LIMIT + 1)),
        (Framing.U32, b"\0\0\0\2ok", struct.pack("!I", 2**32 - 1) + b"x" * 99),
        (Framing.LINE, b"ok\n", b"x" * (LIMIT + 1)),
        (Framing.LINE, b"ok\n", b"x" * (LIMIT + 1) + b"\nmore\n"),
    ],
)
def test_a_message_over_the_limit_ends_the_stream(framing, good, bad, sizes):
    cutter = FRAMINGS[framing].cutter(LIMIT)
    assert run_plain(cutter, cuts(good * 3 + bad, sizes)) == [b"ok"] * 3
    assert cutter.too_large
    assert cutter.partial
    assert cutter.feed(good) == []


def test_a_line_exactly_at_the_limit():
    cutter = LineCutter(LIMIT)
    assert cutter.feed(b"x" * LIMIT) == []
    assert not cutter.too_large
    assert cutter.feed(b"\n" + b"y" * LIMIT + b"\nz\n") == [b"x" * LIMIT, b"y" * LIMIT, b"z"]


def test_encoders():
    assert FRAMINGS[Framing.U32].message(b"ab") == b"\0\0\0\2ab"
    assert FRAMINGS[Framing.LINE].message(b"ab") == b"ab\n"
    assert FRAMINGS[Framing.RAW].message(b"ab") == b"ab"
    assert FRAMINGS[Framing.PYSOCK].message(b"ab") == encode(Kind.PUSH, b"ab")


@pytest.mark.parametrize("framing", Framing)
def test_the_facts_are_those_of_the_messages(framing):
    """What a row says of its framing is what its messages look like, and a row is where its number says."""
    facts = FRAMINGS[framing]
    one, other = facts.message(b"a"), facts.message(b"bc")
    assert facts.name is framing
    assert len(one) == facts.head_size + 1 + facts.ends_line
    assert one.endswith(b"\n") == facts.ends_line
    assert (one[: facts.head_size] != other[: facts.head_size]) == facts.tells_size
    assert (facts.cutter is None) == facts.has_cir == facts.has_ids == facts.has_texts
