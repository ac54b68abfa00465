"""The examples do what they say, also to programs that others wrote."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import hiredis
import pytest
from programs import Module, run, serving, tool
from support import PATIENCE, environment, left_in, plug

import pysock
from pysock import Server
from pysock.examples import chat, redis_server, routing_table, tokens, upper

# upper


def test_upper(backend: str, address: str) -> None:
    with Module("pysock.examples.upper", "--bind", address, PYSOCK_BACKEND=backend) as program:
        (where,) = serving(program)
        with pysock.connect(where, backend=backend) as client:
            assert client.request(b"hello") == b"HELLO"
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "", "")


@pytest.mark.not_over_tls("socat is told of none here")
def test_upper_answers_socat_line_by_line(backend: str, address: str, transport: str) -> None:
    socat = tool("socat")
    with Module("pysock.examples.upper", "--bind", address, "--framing", "line", PYSOCK_BACKEND=backend) as program:
        where = pysock.Address.parse(serving(program)[0])
        target = f"UNIX-CONNECT:{where.path}" if transport == "unix" else f"TCP:{where.host}:{where.port}"
        done = run(socat, "-t5", "-", target, stdin=b"hello\nold friend\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\nOLD FRIEND\n", b"")


def test_several_addresses(socket_dir: Path) -> None:
    arguments = ["--bind", f"unix:{socket_dir}/a", "--bind", "tcp://127.0.0.1:0"]
    with Module("pysock.examples.upper", *arguments) as program:
        addresses = serving(program)
        assert len(addresses) == 2
        for where in addresses:
            with pysock.connect(where) as client:
                assert client.request(b"x") == b"X"


@pytest.mark.parametrize(
    "name", ["upper", "routing_table", "chat", "tokens", "watch", "redis_server", "outlines", "by_hand"]
)
def test_wrong_use_is_one_line(name: str) -> None:
    done = run(sys.executable, "-m", f"pysock.examples.{name}", "--bind", "nonsense")
    assert done.returncode == 2
    assert done.stdout == b""
    assert re.fullmatch(rb"\w+\.py: bad address 'nonsense': [^\n]+\n", done.stderr)


@pytest.mark.parametrize(
    "name", ["upper", "routing_table", "chat", "tokens", "watch", "redis_server", "outlines", "by_hand"]
)
def test_what_does_not_work_is_one_line(name: str, socket_dir: Path) -> None:
    done = run(sys.executable, "-m", f"pysock.examples.{name}", "--bind", f"unix:{socket_dir}/no/s")
    assert done.returncode == 1
    assert re.fullmatch(rb"\w+\.py: unix:[^\n]+ doesn't exist[^\n]*\n", done.stderr)


@pytest.mark.parametrize("name", ["upper", "routing_table", "chat", "tokens", "watch", "redis_server", "outlines"])
def test_where_other_machines_can_connect_no_option_is_named_that_is_not_there(name: str) -> None:
    done = run(sys.executable, "-m", f"pysock.examples.{name}", "--bind", "tcp://0.0.0.0:0")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"\w+\.py: tcp://[^\n]+ listen at 127\.0\.0\.1 or \[::1\][^\n=]*\n", done.stderr)


def test_tokens(backend: str, unix_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Module("pysock.examples.tokens", "--bind", unix_address, PYSOCK_BACKEND=backend) as program:
        (where,) = serving(program)
        text = tokens.GUIDE.read_bytes().split()
        with pysock.connect(where, backend=backend) as client:
            assert client.request(b"").split() == text
            assert list(client.stream(b"2")) == [text[0] + b" ", text[1] + b" "]
        tokens.three(where)
        told = capsys.readouterr().out.splitlines()
        assert sorted(told) == [
            f"fast: {len(text)} words",
            f"leaves: {tokens.ENOUGH} words",
            f"slow: {len(text)} words",
        ]
        program.signal(signal.SIGTERM)
        code, out, err = program.end()
    assert (code, err) == (0, "")
    assert re.fullmatch(r"(client '(first|leaves)' left at word \d+ of \d+\n){2}", out)


def test_a_key_that_an_example_cannot_have(make_server: Callable[..., Server], address: str) -> None:
    with make_server(address, authkey=b"secret") as server:
        where = str(server.addresses[0])
        done = run(sys.executable, "-m", "pysock.examples.routing_table", "--connect", where)
    words = b"routing_table.py: this server wants an auth key, and this example has no option for one\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", words)


@pytest.mark.parametrize("name", ["__main__", "redis_server"])
def test_the_redis_server_without_its_extra(name: str) -> None:
    code = "import runpy, sys; sys.modules['hiredis'] = None; runpy.run_module(sys.argv[1], None, sys.argv[2], True)"
    done = run(sys.executable, "-c", code, "pysock.examples.redis_server", name)
    words = b"redis_server.py: hiredis is missing: install pysock-engine[redis]\n"
    if name == "__main__":
        assert (done.returncode, done.stderr) == (2, words)
    else:  # whoever imports it is told as ever
        assert b"ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(
    "name", ["upper", "routing_table", "chat", "tokens", "watch", "redis_server", "outlines", "by_hand", "presence"]
)
def test_help_is_the_docstring(name: str) -> None:
    done = run(sys.executable, "-m", f"pysock.examples.{name}", "--help")
    assert done.returncode == 0
    assert b"--bind ADDR" in done.stdout
    assert b"(default: " in done.stdout


def test_upper_is_a_handler() -> None:
    assert upper.upper(None, b"a") == b"A"  # type: ignore[arg-type]


# routing_table


@pytest.fixture
def routes(backend: str, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("PYSOCK_BACKEND", backend)
    with routing_table.make_server([address]) as server:
        yield server


def table_of(client: pysock.Client, size: int) -> dict[str, str]:
    """Apply pushes until the client's copy has so many routes."""
    copy: dict[str, str] = {}
    for push in client.pushes(timeout=PATIENCE):
        routing_table.apply_change(copy, push.decode())
        if len(copy) == size:
            break
    return copy


