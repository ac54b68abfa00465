"""``pysock top``: how much a server has done between two looks at it, and what is shown of that."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from support import environment

import pysock
from pysock import Admin
from pysock.cli import main as cli
from pysock.cli.admin.rates import Look, between
from pysock.cli.admin.top import lines_of


def stats(at, **counters):
    zero = dict.fromkeys(("accepted", "disconnected", "requests", "errors", "pushes", "bytes_in", "bytes_out"), 0)
    return {
        "at": at,
        "since": 0.0,
        "name": "shop",
        "pid": 7,
        "engine": "pure",
        "state": "SERVING",
        "lame": False,
        "addresses": ["unix:s"],
        "max_clients": 10,
        "stuck_for": 0.0,
        "counters": {"clients": 1, "pending": 0, **zero, **counters},
        "services": {},
        "loop": {},
    }


def row(number, **numbers):
    zero = dict.fromkeys(("requests", "bytes_in", "bytes_out", "in_flight", "output_waiting"), 0)
    return {"id": number, "name": f"n{number}", **zero, **numbers}


def test_what_happened_between():
    before = Look(stats(10.0, requests=100), {"1.0": row("1.0", requests=100)})
    after = Look(stats(12.0, requests=300), {"1.0": row("1.0", requests=150), "1.1": row("1.1", requests=150)})
    found = between(before, after)
    assert (found["seconds"], found["per_second"]["requests"], found["busy"]) == (2.0, 100.0, None)
    assert [(each["id"], each["requests"]) for each in found["noisiest"]] == [("1.1", 75.0), ("1.0", 25.0)]
    assert between(after, before)["per_second"]["requests"] == 0  # another server, whose clock is another


def test_what_services_did_between():
    old, new = stats(10.0), stats(11.0)
    old["loop"], new["loop"] = {"busy_ns": 0, "outside_ns": 0}, {"busy_ns": 250_000_000, "outside_ns": 0}
    old["services"] = {"a": {"requests": {"OK": 5}, "sum": 1.0, "buckets": {"3": 5}}}
    new["services"] = {
        "a": {"requests": {"OK": 14, "HANDLER_FAILED": 1}, "sum": 2.0, "buckets": {"3": 5, "40": 10}},
        "b": {"requests": {"OK": 1}, "sum": 1.0, "buckets": {"0": 1}},
    }
    found = between(Look(old, None), Look(new, None))
    assert (found["busy"], found["noisiest"]) == (0.25, None)
    assert (found["services"]["a"]["requests"], found["services"]["a"]["errors"]) == (10.0, 1.0)
    assert 0.001 < found["services"]["a"]["p50"] < found["services"]["a"]["p99"] < 0.002  # of the new ones alone
    lines = lines_of(new, found)
    assert "the loop is busy for 25% of the time" in lines
    assert [line.split()[0] for line in lines if "ms" in line] == ["a"]
    assert lines[-1] == "so many clients aren't compared"


def test_a_loop_that_hangs():
    hung = stats(11.0) | {"stuck_for": 42.0}
    assert "HANGS" in lines_of(hung, between(Look(stats(10.0), {}), Look(hung, {})))[2]


@pytest.fixture
def where(make_server, unix_address):
    server = make_server(unix_address, name="shop", metrics=True)
    server.service("quick")(lambda client, request: request)
    with server, Admin(server):
        yield str(server.addresses[0])


@contextmanager
def load(where):
    stop = threading.Event()

    def run():
        with pysock.connect(where, name="a\x1b[2Jb") as client:
            while not stop.wait(0.002):
                client.request(b"abc", "quick")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_top(where, capfd):
    with load(where):
        assert cli.main(["top", where, "--every", "0.3", "--count", "1", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert cli.main(["top", where, "--every", "0.3", "--count", "1"]) == 0
    assert found["services"]["quick"]["requests"] > 0
    assert found["services"]["quick"]["p99"] > 0
    assert [each["name"] for each in found["noisiest"]] == ["a\x1b[2Jb"]
    assert 0 <= found["busy"] <= 1
    out = capfd.readouterr().out
    assert out.startswith("shop: serving")
    assert "quick" in out
    assert "\x1b" not in out


def test_top_on_a_terminal(where):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pysock", "top", where, "--every", "0.1", "--count", "2"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment() | {"TERM": "xterm"}
    ) as top:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # EIO: the other end is closed
            pass
    os.close(ours)
    assert top.returncode == 0
    assert b"shop: serving" in shown
    assert b"\x1b[?1049l" in shown  # what was on the terminal before is back


def test_no_admin_socket(make_server, unix_address, capfd):
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    with server:
        assert cli.main(["top", unix_address]) == 1
    assert "no admin socket" in capfd.readouterr().err
