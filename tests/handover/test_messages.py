"""The messages of PHO1: exact bytes, there and back, and what isn't one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysock.handover.messages import (
    FLAG_IN_FILE,
    HIGHEST,
    LOWEST,
    Kind,
    Message,
    common_version,
    decode,
    encode,
    encode_versions,
)

tags = st.integers(0, 0xFFFF)
messages = st.builds(
    encode,
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(tags, st.binary(max_size=40)), max_size=5),
    st.sampled_from([0, FLAG_IN_FILE]),
)


def test_a_message_byte_by_byte():
    data = encode(Kind.ROWS, [(0x8001, b"abc"), (2, b"")], FLAG_IN_FILE)
    assert data == bytes.fromhex("0700 0100 0f000000  0180 03000000") + b"abc" + bytes.fromhex("0200 00000000")
    assert decode(data) == (Kind.ROWS, FLAG_IN_FILE, {0x8001: [b"abc"], 2: [b""]})
    assert encode(Kind.BYE) == bytes.fromhex("0c00 0000 00000000")


@given(st.integers(0, 0xFFFF), st.lists(st.tuples(tags, st.binary(max_size=40))))
def test_messages_there_and_back(kind, fields):
    message = decode(encode(kind, fields))
    assert (message.kind, message.flags) == (kind, 0)
    assert message.fields == {
        tag: [value for other, value in fields if other == tag] for tag in dict.fromkeys(tag for tag, _ in fields)
    }


@given(messages, st.integers(min_value=0))
def test_a_message_that_is_cut_short(data, cut):
    with pytest.raises(ValueError, match=r"head of a message|it says that it has"):
        decode(data[: cut % len(data)])


@given(messages, st.binary(min_size=1, max_size=9))
def test_something_behind_a_message(data, more):
    with pytest.raises(ValueError, match="it says that it has"):
        decode(data + more)


@given(messages, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_mangled_message_is_refused_or_another(data, changes):
    """Nothing but a ValueError; and what is taken for a message is one that is written like that."""
    mangled = bytearray(data)
    for place, change in changes:
        mangled[place % len(mangled)] ^= change
    try:
        kind, flags, fields = decode(mangled)
    except ValueError:
        return
    again = encode(kind, [(tag, value) for tag, values in fields.items() for value in values], flags)
    assert len(again) == len(mangled)
    assert decode(again) == (kind, flags, fields)


@given(st.binary(max_size=60))
def test_any_bytes(data):
    try:
        message = decode(data)
    except ValueError:
        return
    assert message.name


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the head of a message has 8 bytes, not 0"),
        (struct.pack("<HHI", 1, 2, 0), "HELLO: the flags 0x0002 aren't known"),
        (struct.pack("<HHI", 99, 0, 1), "message 99: it says that it has 1 bytes, and has 0"),
        (struct.pack("<HHI", 1, 0, 5) + bytes(5), "the head of a field has 6 bytes, not 5"),
        (struct.pack("<HHI", 1, 0, 6) + struct.pack("<HI", 3, 1), "field 0x0003: its 1 bytes aren't there, only 0 are"),
    ],
)
def test_what_isn_t_a_message(data, problem):
    with pytest.raises(ValueError, match=problem):
        decode(data)


def test_fields_that_come_once():
    message = Message(Kind.OFFER, 0, {1: [b"a"], 2: [b"b", b"c"], 3: [b"\1\2"]})
    assert message.one(1) == b"a"
    assert message.one(9, b"none") == b"none"
    assert message.number(3, 2) == 0x0201
    assert message.number(9, 2, 7) == 7
    for tag, problem in ((2, "OFFER: field 0x0002 comes 2 times, not once"), (9, "OFFER: field 0x0009 comes 0 times")):
        with pytest.raises(ValueError, match=problem):
            message.one(tag)
    with pytest.raises(ValueError, match="comes 2 times"):
        message.one(2, b"")
    with pytest.raises(ValueError, match="OFFER: field 0x0003 has 2 bytes, not 4"):
        message.number(3, 4)


def test_what_may_be_left_out_and_what_may_not():
    message = Message(Kind.OFFER, 0, {1: [b""], 0x8002: [b""]})
    message.refuse_unknown({0x8002})
    with pytest.raises(ValueError, match="OFFER: field 0x8002 isn't known, and can't be left out"):
        message.refuse_unknown({1})


@pytest.mark.parametrize(
    ("theirs", "ours", "common"), [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 9), (1, 4), 4), ((4, 4), (1, 4), 4)]
)
def test_the_highest_version_that_both_speak(theirs, ours, common):
    assert common_version(encode_versions(*theirs), *ours) == common


def test_no_common_version():
    assert common_version(encode_versions()) == HIGHEST >= LOWEST
    for theirs, ours in (((1, 1), (2, 3)), ((4, 9), (1, 3))):
        with pytest.raises(ValueError, match=f"speaks PHO{theirs[0]} to PHO{theirs[1]}, this one PHO{ours[0]}"):
            common_version(encode_versions(*theirs), *ours)
    with pytest.raises(ValueError, match="no versions are from 3 to 2"):
        common_version(encode_versions(3, 2))
    with pytest.raises(ValueError, match="versions have 4 bytes, not 3"):
        common_version(b"abc")
