"""The documentation says what is: its programs run and print what it says, its tables are those of the code."""

from __future__ import annotations

import builtins
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest
from pages import (
    ALL,
    FOLDER,
    PAGES,
    README,
    anchors,
    blocks,
    code,
    links,
    marked,
    programs,
    prose,
    table,
    tables,
    target,
    topic,
)
from programs import missing
from service_manager import managing
from support import PATIENCE, ROOT, environment, left_in, plug, wait_for

import pysock
from pysock import Address, Limits, errors, states
from pysock.causes import COUNTERS
from pysock.cli import main as cli
from pysock.wire import format as protocol

README_LINES_MAX, README_BYTES_MAX = 250, 12 * 1024

STATES = topic("states")
WIRE = topic("wire")

#: (name, text, what is shown) of each program that runs by itself.
PROGRAMS = {
    f"{Path(page).stem}-{number}": (text, printed)
    for page, whole in PAGES.items()
    for number, (marker, text, printed) in enumerate(programs(whole))
    if not marker
}

# Commands and programs


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("demo", ["python3 -m venv .venv", "-e '.[cli]'", ".venv/bin/pysock demo"]),
        ("test", ["python3 -m venv .venv", "-e '.[test]'", ".venv/bin/python -m pytest"]),
    ],
)
def test_the_commands_can_be_found(name, parts):
    (text,) = [text for marker, _, text in blocks(README) if marker == f"command: {name}"]
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


def needs(text: str) -> None:
    """Skip where a program imports what isn't installed, or fail where CI wants it to run."""
    for name in re.findall(r"^import (\w+)", text, re.MULTILINE):
        if find_spec(name) is None:
            missing(f"{name} isn't installed: a program of the documentation hasn't run")


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_prints_what_is_shown(name, backend, socket_dir):
    text, printed = PROGRAMS[name]
    needs(text)
    (socket_dir / "program.py").write_text(text)
    assert printed
    out, err, code = outcome(in_directory(socket_dir, backend, "program.py"))
    assert (out, code) == (printed, 0)
    # Without configured logging only what a program provokes is told.
    assert not err or err.startswith(("service 'add' failed for client", "refused: no proof", "a push was dropped"))
    assert left_in(socket_dir) == ["program.py"]  # no socket file is left behind


def test_there_are_programs():
    assert {name.partition("-")[0] for name in PROGRAMS} == {
        "access",
        "accesslog",
        "admin",
        "asking",
        "asyncio",
        "cluster",
        "cores",
        "directory",
        "guide",
        "handover",
        "healing",
        "later",
        "metrics",
        "network",
        "numpy",
        "pools",
        "pushes",
        "streams",
    }


def can_connect(path: Path) -> bool:
    try:
        plug(f"unix:{path}").close()
    except OSError:
        return False
    return True


def test_the_smallest_server_and_client(backend, socket_dir):
    files = {marker.removeprefix("file: "): (text, printed) for marker, text, printed in programs(README) if marker}
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


# systemd


def unit(name: str) -> str:
    return (ROOT / "pysock" / "examples" / "systemd" / name).read_text()


@pytest.mark.parametrize("name", ["upper.socket", "upper.service"])
def test_the_page_shows_the_units_of_the_examples(name):
    """Without their comments."""
    lines = [line for line in unit(name).splitlines() if not line.startswith("#")]
    assert marked(topic("systemd"), "file")[name].splitlines() == lines


def test_the_program_of_the_page_tells_systemd(backend, socket_dir):
    (socket_dir / "program.py").write_text(marked(topic("systemd"), "file")["notifying.py"])
    with managing(socket_dir, "path") as manager:
        os.environ["NOTIFY_SOCKET"] = manager.where
        try:
            server = in_directory(socket_dir, backend, "program.py")
        finally:
            del os.environ["NOTIFY_SOCKET"]
        try:
            manager.until_says("READY")
            assert can_connect(socket_dir / "upper.sock")
            server.send_signal(signal.SIGTERM)
            manager.until_says("STOPPING")
        finally:
            ended = outcome(server)
    assert ended == ("", "", 0)


def test_the_grace_of_the_unit_is_shorter_than_systemds():
    grace = next(option for option in cli.serve.params if option.name == "grace").default
    (timeout,) = (line for line in unit("upper.service").splitlines() if line.startswith("TimeoutStopSec="))
    assert grace < float(timeout.partition("=")[2])
    assert f"`--grace` ({grace:g} seconds)" in topic("systemd")


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
    head = next(head for head, _ in tables(STATES) if head[:2] == ["event", first])
    rows = table(STATES, "event", first)
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
    (drawing,) = (text for _, _, text in blocks(STATES) if "NEW --" in text)
    events, names = (re.findall("[A-Z]+", line) for line in drawing.splitlines())
    assert names == [state.name for state in states.ServerState]
    for (before, after), event in zip(pairwise(names), events, strict=True):
        got = states.next_server_state(states.ServerState[before], states.ServerEvent[event])
        assert got is states.ServerState[after]
    assert "`ACCEPTED -> (CHALLENGED ->) ESTABLISHED -> DRAINING -> CLOSED`" in STATES


