"""systemd: sockets that are passed, by name, and what the service manager is told."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from programs import Module, serving, tool
from service_manager import Activated, Manager, managing
from support import PATIENCE, ROOT, environment, left_in, wait_for

import pysock
from pysock.files import passed
from pysock.supervision.notify import Notifier, notifier

UNITS = ROOT / "pysock" / "examples" / "systemd"


def listener(where: str | None = None) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0)) if where is None else socket.socket(socket.AF_UNIX)
    if where is not None:
        sock.bind(where)
        sock.listen()
    return sock


@pytest.fixture
def sockets(socket_dir):
    """Two Unix sockets and one of TCP, by name; two of them have one."""
    with ExitStack() as stack:
        made = [("api", listener(f"{socket_dir}/a")), ("admin", listener()), ("api", listener(f"{socket_dir}/b"))]
        for _, sock in made:
            stack.enter_context(sock)
        yield made


# Sockets


def test_the_sockets_of_a_name_are_served_and_nobody_inherits_them(backend, sockets, socket_dir):
    port = sockets[1][1].getsockname()[1]
    with Activated(sockets, "pysock", "serve", "supervised:handler", "--bind", "systemd:api", PYSOCK_BACKEND=backend,
                   PYTHONPATH=f"{ROOT}:{ROOT}/tests/help") as program:  # fmt: skip
        assert serving(program) == ["fd://3", "fd://5"]
        for name in "ab":
            with pysock.connect(f"unix:{socket_dir}/{name}") as client:
                seen = json.loads(client.request(b"seen"))
        assert seen == {"here": [], "there": [], "sockets": []}
        with socket.create_connection(("127.0.0.1", port)) as waiting:  # it is nobody's yet
            waiting.settimeout(0.05)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert left_in(socket_dir) == ["a", "b"]  # they are systemd's


def test_without_a_name_it_is_all_of_them(backend, sockets, socket_dir):
    with Activated(sockets, "pysock", "serve", "pysock.examples.upper:upper", "--bind", "systemd:",
                   PYSOCK_BACKEND=backend) as program:  # fmt: skip
        assert serving(program) == ["fd://3", "fd://4", "fd://5"]
        for address in (f"unix:{socket_dir}/b", f"tcp://127.0.0.1:{sockets[1][1].getsockname()[1]}"):
            with pysock.connect(address) as client:
                assert client.request(b"x") == b"X"


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("systemd:web", "systemd:web: the service manager has passed no socket of that name, but api, admin, dgram"),
        ("systemd:dgram", "fd://6: that isn't a listening stream socket; it is a SOCK_DGRAM"),
    ],
)
def test_what_isnt_there_is_told_with_what_is(backend, sockets, socket_dir, bind, said):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        given = [*sockets, ("dgram", datagrams)]
        with Activated(given, "pysock", "serve", "pysock.examples.upper:upper", "--bind", bind,
                       PYSOCK_BACKEND=backend) as program:  # fmt: skip
            code, out, err = program.end()
    assert (code, out) == (1, "")
    assert said in err


FORGED = {
    "of nobody": ({}, "no socket was passed to this process (LISTEN_FDS isn't set); start it by a .socket unit"),
    "of another": ({"PID": "1", "FDS": "1"}, "LISTEN_FDS is for the process 1 (LISTEN_PID), and this is"),
    "none": ({"FDS": "0"}, "no socket was passed to this process (LISTEN_FDS is 0)"),
    "no number": ({"FDS": "+1"}, "LISTEN_FDS must be a number, not '+1'"),
    "few names": ({"FDS": "2", "FDNAMES": "a"}, "LISTEN_FDNAMES has 1 names, and LISTEN_FDS says 2"),
    "unnamed": ({"FDS": "1"}, "has passed no socket of that name, but unknown: choose one, or set FileDescriptorName="),
}


@pytest.mark.parametrize("forged", FORGED)
def test_forged_variables(forged, backend, monkeypatch):
    monkeypatch.setattr(passed, "_taken", [])
    given, said = FORGED[forged]
    for name in ("PID", "FDS", "FDNAMES"):
        value = given.get(name, str(os.getpid()) if name == "PID" and given else None)
        monkeypatch.delenv(f"LISTEN_{name}", raising=False)
        if value is not None:
            monkeypatch.setenv(f"LISTEN_{name}", value)
    for address in ("systemd:api", "systemd:api"):  # the second time, too
        with pytest.raises(OSError, match=re.escape(said)):
            pysock.Server(address, backend=backend).start()


def test_addresses_of_systemd():
    assert str(pysock.Address.parse("systemd:api")) == "systemd:api"
    assert str(pysock.Address.parse("systemd:")) == "systemd:"
    assert pysock.Address.parse("systemd:") == pysock.Address("systemd")
    for text, said in {
        "systemd:a:b": "'a:b': no such name has a ':'",
        "systemd:ä": "must be up to 255 signs of ASCII, not 'ä'",
        "systemd:x?backlog=1": "unknown option 'backlog' for the transport 'systemd'; it takes none",
        "systemd:x?name=y": "unknown option 'name' for the transport 'systemd'; it takes none",
    }.items():
        with pytest.raises(ValueError, match=re.escape(said)):
            pysock.Address.parse(text)
    with pytest.raises(ValueError, match="that is only something to listen at"):
        pysock.connect("systemd:api")
    with pytest.raises(ValueError, match="the address systemd:api twice"):
        pysock.Server("systemd:api", "systemd:api")


def test_a_master_socket_by_hand(backend, socket_dir, monkeypatch):
    """One name may mean several sockets, and a master socket is one."""
    with listener(f"{socket_dir}/s") as sock:
        number = os.dup(sock.fileno())
        found = passed._Passed(os.getpid(), ((number, "one"), (number, "two"), (number, "two")), "")
        monkeypatch.setattr(passed, "_taken", [found])
        with pytest.raises(OSError, match="systemd:two: that means 2 sockets"):
            pysock.MasterSocket("systemd:two", backend).adopt()
        with pysock.MasterSocket("systemd:one", backend) as master:
            master.adopt()
            assert (str(master.address), master.fd) == (f"fd://{number}", number)


def test_socket_activation(backend, socket_dir):
    """Started by systemd's own program, at the first connection."""
    command = [tool("systemd-socket-activate"), "-l", f"{socket_dir}/s", "-l", f"{socket_dir}/t", "--fdname=api:admin"]
    for name in ("PYTHONPATH", "PYSOCK_BACKEND"):
        command += ["-E", name]
    command += [sys.executable, "-m", "pysock", "serve", "pysock.examples.upper:upper", "--bind", "systemd:admin"]
    server = subprocess.Popen(command, env=environment(PYSOCK_BACKEND=backend), stderr=subprocess.PIPE)
    try:
        wait_for((socket_dir / "t").exists)
        with pysock.connect(f"unix:{socket_dir}/t", timeout=PATIENCE, wait=PATIENCE) as client:
            assert client.request(b"hello") == b"HELLO"
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


