"""The demo: every line of a real file counted once, by several processes, and as ``wc -w`` counts."""

from __future__ import annotations

import io
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import Module, pysock_command, tool
from rich.console import Console
from support import environment, wait_for
from terminal import LINES, on_a_terminal

from pysock.cli import main as cli
from pysock.demo import run as demo
from pysock.demo import words as demo_words
from pysock.demo.client import paced
from pysock.demo.screen import Row, client_table
from pysock.demo.story import Brief, shortened


def report_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert b"\x1b" not in done.stdout, "no control codes in a pipe"
    return [line.rstrip() for line in done.stdout.decode().splitlines()]


def rows_of(lines: list[str], title: str) -> list[list[str]]:
    """Return the cells of the table with this title. Columns are at least two blanks apart."""
    _, heading, rule, *rest = lines[lines.index(title) :]
    assert not re.search(r"\w", rule)
    rows = itertools.takewhile(
        lambda line: line and not line.startswith(("total", "lines answered", "client ", "a stream")), rest
    )
    return [re.split(r"  +", line.strip()) for line in (heading, *rows)]


def test_the_default_text_on_each_engine(backend: str) -> None:
    started = time.monotonic()
    lines = report_of(pysock_command("demo", PYSOCK_BACKEND=backend))
    assert time.monotonic() - started < 10
    text = demo.default_text().read_bytes()
    assert text.count(b"\n") >= 2000
    total = int(subprocess.run([tool("wc"), "-w"], input=text, stdout=subprocess.PIPE, check=True).stdout)

    # The server's states, all of them and in order.
    states = [line.removeprefix("server: ") for line in lines if line.startswith("server: ")]
    names = ["NEW", "CREATED", "BOUND", "LISTENING", "SERVING", "DRAINING", "CLOSED"]
    assert states == [f"{old} -> {new}" for old, new in itertools.pairwise(names)]
    # The client table: every client, on both transports, and all requests in it.
    heading, *clients = rows_of(lines, "client table")
    assert heading == ["name", "id", "fd", "transport", "state", "requests", "bytes in", "bytes out"]
    assert {row[0]: row[3] for row in clients} == {"anna": "unix", "bert": "unix", "carl": "tcp", "dora": "tcp"}
    assert {row[4] for row in clients} == {"ESTABLISHED"}
    assert len({row[1] for row in clients}) == len({row[2] for row in clients}) == len(clients)
    line_count = len(demo.split_lines(text))
    assert sum(int(row[5]) for row in clients) == line_count + len(clients), "each line once, and a report from each"
    # What they counted.
    _, *results = rows_of(lines, "words counted")
    assert sum(int(row[4]) for row in results) == line_count
    assert sum(int(row[5]) for row in results) == total
    assert {row[2] for row in results} == {"one by one", "pipelined"}
    assert f"total: {total} words; wc -w < {demo.default_text()} says {total}" in lines
    shown = "\n".join(lines)
    assert re.search(rf"^the totals are equal; {line_count} requests in [\d.]+ s, [\d,]+ a second$", shown, re.M)
    assert f"engine: {backend}" in lines
    assert f"a stream: the whole file came to client emil in {line_count} pieces" in lines
    assert re.search(
        r"^a group: 2 of 4 clients got what was sent to theirs: (bert and dora|dora and bert)$", shown, re.M
    )
    # The end: everybody leaves, and the socket file is gone.
    assert sum("disconnected, server stopping" in line for line in lines) == len(clients)
    (removed,) = (match[1] for line in lines if (match := re.fullmatch(r"the socket file (\S+) is removed", line)))
    assert not Path(removed).exists()
    assert not Path(removed).parent.exists()
    assert lines[-1] == "4 client processes have ended"