def change(server: Server, service: str, route: str) -> None:
    with pysock.connect(server.addresses[0]) as client:
        client.request(route.encode(), service=service)


def test_routes_are_pushed_to_everybody(routes: Server) -> None:
    with pysock.connect(routes.addresses[0]) as one, pysock.connect(routes.addresses[0]) as two:
        change(routes, "add", "10.1.0.0/16 192.168.1.1")
        assert table_of(one, 1) == table_of(two, 1) == {"10.1.0.0/16": "192.168.1.1"}


def test_a_late_client_is_brought_up_to_date(routes: Server) -> None:
    change(routes, "add", "10.1.0.0/16 192.168.1.1")
    change(routes, "add", "2001:db8::/32 fe80::1")
    change(routes, "add", "10.1.0.0/16 192.168.1.2")
    with pysock.connect(routes.addresses[0]) as late:
        assert table_of(late, 2) == {"10.1.0.0/16": "192.168.1.2", "2001:db8::/32": "fe80::1"}
        change(routes, "remove", "10.1.0.0/16")
        assert next(late.pushes(timeout=PATIENCE)) == b"- 10.1.0.0/16"


@pytest.mark.parametrize(
    ("service", "route", "words"),
    [
        ("add", "10.1.0.0/16", "a route is NETWORK GATEWAY"),
        ("add", "10.1.0.0/99 192.168.1.1", "10.1.0.0/99"),
        ("add", "10.1.0.0/16 nobody", "nobody"),
        ("remove", "10.9.0.0/16", "there is no route to 10.9.0.0/16"),
    ],
)
def test_nonsense_is_answered_with_an_error(routes: Server, service: str, route: str, words: str) -> None:
    with pytest.raises(pysock.RemoteError, match=re.escape(words)):
        change(routes, service, route)


def test_watching(routes: Server, backend: str) -> None:
    change(routes, "add", "10.1.0.0/16 192.168.1.1")
    where = str(routes.addresses[0])
    with Module("pysock.examples.routing_table", "--connect", where, PYSOCK_BACKEND=backend) as program:
        assert program.line() == f"connected to {where}"
        assert program.line() == "+ 10.1.0.0/16 192.168.1.1  (1 routes)"
        change(routes, "remove", "10.1.0.0/16")
        assert program.line() == "- 10.1.0.0/16  (0 routes)"
        routes.stop()
        assert program.end() == (0, "", "")


def test_watching_nobody(socket_dir: Path) -> None:
    done = run(sys.executable, "-m", "pysock.examples.routing_table", "--connect", f"unix:{socket_dir}/s")
    assert done.returncode == 1
    assert re.fullmatch(rb"routing_table\.py: [^\n]+is the server running[^\n]+\n", done.stderr)


# chat


