"""The floors of the package: a module imports from below, and what it's made of can be seen at a glance.

The facade asks the contract, never an engine; an engine knows values and the wire, never the facade; and only
``engine/native/`` imports the extension.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "pysock"

#: From below. A name is a module, or a folder with all that is in it.
FLOORS = [
    ("_version", "errors", "base"),
    ("states", "causes", "limits", "files.own_directory", "address", "access.peers", "access.unmapped"),
    ("wire",),
    ("engine.contract", "engine.inbox", "engine.guards", "engine.ready"),
    ("engine.native", "engine.pure", "files", "descriptors"),
    ("engine.choice", "engine"),
    ("data", "clients", "access", "master"),
    ("parameters", "services", "registration", "failures", "hooks", "signals"),
    ("calls", "listening"),
    ("client", "running"),
    ("connecting", "server"),
    ("load",),
    ("demo", "cli", "examples"),
    ("__init__", "__main__", "_freezing"),
]
#: Imported from above, and why that is right.
CLIMBS: dict[tuple[str, str], str] = {}
#: The largest file, and the longest function without its docstring.
LINES, FUNCTION_LINES, MODULES = 400, 45, 24


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


MODULES_BY_NAME = modules()


def floor_of(module: str) -> int:
    found = [
        (len(name), floor)
        for floor, names in enumerate(FLOORS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert found, f"{module} has no floor"
    return max(found)[1]


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All of a module but what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from at_run_time(other)
            continue
        yield child
        yield from at_run_time(child)


def imported(path: Path) -> set[str]:
    """The modules of the package that it imports, also those that a function does."""
    found = set()
    for node in at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pysock":
            inside = node.module.removeprefix("pysock").removeprefix(".")
            for alias in node.names:
                name = f"{inside}.{alias.name}".lstrip(".")
                found.add(name if name in MODULES_BY_NAME or name == "_engine" else inside or "__init__")
    return {f"{name}.__init__" if f"{name}.__init__" in MODULES_BY_NAME else name for name in found}


@pytest.mark.parametrize("module", MODULES_BY_NAME)
def test_a_module_imports_from_below(module):
    for other in imported(MODULES_BY_NAME[module]):
        if other == "_engine":
            assert module.startswith("engine.native."), f"{module} imports the extension"
        elif (module, other) not in CLIMBS:
            assert floor_of(other.removesuffix(".__init__")) <= floor_of(module.removesuffix(".__init__")), other


def test_no_climb_is_allowed_that_there_isnt():
    assert all(other in imported(MODULES_BY_NAME[module]) for module, other in CLIMBS)


def test_a_folder_is_seen_at_a_glance():
    folders = {path.parent for path in MODULES_BY_NAME.values()}
    assert {folder.name: count for folder in folders if (count := len(list(folder.glob("*.py")))) > MODULES} == {}


def test_a_file_is_short():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES_BY_NAME.items()}
    assert {name: count for name, count in lines.items() if count > LINES} == {}


@pytest.mark.parametrize("module", MODULES_BY_NAME)
def test_a_function_is_short(module):
    for node in ast.walk(ast.parse(MODULES_BY_NAME[module].read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            end, begin = node.end_lineno, node.body[0].lineno
            if ast.get_docstring(node) is not None:
                begin = (node.body[0].end_lineno or 0) + 1
            assert (end or 0) - begin < FUNCTION_LINES, node.name
