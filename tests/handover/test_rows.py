"""Rows of clients that move: exact bytes, there and back, and what isn't one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moved_rows import rows

from pysock.handover.fields import CRITICAL, encode_fields
from pysock.handover.rows import (
    ACCEPTED,
    CHALLENGED,
    CIR,
    ESTABLISHED,
    FRAME,
    IPV4,
    IPV6,
    UNIX,
    Address,
    Counters,
    Proxied,
    Row,
    decode_rows,
    encode_row,
    encode_rows,
)

ID = 3 << 32 | 7
LEAST = Row(client_id=ID, state=ESTABLISHED, max_reply=1024)
V4 = Address(IPV4, bytes((10, 0, 0, 1)), 80)


def field(tag: int, value: bytes) -> bytes:
    return struct.pack("<HI", tag, len(value)) + value


def sized(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


#: What each row needs, before and behind the place of other fields.
ID_FIELD, STATE_FIELD, REPLY_FIELD = field(0x8001, struct.pack("<Q", ID)), field(0x8002, b"\3"), field(0x8007, bytes(4))


def with_fields(*fields: tuple[int, bytes], state: int = ESTABLISHED) -> bytes:
    """A row with these, in order."""
    some = {0x8001: struct.pack("<Q", ID), 0x8002: bytes((state,)), 0x8007: bytes(4)} | dict(fields)
    return sized(encode_fields(sorted(some.items(), key=lambda one: one[0] & ~CRITICAL)))


def rows_or_none(data: bytes) -> list[Row] | None:
    """``None``: the error says which row isn't one."""
    try:
        return decode_rows(data)
    except ValueError as error:
        if not str(error).startswith("row "):
            raise
        return None


def test_the_least_row_byte_by_byte():
    expected = sized(
        field(0x8001, struct.pack("<II", 7, 3)) + field(0x8002, b"\3") + field(0x8007, struct.pack("<I", 1024))
    )
    assert encode_row(LEAST) == expected
    assert decode_rows(expected) == [LEAST]


def test_a_full_row_byte_by_byte():
    row = Row(
        client_id=ID,
        state=CHALLENGED,
        max_reply=1,
        listener=2,
        features=31,
        name="näh",
        software="x 1",
        expected=b"mac",
        origin=Address(IPV6, bytes(15) + b"\1", 0x1234),
        proxied=Proxied(V4, b"PROXY x"),
        counters=Counters(1, 2, 3, 4, 5, 6),
        deadlines=((CIR, 9), (FRAME, 8)),
        input=b"in",
        skip=5,
        output=b"out",
        stream_window=6,
        gap=7,
        heard=8,
        gave_up=True,
        waited=9,
        dropped=10,
    )
    assert encode_row(row) == sized(
        field(0x8001, struct.pack("<Q", ID))
        + field(0x8002, b"\2")
        + field(0x8003, b"\2")
        + field(0x8004, b"\x1f")
        + field(5, b"n\xc3\xa4h")
        + field(6, b"x 1")
        + field(0x8007, b"\1\0\0\0")
        + field(0x8008, b"mac")
        + field(9, b"\3\x34\x12" + bytes(15) + b"\1")
        + field(10, b"\2\0\x50\0\x0a\0\0\1" + bytes(12) + b"PROXY x")
        + field(11, struct.pack("<6Q", 1, 2, 3, 4, 5, 6))
        + field(12, b"\0\x09\0\0\0\1\x08\0\0\0")
        + field(0x800D, b"in")
        + field(0x800E, b"\5\0\0\0")
        + field(0x800F, b"out")
        + field(0x8010, b"\6\0\0\0")
        + field(0x8011, b"\7\0\0\0")
        + field(18, b"\x08\0\0\0")
        + field(0x8013, b"\1")
        + field(21, b"\x09\0\0\0")
        + field(22, b"\x0a" + bytes(7))
    )
    assert decode_rows(encode_row(row)) == [row]


def test_a_proxied_client_of_a_unix_socket_and_one_whose_header_has_begun():
    path = Row(client_id=ID, state=ACCEPTED, max_reply=1, proxied=Proxied(Address(UNIX), b"h", has_path=True))
    begun = Row(client_id=ID, state=ACCEPTED, max_reply=1, input=b"PROX", awaits_header=True)
    assert field(10, b"\1\1" + bytes(18) + b"h") in encode_row(path)
    assert field(0x8014, b"\1") in encode_row(begun)
    assert decode_rows(encode_rows([path, begun])) == [path, begun]


@given(st.lists(rows(), max_size=4))
def test_rows_there_and_back(some):
    assert decode_rows(encode_rows(some)) == some


@given(rows(), st.integers(min_value=0))
def test_a_row_that_is_cut_short(row, cut):
    data = encode_row(row)
    with pytest.raises(ValueError, match=r"^row 1: "):
        decode_rows(data + data[: 1 + cut % (len(data) - 1)])


