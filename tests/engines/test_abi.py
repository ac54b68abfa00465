"""The declarations that C and Python share: the same numbers, the same transitions, the same structs."""

from __future__ import annotations

import errno
import hashlib
import itertools
import re
from types import SimpleNamespace

import pytest
from conftest import native_is_missing
from support import ROOT

from pysock.base.lean import field_names
from pysock.causes import COUNTERS, Cause
from pysock.engine import meter
from pysock.engine.contract import SLOT_BITS, Callbacks
from pysock.engine.rows import EngineStats
from pysock.limits import Slow
from pysock.states import (
    CONNECTION_TRANSITIONS,
    DISCONNECT_REASONS,
    SERVER_TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    ServerEvent,
    ServerState,
)
from pysock.wire import format as p
from pysock.wire.endings import ENDINGS, End, How, Said
from pysock.wire.features import FEATURES, Feature
from pysock.wire.format import RULES, UNKNOWN, ErrorCode, Most
from pysock.wire.framing import FRAMINGS, FramingFacts

if native_is_missing():
    pytest.skip("the native engine isn't built", allow_module_level=True)

from pysock._engine import ffi, lib
from pysock.engine.native.abi import ABI, check_abi

HEADER = "".join(path.read_text() for path in sorted((ROOT / "csrc").glob("pysock_abi*.h")))


def test_the_number_of_the_declarations():
    """Of the header, of the extension, and of the Python files."""
    wanted = int(hashlib.sha256(HEADER.encode()).hexdigest()[:8], 16)
    assert f"{ABI:#x}" == f"{wanted:#x}", "write this number into pysock/engine/native/abi.py"
    assert lib.ps_abi() == ABI


@pytest.mark.parametrize("other", [SimpleNamespace(ps_abi=lambda: 5), SimpleNamespace()], ids=["other", "older"])
def test_an_extension_of_another_version_is_refused(other):
    with pytest.raises(ImportError, match=r"was built from another version .* PYSOCK_BUILD=require pip install"):
        check_abi(other)


def test_the_table_of_the_server():
    """All cells, and what lies around the table."""
    for state, event in itertools.product(range(-1, len(ServerState) + 3), range(-1, len(ServerEvent) + 2)):
        assert lib.ps_server_next(state, event) == SERVER_TRANSITIONS.get((state, event), -errno.EINVAL), (state, event)


def test_the_table_of_a_connection():
    """All cells, and what lies around the table."""
    for state, event in itertools.product(range(-1, len(ConnectionState) + 3), range(-1, len(ConnectionEvent) + 2)):
        wanted = CONNECTION_TRANSITIONS.get((state, event), -errno.EINVAL)
        assert lib.ps_conn_next(state, event) == wanted, (state, event)


#: Where a name of C isn't the prefix and the name of Python.
OTHER_NAMES = {
    "REFUSED_BAD_MAGIC_OR_VERSION": "REFUSED_VERSION",
    "REFUSED_WRONG_PROOF": "REFUSED_PROOF",
    "REFUSED_SERVER_FULL": "REFUSED_FULL",
    "REFUSED_CIR_TOO_LATE": "REFUSED_TOO_LATE",
}


