"""The commands that ask an admin socket: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from programs import Module, serving
from support import environment, wait_for

import pysock
from pysock import Admin
from pysock.cli.admin.shown import columns, plain, size, span, span_of


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address, name="shop")
    server.service(lambda client, request: request)
    with server, Admin(server):
        yield server


@pytest.fixture
def where(server):
    return str(server.addresses[0])


@pytest.fixture
def client(where):
    with pysock.connect(where, name="a\x1b[2Jb") as client:
        yield client


def test_clients(command, where, client):
    code, out, err = command("clients", where)
    assert (code, err) == (0, "")
    head, row, total = out.splitlines()
    assert head.split()[:3] == ["ID", "NAME", "FROM"]
    assert re.match(r"1\.\d+  a\\x1b\[2Jb  uid \d+, pid \d+ +\d", row)  # nothing that a terminal would obey
    assert total == "1 client"
    assert command("clients", f"{where}.admin")[1].splitlines()[-1] == "1 client"
    assert command("clients", where, "--where", "name=nobody")[1] == "0 clients\n"
    assert command("clients", where, "--where", "name=a*", "--where", "uid=4294967294")[1] == "0 clients\n"


def test_clients_as_json(command, where, client):
    code, out, _ = command("clients", where, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["clients"]] == ["a\x1b[2Jb"]


def test_who_went(command, server, where):
    with pysock.connect(where, name="late"):
        pass
    wait_for(server.clients.left, "it to be gone")
    *_, line = command("clients", where, "--gone", 5)[1].splitlines()
    assert re.search(r"late .* left +[\d.]+s$", line)


@pytest.mark.parametrize("value", ["name", "colour=red", "uid=me", "=x"])
def test_where_that_says_nothing(command, where, value):
    code, out, err = command("clients", where, "--where", value)
    assert (code, out) == (2, "")
    assert "--where" in err


def test_watch(where, backend):
    """Until Ctrl-C, with a line for each look."""
    arguments = [sys.executable, "-m", "pysock", "clients", where, "--watch", "--json"]
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == ""
    assert process.returncode == 130
    assert looks[1]["at"] - looks[0]["at"] >= 1


def test_kill(command, where, client):
    (row,) = json.loads(command("clients", where, "--json")[1])["clients"]
    assert command("kill", where, "1.99") == (1, "0 clients killed\n", "")
    assert command("kill", where, "1.99", row["id"]) == (0, "1 client killed\n", "")
    assert command("kill", where, "--name", "nobody", "--json") == (1, '{"killed": 0, "ids": []}\n', "")
    code, out, err = command("kill", where)
    assert (code, out) == (2, "")
    assert "say who" in err
    code, out, err = command("kill", where, "seven")
    assert (code, out) == (1, "")
    assert "must be the id of a client" in err


def test_stats(command, where, client, server):
    code, out, _ = command("stats", where)
    assert code == 0
    first, second, *counters = out.splitlines()
    assert first.startswith(f"shop: serving, process {os.getpid()}, {server.backend} engine, up ")
    assert second == f"at {where}"
    assert dict(line.split() for line in counters)["clients"] == "1"
    assert json.loads(command("stats", where, "--json")[1])["counters"]["clients"] == 1


def test_drain_and_resume(command, where, server):
    assert command("drain", where) == (0, f"{where}: draining\n", "")
    assert server.is_lame
    assert command("stats", where)[1].startswith("shop: serving, lame, ")
    assert command("resume", f"{where}.admin", "--json") == (0, '{"state": "serving"}\n', "")
    assert not server.is_lame


def test_log(command, where):
    code, out, err = command("log", where, "info", "asyncio", "--for", "10m")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"asyncio: info, for 10m; it was \w+\n", out)
    code, _, err = command("log", where, "info", "nobody.knows")
    assert code == 1
    assert "that there is" in err
    for wrong in ("soon", "0", "2d"):
        assert command("log", where, "info", "--for", wrong)[0] == 2


@pytest.mark.parametrize("name", ["clients", "stats", "kill"])
def test_without_an_admin_socket(command, make_server, unix_address, name):
    server = make_server(unix_address)
    server.service("clients")(lambda client, request: b"{}")  # one of the program's: it isn't asked
    with server:
        code, out, err = command(name, unix_address, *(["1.7"] if name == "kill" else []))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"pysock: unix:\S+: this is no admin socket, .*--admin.*\n", err)


def test_nobody_there(command, unix_address):
    code, out, err = command("stats", unix_address)
    assert (code, out) == (1, "")
    assert unix_address in err


@pytest.fixture
def shop(socket_dir, monkeypatch):
    (socket_dir / "shop.py").write_text("def double(client, request):\n    return request * 2\n")
    monkeypatch.chdir(socket_dir)
    return socket_dir


def test_serve_has_one(command, backend, shop):
    arguments = ["serve", "shop:double", "--bind", f"unix:{shop}/s", "--log-level", "error", "--admin"]
    with Module("pysock", "--backend", backend, *arguments) as program:
        (where,) = serving(program)
        assert json.loads(command("stats", where, "--json")[1])["pid"] == program.process.pid
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert sorted(path.name for path in shop.glob("s*")) == ["shop.py"]


def test_serve_has_one_elsewhere(command, backend, shop):
    arguments = ["serve", "shop:double", "--bind", "tcp://127.0.0.1:0", "--admin", f"unix:{shop}/desk"]
    with Module("pysock", "--backend", backend, *arguments) as program:
        (where,) = serving(program)
        assert json.loads(command("stats", f"unix:{shop}/desk", "--json")[1])["addresses"] == [where]
        program.signal(signal.SIGTERM)
        program.end()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--bind", "tcp://127.0.0.1:0", "--admin"], 2, "the server has no Unix address"),
        (["--admin", "shop:double", "--bind", "unix:s"], 2, "goes behind MODULE:NAME"),
        (["shop:double", "--bind", "unix:s", "--admin", "tcp://127.0.0.1:0"], 2, "must be a Unix socket"),
        (["shop:double", "--bind", "unix:s", "--admin", "unix:none/here"], 1, "none/here"),
    ],
)
def test_serve_has_none_there(command, shop, arguments, code, words):
    target = [] if "shop:double" in arguments else ["shop:double"]
    got, out, err = command("serve", *target, *arguments)
    assert (got, out) == (code, "")
    assert words in err


def test_how_things_are_shown():
    assert [span(n) for n in (0, 0.25, 9.96, 42, 119, 1080, 7200, 90_000, 864_000)] == [
        "0.0s", "0.2s", "10.0s", "42s", "2.0m", "18m", "2.0h", "25h", "10d",
    ]  # fmt: skip
    assert [size(n) for n in (0, 999, 1000, 25_000, 3_400_000)] == ["0", "999", "1.0k", "25k", "3.4M"]
    assert plain("a\nb\x9b\u202ec") == "a\\nb\\x9b\\u202ec"
    assert columns(("A", "BB"), [("1", "2"), ("333", "4")], "<>") == ["A    BB", "1     2", "333   4"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("5ms", 0.005), ("2h", 7200)])
def test_a_time_as_people_write_it(text, seconds):
    assert span_of(None, None, text) == seconds  # type: ignore[arg-type]  # neither is looked at
