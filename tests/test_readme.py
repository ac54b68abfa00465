"""The README says what is: its programs run and print what it says, its tables are those of the code."""

from __future__ import annotations

import builtins
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import click
import pytest
from support import PATIENCE, ROOT, environment, left_in, plug, wait_for

import pysock
from pysock import Address, Limits, errors, states
from pysock.cli import main as cli
from pysock.wire import format as protocol

README = (ROOT / "README.md").read_text()

LINES_MAX = 700

# Parts of the page


def blocks() -> list[tuple[str, str, str]]:
    """Marker (may be empty), language and text of each fenced block."""
    found = re.findall(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) * 2 == len(re.findall("^```", README, re.MULTILINE))
    return found


def programs() -> list[tuple[str, str, str]]:
    """Marker and text of each Python program, and the output that is shown below it."""
    every = [*blocks(), ("", "", "")]
    return [
        (marker, text, following[2] if following[1] == "text" else "")
        for (marker, language, text), following in pairwise(every)
        if language == "python"
    ]


def tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of each table."""
    for found in re.findall(r"(?:^\|.*\|\n)+", README, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in found.splitlines())
        assert all(len(row) == len(head) for row in rows), found
        yield head, rows


def table(*head: str) -> list[list[str]]:
    """The rows of the one table whose head begins so."""
    (rows,) = [rows for found, rows in tables() if found[: len(head)] == list(head)]
    return rows


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall("`([^`\n]+)`", cell)


# Commands and programs


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("demo", ["python3 -m venv .venv", "-e '.[cli]'", ".venv/bin/pysock demo"]),
        ("test", ["python3 -m venv .venv", "-e '.[test]'", ".venv/bin/python -m pytest"]),
    ],
)
def test_the_commands_can_be_found(name, parts):
    (text,) = [text for marker, _, text in blocks() if marker == f"command: {name}"]
    (line,) = text.splitlines()
    assert [part for part in parts if part not in line] == []
    assert README.index(line) < README.index("## Install")


def in_directory(directory: Path, backend: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, name],
        cwd=directory,
        env=environment(PYSOCK_BACKEND=backend),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    try:
        return *process.communicate(timeout=3 * PATIENCE), process.returncode
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("text", "printed"), [(text, printed) for marker, text, printed in programs() if not marker], ids=range(4)
)
def test_each_program_prints_what_is_shown(text, printed, backend, socket_dir):
    (socket_dir / "program.py").write_text(text)
    assert printed
    out, err, code = outcome(in_directory(socket_dir, backend, "program.py"))
    assert (out, code) == (printed, 0)
    # Without configured logging only what a program provokes is told.
    assert not err or err.startswith(("service 'add' failed for client", "refused: no proof"))
    assert left_in(socket_dir) == ["program.py"]  # no socket file is left behind


def can_connect(path: Path) -> bool:
    try:
        plug(f"unix:{path}").close()
    except OSError:
        return False
    return True


def test_the_smallest_server_and_client(backend, socket_dir):
    files = {marker.removeprefix("file: "): (text, printed) for marker, text, printed in programs() if marker}
    assert list(files) == ["server.py", "client.py"]
    for name, (text, _) in files.items():
        (socket_dir / name).write_text(text)
    server = in_directory(socket_dir, backend, "server.py")
    try:
        wait_for(lambda: can_connect(socket_dir / "upper.sock"), "the server")
        assert outcome(in_directory(socket_dir, backend, "client.py")) == (files["client.py"][1], "", 0)
        server.send_signal(signal.SIGTERM)
    finally:
        ended = outcome(server)
    assert ended == ("", "", 0)
    assert not (socket_dir / "upper.sock").exists()


# Tables


@pytest.mark.parametrize(
    ("first", "state_type", "event_type", "transitions"),
    [
        ("NEW", states.ServerState, states.ServerEvent, states.SERVER_TRANSITIONS),
        ("ACCEPTED", states.ConnectionState, states.ConnectionEvent, states.CONNECTION_TRANSITIONS),
    ],
    ids=["server", "connection"],
)
def test_state_tables(first, state_type, event_type, transitions):
    head = next(head for head, _ in tables() if head[:2] == ["event", first])
    rows = table("event", first)
    assert head[1:] == [state.name for state in state_type if state.name != "CLOSED"]
    assert [row[0].partition(":")[0] for row in rows] == [event.name for event in event_type]
    shown = {
        (state_type[state], event): state_type[cell]
        for event, row in zip(event_type, rows, strict=True)
        for state, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }
    assert shown == transitions


def test_drawings_of_the_states():
    (drawing,) = (text for _, _, text in blocks() if "NEW --" in text)
    events, names = (re.findall("[A-Z]+", line) for line in drawing.splitlines())
    assert names == [state.name for state in states.ServerState]
    for (before, after), event in zip(pairwise(names), events, strict=True):
        got = states.next_server_state(states.ServerState[before], states.ServerEvent[event])
        assert got is states.ServerState[after]
    assert "`ACCEPTED -> (CHALLENGED ->) ESTABLISHED -> DRAINING -> CLOSED`" in README


def test_reasons():
    text = README[README.index("The reasons are") :]
    assert code(text[: text.index(". ")].replace("\n", " ")) == [str(reason) for reason in states.DisconnectReason]


def test_wire_header():
    rows = [tuple(row) for row in table("offset", "type", "field")]
    formats = {"u32": "I", "u16": "H", "u8": "B"}
    assert "!" + "".join(formats[kind] for _, kind, _ in rows) == protocol.HEADER.format
    offset = 0
    for shown, kind, _ in rows:
        assert int(shown) == offset
        offset += int(kind[1:]) // 8
    assert f"a header of {offset} bytes" in README
    assert rows == re.findall(r"^    (\d+) +(u\d+) +(.*)$", protocol.__doc__ or "", re.MULTILINE)


def test_wire_kinds():
    shown = [(int(number, 16), name, sender) for number, name, sender, _ in table("kind", "name", "sent by")]
    assert shown == [(kind, kind.name, "server" if kind & 0x80 else "client") for kind in protocol.Kind]
    assert f"at most {protocol.LARGEST_PING} bytes" in table("kind", "name")[2][3]
    assert f"`{protocol.MAGIC.decode()}`" in table("kind", "name")[0][3]


@pytest.mark.parametrize(
    ("what", "enum"),
    [
        ("tags of fields", protocol.Tag),
        ("codes of ERROR", protocol.ErrorCode),
        ("codes of CIR_REFUSED", protocol.Refusal),
    ],
)
def test_wire_numbers(what, enum):
    values = dict(table("what", "values"))[what]
    shown = re.sub(r" \([^)]*\)", "", values).split(", ")
    assert shown == [f"{member.value} {member.name.lower().replace('_', ' ')}" for member in enum]


def test_framings():
    names = [framing.name.lower() for framing in protocol.Framing]
    assert [code(row[0])[0] for row in table("framing", "a message")] == names


def test_limits():
    shown = [(code(name)[0], default) for name, default, _ in table("limit", "default")]
    assert [name for name, _ in shown] == [field.name for field in fields(Limits)]
    assert shown[0] == ("max_clients", "10000, or 64 less than `RLIMIT_NOFILE`")
    assert Limits().max_clients <= 10_000
    assert shown[1:] == [(field.name, f"{field.default:g}" if isinstance(field.default, float) else str(field.default))
                         for field in fields(Limits)[1:]]  # fmt: skip


def test_errors():
    shown = []
    for name, parent, _ in table("exception", "is also a"):
        module, _, attribute = code(name)[0].rpartition(".")
        exception = getattr(importlib.import_module(module), attribute)
        assert issubclass(exception, getattr(builtins, code(parent)[0])), name
        shown.append(exception)
    assert len(shown) == len(set(shown))
    defined = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    assert set(shown) == defined | {states.IllegalTransition}


def test_addresses():
    rows = [[Address.parse(text) for text in code(texts)] for texts, _ in table("address", "what it is")]
    transports = [{address.transport for address in row} for row in rows]
    assert transports == [{"unix"}, {"unix"}, {"unix"}, {"abstract"}, {"tcp"}, {"fd"}]
    assert rows[0][0] == rows[0][2]
    assert [address.path for address in rows[2]] == ["", ""]
    assert rows[3][0] == rows[3][1]
    assert rows[4][0] == rows[4][1]
    assert Address.parse(":9000").port == 9000


def help_of(name: str, command: click.Command, parent: click.Context | None) -> tuple[str, dict[str, str]]:
    """Usage, and the options with their variables, as click tells them."""
    context = click.Context(command, parent, name, auto_envvar_prefix=None if parent else "PYSOCK")
    pieces = [name, *command.collect_usage_pieces(context)]
    usage = " ".join(piece for piece in pieces if not piece.startswith(("[OPTIONS]", "COMMAND", "[COMMAND]", "[ARGS]")))
    options = {}
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        found = record and re.search(r"env var: (\w+)", record[1])
        if found:
            options[parameter.opts[0]] = found[1]
    return usage, options


def test_command_line():
    group = click.Context(cli.cli, info_name="pysock", auto_envvar_prefix="PYSOCK")
    wanted = dict([help_of("pysock", cli.cli, None)])
    for name, command in cli.cli.commands.items():
        usage, options = help_of(name, command, group)
        wanted[f"pysock {usage}"] = options
    shown = {}
    for command, _, texts in table("command", "what it does"):
        usage = code(command)[0]
        prefix = "_".join(usage.upper().split()[:2])
        options = re.findall(r"`(--[a-z-]+)`(?: \(`(\w+)`\))?", texts)
        # A variable that isn't shown is named after command and option.
        shown[usage] = {name: variable or prefix + name[1:].replace("-", "_").upper() for name, variable in options}
    assert shown == wanted


def test_examples():
    directory = ROOT / "pysock" / "examples"
    modules = {path.stem for path in directory.glob("*.py") if not path.stem.startswith("_")}
    assert {code(name)[0] for name, _ in table("name", "what it shows")} == modules


def test_builds():
    choices = re.search(r"^CHOICES = \((.*)\)$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert choices
    assert [code(name)[0] for name, _ in table("`PYSOCK_BUILD`", "effect")] == re.findall(r'"(\w+)"', choices[1])


# The rest


def test_every_public_name_is_mentioned():
    assert [name for name in pysock.__all__ if not re.search(rf"\b{name}\b", README)] == ["__version__"]


def test_the_parameters_of_batch_services_are_named():
    section = README.partition("### Named services and batch services")[2].partition("\n##")[0]
    parameters = inspect.signature(pysock.Server.batch_service).parameters.values()
    assert [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and f"{one.name}=" not in section] == []


def test_files_and_anchors_that_are_named_exist():
    prose = re.sub("^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    paths = [word for word in code(prose) if re.fullmatch(r"(csrc|pysock)/[\w./]*|[A-Z]\w+\.md", word)]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    headings = {head.lower().replace(" ", "-") for head in re.findall("^#+ (.*)$", README, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]*)\)", README)
    assert [link for link in links if link.removeprefix("#") not in headings] == []


def test_variables_that_are_named_exist():
    sources = [*ROOT.glob("*.py"), *ROOT.glob("csrc/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("pysock/**/*.py")]
    known = "".join(path.read_text() for path in sources if path != Path(__file__))
    group = click.Context(cli.cli, info_name="pysock", auto_envvar_prefix="PYSOCK")
    for name, command in cli.cli.commands.items():
        known += " ".join(help_of(name, command, group)[1].values()) + " "
    named = set(re.findall(r"\bPYSOCK_[A-Z_]+\b", README))
    assert {name for name in named if not re.search(rf"\b{name}\b", known)} == set()


def test_versions_of_python():
    project = (ROOT / "pyproject.toml").read_text()
    minors = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", project)]
    assert f"CPython 3.{min(minors)} to 3.{max(minors)}" in README
    assert f"Python 3.{min(minors)} or newer" in README
    assert f'requires-python = ">=3.{min(minors)}"' in project


def test_it_stays_readable():
    assert len(README.splitlines()) <= LINES_MAX
    assert str(ROOT) + os.sep not in README
