"""Names held against patterns: as fnmatch has it, and alike in C and in Python."""

from __future__ import annotations

import random
import time
from fnmatch import fnmatchcase

import pytest
import wire
from support import wait_for

from pysock.base.patterns import matcher

CASES = [
    ("", "", True),
    ("", "a", False),
    ("*", "", True),
    ("*", "a\nb", True),
    ("?", "", False),
    ("?", "\N{EURO SIGN}", True),
    ("??", "\N{EURO SIGN}", False),
    ("sensor-*", "sensor-7", True),
    ("sensor-*", "sensor-", True),
    ("sensor-*", "a sensor-7", False),
    ("*-[0-9]", "sensor-7", True),
    ("*-[!0-9]", "sensor-7", False),
    ("*a*b*", "xxaxxbxx", True),
    ("*ab*ab", "abab", True),
    ("*ab*ab", "ab", False),
    ("Sensor", "sensor", False),
    ("[", "[", True),
    ("[a", "[a", True),
    ("[a", "a", False),
    ("[]]", "]", True),
    ("[!]]", "]", False),
    ("[!]]", "a", True),
    ("[-a]", "-", True),
    ("[a-]", "-", True),
    ("[a-c]", "b", True),
    ("[a-c]", "-", False),
    ("[\\]", "\\", True),
    ("\\*", "\\x", True),
    ("[*]", "*", True),
    ("[*]", "x", False),
    ("[\N{GREEK SMALL LETTER ALPHA}-\N{GREEK SMALL LETTER OMEGA}]", "\N{GREEK SMALL LETTER MU}", True),
    ("[^a]", "^", True),
    ("a]", "a]", True),
    ("[[a]", "[", True),
    ("[a&&b]", "&", True),
]
#: Where fnmatch fails, or takes the rest for something else.
EMPTY_RANGES = [("[z-a]", "m", False), ("[!z-a]", "m", True), ("[z-a!b]", "c", False), ("[z-a!b]", "!", True)]


@pytest.mark.parametrize(("pattern", "name", "expected"), CASES)
def test_a_pattern(pattern, name, expected):
    assert bool(matcher(pattern)(name)) == expected == fnmatchcase(name, pattern)


@pytest.mark.parametrize(("pattern", "name", "expected"), EMPTY_RANGES)
def test_nothing_is_in_a_range_that_ends_before_it_begins(pattern, name, expected):
    assert bool(matcher(pattern)(name)) == expected


def test_many_stars_take_no_longer():
    before = time.monotonic()
    assert not matcher("*a" * 30 + "*b")("a" * 255)
    assert time.monotonic() - before < 1


def test_engines_find_the_same(make_server, unix_address):
    """Those that the pattern matches, of clients with names like it."""
    chance = random.Random(20261129)
    letters = "ab-]![*?\\\N{EURO SIGN}\N{MUSICAL SYMBOL G CLEF}^&~|"
    names = {"".join(chance.choice(letters) for _ in range(chance.randrange(1, 6))) for _ in range(60)}
    server = make_server(unix_address)
    with server:
        peers = [wire.let_in(server, name=name.encode()) for name in names] + [wire.let_in(server)]
        wait_for(lambda: len(server.clients) == len(peers))
        table = server.clients
        for _ in range(2000):
            pattern = "".join(chance.choice(letters) for _ in range(chance.randrange(9)))
            found = server._running.engine.select(None, pattern, None, 0)
            there = {table[number].name for number in memoryview(found).cast("Q")} if found else set()
            assert there == set(filter(matcher(pattern), [*names, ""])), pattern
        for peer in peers:
            peer.close()
