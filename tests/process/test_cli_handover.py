"""``pysock serve --handover``: a command that takes over from the one that runs."""

from __future__ import annotations

import pytest
from programs import Module, pysock_command, serving
from support import left_in

import pysock


def test_a_second_one_takes_over(socket_dir, backend):
    where = f"unix:{socket_dir}/s"
    command = ("pysock", "serve", "pysock.examples.upper:upper", "--bind", where, "--handover", f"{where}.next")
    with Module(*command, PYSOCK_BACKEND=backend) as first:
        serving(first)
        with pysock.connect(where) as client, Module(*command, PYSOCK_BACKEND=backend) as second:
            serving(second)
            assert first.end()[0] == 0
            assert client.request(b"a") == b"A"
            second.process.terminate()
            assert second.end()[0] == 0
    assert left_in(socket_dir) == []


def test_one_that_is_refused_says_why(socket_dir):
    where = f"unix:{socket_dir}/s"
    command = ("serve", "pysock.examples.upper:upper", "--handover", f"{where}.next", "--bind")
    with Module("pysock", *command, where) as first:
        serving(first)
        ended = pysock_command(*command, f"{where}2")
        assert ended.returncode == 1
        assert b"pysock: the old server serves on: it listens at" in ended.stderr
        with pysock.connect(where) as client:
            assert client.request(b"a") == b"A"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--handover", "tcp://127.0.0.1:1"], "must be the path of a Unix socket"),
        (["--handover", "unix:/tmp/x?mode=0666"], "for the server's own user alone"),
        (["--handover", "unix:/tmp/x", "--workers", "2"], "those don't move"),
    ],
)
def test_what_does_not_go(options, message):
    ended = pysock_command("serve", "pysock.examples.upper:upper", "--bind", "unix:/tmp/never", *options)
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.decode().split())