@pytest.mark.parametrize(
    ("prefix", "numbers", "enum"),
    [
        ("", p.Framing, "ps_framing"),
        ("", p.Kind, "ps_kind"),
        ("", p.ErrorCode, "ps_error_code"),
        ("REFUSED_", p.Refusal, "ps_refusal"),
        ("TAG_", p.Tag, "ps_tag"),
        ("FEATURE_", Feature, "ps_feature"),
        ("SERVER_", ServerState, "ps_server_state"),
        ("SERVER_", ServerEvent, "ps_server_event"),
        ("CONN_", ConnectionState, "ps_conn_state"),
        ("EV_", ConnectionEvent, "ps_conn_event"),
        ("CAUSE_", Cause, "ps_cause"),
        ("HOW_", How, "ps_how"),
        ("MOST_", Most, "ps_most"),
        ("SLOW_", Slow, "ps_slow"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_numbers(prefix, numbers, enum):
    """Every member of each enumeration, and no other but the count of them."""
    there = {name.removeprefix("PS_"): number for number, name in ffi.typeof(f"enum {enum}").elements.items()}
    counts = {name: number for name, number in there.items() if name.endswith(("_STATES", "_EVENTS", "CAUSES", "ENDS"))}
    wanted = {OTHER_NAMES.get(prefix + member.name, prefix + member.name): int(member) for member in numbers}
    assert {name: number for name, number in there.items() if name not in counts} == wanted
    assert all(number == 1 + max(wanted.values()) for number in counts.values())


def test_the_reasons():
    """In the order of the tuple that the engines' numbers point into."""
    there = ffi.typeof("enum ps_reason").elements
    assert [there[number] for number in sorted(there)] == [f"PS_{reason.name}" for reason in DISCONNECT_REASONS]
    assert sorted(there) == list(range(len(DISCONNECT_REASONS)))


def test_what_is_counted_lies_where_both_say():
    """The names of the counters, in their places; and a service's row."""
    places = ffi.typeof("enum ps_metered").relements
    ours = {"STAMP_NS": meter.STAMP, "IN_TURN": meter.IN_TURN, "CALLED": meter.CALLED, "BUSY_NS": meter.BUSY}
    ours |= {"OUTSIDE_NS": meter.OUTSIDE, "OUTPUT_BYTES": meter.OUTPUT, "CAME": meter.CAME_AT, "LEFT": meter.LEFT_AT}
    ours |= {"STATS": meter.STATS_AT, "COUNTERS": len(meter.COUNTERS)}
    assert {name.removeprefix("PS_M_"): place for name, place in places.items()} == ours
    assert tuple(reason.name.lower() for reason in DISCONNECT_REASONS) == meter.LEFT
    came = ffi.typeof("enum ps_came").elements
    assert [came[place] for place in sorted(came)] == [*(f"PS_CAME_{how.upper()}" for how in meter.CAME), "PS_CAMES"]
    assert (lib.PS_METER_OUTCOMES, lib.PS_METER_BUCKETS, lib.PS_METER_ROW) == (meter.OUTCOMES, meter.BUCKETS, meter.ROW)
    assert (lib.PS_METER_OTHER, lib.PS_METER_GONE) == (meter.OTHER, meter.GONE)
    assert max(ErrorCode) < meter.OTHER


def test_the_sizes():
    """The figures of the wire."""
    assert lib.PS_HEADER_SIZE == p.HEADER.size == 12
    assert lib.PS_NAME_MAX == p.LARGEST_NAME == 255
    assert lib.PS_PING_MAX == p.LARGEST_PING == 64
    assert lib.PS_NONCE_SIZE == p.NONCE_SIZE == 32
    assert lib.PS_MAC_SIZE == p.MAC_SIZE == 32
    assert (lib.PS_NO_REPLY, lib.PS_DEADLINE, lib.PS_TAKES_STREAM) == (1, 2, 4)
    assert (p.FLAG_NO_REPLY, p.FLAG_DEADLINE, p.FLAG_TAKES_STREAM) == (1, 2, 4)
    assert lib.PS_MORE == p.FLAG_MORE == 1
    assert lib.PS_CREDIT_SIZE == p.CREDIT.size == 4
    assert lib.PS_ASKED_MAX == p.LARGEST_ASKED == 256
    assert lib.PS_GAP == p.FLAG_GAP == 1
    assert lib.PS_GAP_SIZE == p.GAP.size == 4
    assert lib.PS_NOT_STARTED == p.FLAG_NOT_STARTED == 1
    assert lib.PS_FEATURES == FEATURES == 63
    assert lib.PS_SLOT_BITS == SLOT_BITS == 24


def test_the_callbacks():
    """C finds each by its name, and knows of no other."""
    sources = "".join((ROOT / "csrc" / file).read_text() for file in ("base/host.h", "python/python.h"))
    listed = re.findall(r'each\((\w+), "(\w+)"(?:, [012])?\)', sources)
    assert sorted(name for _, name in listed) == sorted(field_names(Callbacks))
    assert all(number == name.upper() for number, name in listed)


def test_the_framings():
    """Their facts, row by row."""
    source = (ROOT / "csrc/base/framing.c").read_text()
    facts = [name for name in FramingFacts._fields if name.startswith(("has_", "tells_", "ends_"))]
    for row in FRAMINGS:
        (text,) = re.findall(rf"\[PS_{row.name.name}\] = \{{(.*?)\}}", source, re.DOTALL)
        told = dict(re.findall(r"\.(\w+) = (\w+)", text))
        assert told.pop("name") == f"PS_{row.name.name}"
        size = told.pop("head_size", "0")
        assert (lib.PS_HEADER_SIZE if size == "PS_HEADER_SIZE" else int(size)) == row.head_size
        assert {name for name in facts if getattr(row, name)} == set(told)
    assert len(FRAMINGS) == len(re.findall(r"\[PS_\w+\] =", source))


STRUCTS = re.findall(r"typedef struct (\w+) \{", HEADER)


def test_all_structs_are_looked_at():
    assert {"ps_limits", "ps_options", "ps_info", "ps_stats"} <= set(STRUCTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct(name):
    """Each field keeps what is written to it, and no write reaches another one."""
    struct = ffi.new(f"{name} *")
    fields = _fields(ffi.typeof(name))
    assert fields
    for step, (path, size) in enumerate(fields, 1):
        _bytes_at(struct, path, size)[:] = bytes([step % 255 + 1]) * size
    for step, (path, size) in enumerate(fields, 1):
        assert bytes(_bytes_at(struct, path, size)) == bytes([step % 255 + 1]) * size, path
    assert sum(size for _, size in fields) <= ffi.sizeof(name)


def _fields(kind, before=()):
    """All fields, down to those that aren't structs: their way from the top, and their size in bytes."""
    found = []
    for name, field in kind.fields:
        if field.type.kind == "struct":
            found += _fields(field.type, (*before, name))
        else:
            found.append(((*before, name), ffi.sizeof(field.type)))
    return found


def _bytes_at(struct, path, size):
    return ffi.buffer(ffi.cast("char *", struct) + ffi.offsetof(ffi.typeof(struct).item, *path), size)


def test_the_counters():
    """In the order in which Python names them, all of 8 bytes."""
    fields = ffi.typeof("ps_stats").fields
    assert tuple(name for name, _ in fields) == EngineStats._fields
    assert [field.offset for _, field in fields] == [8 * number for number in range(len(fields))]
    assert fields[-1][0] == "causes"
    assert ffi.sizeof(fields[-1][1].type) == 8 * len(Cause) == 8 * lib.PS_CAUSES
    assert len(COUNTERS) == len(Cause)


def text(pointer):
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode()


@pytest.mark.parametrize("kind", range(256))
def test_the_rules_of_frame_kinds(kind):
    row, rule = lib.ps_rule_of(kind), RULES.get(kind, UNKNOWN)
    assert [text(wrong) for wrong in row.wrong] == list(rule.wrong)
    if all(rule.wrong):
        return  # the rest doesn't matter of one that never may
    assert (row.flags, row.timed_flags, row.stream_flags) == (rule.flags, rule.timed_flags, rule.stream_flags)
    assert (row.needs, bool(row.version)) == (rule.needs, rule.version)
    assert (row.most, row.least) == (rule.most, rule.least)
    assert text(row.too_long) == rule.too_long


def said(row):
    return Said(p.Kind(row.kind), row.code, text(row.text)) if row.kind else None


@pytest.mark.parametrize("end", End)
def test_the_endings(end):
    row, ending = lib.ps_ending_of(end), ENDINGS[end]
    assert text(row.name) == end.name
    assert (said(row.before), said(row.after)) == (ending.before, ending.after)
    assert (row.cause, row.event) == tuple(-1 if one is None else one for one in (ending.cause, ending.event))
    assert DISCONNECT_REASONS[row.reason] is ending.reason
    assert (How(row.how), bool(row.is_error)) == (ending.how, ending.is_error)


def test_there_are_no_more_rows():
    assert [lib.ps_ending_of(-1), lib.ps_ending_of(len(End)), lib.ps_rule_of(-1), lib.ps_rule_of(256)] == [ffi.NULL] * 4