# What the manager is told


@pytest.fixture(params=["path", "abstract"])
def manager(request, socket_dir):
    with managing(socket_dir, request.param) as manager:
        yield manager


def serve(manager: Manager, where: str, backend: str, *more: str, **changes: str) -> Module:
    changes |= {"NOTIFY_SOCKET": manager.where, "PYSOCK_BACKEND": backend, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/help"}
    return Module("pysock", "serve", "supervised:handler", "--bind", where, *more, **changes)


def test_ready_reloading_and_stopping(backend, manager, unix_address):
    with serve(manager, unix_address, backend, "--drain-delay", "0.05") as program:
        assert manager.next() == {"READY": "1", "STATUS": f"serving on {unix_address}"}
        with pysock.connect(unix_address) as client:
            assert json.loads(client.request(b"seen"))["here"] == []
        program.signal(signal.SIGHUP)
        words = manager.next()
        assert words["RELOADING"] == "1"
        assert 0 <= time.monotonic() - int(words["MONOTONIC_USEC"]) / 1e6 < PATIENCE
        assert manager.next() == {"READY": "1", "STATUS": f"serving on {unix_address}"}
        program.signal(signal.SIGTERM)
        assert manager.until_says("STOPPING")["STATUS"] == "stopping"
        assert int(manager.until_says("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) == 10_000_000
        code, _, err = program.end()
    assert code == 0
    assert "new code needs a restart, or --workers" in err
    assert {sender for _, sender, _ in manager.sent} == {program.process.pid}
    assert [words for _, _, words in manager.sent if "STOPPING" in words] == [{"STOPPING": "1", "STATUS": "stopping"}]


def test_drain_and_resume_are_told(backend, socket_dir, unix_address):
    with managing(socket_dir, "path") as manager, serve(manager, unix_address, backend):
        manager.until_says("READY")
        for command, said in (("_drain", ", lame: new clients should go elsewhere"), ("_resume", "")):
            with pysock.connect(unix_address) as client:
                client.request(b"", service=command)
            assert manager.until_says("STATUS") == {"STATUS": f"serving on {unix_address}{said}"}


def test_the_watchdog_is_fed_by_the_loop_itself(backend, socket_dir, unix_address):
    """A handler that doesn't return ends the words, though all threads run."""
    end = socket_dir / "end"
    with (
        managing(socket_dir, "path") as manager,
        serve(manager, unix_address, backend, WATCHDOG_USEC="60000"),
        pysock.connect(unix_address, wait=PATIENCE) as client,
    ):
        for _ in range(3):
            manager.until_says("WATCHDOG")
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(client.request, f"hang {end}".encode())
            wait_for(Path(f"{end}.begun").exists)
            manager.forget()  # what was said before it began; one more may be on its way
            assert [manager.next(0.15) for _ in range(2)][1] is None
            end.touch()
            assert hanging.result(PATIENCE) == b"true"
        manager.until_says("WATCHDOG")


def test_a_watchdog_of_another_process_is_not_fed(monkeypatch):
    for pid, watchdog in (("1", None), (str(os.getpid()), 0.06), ("", 0.06)):
        monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        monkeypatch.setenv("WATCHDOG_PID", pid)
        found = notifier()
        assert found is not None
        assert found.watchdog == watchdog
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & {*os.environ}


def test_nobody_there_costs_one_line_in_the_log(socket_dir, caplog):
    caplog.set_level(logging.DEBUG, "pysock.supervision.notify")
    path = f"{socket_dir}/notify"
    notifier = Notifier(path)
    try:
        assert [notifier.say(WATCHDOG=1) for _ in range(3)] == [False] * 3  # it is missing
        with closing(Manager(path)):
            assert notifier.say(STATUS="up")
        notifier.ready("dead")  # what is true is said when somebody is there
        notifier.ready("still")
        os.unlink(path)
        with closing(Manager(path)) as manager:
            notifier.alive()
            assert manager.next() == {"READY": "1", "STATUS": "still", "WATCHDOG": "1"}
    finally:
        notifier.close()
    said = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(": ")[2] for line in said] == ["No such file or directory", "Connection refused"]


def test_a_manager_that_never_reads_blocks_nobody(socket_dir, caplog):
    caplog.set_level(logging.DEBUG, "pysock.supervision.notify")
    with managing(socket_dir, "path") as manager:
        notifier = Notifier(manager.where)
        try:
            while notifier.say(WATCHDOG=1):
                pass
            notifier.stopping("over")
            manager.forget()
            assert notifier.say_again()
            assert manager.next() == {"STOPPING": "1", "STATUS": "over"}
        finally:
            notifier.close()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "Resource temporarily unavailable"
    ]


@pytest.mark.parametrize("where", ["vsock:2:1234", "@", "relative"])
def test_other_places_are_left_alone(where, monkeypatch, make_server, unix_address):
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not pysock.notify_systemd(make_server(unix_address))


def test_a_program_of_ones_own(make_server, unix_address, manager, monkeypatch):
    """pysock.notify_systemd(server); and systemd-notify(1) says the same in between."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.where)
    server = make_server(unix_address)
    assert pysock.notify_systemd(server)
    assert not pysock.notify_systemd(make_server(unix_address))  # there is one manager, and it watches one
    with server:
        assert manager.next() == {"READY": "1", "STATUS": f"serving on {unix_address}"}
        subprocess.run([tool("systemd-notify"), "--no-block", "--status=other"], check=True,
                       env={**os.environ, "NOTIFY_SOCKET": manager.where})  # fmt: skip
        assert manager.until_says("STATUS") == {"STATUS": "other"}
        with pytest.raises(pysock.PysockError, match="tell systemd of it before it starts"):
            pysock.notify_systemd(server)
    assert manager.until_says("STOPPING") == {"STOPPING": "1", "STATUS": "stopping"}


# The units


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / name)
    return parser


def test_the_units_are_good(socket_dir):
    """As the systemd of this machine says; only the program and its user aren't here."""
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/upper/bin/pysock", sys.executable)
        (socket_dir / path.name).write_text(text)
    units = [str(path) for path in socket_dir.iterdir()]
    done = subprocess.run([tool("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    newer = [line for path in UNITS.iterdir() for line in path.read_text().splitlines() if line.startswith("# ")]
    assert any("Type=notify-reload" in line for line in newer)


def test_the_command_of_the_unit_serves_the_socket_it_is_given(backend, socket_dir):
    described = unit("upper.socket")["Socket"]
    program, *words = unit("upper.service")["Service"]["ExecStart"].split()
    assert (program.endswith("/bin/pysock"), described["ListenStream"][0]) == (True, "/")
    with listener(f"{socket_dir}/s") as sock, managing(socket_dir, "path") as manager:
        changes = {"PYSOCK_BACKEND": backend, "NOTIFY_SOCKET": manager.where}
        with Activated([(described["FileDescriptorName"], sock)], "pysock", *words, **changes) as server:
            with pysock.connect(f"unix:{socket_dir}/s") as client:  # it waits in the queue until the server is up
                assert client.request(b"hello") == b"HELLO"
            manager.until_says("READY")
            server.signal(signal.SIGTERM)
            assert server.end()[0] == 0
    assert left_in(socket_dir) == ["notify", "s"]