def test_a_room(socket_dir: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes late is told the last lines; who doesn't read is told how many it has missed."""
    monkeypatch.setenv("PYSOCK_BACKEND", backend)
    where, line = f"unix:{socket_dir}/s", b"-" * 5000
    with (
        chat.make_server([where]),
        pysock.connect(where, "anna") as anna,
        pysock.connect(where, "bert") as bert,
        pysock.connect(where, "carl") as carl,
    ):
        for client in (anna, bert):
            client.request(b"tea", service="enter")
        assert next(anna.pushes(timeout=5)) == b"* bert has come"
        for number in range(200):
            anna.request(b"%d %s" % (number, line), service="say")
        carl.request(b"tea", service="enter")
        assert list(carl.pushes(timeout=0)) == [b"anna: %d %s" % (number, line) for number in range(190, 200)]
        missed: list[int] = []
        bert.on_gap(missed.append)
        heard = []
        for push in bert.pushes(timeout=5):
            heard.append(push)
            if push == b"* carl has come":
                break
        assert sum(missed) == bert.missed_pushes > 0
        assert len(heard) + sum(missed) == 202
        carl.close()
        assert list(iter(anna.pushes(timeout=5).__next__, b"* carl is gone: left")) == [b"* carl has come"]


def test_talking(socket_dir: Path) -> None:
    where = f"unix:{socket_dir}/s"
    with chat.make_server([where]), pysock.connect(where, "anna") as anna:
        anna.request(b"tea", service="enter")
        arguments = ["--connect", where, "--name", "bert", "--room", "tea"]
        done = run(sys.executable, "-m", "pysock.examples.chat", *arguments, stdin=b"hello\nbye\n")
        assert (done.returncode, done.stderr) == (0, b"")
        heard = anna.pushes(timeout=5)
        expected = [b"* bert has come", b"bert: hello", b"bert: bye", b"* bert is gone: left"]
        assert [next(heard) for _ in expected] == expected


# watch


def test_a_watcher_survives_a_restart(backend: str, address: str, socket_dir: Path) -> None:
    file = str(socket_dir / "routes.txt")
    with Module("pysock.examples.watch", "--bind", address, "--file", file, PYSOCK_BACKEND=backend) as server:
        where = server.line().split()[-1]
        with Module("pysock.examples.watch", "--connect", where, PYSOCK_BACKEND=backend) as watcher:
            assert watcher.line() == f"connected to {where}"
            with pysock.connect(where, backend=backend) as client:
                client.request(b"10.1.0.0/16 192.168.1.1", service="add")
                client.request(b"10.2.0.0/16 192.168.1.2", service="add")
            assert watcher.line() == "+ 10.1.0.0/16 192.168.1.1  (1 routes)"
            assert watcher.line() == "+ 10.2.0.0/16 192.168.1.2  (2 routes)"
            server.process.kill()
            server.process.wait()
            with Module("pysock.examples.watch", "--bind", where, "--file", file, PYSOCK_BACKEND=backend):
                assert watcher.line() == "connected again"
                assert watcher.line() == "+ 10.1.0.0/16 192.168.1.1  (1 routes)"
                assert watcher.line() == "+ 10.2.0.0/16 192.168.1.2  (2 routes)"
            watcher.process.kill()
            watcher.process.wait()


# bridge


def test_the_bridge(backend: str, address: str, socket_dir: Path, make_server: Callable[..., Server]) -> None:
    far = make_server(f"unix:{socket_dir}/far")

    @far.service
    def handler(client: pysock.DataSocket, request: bytes) -> bytes:
        if request == b"fail":
            raise pysock.RemoteError("not today", 77)
        return request.upper()

    arguments = ["--bind", address, "--connect", f"unix:{socket_dir}/far", "--every", "0.05"]
    with far, Module("pysock.examples.bridge", *arguments, PYSOCK_BACKEND=backend) as program:
        (where,) = serving(program)
        with pysock.connect(where, backend=backend) as one, pysock.connect(where, backend=backend) as two:
            assert one.request_many([b"a", b"b"] * 500) == [b"A", b"B"] * 500
            assert two.request(b"c") == b"C"
            with pytest.raises(pysock.RemoteError, match="not today") as raised:
                one.request(b"fail")
            assert raised.value.code == 77
        assert far.stats()["accepted"] == 1
        while program.line() != "1002 requests":
            pass
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "", "")


