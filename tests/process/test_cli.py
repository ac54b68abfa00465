"""The command line: what it prints, where, and its exit codes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import click
import pytest
from click.testing import CliRunner
from programs import Module, pysock_command, run, serving
from support import PATIENCE, own_host, plug, wait_for

import pysock
from pysock import Server, __main__
from pysock.cli import main as cli
from pysock.cli.words import ADVICE
from pysock.wire.nodes import decode_nodes


@pytest.fixture
def server(make_server: Callable[..., Server], address: str) -> Iterator[Server]:
    result = make_server(address)

    @result.service
    def upper(_client: pysock.DataSocket, request: bytes) -> bytes:
        return request.upper()

    @result.service("reverse")
    def reverse(_client: pysock.DataSocket, request: bytes) -> bytes:
        return request[::-1]

    @result.service("count")
    def count(_client: pysock.DataSocket, request: bytes) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d " % number
        raise pysock.RemoteError("no more")

    @result.service("fail")
    def fail(_client: pysock.DataSocket, _request: bytes) -> bytes:
        raise pysock.RemoteError("not\ntoday")

    @result.service("parse")
    def parse(_client: pysock.DataSocket, request: bytes) -> bytes:
        return b"%d" % int(request)

    with result:
        yield result


@pytest.fixture
def where(server: Server) -> str:
    return str(server.addresses[0])


@pytest.fixture
def command(backend: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]):
    """``command(*arguments)`` runs the command line here and returns exit code, output and errors."""
    monkeypatch.setenv("PYSOCK_BACKEND", backend)

    def call(*arguments: str) -> tuple[int, bytes, bytes]:
        code = cli.main(list(arguments))
        out, err = capfdbinary.readouterr()
        return code, out, err

    return call


def fed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> TextIO:
    """Let standard input hold these bytes."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    stream = os.fdopen(reading)
    monkeypatch.setattr(sys, "stdin", stream)
    return stream


def one_line(err: bytes) -> str:
    text = err.decode()
    assert re.fullmatch(r"pysock: [^\n]+\n", text), text
    return text


# call


def test_call(command, where: str) -> None:
    assert command("call", where, "hello") == (0, b"HELLO", b"")


def test_call_writes_a_stream_as_it_comes(command, where: str) -> None:
    code, out, err = command("call", where, "3", "--service", "count", "--stream")
    assert (code, out) == (1, b"0 1 2 ")
    assert b"no more" in err
    assert command("call", where, "abc", "--stream") == (0, b"ABC", b"")
    assert command("call", where, "3", "--service", "count")[1] == b""  # all of it or nothing


def test_call_a_named_service(command, where: str) -> None:
    assert command("call", where, "--service", "reverse", "hello") == (0, b"olleh", b"")


@pytest.mark.parametrize("payload", [["-"], []])
def test_call_with_standard_input(command, where: str, monkeypatch: pytest.MonkeyPatch, payload: list[str]) -> None:
    every_byte = bytes(range(256))
    with fed(monkeypatch, every_byte):
        assert command("call", where, "--service", "reverse", *payload) == (0, every_byte[::-1], b"")


