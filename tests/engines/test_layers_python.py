"""The floors of the package: a module imports from below, and what it's made of can be seen at a glance.

The facade asks the contract, never an engine; an engine knows values and the wire, never the facade; and only
``engine/native/`` imports the extension. An import inside a function counts as one at the top; one that only type
checkers see doesn't.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from pages import blocks, topic
from support import ROOT

PACKAGE = ROOT / "pysock"

#: From below. A name is a module, or a folder with all in it that isn't named itself.
FLOORS = [
    ("base", "errors", "_version"),
    (
        "states",
        "causes",
        "limits",
        "address",
        "tls",
        "files.own_directory",
        "access.networks",
        "access.peers",
        "access.unmapped",
    ),
    ("wire", "handover.fields", "handover.rows", "handover.messages"),
    ("engine",),
    ("engine.native", "engine.pure"),
    ("files", "descriptors"),
    ("engine.choice", "data", "clients", "directory", "access", "master", "aside"),
    (
        "parameters",
        "services",
        "registration",
        "replies",
        "asking",
        "answering",
        "pools",
        "failures",
        "hooks",
        "signals",
        "metrics",
        "accesslog",
    ),
    ("calls", "health.lame", "listening", "attached", "tasks", "balance", "healing", "handover"),
    ("client", "running"),
    ("healing.client", "healing.connect", "healing.pool", "connecting", "aio", "server"),
    ("__init__",),
    ("load", "health", "cluster", "admin", "otel", "fdstore", "supervision"),
    ("cli", "demo", "examples"),
    ("__main__", "_freezing"),
]
#: Who may import an engine, beside itself.
OF_AN_ENGINE = {
    "engine.choice": "it chooses one",
    "load": "the load generator is written in C, and no engine of the contract",
}
#: Who imports by a text, which this test can't follow.
BY_TEXT = {
    "__init__": "the public names, each from its home, when it is first asked for",
    "engine.choice": "what the interpreter has under one name or another",
    "balance.finding": "a cluster, which stands above the clients, where one is named",
    "cli.target": "the program's own module",
    "pools.worker": "likewise, in another process",
}
#: The largest file, the longest function without head and docstring, the most modules of a folder.
LINES, FUNCTION_LINES, MODULES = 400, 45, 24


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def is_in(module: str, folder: str) -> bool:
    return f"{module}.".startswith(f"{folder}.")


def floor_of(module: str) -> int:
    found = [(len(name), floor) for floor, names in enumerate(FLOORS) for name in names if is_in(module, name)]
    assert found, f"{module} has no floor"
    return max(found)[1]


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All of a module but what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield from (other, *at_run_time(other))
        else:
            yield from (child, *at_run_time(child))


def imported(source: str) -> set[str]:
    """The modules of the package that a source imports, wherever it does; the extension is ``_engine``."""
    names: list[str] = []
    for node in at_run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write the whole name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    inside = {name.partition(".")[2] for name in names if is_in(name, "pysock")}
    return {_module(name) for name in inside}


def _module(name: str) -> str:
    """A module's own name, from that of the module or of something in it."""
    while name and name not in SOURCES and name != "_engine":
        name = name.rpartition(".")[0]
    return name or "__init__"


IMPORTS = {module: imported(source) - {module} for module, source in SOURCES.items()}


def test_every_import_at_run_time_is_seen():
    source = """
import os, pysock.engine.pure.turn
from pysock import _engine, errors as e, Server
from pysock.states import ServerState
if TYPE_CHECKING:
    import pysock.client
else:
    import pysock.limits
if not TYPE_CHECKING:
    def late():
        from pysock.wire.format import Kind
"""
    seen = {"engine.pure.turn", "_engine", "errors", "__init__", "states", "limits", "wire.format"}
    assert imported(source) == seen


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_from_below(module):
    floor = floor_of(module)
    above = {other for other in IMPORTS[module] - {"_engine"} if floor_of(other) > floor}
    assert above == set()


def test_no_modules_import_each_other():
    assert tuple(TopologicalSorter(IMPORTS).static_order())  # it raises CycleError


def test_only_the_native_engine_imports_the_extension():
    importers = {module for module, others in IMPORTS.items() if "_engine" in others}
    assert importers
    assert all(is_in(module, "engine.native") for module in importers)


@pytest.mark.parametrize("engine", ["engine.native", "engine.pure"])
def test_nobody_asks_an_engine_past_the_contract(engine):
    importers = {module for module, others in IMPORTS.items() if any(is_in(other, engine) for other in others)}
    outside = {module for module in importers if not is_in(module, engine)}
    assert "engine.choice" in outside
    assert {module for module in outside if not any(is_in(module, name) for name in OF_AN_ENGINE)} == set()


def test_modules_are_imported_by_their_names():
    assert {module for module, source in SOURCES.items() if "import_module(" in source} == set(BY_TEXT)
    assert [module for module, source in SOURCES.items() if "__import__(" in source] == []


def test_every_floor_has_its_modules():
    names = [name for floor in FLOORS for name in floor]
    assert [name for name in names if not any(is_in(module, name) for module in SOURCES)] == []
    assert len(names) == len(set(names))


def test_the_page_shows_the_floors():
    """From above, without what is named for a part of it alone."""
    (picture,) = [text for _, _, text in blocks(topic("inside")) if text.startswith("pysock/")]
    shown = [set(line.partition("   ")[0].split()) for line in picture.splitlines()[2:]]
    parts = {
        "files.own_directory",
        "access.networks",
        "access.peers",
        "access.unmapped",
        "health.lame",
        "healing.client",
        "healing.connect",
        "healing.pool",
        "handover.fields",
        "handover.rows",
        "handover.messages",
    }
    floors = [{name for name in floor if not name.startswith("_")} - parts for floor in reversed(FLOORS)]
    assert shown == [floor for floor in floors if floor]


def test_a_folder_is_seen_at_a_glance():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert {folder.name: count for folder in folders if (count := len(list(folder.glob("*.py")))) > MODULES} == {}


def test_what_belongs_together_has_a_folder_instead_of_a_prefix():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        stems = [path.stem.strip("_") for path in folder.glob("*.py")]
        prefixes = [stem.partition("_")[0] for stem in stems if "_" in stem]
        alike = {prefix for prefix in prefixes if prefix in stems or prefixes.count(prefix) > 1}
        assert alike == set(), folder


def test_a_file_is_short():
    assert {name: count for name, source in SOURCES.items() if (count := source.count("\n")) > LINES} == {}


@pytest.mark.parametrize("module", SOURCES)
def test_a_function_is_short(module):
    for node in ast.walk(ast.parse(SOURCES[module])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= FUNCTION_LINES, node.name
