"""``pysock bench``: what it prints, where, and its exit codes. What it measures is tested in test_load.py."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import native_is_missing
from foreign_servers import Foreign, echo, foreign_server, hang_up, say, swallow
from programs import Module, pysock_command
from support import PATIENCE, wait_for
from terminal import COLUMNS, LINES, on_a_terminal, screen_of

import pysock
from pysock import Server
from pysock.cli import bench as cli_bench
from pysock.cli import main as cli
from pysock.cli import screen as cli_screen
from pysock.load import Latency, LoadOptions, LoadResult, Progress

if native_is_missing():
    pytest.skip("the load generator is part of the native engine", allow_module_level=True)
pytestmark = pytest.mark.not_over_tls("the load generator speaks none")


@pytest.fixture
def where(make_server: Callable[..., Server], address: str) -> Iterator[str]:
    server = make_server(address)
    server.service(lambda _client, request: request)

    @server.service("fail")
    def fail(_client: pysock.DataSocket, _request: bytes) -> bytes:
        raise pysock.RemoteError("not\ntoday")

    @server.service("parse")
    def parse(_client: pysock.DataSocket, request: bytes) -> bytes:
        return b"%d" % int(request)

    with server:
        yield str(server.addresses[0])


@pytest.fixture
def foreign(socket_dir: Path) -> Iterator[Foreign]:
    with foreign_server(socket_dir, "unix", echo) as server:
        yield server


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]):
    """``bench(*arguments)`` runs it here and returns exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["bench", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def failed(done: tuple[int, str, str], code: int = 1) -> str:
    """One line, and nothing else."""
    assert done[:2] == (code, ""), done
    assert re.fullmatch(r"pysock: [^\n]+\n", done[2]), done[2]
    return done[2]


def without_warnings(err: str) -> str:
    """How busy this machine is, is nothing that a test can know."""
    warnings = re.compile(r"pysock: (client-bound|only [\d,]+ requests a second were answered)")
    return "".join(line for line in err.splitlines(keepends=True) if not warnings.match(line))


# What it prints


def test_the_report(bench, where: str) -> None:
    code, out, err = bench(where, "-c", "3", "-d", "2", "-s", "100", "-n", "300")
    assert (code, without_warnings(err)) == (0, "")
    assert out.startswith(f"{where}: pysock, 100 bytes, 3 connections, 2 in flight on each, closed loop\n")
    for pattern in (
        r"^300 messages in \d+\.\d{3} s, no errors$",
        r"^[\d,]+ messages/s, [\d,.]+ MiB/s each way$",
        r"^the load generator used \d\.\d\d of a core$",
        r"^ *min +mean +p50 +p90 +p99 +p99\.9 +max *$",
        r"^ *to [\d,.]+ µs +[▏▎▍▌▋▊▉█]+ +[\d,]+ +[\d.]+ % *$",
    ):
        assert re.search(pattern, out, re.MULTILINE), pattern
    rows = re.findall(r"^ *to .* ([\d,]+) +[\d.]+ % *$", out, re.MULTILINE)
    assert sum(int(row.replace(",", "")) for row in rows) == 300
    assert re.match(r"[\d,]+ messages/s", out.splitlines()[-1]), "the result comes last"


def test_connections_are_counted_where_they_dont_last(bench, where: str) -> None:
    each = r"^[\d,]+ connections/s$"
    assert re.search(each, bench(where, "-c", "3", "-n", "30", "--churn")[1], re.MULTILINE)
    assert not re.search(each, bench(where, "-c", "3", "-n", "30")[1], re.MULTILINE)


def test_json(bench, where: str) -> None:
    code, out, err = bench(where, "--json", "--count", "50", "--rate", "5000")
    assert (code, without_warnings(err)) == (0, "")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert (found["address"], found["framing"], found["mode"], found["rate"]) == (where, "pysock", "open", 5000)
    assert (found["connections"], found["in_flight"], found["size"]) == (1, 1, 64)
    assert (found["messages"], found["errors"]) == (50, 0)
    assert sum(count for _, count in found["histogram"]) == 50
    assert 0 < found["latency_us"]["min"] <= found["latency_us"]["p99.9"] <= found["latency_us"]["max"]


def test_quiet(bench, where: str) -> None:
    code, out, err = bench(where, "-q", "-t", "0.05")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"[\d,]+ messages/s, [\d,.]+ MiB/s each way, p50 [\d,.]+ µs, p99 [\d,.]+ µs\n", out)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_a_foreign_server(bench, foreign: Foreign, framing: str) -> None:
    code, out, _ = bench(foreign.address, "--framing", framing, "--json", "-n", "20", "--linger", "50")
    assert (code, json.loads(out)["messages"]) == (0, 20)