def test_call_with_standard_input_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["call", "unix:x"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_call_with_bytes_that_are_no_text(where: str, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pysock", "call", where, b"\xff\xfe"],
        env={**os.environ, "PYSOCK_BACKEND": backend},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff\xfe", b"")


def test_call_gets_an_error(command, where: str) -> None:
    assert command("call", where, "--service", "fail", "x") == (1, b"", f"pysock: {where}: not today\n".encode())


def test_call_to_no_such_service(command, where: str) -> None:
    code, out, err = command("call", where, "--service", "nothing", "x")
    assert (code, out) == (1, b"")
    assert "'nothing'" in one_line(err)
    assert "'reverse'" in one_line(err)


@pytest.mark.parametrize(("names", "there"), [(["add", "sub"], "'add', 'sub'"), ([], "no named ones either")])
def test_call_without_a_service_where_all_have_names(
    command, make_server: Callable[..., Server], address: str, names: list[str], there: str
) -> None:
    named = make_server(address)
    for name in names:
        named.service(name)(lambda _client, request: request)
    with named:
        where = str(named.addresses[0])
        code, out, err = command("call", where, "x")
    assert (code, out) == (1, b"")
    advice = ": choose one with --service" if names else ""
    assert one_line(err) == f"pysock: {where}: the server has no unnamed service; it has {there}{advice}\n"


def test_call_where_the_handler_fails(command, where: str) -> None:
    code, out, err = command("call", where, "--service", "parse", "x")
    assert (code, out) == (1, b"")
    assert one_line(err) == (
        f"pysock: {where}: the server's handler failed with ValueError; the traceback is in the server's log\n"
    )


def test_call_to_nobody(command, socket_dir: Path) -> None:
    code, out, err = command("call", f"unix:{socket_dir}/nobody", "x")
    assert (code, out) == (1, b"")
    assert one_line(err).startswith(f"pysock: unix:{socket_dir}/nobody: there is no such socket file")


def test_an_address_without_a_path_is_told_with_its_path(
    command, socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    (socket_dir / "pysock").mkdir(0o700)
    for text, name in (("unix:", "server"), ("unix:?name=demo", "demo")):
        code, out, err = command("call", text, "x")
        assert (code, out) == (1, b"")
        words = f"pysock: {text} ({socket_dir}/pysock/{name}.sock): there is no such socket file"
        assert one_line(err).startswith(words)


def test_call_to_somebody_who_never_answers(command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        code, out, err = command("call", f"127.0.0.1:{port}", "x", "--timeout", "0.05")
    assert (code, out) == (1, b"")
    assert "within 0.05 seconds" in one_line(err)


def test_call_refused(command, make_server: Callable[..., Server], address: str) -> None:
    refusing = make_server(address)

    @refusing.on_connect
    def refuse(client: pysock.DataSocket) -> None:
        raise pysock.ConnectionRefused("members only")

    with refusing:
        where = str(refusing.addresses[0])
        for arguments in (["call", where, "x"], ["ping", where]):
            assert command(*arguments) == (1, b"", f"pysock: {where}: members only\n".encode())


def test_call_without_an_answer_in_time(command, make_server: Callable[..., Server], address: str) -> None:
    slow, asked = make_server(address), threading.Event()
    slow.service(lambda _client, _request: asked.wait(PATIENCE) and None)
    with slow:
        where = str(slow.addresses[0])
        code, out, err = command("call", where, "x", "--timeout", "0.05")
        asked.set()
    assert (code, out) == (1, b"")
    assert re.search(f"^pysock: {re.escape(where)}: .*(in time|within 0.05 seconds)\n$", one_line(err))


def test_a_key_where_none_is_wanted(command, where: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"secret")
    code, out, err = command("ping", where, "--authkey-file", str(tmp_path / "key"))
    assert (code, out) == (1, b"")
    assert one_line(err) == (
        f"pysock: {where}: the server has no auth key: give it one there (--authkey-file, or authkey= of its Server),"
        " or leave out --authkey-file here\n"
    )


def test_all_that_the_library_advises_is_said_otherwise() -> None:
    advice = {text for name, text in vars(pysock.errors).items() if name.isupper() and isinstance(text, str)}
    assert len(advice) > 2
    assert set(ADVICE) == advice


def test_a_variable_for_an_option(command, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSOCK_CALL_SERVICE", "reverse")
    assert command("call", where, "hello") == (0, b"olleh", b"")


# ping


def test_ping(command, where: str) -> None:
    code, out, err = command("ping", where, "--count", "3", "--interval", "0")
    assert (code, err) == (0, b"")
    *pongs, summary = out.decode().splitlines()
    assert [re.sub(r"[\d.]+ ms", "? ms", line) for line in pongs] == [
        f"pong {number} from {where}: ? ms, serving" for number in (1, 2, 3)
    ]
    assert re.fullmatch(r"3 of 3 answered, ms: [\d.]+ min, [\d.]+ median, [\d.]+ max", summary)


def test_ping_a_server_that_wants_no_new_clients(command, server: Server, where: str) -> None:
    server.lame()
    code, out, err = command("ping", where, "--count", "1")
    assert (code, err) == (3, b"")
    assert re.match(rf"pong 1 from {re.escape(where)}: [\d.]+ ms, draining\n1 of 1 answered", out.decode())


@pytest.mark.parametrize("balance", [(), ("--balance", "p2c"), ("--balance", "round")])
def test_several_addresses(command, where: str, project: Path, balance: tuple[str, ...]) -> None:
    several = f"unix:{project}/nobody,{where}"
    assert command("call", several, "hello", *balance) == (0, b"HELLO", b"")
    code, out, err = command("ping", several, "--count", "1", *balance)
    assert (code, err) == (0, b"")
    assert out.decode().startswith(f"pong 1 from {where}: ")


def test_several_addresses_where_nobody_answers(command, project: Path) -> None:
    code, out, err = command("call", f"unix:{project}/one,unix:{project}/two", "hello")
    assert (code, out) == (1, b"")
    text = one_line(err)
    assert "none of 2 addresses lets this client in: start one of them, or correct them" in text
    assert f"(1) unix:{project}/one: there is no such socket file" in text
    assert f"(2) unix:{project}/two: there is no such socket file" in text
    code, _, err = command("call", f"unix:{project}/one,tcp://a:b", "hello")
    assert code == 2
    assert b"bad address" in err


def test_an_error_of_one_of_several_names_them(command, where: str, project: Path) -> None:
    code, _, err = command("call", f"{where},unix:{project}/two", "x", "--service", "fail")
    assert code == 1
    assert f"{where}, unix:{project}/two: not today" in one_line(err)


def test_ping_nobody(command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, out, err = command("ping", f"tcp://127.0.0.1:{port}")
    assert (code, out) == (1, b"")
    assert "nobody listens there" in one_line(err)


# drain, resume


def test_drain_and_resume(command, backend: str, project: Path) -> None:
    where = f"unix:{project}/own"
    with Module("pysock", "--backend", backend, "serve", "shop:server") as program:
        assert serving(program) == [where]
        for _ in range(2):
            assert command("drain", where) == (0, f"{where}: draining\n".encode(), b"")
            assert command("ping", where, "--count", "1")[0] == 3
            assert ask(where, b"x") == b"xx"
        for _ in range(2):
            assert command("resume", where) == (0, f"{where}: serving\n".encode(), b"")
            assert command("ping", where, "--count", "1")[0] == 0
        code, _, err = command("call", where, "--service", "nothing", "x")
        assert (code, "_drain" in one_line(err)) == (1, False)  # they are the server's own
        program.signal(signal.SIGTERM)
        code, _, err = program.end()
    assert code == 0
    assert len(re.findall(rf"_drain: asked for by process {os.getpid()} of user {os.getuid()}", err)) == 2
    assert "lame: health checks fail" in err


def test_drain_with_the_key(command, backend: str, project: Path) -> None:
    (project / "key").write_bytes(b"secret")
    arguments = ["--bind", f"unix:{project}/a", "--authkey-file", "key"]
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        (where,) = serving(program)
        assert command("drain", where)[0] == 1
        assert command("drain", where, "--authkey-file", "key")[0] == 0


def test_drain_a_server_that_takes_no_commands(command, where: str) -> None:
    code, out, err = command("drain", where)
    assert (code, out) == (1, b"")
    assert one_line(err).startswith(f"pysock: {where}: this server takes no commands: those that pysock serve runs")


def test_resume_a_server_that_stops(command, backend: str, project: Path) -> None:
    where = f"unix:{project}/own"
    with Module("pysock", "--backend", backend, "serve", "shop:server", "--drain-delay", "60") as program:
        serving(program)
        program.signal(signal.SIGTERM)
        wait_for(lambda: command("ping", where, "--count", "1")[0] == 3, "the delay to begin")
        code, out, err = command("resume", where)
        assert (code, out) == (1, b"")
        assert one_line(err) == f"pysock: {where}: this server is about to end: it can't resume\n"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 128 + signal.SIGTERM


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_not_obeyed(command, backend: str, project: Path) -> None:
    """Nor is anybody over TCP, where nobody tells who asks."""
    arguments = ["--bind", f"unix:{project}/a?mode=0666", "--bind", "tcp://127.0.0.1:0"]
    project.chmod(0o755)
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        own, tcp = serving(program)
        for where, user in ((tcp, os.geteuid()), (own.partition("?")[0], 65534)):
            child = os.fork()
            if not child:
                os.setuid(user)
                os._exit(command("drain", where)[0])
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert command("drain", tcp)[2].endswith(b"by a Unix socket of this machine\n")
        assert command("ping", own.partition("?")[0], "--count", "1")[0] == 0


# serve


@pytest.fixture
def project(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of the user's."""
    (socket_dir / "shop.py").write_text(
        textwrap.dedent(f"""
        import pysock

        server = pysock.Server("unix:{socket_dir}/own")

        @server.service
        def double(client, request):
            return request * 2

        class Desk:
            @staticmethod
            def triple(client, request):
                return request * 3

        def flood(client, request):
            for _ in range(int(request)):
                client.send(bytes(2**20))

        price = 5

        async def later(client, request):
            return request

        class Meta(type):
            @property
            def moody(cls):
                raise KeyError("not now")

        class Mood(metaclass=Meta):
            pass
        """)
    )
    (socket_dir / "empty").write_text("\n")
    (socket_dir / "broken.py").write_text("import pysock\n1 / 0\n")
    (socket_dir / "raising.py").write_text("raise ValueError('no luck')\n")
    (socket_dir / "calling.py").write_text("import json\njson.loads('')\n")
    (socket_dir / "through.py").write_text("import raising\n")
    (socket_dir / "garbled.py").write_text("x = 1\nx = = 2\n")
    (socket_dir / "leaving.py").write_text("raise SystemExit(0)\n")
    (socket_dir / "lacking.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(socket_dir)
    return socket_dir


def ask(address: str, payload: bytes) -> bytes:
    with pysock.connect(address) as client:
        return client.request(payload)


def test_serve_a_server(backend: str, project: Path) -> None:
    with Module("pysock", "--backend", backend, "serve", "shop:server") as program:
        line = program.line()
        assert line == f"serving on unix:{project}/own ({backend} engine)"
        assert ask(f"unix:{project}/own", b"ab") == b"abab"
        program.signal(signal.SIGTERM)
        code, _, err = program.end()
    assert code == 0
    assert "SERVING -> DRAINING" in err
    assert "Traceback" not in err
    assert not (project / "own").exists()


def test_serve_a_server_elsewhere(project: Path) -> None:
    arguments = ["--bind", f"unix:{project}/a", "--bind", "tcp://127.0.0.1:0", "--log-level", "error"]
    with Module("pysock", "serve", "shop:server", *arguments) as program:
        addresses = serving(program)
        assert len(addresses) == 2
        assert [ask(address, b"x") for address in addresses] == [b"xx", b"xx"]
        assert not (project / "own").exists()
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "", "")


def test_serve_a_handler(backend: str, project: Path) -> None:
    variables = {"PYSOCK_BACKEND": backend, "PYSOCK_SERVE_BIND": f"unix:{project}/a unix:{project}/b"}
    with Module("pysock", "serve", "shop:Desk.triple", **variables) as program:
        assert serving(program) == [f"unix:{project}/a", f"unix:{project}/b"]
        assert ask(f"unix:{project}/b", b"x") == b"xxx"


def test_serve_with_a_key(command, backend: str, project: Path) -> None:
    """Bytes of a file, but for one newline; who hasn't got them isn't let in."""
    (project / "key").write_bytes(b"\xff secret\n\n")
    (project / "other").write_bytes(b"\xff secret")
    arguments = ["--bind", f"unix:{project}/a", "--authkey-file", "key"]
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        (where,) = serving(program)
        with pysock.connect(where, authkey=b"\xff secret\n") as client:
            assert client.request(b"x") == b"xxx"
        assert command("call", where, "x", "--authkey-file", "key") == (0, b"xxx", b"")
        assert command("ping", where, "--count", "1", "--authkey-file", "key")[0] == 0
        code, out, err = command("call", where, "x", "--authkey-file", "other")
        assert (code, out) == (1, b"")
        assert one_line(err) == f"pysock: {where}: the server has another auth key\n"
        code, out, err = command("ping", where)
        assert (code, out) == (1, b"")
        assert one_line(err) == f"pysock: {where}: this server wants an auth key: give --authkey-file\n"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_serve_insecurely(backend: str, project: Path) -> None:
    arguments = ["--bind", "tcp://0.0.0.0:0", "--insecure"]
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        (where,) = serving(program)
        assert ask(where.replace("0.0.0.0", "127.0.0.1"), b"x") == b"xxx"


def test_serve_a_framing(backend: str, project: Path) -> None:
    arguments = ["--bind", f"unix:{project}/a", "--framing", "line"]
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        serving(program)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(f"{project}/a")
            sock.sendall(b"ho\n")
            assert sock.recv(100) == b"hohoho\n"


def test_serve_a_handler_in_workers(backend: str, project: Path) -> None:
    (project / "workers.py").write_text("def twice(request):\n    return request * 2\n")
    for target, option, reply in (("shop:Desk.triple", "--threads", b"aaa"), ("workers:twice", "--processes", b"aa")):
        arguments = ["--bind", f"unix:{project}/{option}", option, "2", "--queue", "10"]
        with Module("pysock", "--backend", backend, "serve", target, *arguments) as program:
            with pysock.connect(serving(program)[0]) as client:
                assert client.request(b"a") == reply
            program.signal(signal.SIGTERM)
            assert program.end()[0] == 0


@pytest.mark.parametrize("slow", [None, "drop-new", "drop-old"])
def test_serve_clients_that_are_slow(backend: str, project: Path, slow: str | None) -> None:
    options = ["--slow", slow] if slow else []
    arguments = ["--backend", backend, "serve", "shop:flood", "--bind", "unix:s", "--log-level", "error", *options]
    with Module("pysock", *arguments) as program, pysock.connect(*serving(program)) as client:
        many = b"33"  # and 32 MiB may wait
        if slow is None:
            with pytest.raises(pysock.ConnectionLost):
                client.request(many)
            return
        client.request(many)
        client.request(b"1")  # which tells how many are missing in front of it
        assert len(list(client.pushes(timeout=0))) + client.missed_pushes == 34
        assert client.missed_pushes > 0


def test_serve_tells_where_the_others_are(backend: str, project: Path) -> None:
    arguments = ["--bind", "unix:here", "--advertise", "unix:here,unix:there", "--advertise", "tcp://10.0.0.2:9000"]
    with Module("pysock", "--backend", backend, "serve", "shop:Desk.triple", *arguments) as program:
        with pysock.connect(serving(program)[0]) as client:
            nodes = decode_nodes(client.request(b"", service="_nodes")).nodes
        assert [node.addresses for node in nodes] == [
            (f"unix:{project}/here",),
            (f"unix:{project}/there",),
            ("tcp://10.0.0.2:9000",),
        ]
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_serve_tells_an_agent(command, backend: str, project: Path) -> None:
    with socket.create_server((own_host(), 0)) as free:
        agent = "{}:{}".format(*free.getsockname())
    arguments = ["--agent", agent, "--drain-delay", "60", "--log-level", "error"]
    with Module("pysock", "--backend", backend, "serve", "shop:server", *arguments) as program:
        serving(program)
        for said, after in ((b"ready up 100%\n", "drain"), (b"drain\n", "resume"), (b"ready up 100%\n", "")):
            with plug(agent) as sock:
                assert sock.recv(100) == said
            if after:
                assert command(after, f"unix:{project}/own")[0] == 0
        program.signal(signal.SIGTERM)
        wait_for(lambda: command("ping", f"unix:{project}/own", "--count", "1")[0] == 3, "the delay to begin")
        with plug(agent) as sock:
            assert sock.recv(100) == b"drain\n"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 128 + signal.SIGTERM


def test_ctrl_c_ends_serve(backend: str, project: Path) -> None:
    with Module("pysock", "--backend", backend, "serve", "shop:server", "--log-level", "error") as program:
        serving(program)
        program.signal(signal.SIGINT)
        assert program.end() == (130, "", "")
    assert not (project / "own").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["shop"], 2, "MODULE:NAME"),
        (["shop:"], 2, "MODULE:NAME"),
        (["shop:a b"], 2, "has no 'a b'"),
        (["raising:x"], 1, "module 'raising' can't be imported: ValueError: no luck (raising.py, line 1)"),
        (
            ["calling:x"],
            1,
            "can't be imported: JSONDecodeError: Expecting value: line 1 column 1 (char 0) (calling.py, line 2)",
        ),
        (["through:x"], 1, "module 'through' can't be imported: ValueError: no luck (raising.py, line 1)"),
        (["garbled:x"], 1, "module 'garbled' can't be imported: SyntaxError: invalid syntax (garbled.py, line 2)"),
        (["shop.py:server"], 2, "there is no module 'shop.py': write shop:server, without .py"),
        (
            ["./shop.py:server"],
            2,
            "'./shop.py' is the path of a file: write the module's name, as pysock.examples.upper",
        ),
        (["raising.py:x"], 1, "module 'raising.py' can't be imported: ValueError: no luck"),
        (["no.such:x"], 2, "there is no module 'no'"),
        (["shop:nothing"], 2, "has no 'nothing'"),
        (["shop:price", "--bind", "unix:s"], 2, "an object of type 'int' is neither"),
        (["shop:Mood.moody", "--bind", "unix:s"], 1, "'Mood.moody' of module 'shop' can't be had: KeyError: 'not now'"),
        (["leaving:x"], 1, "module 'leaving' can't be imported: SystemExit: 0 (leaving.py, line 1)"),
        (["shop:server", "--bind", ""], 2, "bad address ''"),
        (["shop..x:y"], 2, "'shop..x:y' is not of the form MODULE:NAME"),
        ([".shop:server"], 2, "'.shop:server' is not of the form MODULE:NAME"),
        (["shop:Desk..triple"], 2, "has no 'Desk..triple'"),
        (["shop:Desk.triple"], 2, "--bind"),
        (["shop:server", "--framing", "raw"], 2, "has its own"),
        (["shop:server", "--insecure"], 2, "--insecure goes with a handler"),
        (["shop:server", "--threads", "2"], 2, "--threads goes with a handler"),
        (["shop:server", "--advertise", "unix:x"], 2, "--advertise goes with a handler"),
        (["shop:Desk.triple", "--bind", "unix:s", "--advertise", "x"], 2, "bad address 'x'"),
        (
            ["shop:Desk.triple", "--bind", "unix:s", "--advertise", "tcp://h:0"],
            2,
            "--advertise tcp://h:0 is only",
        ),
        (
            ["shop:Desk.triple", "--bind", "unix:s", "--advertise", "unix:s", "--framing", "line"],
            2,
            "--advertise needs the framing 'pysock'",
        ),
        (["shop:server", "--slow", "drop-old"], 2, "--slow goes with a handler"),
        (
            ["shop:Desk.triple", "--bind", "unix:x", "--slow", "drop"],
            2,
            "'drop' is not one of 'disconnect', 'drop-new'",
        ),
        (["shop:Desk.triple", "--bind", "unix:x", "--threads", "0"], 2, "0 is not in the range"),
        (["shop:Desk.triple", "--bind", "unix:x", "--threads", "1", "--processes", "1"], 2, "exclude each other"),
        (["shop:Desk.triple", "--bind", "unix:x", "--queue", "1"], 2, "--queue is of workers"),
        (["shop:server", "--authkey-file", "shop.py"], 2, "--authkey-file goes with a handler"),
        (["shop:Desk.triple", "--bind", "unix:s", "--authkey-file", "no"], 2, "'no' does not exist"),
        (["shop:Desk.triple", "--bind", "unix:s", "--authkey-file", "empty"], 2, "empty is empty"),
        (
            ["shop:Desk.triple", "--bind", "tcp://0.0.0.0:0"],
            2,
            "whoever does: give --authkey-file, listen at 127.0.0.1 or [::1], or say --insecure if the network",
        ),
        (["shop:server", "--bind", "tcp://0.0.0.0:0"], 2, "set authkey=, "),  # which it has in its module
        (
            ["shop:Desk.triple", "--bind", "unix:s", "--framing", "line", "--authkey-file", "shop.py"],
            2,
            "--authkey-file needs the framing 'pysock'",
        ),
        (["shop:server", "--agent", "unix:x"], 2, "HAProxy asks by TCP only: HOST:PORT, not 'unix:x'"),
        (["shop:server", "--agent", "9101"], 2, "bad address '9101'"),
        (["shop:server", "--agent", "192.0.2.1:9101"], 1, "192.0.2.1"),
        (["shop:server", "--metrics", "tls://127.0.0.1:9100"], 2, "must be a plain one, HOST:PORT or unix:PATH"),
        (["shop:server", "--metrics", "on"], 2, "bad address 'on'"),
        (["shop:server", "--metrics", "192.0.2.1:9100"], 1, "192.0.2.1"),
        (["shop:server", "--drain-delay", "-1"], 2, "--drain-delay"),
        (["shop:server", "--framing", "zmq"], 2, "'zmq' is not one of 'pysock', 'u32', 'line', 'raw'"),
        (["shop:server", "--bind", "ftp://x"], 2, "unknown scheme 'ftp'"),
        (["shop:server", "--bind", "unix:" + "x" * 200], 2, "at most 85"),
        (["broken:x"], 1, "ZeroDivisionError: division by zero (broken.py, line 2)"),
        (["lacking:x"], 1, "No module named 'no_such_module_anywhere'"),
        (["shop:server", "--bind", "unix:no/dir/s"], 1, "doesn't exist"),
        (["shop:server", "--bind", "unix:shop.py"], 1, "not a socket"),
    ],
)
def test_serve_bad_input(project: Path, arguments: list[str], code: int, words: str) -> None:
    done = pysock_command("serve", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in one_line(done.stderr.splitlines(keepends=True)[-1])
    assert b"Traceback" not in done.stderr


def test_serve_shows_the_traceback_of_an_import_to_who_looks_for_faults(project: Path) -> None:
    done = pysock_command("serve", "raising:x", "--log-level", "debug")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert "no luck (raising.py, line 1)" in one_line(done.stderr.splitlines(keepends=True)[-1])


def test_serve_where_a_live_server_is(project: Path) -> None:
    with Module("pysock", "serve", "shop:server") as program:
        serving(program)
        done = pysock_command("serve", "shop:server", "--log-level", "error")
        assert done.returncode == 1
        assert "another server (process " in one_line(done.stderr)
        assert ask(f"unix:{project}/own", b"x") == b"xx"


# The whole


def test_version(command) -> None:
    assert command("--version") == (0, f"pysock, version {pysock.__version__}\n".encode(), b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["call"], "Missing argument 'ADDR'"),
        (["call", "nowhere"], "bad address 'nowhere'"),
        (["call", "unix:x", "--timeout", "0"], "--timeout"),
        (["ping", "unix:x", "--interval", "inf"], "--interval"),
        (["ping", "unix:x", "--count", "0"], "--count"),
        (["ping", "unix:x", "--count", "many"], "'many' is not a valid integer"),
        (["--backend", "fast", "demo"], "'fast' is not one of 'auto', 'native', 'pure'"),
    ],
)
def test_wrong_usage(command, arguments: list[str], words: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, b"")
    assert words in one_line(err)


@pytest.mark.parametrize(("arguments", "changes"), [(["--input", "/nope"], {}), ([], {"PYSOCK_DEMO_INPUT": "/nope"})])
def test_a_text_for_the_demo_that_is_not_there(arguments: list[str], changes: dict[str, str]) -> None:
    done = pysock_command("demo", *arguments, **changes)
    assert (done.returncode, done.stdout) == (2, b"")
    line = one_line(done.stderr)
    assert "'--input'" in line
    assert "'/nope' does not exist" in line
    assert "PYSOCK_DEMO_INPUT" not in line


def test_an_unknown_backend_in_the_environment() -> None:
    done = pysock_command("ping", "unix:x", PYSOCK_BACKEND="fast")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "'fast' is not one of" in one_line(done.stderr)


@pytest.mark.parametrize("name", [None, *cli.cli.commands])
def test_help_has_an_example(name: str | None) -> None:
    done = CliRunner().invoke(cli.cli, [*([name] if name else []), "--help"], auto_envvar_prefix="PYSOCK")
    assert done.exit_code == 0
    assert re.search(r"Example:\n +pysock ", done.output)


def test_without_arguments_there_is_help() -> None:
    done = pysock_command()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Commands:" in done.stdout


def test_a_command_and_its_module_have_one_name_each() -> None:
    for name, command in cli.cli.commands.items():
        assert command.callback is not None
        module = importlib.import_module(command.callback.__module__)
        if isinstance(command, click.Group):  # whose commands lie beside it
            assert module.__name__ == f"pysock.cli.{name}.group"
            continue
        folder = importlib.import_module(command.callback.__module__.rpartition(".")[0])
        assert module.__name__.rpartition(".")[2] == name
        assert getattr(folder, name) is module
        assert getattr(module, name) is command


def test_every_option_has_a_variable() -> None:
    for name in cli.cli.commands:
        done = CliRunner().invoke(cli.cli, [name, "--help"], auto_envvar_prefix="PYSOCK")
        variables = re.findall(r"PYSOCK_[A-Z_]+", done.output)
        options = [option for option in cli.cli.commands[name].params if option.param_type_name == "option"]
        assert len(variables) == len(options)
        assert all(variable.startswith(f"PYSOCK_{name.upper()}_") for variable in variables)


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pysock, "connect", interrupted)
    assert cli.main(["call", "unix:x", "y"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from pysock.__main__ import main; sys.exit(main())"
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "install pysock-engine[cli]" in one_line(done.stderr)


def test_main_runs_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pysock", "--version"])
    assert __main__.main() == 0
    assert capsys.readouterr().out.startswith("pysock, version ")


def test_call_waits_for_a_server_that_isnt_up_yet(backend: str, socket_dir: Path) -> None:
    address = f"unix:{socket_dir}/late"
    with Module("pysock", "call", address, "hello", "--wait", "20", PYSOCK_BACKEND=backend) as waiting:
        server = pysock.Server(address, backend=backend)
        server.service(lambda client, request: request.upper())
        with server:
            assert waiting.end() == (0, "HELLO", "")