@given(rows(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_mangled_row_is_refused_or_another(row, changes):
    """Nothing but a ValueError; and what is taken for a row is one that can be written again."""
    data = bytearray(encode_row(row))
    for place, change in changes:
        data[place % len(data)] ^= change
    found = rows_or_none(bytes(data))
    if found is not None:
        assert [one.client_id for one in decode_rows(encode_rows(found))] == [one.client_id for one in found]


@given(st.binary(max_size=60))
def test_any_bytes(data):
    rows_or_none(data)


def test_what_may_be_left_out_is_skipped_and_what_may_not_is_refused():
    assert decode_rows(with_fields((0x7000, b"new"), (23, b""))) == decode_rows(with_fields())
    for tag in (0xF000, 0x8017, 0x8005, 4, 13):
        with pytest.raises(ValueError, match=r"row 0: field .*, and can't be left out"):
            decode_rows(sized(b"".join(sorted([ID_FIELD, STATE_FIELD, REPLY_FIELD, field(tag, b"")], key=_place))))


def _place(one: bytes) -> int:
    return int.from_bytes(one[:2], "little") & ~CRITICAL


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\1\0\0", "its size isn't whole"),
        (sized(b"")[:-1] + b"\1", "its 16777216 bytes aren't there, only 0 are"),
        (sized(b"\1\x80\x08"), "the head of a field"),
        (sized(field(0x8001, bytes(8))[:-1]), "field 0x8001: its 8 bytes aren't there"),
        (sized(STATE_FIELD + REPLY_FIELD), "client_id isn't there"),
        (sized(ID_FIELD + REPLY_FIELD), "state isn't there"),
        (sized(ID_FIELD + STATE_FIELD), "max_reply isn't there"),
        (sized(STATE_FIELD + ID_FIELD + REPLY_FIELD), "field 0x8001 is out of order"),
        (sized(ID_FIELD + ID_FIELD + STATE_FIELD + REPLY_FIELD), "field 0x8001 is out of order"),
        (with_fields((0x8001, b"\1" + bytes(7))), "the id 1 has no generation"),
        (with_fields((0x8001, bytes(7))), "client_id: a number has 8 bytes, not 7"),
        (with_fields(state=0), "no client moves in state 0"),
        (with_fields(state=4), "no client moves in state 4"),
        (with_fields((0x8003, b"")), "listener: a number has 1 bytes"),
        (with_fields((5, b"\xff")), "name: it isn't UTF-8"),
        (with_fields((5, b"a\0b")), "name: there is a NUL in it"),
        (with_fields((5, b"a" * 256)), "name: 256 bytes are too many"),
        (with_fields((6, b"a\0")), "software: there is a NUL in it"),
        (with_fields((6, b"a" * 766)), "software: 766 bytes are too many"),
        (with_fields((0x8008, b"mac")), "a MAC is awaited"),
        (with_fields(state=CHALLENGED), "a MAC is awaited"),
        (with_fields((0x8008, b"a" * 256), state=CHALLENGED), "expected: 256 bytes are too many"),
        (with_fields((9, b"\2\0\0" + bytes(16))), "only a proxy tells another address"),
        (with_fields((9, b"\1\0\0" + bytes(16))), "origin: the family 1"),
        (with_fields((9, b"\2\0\0" + bytes(15))), "origin: it has 19 bytes, not 18"),
        (with_fields((9, b"\2\0\0" + bytes(15) + b"\1")), "origin: an address of family 2 has 4 bytes"),
        (with_fields((10, b"\2\0\0\0" + bytes(16))), "proxied: the proxy's header isn't there"),
        (with_fields((10, b"\2\2\0\0" + bytes(16) + b"h")), "proxied: the flags 0x2"),
        (with_fields((10, b"\4\0\0\0" + bytes(16) + b"h")), "proxied: the family 4"),
        (with_fields((10, b"\1\0\1\0" + bytes(16) + b"h")), "proxied: a Unix socket has no port"),
        (with_fields((9, b"\2\0\0" + bytes(16)), (10, b"\1\1\0\0" + bytes(16) + b"h")), "a client has one address"),
        (with_fields((11, bytes(47))), "counters: it has 48 bytes, not 47"),
        (with_fields((12, bytes(4))), "deadlines: each has 5 bytes"),
        (with_fields((12, b"\4" + bytes(4))), r"deadlines of kinds \[4\]"),
        (with_fields((12, b"\1" + bytes(4) + b"\1" + bytes(4))), r"deadlines of kinds \[1, 1\]"),
        (with_fields((12, bytes(5))), "it was let in, so no CIR is waited for"),
        (with_fields((0x8013, b"\0")), "gave_up: it is 1 or it isn't there"),
        (with_fields((0x8014, b"\1")), "a proxy's header comes before all else"),
        (with_fields((10, b"\1\0\0\0" + bytes(16) + b"h"), (0x8014, b"\1"), state=ACCEPTED), "whole, or it isn't"),
        (with_fields((0x8014, b"\1\1"), state=ACCEPTED), "awaits_header: it is 1"),
        (with_fields((22, bytes(4))), "dropped: a number has 8 bytes"),
    ],
)
def test_what_isn_t_a_row(data, problem):
    with pytest.raises(ValueError, match=f"^row 0: .*{problem}"):
        decode_rows(data)


def test_software_is_only_ever_shown():
    assert decode_rows(with_fields((6, b"a\xff")))[0].software == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Row(client_id=5, state=3, max_reply=1), "no generation"),
        (Row(client_id=ID, state=3, max_reply=2**32), "max_reply: 4294967296 isn't a number of 4 bytes"),
        (Row(client_id=ID, state=3, max_reply=-1), "max_reply: -1 isn't"),
        (Row(client_id=ID, state=3, max_reply=1, name="a" * 256), "name: 256 bytes are too many"),
        (Row(client_id=ID, state=3, max_reply=1, deadlines=((FRAME, 2**32),)), "deadlines: "),
        (Row(client_id=ID, state=3, max_reply=1, proxied=Proxied(Address(IPV4, b"abc"), b"h")), "no such address"),
    ],
)
def test_what_can_t_be_written(row, problem):
    with pytest.raises(ValueError, match=problem):
        encode_row(row)
