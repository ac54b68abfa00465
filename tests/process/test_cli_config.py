"""``pysock serve --config``: each option as a key of a file, who comes first, and what is wrong with a file."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from pages import blocks, topic
from programs import Module, serving

import pysock
from pysock.cli import config
from pysock.cli import main as cli
from pysock.cli.serve import serve

#: Options, as the file has them and as the command line does, where any value of their type wouldn't do.
BOTH_WAYS = {
    "bind": ('["unix:a", "127.0.0.1:0"]', ["unix:a", "127.0.0.1:0"]),
    "authkey-file": ('"there"', ["there"]),
    "advertise": ('"unix:b"', ["unix:b"]),
    "workers": ("5", ["5"]),
    "max-age": ("9.5", ["9.5"]),
    "hang-kill": ("10", ["10"]),
    "handover": ('"unix:next"', ["unix:next"]),
    "access-log": ('"requests:1/2"', ["requests:1/2"]),
    "agent": ('"127.0.0.1:1"', ["127.0.0.1:1"]),
    "admin": ("true", [None]),
    "metrics": ('"unix:m"', ["unix:m"]),
    "slowlog": ('"5ms"', ["5ms"]),
    "cluster": ('"local:here"', ["local:here"]),
}
OPTIONS = {option.opts[0][2:]: option for option in serve.params if isinstance(option, click.Option)}


def both_ways(name: str) -> tuple[str, list[str | None]]:
    """A value of the option that isn't what it is by default, as the file has it and as the command line does."""
    option = OPTIONS[name]
    if name in BOTH_WAYS:
        text, values = BOTH_WAYS[name]
        return text, [*values]
    if option.is_flag:
        return "true", [None]
    if isinstance(option.type, click.Choice):
        return f'"{option.type.choices[-1]}"', [option.type.choices[-1]]
    return ("7", ["7"]) if option.type.name in ("integer range", "float range") else ('"some"', ["some"])


@pytest.fixture(autouse=True)
def here(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(socket_dir)
    (socket_dir / "there").write_text("key\n")
    return socket_dir


def parameters(*arguments: str) -> dict[str, Any]:
    """What the command is given."""
    return serve.make_context("serve", list(arguments), auto_envvar_prefix="PYSOCK_SERVE").params


def file(text: str) -> str:
    Path("pysock.toml").write_text(text)
    return "pysock.toml"


@pytest.mark.parametrize("option", sorted({*OPTIONS} - {"config"}))
def test_a_key_means_what_its_option_does(option: str) -> None:
    text, values = both_ways(option)
    given = [word for value in values for word in (f"--{option}", value) if word is not None]
    assert parameters("--config", file(f"{option} = {text}"), "a:b") == parameters("a:b", *given)
    assert parameters("a:b", *given) != parameters("a:b")


def test_the_command_line_counts_then_a_variable_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    name = file('target = "a:b"\nbind = "unix:file"\ngrace = 1\nthreads = 1')
    monkeypatch.setenv("PYSOCK_SERVE_GRACE", "2")
    monkeypatch.setenv("PYSOCK_SERVE_CONFIG", name)
    found = parameters("--bind", "unix:line", "--bind", "unix:more")
    assert (found["bind"], found["grace"], found["threads"]) == (("unix:line", "unix:more"), 2.0, 1)
    assert (found["target"], parameters("c:d")["target"]) == ("a:b", "c:d")
    assert parameters("--grace", "3")["grace"] == 3.0


def test_an_option_that_can_stand_alone_can_be_left_out_and_have_a_value() -> None:
    assert parameters("a:b", "--config", file("admin = false"))["admin"] is None
    assert parameters("a:b", "--config", file('admin = "unix:x"'))["admin"] == "unix:x"


def test_serve_by_a_file(backend: str, here: Path) -> None:
    name = file(f'target = "pysock.examples.upper:upper"\nbind = "unix:{here}/s"\n')
    with Module("pysock", "--backend", backend, "serve", "--config", name) as program:
        (where,) = serving(program)
        with pysock.connect(where) as client:
            assert client.request(b"hello") == b"HELLO"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_the_page_s_file_is_one() -> None:
    (text,) = (text for _, language, text in blocks(topic("cli")) if language == "toml")
    found = parameters("--config", file(text))
    assert (found["target"], found["workers"] > 0, found["admin"]) == ("pysock.examples.upper:upper", True, "beside")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrokers = 2", "pysock.toml: unknown key 'wrokers': did you mean 'workers'? Keys are the options"),
        ("log_level = 'info'", "unknown key 'log_level': did you mean 'log-level'?"),
        ("hue = 'red'", "unknown key 'hue'; Keys are the options of the command, without the dashes"),
        ("config = 'other.toml'", "unknown key 'config'"),
        ("[tool]\nworkers = 2", "unknown key 'tool'"),
        ("workers = 0", "pysock.toml: workers: '0' isn't a number from 1 to 1024, nor 'auto'"),
        ("threads = 0", "pysock.toml: threads: 0 is not in the range x>=1."),
        ("threads = '2'", "threads: a whole number is wanted here, not '2'"),
        ("threads = true", "threads: a whole number is wanted here, not true"),
        ("threads = 2.0", "threads: a whole number is wanted here, not 2.0"),
        ("grace = '1'", "grace: a number is wanted here, not '1'"),
        ("workers = 2.5", "workers: a whole number or a string is wanted here, not 2.5"),
        ("insecure = 1", "insecure: true or false is wanted here, not 1"),
        ("framing = ['line']", "framing: a string is wanted here, not ['line']"),
        ("bind = 9000", "bind: a string or a list of strings is wanted here, not 9000"),
        ("bind = ['unix:a', 1]", "bind: a string or a list of strings is wanted here"),
        ("[bind]\na = 1", "bind: a string or a list of strings is wanted here, not a table"),
        ("bind = 'ftp://x'", "pysock.toml: bind: bad address 'ftp://x'"),
        ("slowlog = 'x'", "slowlog: 'x' is no time"),
        ("target = 3", "target: a string is wanted here, not 3"),
        ("authkey-file = 'nowhere'", "authkey-file: File 'nowhere' does not exist."),
        ("threads =", "pysock.toml isn't TOML in UTF-8: Invalid value (at "),
        ("grace = 1\ngrace = 2", "isn't TOML in UTF-8: Cannot overwrite a value"),
        ("threads = " + "[" * 10_000, "isn't TOML in UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong(capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    code = cli.main(
        ["serve", "a:b", "--config", file(text), "--threads", "1"]
    )  # it is told also where it doesn't count
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.match(r"pysock: .*\(see pysock serve --help\)\n", err)
    assert words in err


def test_a_file_that_cant_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("latin").write_bytes(b"framing = '\xe9'")
    for name, words in (("nowhere", "No such file or directory"), (".", "is a directory"), ("latin", "isn't TOML")):
        assert cli.main(["serve", "a:b", "--config", name]) == 2
        assert words in capsys.readouterr().err


def test_without_a_reader_of_toml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(config, "toml", None)
    assert cli.main(["serve", "a:b", "--config", file("")]) == 2
    assert "pip install 'pysock-engine[cli]'" in capsys.readouterr().err


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomli comes with the extra there")
def test_the_reader_is_python_s_own() -> None:
    assert config.toml.__name__ == "tomllib"