def test_the_bridge_to_nobody(socket_dir: Path) -> None:
    arguments = ["--bind", f"unix:{socket_dir}/s", "--connect", f"unix:{socket_dir}/far"]
    done = run(sys.executable, "-m", "pysock.examples.bridge", *arguments)
    assert done.returncode == 1
    assert re.fullmatch(rb"bridge\.py: [^\n]+is the server running[^\n]+\n", done.stderr)


# redis_server


@pytest.fixture
def redis(make_server: Callable[..., Server], address: str) -> Iterator[pysock.Address]:
    redis_server.database.clear()
    server = make_server(address, framing="raw")
    server.service(redis_server.serve_chunk)
    with server:
        yield server.addresses[0]


@pytest.fixture(params=["unix", "tcp"])
def redis_program(request: pytest.FixtureRequest, backend: str, socket_dir: Path) -> Iterator[list[str]]:
    """The example as a process; what ``redis-cli`` and ``redis-benchmark`` need to reach it."""
    bind = f"unix:{socket_dir}/s" if request.param == "unix" else "tcp://127.0.0.1:0"
    with Module("pysock.examples.redis_server", "--bind", bind, PYSOCK_BACKEND=backend) as program:
        where = pysock.Address.parse(serving(program)[0])
        yield ["-s", where.path] if where.path else ["-h", where.host, "-p", str(where.port)]
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "", "")


def conversation(where: pysock.Address, *chunks: bytes, replies: int) -> list[object]:
    """Send the chunks, and read so many replies."""
    reader = hiredis.Reader()
    found: list[object] = []
    with closing(plug(where)) as sock:
        for chunk in chunks:
            sock.sendall(chunk)
        while len(found) < replies:
            if (reply := reader.gets()) is not False:
                found.append(reply)
            elif data := sock.recv(65536):
                reader.feed(data)
            else:
                break
    return found


def test_redis_commands(redis: pysock.Address) -> None:
    def ask(*words: str) -> object:
        return conversation(redis, hiredis.pack_command(words), replies=1)[0]

    assert ask("PING") == b"PONG"
    assert ask("ping", "hello") == b"hello"
    assert ask("ECHO", "") == b""
    assert ask("GET", "key") is None
    assert ask("SET", "key", "value") == b"OK"
    assert ask("GET", "key") == b"value"
    assert ask("EXISTS", "key", "key", "other") == 2
    assert ask("DEL", "key", "other") == 1
    assert ask("INCR", "n") == 1
    assert ask("INCR", "n") == 2
    assert ask("GET", "n") == b"2"
    assert ask("CONFIG", "GET", "save") == [b"save", b""]
    assert ask("CONFIG", "GET", "save", "maxmemory") == [b"save", b""]
    assert ask("COMMAND", "DOCS") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["NONSENSE"], "ERR unknown command 'NONSENSE'"),
        (["a\r\nb"], "ERR unknown command 'a  b'"),
        (["GET"], "ERR wrong number of arguments for 'get' command"),
        (["GET", "a", "b"], "ERR wrong number of arguments for 'get' command"),
        (["SET", "a", "b", "PX"], "ERR syntax error"),
        (["CONFIG", "REWRITE"], "ERR unknown subcommand 'REWRITE'"),
    ],
)
def test_redis_errors(redis: pysock.Address, words: list[str], message: str) -> None:
    (error,) = conversation(redis, hiredis.pack_command(tuple(words)), replies=1)
    assert isinstance(error, hiredis.ReplyError)
    assert str(error) == message


@pytest.mark.parametrize("value", ["", "x", " 1", "1_0", "01", "9223372036854775808", "9" * 5000])
def test_redis_incr_of_what_is_no_number(redis: pysock.Address, value: str) -> None:
    commands = hiredis.pack_command(("SET", "n", value)) + hiredis.pack_command(("INCR", "n"))
    _, error = conversation(redis, commands, replies=2)
    assert str(error) == "ERR value is not an integer or out of range"


def test_redis_incr_overflow(redis: pysock.Address) -> None:
    commands = hiredis.pack_command(("SET", "n", str(2**63 - 1))) + hiredis.pack_command(("INCR", "n"))
    _, error = conversation(redis, commands, replies=2)
    assert str(error) == "ERR increment or decrement would overflow"


