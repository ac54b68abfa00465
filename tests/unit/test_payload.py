from __future__ import annotations

import array

import pytest

from pysock import FrameTooLarge
from pysock.base.payload import checked


@pytest.mark.parametrize("payload", [b"abc", bytearray(b"abc")])
def test_bytes_are_taken_as_they_are(payload):
    assert checked(payload, 3, "the limit") is payload


def test_any_contiguous_object_becomes_a_flat_view():
    numbers = array.array("I", range(3))
    assert bytes(checked(numbers, 100, "the limit")) == numbers.tobytes()
    assert len(checked(memoryview(numbers), 12, "the limit")) == 12
    table = memoryview(bytes(12)).cast("B", (3, 4))
    assert len(checked(table, 12, "the limit")) == 12


@pytest.mark.parametrize("payload", [b"abcd", bytearray(4), memoryview(b"abcd"), array.array("I", [1])])
def test_the_limit_counts_bytes(payload):
    with pytest.raises(FrameTooLarge, match="a payload of 4 bytes is over the limit of 3 bytes: send it in parts"):
        checked(payload, 3, "the limit")


@pytest.mark.parametrize("wrong", [None, 5, ["x"], object()], ids=lambda value: type(value).__name__)
def test_what_is_not_bytes_like(wrong):
    with pytest.raises(TypeError, match=f"a payload must be bytes-like, not {type(wrong).__name__}"):
        checked(wrong, 3, "the limit")


def test_a_text_is_told_how_to_become_bytes():
    with pytest.raises(TypeError, match="not str: encode it first"):
        checked("abc", 3, "the limit")


def test_a_view_with_gaps():
    with pytest.raises(TypeError, match=r"contiguous in memory: make a copy with bytes\(payload\) first"):
        checked(memoryview(b"abcd")[::2], 3, "the limit")
