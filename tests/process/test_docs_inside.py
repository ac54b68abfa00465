"""The page for whoever works on pysock: what it names is where it says, and an addition costs what it says."""

from __future__ import annotations

import re

import pytest
from pages import blocks, code, prose, table, topic
from support import ROOT

PAGE = topic("inside")
LINES_MAX = 285

#: Additions that may cost more source files than FILES_MAX: they cross more floors.
MORE = {
    "a callback that tells of something, in two numbers at most": 5,
    "a callback that asks, or has objects: it crosses all floors": 8,
}
FILES_MAX = 4

TABLES = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
PROSE = "\n".join(line for line in PAGE.splitlines() if not line.startswith("|"))

#: In tables `FILE` `NAME`, `NAME`; elsewhere `NAME`, `NAME` in `FILE`.
FILE = r"`(?:csrc|pysock)/[\w/.]+`"
PAIRS = re.findall(rf"({FILE})((?:,? `\w+`)+)", TABLES)
PAIRS += [(file, names) for names, file in re.findall(rf"((?:`\w+`,\s)*`\w+`)\sin\s({FILE})", PROSE)]
NAMED = [(file.strip("`"), name) for file, names in PAIRS for name in code(names)]


def defines(file: str, name: str) -> bool:
    text = (ROOT / file).read_text()
    if file.endswith(".py"):
        return re.search(rf"^ *(?:async )?(?:def|class) {name}\b|^{name}(?:: .*)? = ", text, re.MULTILINE) is not None
    return re.search(rf"^(?!return|else)[\w#].*\b{name}\b|^ +\w+ {name};|^\}} {name};", text, re.MULTILINE) is not None


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_name_is_defined_where_the_page_says(file, name):
    assert defines(file, name)


def test_names_are_found_and_missed():
    assert len(set(NAMED)) > 70
    assert not defines("csrc/loop/turn.c", "ps__cut")
    assert not defines("pysock/engine/pure/turn.py", "dismiss")  # it is called there


def test_an_addition_costs_what_the_page_says():
    for what, files, names in table(PAGE, "what", "files", "source files"):
        listed = code(names)
        assert len(set(listed)) == len(listed)
        assert len(listed) + 2 * names.endswith("both places") == int(files), what
        assert int(files) <= MORE.get(what, FILES_MAX), what


def test_everything_else_in_backticks_is_somewhere_in_the_sources():
    sources = "".join(path.read_text() for folder in ("csrc", "pysock") for path in (ROOT / folder).rglob("*.[chp]*")
                      if path.suffix in (".c", ".h", ".py"))  # fmt: skip
    words = {word for word in code(prose(PAGE)) if re.fullmatch(r"[\w.]+", word) and not (ROOT / word).exists()}
    assert {word for word in words if not all(re.search(rf"\b{part}\b", sources) for part in word.split("."))} == set()


def test_it_stays_short():
    assert len(PAGE.splitlines()) <= LINES_MAX


def test_there_are_two_pictures():
    assert [text.split("/")[0] for _, _, text in blocks(PAGE)] == ["csrc", "pysock"]