def test_redis_commands_cut_anywhere(redis: pysock.Address) -> None:
    stream = b"".join(hiredis.pack_command(words) for words in [("SET", "k", "v"), ("GET", "k"), ("PING",)])
    single = [stream[i : i + 1] for i in range(len(stream))]
    assert conversation(redis, *single, replies=3) == [b"OK", b"v", b"PONG"]
    assert conversation(redis, stream, replies=3) == [b"OK", b"v", b"PONG"]


def test_redis_inline_commands(redis: pysock.Address) -> None:
    assert conversation(redis, b"PI", b"NG\r\n\r\nSET k v\nGET k\r\n", replies=3) == [b"PONG", b"OK", b"v"]


@pytest.mark.parametrize("nonsense", [b"*1\r\n:5\r\n", b"*x\r\n", b"*1\r\n$4\r\nPING\r\n+OK\r\n", b"x" * 70_000])
def test_redis_protocol_errors_close_only_that_client(redis: pysock.Address, nonsense: bytes) -> None:
    with closing(plug(redis)) as other:
        *_, error = conversation(redis, nonsense, replies=9)
        assert isinstance(error, hiredis.ReplyError)
        assert str(error).startswith("ERR Protocol error")
        other.sendall(b"PING\r\n")
        assert other.recv(100) == b"+PONG\r\n"