def test_reasons():
    guide = topic("guide")
    text = guide[guide.index("The reasons are") :]
    assert code(text[: text.index(". ")].replace("\n", " ")) == [str(reason) for reason in states.DisconnectReason]


def test_wire_header():
    rows = [tuple(row) for row in table(WIRE, "offset", "type", "field")]
    formats = {"u32": "I", "u16": "H", "u8": "B"}
    assert "!" + "".join(formats[kind] for _, kind, _ in rows) == protocol.HEADER.format
    offset = 0
    for shown, kind, _ in rows:
        assert int(shown) == offset
        offset += int(kind[1:]) // 8
    assert f"a header of {offset} bytes" in WIRE
    assert rows == re.findall(r"^    (\d+) +(u\d+) +(.*)$", protocol.__doc__ or "", re.MULTILINE)


def test_wire_kinds():
    shown = [(int(number, 16), name, sender) for number, name, sender, _ in table(WIRE, "kind", "name", "sent by")]
    assert shown == [(kind, kind.name, "server" if kind & 0x80 else "client") for kind in protocol.Kind]
    assert f"at most {protocol.LARGEST_PING} bytes" in table(WIRE, "kind", "name")[2][3]
    assert f"`{protocol.MAGIC.decode()}`" in table(WIRE, "kind", "name")[0][3]


@pytest.mark.parametrize(
    ("what", "enum"),
    [
        ("tags of fields", protocol.Tag),
        ("codes of ERROR", protocol.ErrorCode),
        ("codes of CIR_REFUSED", protocol.Refusal),
    ],
)
def test_wire_numbers(what, enum):
    values = dict(table(WIRE, "what", "values"))[what]
    shown = re.sub(r" \([^)]*\)", "", values).split(", ")
    assert shown == [f"{member.value} {member.name.lower().replace('_', ' ')}" for member in enum]


def test_framings():
    names = [framing.name.lower() for framing in protocol.Framing]
    assert [code(row[0])[0] for row in table(WIRE, "framing", "a message")] == names


def test_limits():
    shown = [(code(name)[0], default) for name, default, _ in table(topic("limits"), "limit", "default")]
    assert [name for name, _ in shown] == [field.name for field in fields(Limits)]
    assert shown[0] == ("max_clients", "10000, or 64 less than `RLIMIT_NOFILE`")
    assert Limits().max_clients <= 10_000
    assert shown[1:] == [(field.name, f"{field.default:g}" if isinstance(field.default, float) else str(field.default))
                         for field in fields(Limits)[1:]]  # fmt: skip


def test_errors():
    shown = []
    for name, parent, _ in table(topic("errors"), "exception", "is also a"):
        module, _, attribute = code(name)[0].rpartition(".")
        exception = getattr(importlib.import_module(module), attribute)
        assert issubclass(exception, getattr(builtins, code(parent)[0])), name
        shown.append(exception)
    assert len(shown) == len(set(shown))
    defined = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    assert set(shown) == defined | {states.IllegalTransition}


def test_addresses():
    rows = [
        [Address.parse(text) for text in code(texts)] for texts, _ in table(topic("addresses"), "address", "what it is")
    ]
    transports = [{address.transport for address in row} for row in rows]
    assert transports == [{"unix"}, {"unix"}, {"unix"}, {"abstract"}, {"tcp"}, {"tls"}, {"tcp"}, {"fd"}, {"systemd"}]
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


def all_commands(group=cli.cli, names=("pysock",), parent=None):
    """Each command, those in groups too, as its words and what :func:`help_of` says."""
    context = click.Context(group, parent, names[-1], auto_envvar_prefix=None if parent else "PYSOCK")
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*names, name), context)
        else:
            usage, options = help_of(name, command, context)
            yield " ".join((*names, usage)), options


def test_command_line():
    wanted = dict([help_of("pysock", cli.cli, None), *all_commands()])
    shown = {}
    for command, _, texts in table(topic("cli"), "command", "what it does"):
        usage = code(command)[0]
        prefix = "_".join(word.upper() for word in usage.split() if word.islower())
        options = re.findall(r"`(--[a-z-]+)`(?: \(`(\w+)`\))?", texts)
        # A variable that isn't shown is named after command and option.
        shown[usage] = {name: variable or prefix + name[1:].replace("-", "_").upper() for name, variable in options}
    assert shown == wanted


def test_examples():
    directory = ROOT / "pysock" / "examples"
    modules = {path.stem for path in directory.glob("*.py") if not path.stem.startswith("_")}
    assert {code(name)[0] for name, _ in table(topic("guide"), "name", "what it shows")} == modules