@pytest.mark.parametrize(
    "text",
    [
        b"one",
        b"\n",
        b"\n\n \n",
        b"a b\n\nc\td e",
        b"carriage\r\nreturns\r\n",
        "two\xa0words \u2014 and \u3000 dashes\n".encode(),
        b"\x00\x01 binary \xff\xfe \xe2\x80\n" * 5,
        b"long " * 100_000,
    ],
    ids=["word", "newline", "blank", "few", "crlf", "unicode", "binary", "long"],
)
def test_any_file(text: bytes, tmp_path: Path, backend: str) -> None:
    file = tmp_path / "text with a space.txt"
    file.write_bytes(text)
    lines = report_of(pysock_command("demo", "--input", str(file), PYSOCK_BACKEND=backend))
    assert any(line.startswith("the totals are equal") for line in lines)


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_bytes(b"one two\n")
    lines = report_of(pysock_command("demo", "--input", str(file)))
    assert any(line.startswith("total: 2 words") for line in lines)


def test_a_pipe_as_input() -> None:
    command = f'"{sys.executable}" -m pysock demo --input <(echo one two)'
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, check=False)
    assert any(line.startswith("total: 2 words") for line in report_of(done))


@pytest.mark.slow
def test_on_a_terminal(backend: str, tmp_path: Path) -> None:
    """There the table is drawn in place, again and again for some seconds, and nothing of it all scrolls away."""
    deep = tmp_path / "a directory with a long name" / "and another one that has a long name"
    deep.mkdir(parents=True)
    text = deep / "text.py"
    text.write_bytes(demo.default_text().read_bytes())
    started = time.monotonic()
    shown = on_a_terminal("demo", "--input", str(text), PYSOCK_BACKEND=backend)
    assert time.monotonic() - started >= Brief.pace
    assert shown.code == 0, shown.written
    *lines, last = shown.lines
    assert len(lines) <= LINES - 2, "the command and the next prompt are there, too"
    assert last == "", "the prompt comes at the beginning of a line"
    # It was seen alive: the counters of one client, in order.
    counts = [int(count) for count in re.findall(r"^anna .* ESTABLISHED +(\d+)", shown.written, re.MULTILINE)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 10
    # All is there, in whole words.
    assert re.fullmatch(r"input: \.\.\./.*text\.py, \d+ lines", lines[1])
    assert lines[2] == "server: NEW -> CREATED -> BOUND -> LISTENING -> SERVING"
    assert re.fullmatch(r"addresses: unix:\S*demo\.sock and tcp://127\.0\.0\.1:\d+", lines[3])
    assert lines[4] == "client table"
    assert any(line.endswith("100%") for line in lines)
    assert re.fullmatch(r"the totals are equal; the burst: \d+ requests in [\d.]+ s, [\d,]+ a second", lines[-3])
    assert lines[-2:] == [
        "server: SERVING -> DRAINING -> CLOSED; 5 clients have left",
        "the socket file demo.sock is removed, 4 client processes have ended",
    ]


@pytest.mark.parametrize("text", [b"one", b"a b\n" * 5], ids=["one line", "five lines"])
def test_few_lines_on_a_terminal(text: bytes, tmp_path: Path) -> None:
    """Too few to send any slowly: it isn't waited for nothing."""
    (tmp_path / "text").write_bytes(text)
    shown = on_a_terminal("demo", "--input", str(tmp_path / "text"))
    assert shown.code == 0
    assert "the totals are equal" in shown.written


@pytest.mark.parametrize(
    ("path", "width", "short"),
    [
        ("/a/b/text", 9, "/a/b/text"),
        ("/aa/bb/text", 11, "/aa/bb/text"),
        ("/aa/bb/text", 10, ".../text"),
        ("/aaaa/bb/text", 12, ".../bb/text"),
        ("aaaa/bb/text", 11, ".../bb/text"),
        ("/aaaa/\u6587\u5b57/text", 13, ".../\u6587\u5b57/text"),
        ("/aaaa/\u6587\u5b57/text", 12, ".../text"),
        ("/aa/a-long-name", 10, "...ng-name"),
        ("a-long-name", 2, "..."),
    ],
)
def test_a_path_too_long_for_the_line(path: str, width: int, short: str) -> None:
    assert shortened(path, width) == short


def test_a_part_is_sent_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pysock.demo.client.time.sleep", slept.append)
    assert paced([b"%d" % number for number in range(10)], 3.0, bytes) == [b"0", b"1"]
    assert slept == [1.5, 1.5]
    assert len(paced([b""] * 10_000, 3.0, bytes)) == 300
    assert paced([b""] * 10_000, 0.0, bytes) == []
    assert paced([b""] * 3, 3.0, bytes) == []


@pytest.mark.parametrize("what", ["missing", "directory", "empty", "unreadable"])
def test_bad_input_is_one_line(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text"
    if what == "directory":
        file.mkdir()
    elif what != "missing":
        file.write_bytes(b"" if what == "empty" else b"words\n")
    if what == "unreadable":  # root may read everything, so this has to be acted
        monkeypatch.setattr(os, "access", lambda *_arguments, **_options: False)
    assert cli.main(["demo", "--input", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"pysock: [^\n]*text[^\n]*\n", said.err)


def test_totals_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"a b c\n")
    monkeypatch.setattr(demo_words, "wc", lambda _text: 4)
    assert cli.main(["demo", "--input", str(file)]) == 1
    said = capsys.readouterr()
    assert said.err == "pysock: the totals differ: 3 words counted by the clients, 4 expected\n"
    assert "CLOSED" in said.out


def test_without_wc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"a b c\n")
    monkeypatch.setattr(demo_words, "wc", lambda _text: None)
    demo.run(file, Console(width=100))
    assert "there is no wc here, counted in one piece it is 3" in capsys.readouterr().out


def test_a_client_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"a b c\n" * 10)
    nobody = demo.Cast("nobody", "unix", demo.ONE_BY_ONE, "no such service")
    monkeypatch.setattr(demo, "CLIENTS", (*demo.CLIENTS, nobody))
    with pytest.raises(demo.DemoError, match=r"the client process nobody failed: .*no such service"):
        demo.run(file, Console(quiet=True))


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ended_by_a_signal(backend: str, tmp_path: Path, number: int, exit_code: int) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"some words to count\n" * 2_000_000)
    with Module("pysock", "demo", "--input", str(file), PYSOCK_BACKEND=backend, TMPDIR=str(tmp_path)) as program:
        while not program.line().startswith("addresses: "):
            pass
        program.signal(number)
        code, _, err = program.end()
    assert (code, err.strip()) == (exit_code, "")
    wait_for(lambda: [path.name for path in tmp_path.iterdir()] == ["text"], "the temporary directory to go")