def test_redis_cli(redis_program: list[str]) -> None:
    cli = tool("redis-cli")

    def ask(*words: str) -> bytes:
        done = run(cli, *redis_program, *words)
        assert done.stderr == b""
        return done.stdout

    assert ask("ping") == b"PONG\n"
    assert ask("set", "greeting", "hello world") == b"OK\n"
    assert ask("get", "greeting") == b"hello world\n"
    assert ask("incr", "visits") == b"1\n"
    assert ask("exists", "greeting", "nothing") == b"1\n"
    assert ask("del", "greeting") == b"1\n"
    assert ask("get", "greeting") == b"\n"
    assert ask("incr") == b"ERR wrong number of arguments for 'incr' command\n\n"
    piped = run(cli, *redis_program, stdin=b"set a 1\nget a\n")
    assert piped.stdout == b"OK\n1\n"


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(redis_program: list[str], pipeline: str) -> None:
    benchmark = tool("redis-benchmark")
    done = run(
        benchmark, *redis_program, "-t", "ping,set,get", "-P", pipeline, "-c", "20", "-n", "4000", "-r", "50", "--csv"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    rates = dict(re.findall(r'^"(\w+)","([\d.]+)"', done.stdout.decode(), re.MULTILINE))
    assert set(rates) == {"PING_INLINE", "PING_MBULK", "SET", "GET"}
    assert all(float(rate) > 0 for rate in rates.values())


# outlines


def test_outlines(backend: str, address: str) -> None:
    with Module("pysock.examples.outlines", "--bind", address, PYSOCK_BACKEND=backend) as program:
        (where,) = serving(program)
        done = run(
            sys.executable, "-m", "pysock.examples.outlines", "--bind", where, "--ask", str(Path(__file__).parent)
        )
        with pysock.connect(where) as client, pytest.raises(pysock.RemoteError, match="SyntaxError"):
            client.request(b"def", service="outline")
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert (done.returncode, done.stderr) == (0, b"")
    files = len(list(Path(__file__).parent.glob("*.py")))
    assert re.search(rb"\ndef loads\n", done.stdout)
    assert re.search(rb"^%d files define \d{3,} names: " % files, done.stdout, re.MULTILINE)


# by_hand


#: Nothing that Python itself would read or write by chance.
MESSAGE = b"okapi-4711"


def talk(where: str) -> bytes:
    """Be the one client of ``by_hand``."""
    with closing(plug(where)) as sock:
        sock.sendall(MESSAGE)
        return sock.recv(65536)


@pytest.mark.not_over_tls("a MasterSocket that is used by hand speaks none")
def test_by_hand(backend: str, address: str, socket_dir: Path) -> None:
    with Module("pysock.examples.by_hand", "--bind", address, PYSOCK_BACKEND=backend) as program:
        line = program.line()
        assert line.startswith("waiting for one client at ")
        assert talk(line.split()[-1]) == MESSAGE.upper()
        assert program.end() == (0, "", "")
    assert left_in(socket_dir) == []


CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += +(-?\d+)(.*)$")
TRACED = (
    "socket,bind,listen,accept,accept4,connect,recvfrom,recvmsg,recvmmsg,sendto,sendmsg,sendmmsg,sendfile,splice,"
    "read,readv,write,writev,close,shutdown,unlink,unlinkat,dup,dup2,dup3"
)


class Call:
    """One line of strace: ``name(arguments) = result``."""

    def __init__(self, name: str, arguments: str, result: int) -> None:
        self.name = name
        self.arguments = arguments
        self.result = result

    def __repr__(self) -> str:
        return f"{self.name}({self.arguments}) = {self.result}"

    @property
    def fd(self) -> int | None:
        first = self.arguments.partition(",")[0]
        return int(first) if first.isdecimal() else None


def traced(backend: str, address: str, tmp_path: Path) -> list[Call]:
    """Run ``by_hand`` under strace, talk to it, and return its system calls."""
    strace = tool("strace")
    report = tmp_path / "strace.txt"
    options = ["-f", "-o", str(report), "-s", "256", "-e", f"trace={TRACED}", "-e", "signal=none"]
    command = [strace, *options, sys.executable, "-m", "pysock.examples.by_hand", "--bind", address]
    with subprocess.Popen(command, env=environment(PYSOCK_BACKEND=backend), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(b"waiting"), "by_hand didn't run under strace"
        assert talk(line.decode().split()[-1]) == MESSAGE.upper()
        assert process.wait(PATIENCE) == 0
    found = [match for line in report.read_text().splitlines() if (match := CALL.match(line))]
    return [Call(match[1], match[2], int(match[3])) for match in found]


def story(calls: list[Call], path: Path) -> tuple[list[Call], int, int]:
    """Return the calls that concern the two sockets and the file, and the descriptors of the master and the client."""
    bind = next(index for index, call in enumerate(calls) if call.name == "bind")
    master = calls[bind].fd
    created = max(i for i in range(bind) if calls[i].name == "socket" and calls[i].result == master)
    accepted, data = next((i, call.result) for i, call in enumerate(calls) if call.name in ("accept", "accept4"))
    about = [call for call in calls[created:] if call.fd == master or call.result == master]
    about += [call for call in calls[accepted:] if call.fd == data]  # the number had another meaning before
    about += [call for call in calls[created:] if call.name.startswith("unlink") and str(path) in call.arguments]
    assert master is not None
    return sorted(about, key=calls.index), master, data


def test_by_hand_under_strace(backend: str, unix_address: str, socket_dir: Path, tmp_path: Path) -> None:
    path = socket_dir / "s"
    calls = traced(backend, unix_address, tmp_path)
    about, master, data = story(calls, path)
    steps = ["socket", "bind", "listen", "accept4", "recvfrom", "sendto", "close", "close", "unlink", "unlink"]
    assert [call.name for call in about] == steps, about
    assert [call.fd for call in about[1:8]] == [master, master, master, data, data, data, master], about
    assert not any(call.name.startswith("unlink") and call not in about for call in calls), "removed something else"


def test_by_hand_removes_a_stale_file_first(backend: str, unix_address: str, socket_dir: Path, tmp_path: Path) -> None:
    path = socket_dir / "s"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    calls = traced(backend, unix_address, tmp_path)
    about, _, _ = story(calls, path)
    before = calls[: calls.index(about[0])]
    unlinks = [call for call in before if call.name.startswith("unlink")]
    assert [str(path) in call.arguments for call in unlinks] == [True], (
        "the stale file is removed, once, before socket()"
    )
    # It was asked first whether somebody listens there; the probe's descriptor is closed by then.
    # (A sanitizer, where one is preloaded, reads the command line, which has the path as well.)
    # It is asked by a path of Linux's that leads to the very file that is removed, whoever has its name by then.
    files = (str(path), "/proc/self/fd/")
    about_path = [call.name for call in before if any(file in call.arguments for file in files) and call.name != "read"]
    assert about_path == ["connect", "unlink"]
    assert [call.name for call in about][:3] == ["socket", "bind", "listen"]


@pytest.mark.not_over_tls("a MasterSocket that is used by hand speaks none")
def test_no_client_data_on_the_master_socket(backend: str, address: str, socket_dir: Path, tmp_path: Path) -> None:
    calls = traced(backend, address, tmp_path)
    about, master, data = story(calls, socket_dir / "s")
    assert {call.name for call in about if call.fd == master} == {"bind", "listen", "accept4", "close"}
    carrying = [call for call in calls if MESSAGE.decode() in call.arguments.lower()]
    assert [(call.name, call.fd) for call in carrying] == [("recvfrom", data), ("sendto", data)]
