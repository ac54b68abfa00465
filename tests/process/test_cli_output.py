"""Commands whose output can't be written: they fail, and say so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import environment

from pysock import Server

COMMANDS = {
    "call": ["call", "ADDR", "x"],
    "stream": ["call", "ADDR", "x", "--stream"],
    "ping": ["ping", "ADDR", "--count", "1"],
    "serve": ["serve", "pysock.examples.upper:upper", "--bind", "unix:OTHER"],
    "help": ["--help"],
    "version": ["--version"],
    "nothing": [],
    "demo": ["demo", "--input", "TEXT"],
}


@pytest.fixture
def arguments(request, tmp_path):
    server = Server(f"unix:{tmp_path}/s.sock")
    server.service(lambda client, payload: payload)
    (tmp_path / "text").write_text("some words\n")
    places = {
        "ADDR": f"unix:{tmp_path}/s.sock",
        "unix:OTHER": f"unix:{tmp_path}/o.sock",
        "TEXT": str(tmp_path / "text"),
    }
    with server:
        yield [places.get(word, word) for word in COMMANDS[request.param]]
    assert not (tmp_path / "o.sock").exists()


def outcome(arguments, redirection):
    done = subprocess.run(  # noqa: PLW1510
        ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", sys.executable, "-m", "pysock", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", COMMANDS, indirect=True)
def test_output_that_cannot_be_written(arguments, redirection):
    code, said = outcome(arguments, redirection)
    assert code == 1
    assert "pysock: " in said
    assert "standard output is closed" in said or "No space left on device" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", ["call", "stream", "serve", "help"], indirect=True)
def test_output_that_nobody_reads(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(  # noqa: PLW1510
            [sys.executable, "-m", "pysock", *arguments],
            env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert "pysock: standard output: nobody reads it any more (Broken pipe)" in done.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_written_is_an_exit_code_all_the_same(redirection):
    assert outcome(["call", "unix:nowhere.sock", "x"], redirection)[0] == 1
    assert outcome(["call", "nonsense", "x"], redirection)[0] == 2