def test_churn(bench, where: str) -> None:
    code, out, _ = bench(where, "--churn", "-n", "20", "-c", "2")
    assert code == 0
    assert "2 connections, a new one for each request" in out


def test_variables_for_options(bench, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COUNT": "7", "IN_FLIGHT": "3", "JSON": "1", "SIZE": "5"}.items():
        monkeypatch.setenv(f"PYSOCK_BENCH_{name}", value)
    code, out, _ = bench(where)
    found = json.loads(out)
    assert (code, found["messages"], found["in_flight"], found["size"]) == (0, 7, 3, 5)


def test_with_the_other_engine(foreign: Foreign) -> None:
    """The choice of an engine for servers says nothing about the load generator."""
    done = pysock_command("--backend", "pure", "bench", foreign.address, "--framing", "raw", "-n", "5", "-q")
    assert (done.returncode, done.stderr) == (0, b"")


def test_in_letters_that_are_only_ascii(foreign: Foreign) -> None:
    done = pysock_command("bench", foreign.address, "--framing", "raw", "-n", "50", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert re.search(r" us +#+ ", done.stdout.decode("ascii"))


def test_progress_on_a_terminal(foreign: Foreign) -> None:
    code, shown, lines = on_a_terminal("bench", foreign.address, "--framing", "raw", "-t", "0.4")
    assert code == 0
    assert len(lines) <= LINES - 1
    assert "connecting" in shown
    assert re.search(r"[\d,]+ messages/s .*\d+ %", shown)
    assert "latency" in shown


def test_no_progress_when_quiet(foreign: Foreign) -> None:
    code, shown, _ = on_a_terminal("bench", foreign.address, "--framing", "raw", "-n", "50", "--quiet")
    assert code == 0
    assert "%" not in shown


# What goes wrong


def test_errors(bench, where: str) -> None:
    code, out, err = bench(where, "--service", "fail", "-n", "30")
    assert code == 1
    assert "0 messages in" in out
    assert ", 30 errors" in out
    assert without_warnings(err) == (
        f"pysock: {where}: 30 of 30 requests were answered with an error; the first: not today\n"
    )


def test_a_handler_that_fails(bench, where: str) -> None:
    code, _, err = bench(where, "--service", "parse", "-n", "1")
    assert code == 1
    words = "the first: the server's handler failed with ValueError; the traceback is in the server's log\n"
    assert without_warnings(err).endswith(words)


def test_no_unnamed_service(bench, make_server: Callable[..., Server], address: str) -> None:
    named = make_server(address)
    named.service("echo")(lambda _client, request: request)
    with named:
        code, _, err = bench(str(named.addresses[0]), "-n", "1")
    assert code == 1
    assert without_warnings(err).endswith("the first: the server has no unnamed service: choose one with --service\n")


def test_no_such_service(bench, where: str) -> None:
    assert "has no service 'nothing'; it has 'fail', 'parse'" in failed(bench(where, "--service", "nothing"))


def test_a_server_with_a_key(bench, make_server: Callable[..., Server], address: str) -> None:
    with make_server(address, authkey=b"secret") as server:
        err = failed(bench(str(server.addresses[0]), "-n", "1"))
    assert err.endswith(": this server wants an auth key, and the load generator has none\n")


def test_nobody(bench, socket_dir: Path) -> None:
    assert "there is no such socket file" in failed(bench(f"unix:{socket_dir}/nobody"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "nobody listens there" in failed(bench(f"127.0.0.1:{port}", "-c", "100"))


@pytest.mark.parametrize(
    ("play", "framing", "words"),
    [
        (swallow, "u32", "no reply came for 0.1 seconds"),
        (swallow, "pysock", "no connection was let in within 0.1 seconds"),
        (hang_up, "raw", "closed a connection before it answered"),
        (hang_up, "pysock", "closed a connection before it answered"),
        (say(b"hello\n"), "line", "a reply isn't what was sent: its byte 0 is 0x68, not 0x41"),
        (echo, "pysock", "the answer to the CIR isn't pysock's protocol"),
    ],
)
def test_a_server_that_does_it_wrong(bench, socket_dir: Path, play, framing: str, words: str) -> None:
    with foreign_server(socket_dir, "unix", play) as server:
        assert words in failed(bench(server.address, "--framing", framing, "--stall", "0.1"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'ADDR'"),
        (["nowhere"], "bad address 'nowhere'"),
        (["fd://3"], "can't connect to fd://3"),
        (["unix:x", "-t", "1", "-n", "1"], "either --duration or --count"),
        (["unix:x", "-c", "0"], "'--connections' / '-c'"),
        (["unix:x", "-d", "many"], "'many' is not a valid integer"),
        (["unix:x", "-s", "-1"], "'--size' / '-s'"),
        (["unix:x", "-t", "0"], "'--duration' / '-t'"),
        (["unix:x", "-t", "nan"], "--duration must be from 0.001 to 86400, not nan"),
        (["unix:x", "-n", "0"], "'--count' / '-n'"),
        (["unix:x", "--rate", "0"], "'--rate'"),
        (["unix:x", "--rate", "inf"], "'--rate'"),
        (["unix:x", "--linger", "-1"], "'--linger'"),
        (["unix:x", "--stall", "0"], "'--stall'"),
        (["unix:x", "--framing", "http"], "'http' is not one of"),
        (["unix:x", "--framing", "raw", "-s", "0"], "size must be at least 1"),
        (["unix:x", "--framing", "u32", "--service", "a"], "'u32' has no services"),
        (["unix:x", "--churn", "-d", "2"], "--in-flight must be 1"),
        (["unix:x", "--churn", "--rate", "2"], "takes no rate"),
        (["unix:x", "extra"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(bench, arguments: list[str], words: str) -> None:
    assert words in failed(bench(*arguments), 2)


def test_without_the_extension(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysock._engine", None)
    for module in ("load", "crossing"):
        monkeypatch.delitem(sys.modules, f"pysock.engine.native.{module}", raising=False)
    assert "the load generator is part of the native engine" in failed(bench("unix:x"))


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_ctrl_c_shows_what_there_is(socket_dir: Path, arguments: list[str]) -> None:
    busy = threading.Event()

    def play(sock: socket.socket) -> None:
        for _ in range(100):
            sock.sendall(sock.recv(65536))
        busy.set()
        echo(sock)

    with (
        foreign_server(socket_dir, "unix", play) as server,
        Module("pysock", "bench", server.address, "--framing", "raw", "-t", "20", *arguments) as program,
    ):
        assert busy.wait(PATIENCE)
        program.signal(signal.SIGINT)
        code, out, err = program.end()
    assert (code, without_warnings(err)) == (130, "")
    assert json.loads(out)["messages"] >= 100 if arguments else "messages in" in out


def test_ctrl_c_before_there_is_anything(socket_dir: Path) -> None:
    with (
        foreign_server(socket_dir, "unix", swallow) as server,
        Module("pysock", "bench", server.address, "--stall", "20") as program,
    ):
        wait_for(lambda: server.accepted)
        program.signal(signal.SIGINT)
        assert program.end() == (130, "", "")


# Its parts


def test_help_has_an_example_and_variables() -> None:
    done = CliRunner().invoke(cli.cli, ["bench", "--help"], auto_envvar_prefix="PYSOCK")
    assert done.exit_code == 0
    assert re.search(r"Example:\n +pysock bench ", done.output)
    assert "PYSOCK_BENCH_IN_FLIGHT" in done.output


RESULT = LoadResult(
    options=LoadOptions(address=pysock.Address.parse("unix:x"), count=1000, rate=1000.0),
    seconds=1.0,
    messages=1000,
    errors=0,
    first_error="",
    connections_per_second=1.0,
    latency=Latency(least=1.0, mean=1.0, percentiles=((50.0, 1.0), (99.0, 1.0)), most=1.0),
    histogram=((1.0, 1000),),
    client_cpu_seconds=0.1,
    client_core=0.1,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"client_core": 0.851}, "client-bound: the load generator used 0.85 of its core"),
        ({"messages": 970}, "only 970 requests a second were answered, of the 1,000 that were due"),
        ({"messages": 970, "errors": 30}, ""),
    ],
)
@pytest.mark.parametrize("quiet", [False, True])
def test_warnings(capsys: pytest.CaptureFixture[str], changes: dict[str, float], words: str, quiet: bool) -> None:
    cli_screen.Screen(quiet).warn(replace(RESULT, **changes))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pysock: {words}") if words and not quiet else err == ""


def test_the_rows_of_the_histogram() -> None:
    assert cli_screen.rows_of([]) == []
    assert cli_screen.rows_of([(0.05, 1), (0.1, 2)]) == [(0.1, 3)]
    assert cli_screen.rows_of([(10.0, 1), (10.1, 2), (29.0, 4)]) == [(10.0, 1), (15.0, 2), (20.0, 0), (30.0, 4)]
    assert cli_screen.rows_of([(1e12, 7)]) == [(7e7, 7)]


def test_fewer_rows() -> None:
    rows = [(1.0, 5), (2.0, 900), (3.0, 800), (5.0, 2), (7.0, 0), (10.0, 1)]
    assert cli_screen.fewer(rows, 6) == rows
    assert cli_screen.fewer(rows, 4) == [(1.0, 5), (2.0, 900), (3.0, 800), (10.0, 3)]
    assert cli_screen.fewer([], 4) == []


def test_the_longest_report_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With long latencies, a row in each step of the histogram, and both warnings."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    slow = 99_999_999.0
    percentiles = tuple((percent, slow) for percent in (50.0, 90.0, 99.0, 99.9))
    result = replace(
        RESULT,
        options=replace(RESULT.options, address=pysock.Address.parse("unix:" + "x" * 60), connections=1000),
        messages=97_000_000,
        seconds=100_000.0,
        client_core=0.99,
        latency=Latency(least=slow, mean=slow, percentiles=percentiles, most=slow),
        histogram=tuple((edge, 1_000_000) for edge in cli_screen._EDGES),
    )
    screen = cli_screen.Screen(False)
    screen.report(result)
    screen.warn(result)
    out, err = capsys.readouterr()
    assert err.count("pysock: ") == 2
    assert len(screen_of((out + err).replace("\n", "\r\n"))) <= LINES - 1
    assert "…" not in out, "nothing is cut off"
    assert out.count("99,999,999") == 7


def test_bars(capsys: pytest.CaptureFixture[str]) -> None:
    screen = cli_screen.Screen(False)
    bars = [screen._bar(part) for part in (0.0, 1e-9, 0.5, 1.0)]
    assert [len(bar) for bar in bars] == [0, 1, 20, 40]


def test_the_words_of_progress() -> None:
    options = replace(RESULT.options, connections=5)
    start = Progress(0, 0, 0, 0.0)
    assert cli_screen.describe(Progress(3, 0, 0, 0.0), start, options) == "3 of 5 connected"
    before, now = Progress(5, 1000, 0, 1.0), Progress(5, 3000, 7, 1.5)
    assert cli_screen.describe(now, before, options) == "4,000 messages/s, 7 errors"
    assert cli_screen.describe(before, before, options) == "0 messages/s"
    assert cli_screen.how_far(now, options) == 3007
    assert cli_screen.how_far(now, replace(options, count=None, duration=2.0)) == 1.5


def test_room_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(100, 1000)]
    monkeypatch.setattr(cli_bench.resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(cli_bench.resource, "setrlimit", lambda _which, new: limits.append(new))
    cli_bench.make_room(10)
    cli_bench.make_room(500)
    cli_bench.make_room(5000)
    assert limits == [(100, 1000), (564, 1000), (1000, 1000)]