def test_builds():
    choices = re.search(r"^CHOICES = \((.*)\)$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert choices
    assert [code(name)[0] for name, _ in table(topic("engines"), "`PYSOCK_BUILD`", "effect")] == re.findall(
        r'"(\w+)"', choices[1]
    )


def test_codes_and_when_they_are_sent():
    for head, enum in (("code of ERROR", protocol.ErrorCode), ("code of CIR_REFUSED", protocol.Refusal)):
        shown = [row[0] for row in table(WIRE, head, "when") if row[0]]
        assert shown == [f"{member.value} {member.name.lower().replace('_', ' ')}" for member in enum]


def test_counters():
    text = topic("limits").partition("has a counter for each cause:")[2].partition(". ")[0]
    assert set(code(text)) == set(COUNTERS)


# The rest


def test_every_public_name_is_mentioned():
    assert [name for name in pysock.__all__ if not re.search(rf"\b{name}\b", ALL)] == ["__version__"]


def test_names_that_are_mentioned_exist():
    """``pysock.NAME`` in text and programs, and the parameters of what is called in text."""
    named = set(re.findall(r"(?<![/\w.])pysock\.([A-Za-z_]\w*)", ALL)) - {"Server"}
    modules = {path.stem for path in (ROOT / "pysock").iterdir()} | {"sock"}
    assert {name for name in named if not hasattr(pysock, name) and name not in modules} == set()
    for name in ("Server", "connect", "Limits"):
        parameters = set(inspect.signature(getattr(pysock, name)).parameters)
        calls = re.findall(rf"\b{name}\(([^()]*)\)", prose(ALL))
        given = {word for call in calls for word in re.findall(r"(\w+)=", call)}
        assert given - parameters == set(), name


def test_the_parameters_of_batch_services_are_named():
    section = topic("guide").partition("## Named services and batch services")[2].partition("\n##")[0]
    parameters = inspect.signature(pysock.Server.batch_service).parameters.values()
    assert [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and f"{one.name}=" not in section] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_exist(page):
    text = PAGES[page]
    paths = [
        word
        for word in code(prose(text))
        if re.fullmatch(r"(bench|csrc|pysock|tests)/(?!\d)[\w./]*|[A-Z]\w+\.md", word)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for link in links(text):
        path, anchor = target(page, link), link.partition("#")[2]
        assert path.is_file(), link
        assert not anchor or anchor in anchors(path.read_text()), link


def test_the_map_of_the_tests():
    words = code((ROOT / "tests" / "README.md").read_text())
    named = [word for word in words if re.fullmatch(r"[a-z_]+(\.py|/[a-z_]*(\.py)?)", word)]
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
    assert {str(path.relative_to(ROOT / "tests")) for path in (ROOT / "tests").rglob("test_*.py")} <= set(named)


def test_the_readme_links_to_every_page():
    linked = {target("README.md", link).resolve() for link in links(README)}
    assert set(FOLDER.glob("*.md")) <= linked


def test_the_readme_tells_what_is_on_the_pages():
    for title, line in table(README, "page", "what is in it"):
        (link,) = links(title)
        name = re.sub(r"\[([^]]*)\].*", r"\1", title)
        assert (ROOT / link).read_text().startswith(f"# {name}: {line}\n")


def test_commands_that_are_named_exist():
    """Each ``pysock WORD``, with its options; in text and in blocks for the shell."""
    found = re.findall(r"(?:^|[`/ ])pysock ((?:[a-z]+)(?: [^`\n]*)?)", "\n".join(code(ALL)), re.MULTILINE)
    assert len(found) > 10
    for line in found:
        name, *words = line.split()
        assert name in cli.cli.commands, line
        command = cli.cli.commands[name]
        if isinstance(command, click.Group):
            command = command.commands.get(words[0]) if words else command
            assert command, line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} - {"--help"} <= options, line


def test_variables_that_are_named_exist():
    sources = [*ROOT.glob("*.py"), *ROOT.glob("csrc/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("pysock/**/*.py")]
    known = "".join(path.read_text() for path in sources if path != Path(__file__))
    for _, options in all_commands():
        known += " ".join(options.values()) + " "
    named = set(re.findall(r"\bPYSOCK_[A-Z_]+\b", ALL))
    assert {name for name in named if not re.search(rf"\b{name}\b", known)} == set()


def test_versions_of_python():
    project = (ROOT / "pyproject.toml").read_text()
    minors = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", project)]
    assert f"CPython 3.{min(minors)} to 3.{max(minors)}" in README
    assert f"CPython 3.{min(minors)} to 3.{max(minors)}" in topic("engines")
    assert f"Python 3.{min(minors)} or newer" in README
    assert f'requires-python = ">=3.{min(minors)}"' in project


def test_extras_that_are_named_exist():
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(
        r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.M
    )
    section = README.partition("the extras are")[2].partition(". With")[0]
    assert [name for name in code(section) if name != "pysock"] == extras


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= README_LINES_MAX
    assert len(README.encode()) <= README_BYTES_MAX


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read(page):
    """Its heading is a title and a line about it; its lines fit a screen, but for those of tables."""
    text = PAGES[page]
    assert text.startswith("# pysock\n") or re.match(r"# [A-Z]\w+( \w+)*: .{10,90}\n\n|# systemd: ", text)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert str(ROOT) + os.sep not in text