# Words


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_words_are_counted_as_wc_counts(locale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("wc")
    monkeypatch.setenv("LC_ALL", locale)
    letters = [
        "a",
        "é",
        "\u2014",
        "\x00",
        "\x01",
        "\xa0",
        "\u2007",
        "\u3000",
        "\u2028",
        "\x85",
        "\ufeff",
        *" \t\n\v\f\r",
    ]
    chance = random.Random(4711)
    for _ in range(100):
        text = "".join(chance.choices(letters, k=60)).encode()
        count = demo_words.counter_for(text)
        assert sum(map(count, text.split(b"\n"))) == demo_words.wc(text), text


def test_the_definitions_answer_the_probe_differently() -> None:
    answers = [definition.count(demo_words.PROBE) for definition in demo_words.DEFINITIONS]
    assert len(set(answers)) == len(answers)


def test_plain_text_needs_no_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_words, "wc", None)
    assert demo_words.counter_for(b"a b\tc\n")(b" a  b\tc ") == 3


@pytest.mark.parametrize(
    ("text", "lines"),
    [(b"a", [b"a"]), (b"a\n", [b"a"]), (b"a\nb", [b"a", b"b"]), (b"\n", [b""]), (b"a\r\n\n", [b"a\r", b""])],
)
def test_split_lines(text: bytes, lines: list[bytes]) -> None:
    assert demo.split_lines(text) == lines


def test_the_default_text_is_plain() -> None:
    """So everybody's ``wc -w`` agrees about it, in every locale."""
    assert demo.default_text().read_bytes().isascii()


def test_no_default_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEFAULT_TEXTS", ("sys", "no_such_module"))
    with pytest.raises(demo.DemoError, match="--input"):
        demo.default_text()


def test_the_client_table_fits_80_columns() -> None:
    paper = io.StringIO()
    row = Row("anna", 2**34, 100, "unix", "ESTABLISHED", 1234567, 12345678, 12345678)
    Console(width=80, file=paper).print(client_table([row]))
    assert len(paper.getvalue().splitlines()) == 4
