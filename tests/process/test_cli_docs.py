"""``pysock docs``: the pages, on a terminal and in a pipe, and the API reference."""

from __future__ import annotations

import builtins
import re
import sys

import pytest
from pages import FOLDER
from programs import pysock_command
from terminal import on_a_terminal

import pysock
from pysock.cli import main as cli

TOPICS = sorted(path.stem for path in FOLDER.glob("*.md"))


def docs(*arguments):
    done = pysock_command("docs", *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_without_a_topic_the_topics_are_listed():
    code, out, err = docs()
    assert (code, err) == (0, "")
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", out, re.MULTILINE))
    assert list(listed) == TOPICS
    assert listed["limits"] == "what a client may cost"
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_in_a_pipe_is_its_text(topic):
    code, out, err = docs(topic)
    assert (code, err) == (0, "")
    text = (FOLDER / f"{topic}.md").read_text()
    assert out == "".join(line for line in text.splitlines(keepends=True) if not line.startswith("<!--"))
    assert "\x1b" not in out


@pytest.mark.parametrize(("name", "styled"), [("less", True), ("another", False)])
def test_a_page_on_a_terminal_is_laid_out_for_a_pager(name, styled, tmp_path):
    """With bold type where the pager is known to pass it on."""
    pager = tmp_path / name
    pager.write_text("#!/bin/sh\necho paged\ncat\n")
    pager.chmod(0o755)
    shown = on_a_terminal("docs", "limits", PAGER=str(pager))
    assert shown.code == 0
    assert shown.written.startswith("paged")
    assert ("\x1b[1m" in shown.written) == styled
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.written)
    assert "Limits: what a client may cost" in text
    assert "# Limits" not in text
    assert "|---" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("topic", "advice"),
    [
        ("limts", "did you mean 'limits'?"),
        ("Wire", "did you mean 'wire'?"),
        ("qqq", "pysock docs lists those there are"),
    ],
)
def test_a_topic_that_is_not_there(topic, advice):
    assert docs(topic) == (2, "", f"pysock: there is no topic {topic!r}: {advice} (see pysock docs --help)\n")


def test_html_and_a_topic():
    code, out, err = docs("limits", "--html", "x")
    assert (code, out) == (2, "")
    assert err.startswith("pysock: --html writes the API reference, which has no topics")


def test_without_pdoc_the_command_says_what_to_install(monkeypatch, tmp_path, capsys):
    real = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == "pdoc":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pdoc"]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["docs", "--html", str(tmp_path / "html")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'pysock-engine[docs]'" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "html").exists()


@pytest.mark.slow
def test_the_reference_has_every_public_name(tmp_path):
    pytest.importorskip("pdoc")
    html = tmp_path / "html"
    assert docs("--html", str(html)) == (0, f"{html}/pysock.html\n", "")
    text = (html / "pysock.html").read_text()
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert set(pysock.__all__) <= sections
    assert "Ask for a sign of life; return the seconds there and back," in text  # Client.ping
    assert ":raises" not in re.sub(r"<pre.*?</pre>|<div class=\"pdoc-code.*?</div>", "", text, flags=re.DOTALL)
    assert (html / "pysock" / "errors.html").is_file()
    assert (html / "pysock" / "states.html").is_file()
