"""``pysock serve --access-log``: lines on standard error, of workers, too; and what becomes of them if it is none."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crews import Crew
from programs import Module, serving
from support import PATIENCE, Program, environment

import pysock
from pysock.cli import main as cli
from pysock.cli.accesslog import Steadfast

UPPER = "pysock.examples.upper:upper"


def ask(where: str, payload: bytes = b"hello", name: str = "till") -> None:
    with pysock.connect(where, name=name) as client:
        assert client.request(payload) == payload.upper()


def test_lines_whatever_else_is_told(backend: str, unix_address: str) -> None:
    arguments = ("--bind", unix_address, "--access-log", "connections,requests", "--log-level", "error")
    with Module("pysock", "--backend", backend, "serve", UPPER, *arguments) as program:
        (where,) = serving(program)
        ask(where)
        program.signal(signal.SIGTERM)
        code, _, err = program.end()
    assert code == 0
    request, connection = err.splitlines()
    began = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO pysock\.access: "
    assert re.fullmatch(
        began + r"request client=1\.0 name=till service='' outcome=ok waited=\S+ took=\S+ in=5 out=5", request
    )
    assert re.fullmatch(
        began + r"connection client=1\.0 name=till address=\S+ pid=\d+ uid=\d+ seconds=\S+ requests=1 in=\d+ out=\d+"
        r" reason=left",
        connection,
    )


def test_a_server_of_the_program_and_the_handlers_of_its_own(backend: str, socket_dir: Path) -> None:
    (socket_dir / "own.py").write_text(
        f"import logging, pysock\n"
        f"server = pysock.Server('unix:{socket_dir}/s')\n"
        f"server.service(lambda client, request: request.upper())\n"
        f"logging.getLogger('pysock.access').addHandler(logging.FileHandler('{socket_dir}/log'))\n"
    )
    arguments = ("own:server", "--access-log", "connections", "--log-level", "error")
    with Module("pysock", "--backend", backend, "serve", *arguments, PYTHONPATH=str(socket_dir)) as program:
        (where,) = serving(program)
        ask(where)
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert (socket_dir / "log").read_text().count("connection client=1.0 name=till") == 1


def test_workers_tell_each_of_its_own(backend: str, unix_address: str) -> None:
    with Crew(unix_address, "--workers", "2", "--access-log", "connections", PYSOCK_BACKEND=backend) as crew:
        crew.workers(2)
        for number in range(8):
            with pysock.connect(crew.address, name=f"till-{number}") as client:
                client.request(b"pid")
        code, errors = crew.stopped()
    assert code == 0
    found = re.findall(r" INFO worker ([01]): pysock\.access: connection \S+ name=(till-\d) .* requests=1 ", errors)
    assert {name for _, name in found} == {f"till-{number}" for number in range(8)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("what", ["full", "closed", "unread"])
def test_where_it_cant_be_written_the_service_goes_on(backend: str, unix_address: str, what: str) -> None:
    command = [sys.executable, "-m", "pysock", "--backend", backend, "serve", UPPER, "--bind", unix_address,
               "--access-log", "connections,requests", "--log-level", "error"]  # fmt: skip
    read, write = os.pipe()
    if what == "unread":
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        os.write(write, bytes(100))
    elif what == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    with open("/dev/full", "wb") as full:
        err = full if what == "full" else write
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=err, text=True)
    os.close(write)
    program = Program.__new__(Program)
    program.process = process
    try:
        (where,) = serving(program)
        for _ in range(5):
            ask(where)
        with pysock.connect(where) as client:
            assert client.request_many([b"a"] * 200) == [b"A"] * 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        os.set_blocking(read, False)
        assert what != "unread" or os.read(read, 4096) == bytes(100)
    finally:
        process.kill()
        process.communicate()
        os.close(read)


def test_what_was_lost_is_said_when_it_can_be() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    with open(read, "rb", 0) as pipe, open(write, "w") as stream:
        size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096) if hasattr(fcntl, "F_SETPIPE_SZ") else 65536
        handler = Steadfast(stream)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

        def tell(text: str) -> None:
            handler.handle(logging.makeLogRecord({"msg": "%s", "args": (text,), "levelno": 20, "levelname": "INFO"}))

        tell("first")
        assert pipe.read(100) == b"INFO first\n"
        os.write(write, bytes(size))
        for _ in range(3):
            tell("not now")
        while pipe.read(65536):
            pass
        tell("again")
        assert pipe.read(100) == b"WARNING lost lines=3\nINFO again\n"


def test_what_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", UPPER, "--bind", "unix:x", "--access-log", "all"]) == 2
    err = capsys.readouterr().err
    assert "Invalid value for '--access-log': it must be 'connections', 'requests'" in err
