"""The floors of csrc: a file uses what stands below it, and nothing else.

Where two files call each other, neither can be understood, tested or replaced without the other.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks, topic
from support import ROOT

CSRC = ROOT / "csrc"

#: A folder, and the folders whose headers its files may include.
FOLDERS = {
    "core": {"base", "core"},
    "base": {"base", "core"},
    "table": {"base", "core", "table"},
    "transport": {"base", "core", "table", "transport"},
    "conn": {"base", "core", "table", "transport", "conn"},
    "moving": {"base", "core", "table", "transport", "conn", "moving"},
    "loop": {"base", "core", "table", "transport", "conn", "moving", "loop"},
    "client": {"base", "core", "client"},
    "load": {"base", "load"},
    "python": {"base", "core", "table", "transport", "conn", "moving", "loop", "client", "python"},
}
#: From below; those of the other folders stand in unit.c, in this order as well.
LOAD = [f"load/{name}.c" for name in ("histogram", "outcome", "frames", "conn", "cir", "order", "modes", "run")]


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include "(.*)"', path.read_text(), re.MULTILINE)


def code(path: Path) -> str:
    return re.sub(r"/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", "", path.read_text(), flags=re.DOTALL)


def defined(source: str) -> set[str]:
    """The functions and the tables that other files can name."""
    functions = r"^(?!static\b|typedef\b|extern\b)\w[^\n;=(]*?\b(\w+)\((?:[^;{)]|\n)*\)\n\{"
    tables = r"^(?:const )?[a-z]\w* (ps_\w+)(?:\[[^\n;=]*\])* = \{"
    return {*re.findall(functions, source, re.MULTILINE), *re.findall(tables, source, re.MULTILINE)}


ORDERS = {"unit": includes(CSRC / "unit.c"), "load": LOAD}


def test_every_file_has_a_floor():
    files = {str(path.relative_to(CSRC)) for path in CSRC.glob("*/*.c")}
    assert sorted(files) == sorted(name for order in ORDERS.values() for name in order)
    assert {path.parent.name for path in CSRC.glob("*/*.[ch]")} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_includes_what_is_below_it(folder):
    for path in (CSRC / folder).glob("*.[ch]"):
        folders = {name.split("/")[0] for name in includes(path) if "/" in name}
        assert folders <= FOLDERS[folder], path.name


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_uses_what_is_below_it(order):
    sources = {name: code(CSRC / name) for name in ORDERS[order]}
    owners = {name: file for file, source in sources.items() for name in defined(source)}
    assert len(owners) > 30
    floors = {file: floor for floor, file in enumerate(sources)}
    for file, source in sources.items():
        used = {owners[word] for word in set(re.findall(r"\w+", source)) & owners.keys()}
        assert max(floors[other] for other in used) <= floors[file], f"{file} uses {used}"


def test_a_folder_is_seen_at_a_glance():
    assert all(len(list((CSRC / folder).glob("*.c"))) <= 21 for folder in FOLDERS)


def test_the_page_shows_the_floors():
    """Each folder, with its files in their order."""
    (picture,) = [text for _, _, text in blocks(topic("inside")) if text.startswith("csrc/")]
    shown = dict(re.findall(r"^([a-z]+) +([a-z](?:\S| (?! )|\n {11}(?! ))*)", picture.partition("\n")[2], re.MULTILINE))
    order = [*ORDERS["unit"], *LOAD]
    folders = [name for name in FOLDERS if name != "core"]
    assert {name: shown[name].split() for name in folders} == {
        folder: [Path(name).stem for name in order if name.startswith(f"{folder}/")] for folder in folders
    }
    assert shown.keys() == FOLDERS.keys()
