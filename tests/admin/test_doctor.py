"""The doctor: each check is made true, and then says so with a remedy; a server that is well has none."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import certificates
from support import PATIENCE, RawPeer, wait_for

import pysock
from pysock import Admin, Limits
from pysock.admin.doctor.checks import CHECKS, Check, doctor
from pysock.admin.doctor.facts import Busy, Facts, Finding, gathered, watched
from pysock.cli import main as cli
from pysock.tls.validity import times_of

DAY = 86_400.0


@pytest.fixture
def server(make_server, unix_address):
    return served(make_server(unix_address, limits=Limits(max_clients=64)))


def served(server):
    server.service("echo")(lambda client, request: request)
    return server


def facts_of(server, **changes):
    """Those of a server that is well."""
    known = Facts(server=server, busy=Busy(0.1, 0.0), stuck_for=0.0, environ={}, proc="/proc", now=time.time())
    return replace(known, **changes)


def findings(server, **changes):
    """By the names of the checks; the engine's is another test's."""
    found = {}
    for row in doctor(lambda: facts_of(server, **changes), {})["findings"]:
        assert row["text"]
        assert row["remedy"]
        found.setdefault(row["check"], []).append(row["text"])
    found.pop("engine", None)
    return found


def test_one_that_is_well(server):
    with server:
        assert findings(server) == {}


def test_every_check_has_a_name_of_its_own():
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_server_that_is_lame(server):
    with server:
        server.lame()
        assert "health checks fail" in findings(server)["state"][0]


def test_a_server_that_does_not_serve(server):
    assert "isn't serving: it is new" in findings(server)["state"][0]


def test_a_server_that_is_nearly_full(make_server, unix_address):
    server = served(make_server(unix_address, limits=Limits(max_clients=2)))
    with server, pysock.connect(unix_address), pysock.connect(unix_address):
        assert "2 of at most 2 clients" in findings(server)["state"][0]


def test_a_loop_that_hangs(make_server, unix_address):
    server = make_server(unix_address)
    entered, go_on = threading.Event(), threading.Event()

    @server.service
    def hang(client, request):
        entered.set()
        assert go_on.wait(PATIENCE)
        return b""

    with server, Admin(server) as admin, pysock.connect(unix_address) as client:
        waiting = threading.Thread(target=client.request, args=(b"",))
        waiting.start()
        assert entered.wait(PATIENCE)
        looks = lambda: [row for row in admin.answer("doctor", {})["findings"] if row["check"] == "loop"]  # noqa: E731
        assert "hasn't turned" in wait_for(looks, "it to be told of")[0]["text"]
        go_on.set()
        waiting.join(PATIENCE)


def test_a_busy_loop(server):
    with server:
        assert "busy for 95% of the time" in findings(server, busy=Busy(0.95, 0.0))["loop"][0]


def test_who_is_busy(make_server, unix_address):
    """The loop itself, or another thread."""
    server = make_server(unix_address)
    go_on = threading.Event()

    def compute(*_about):
        while not go_on.is_set():
            pass
        return b""

    server.service(compute)
    with server, pysock.connect(unix_address) as client:
        for target, args in ((client.request, (b"",)), (compute, ())):
            go_on.clear()
            thread = threading.Thread(target=target, args=args)
            thread.start()
            busy = watched(server, 0.1)
            go_on.set()
            thread.join(PATIENCE)
            assert busy.loop is not None
            assert (busy.loop > busy.others) == (args != ())


def test_a_client_that_does_not_read(make_server, unix_address):
    server = make_server(unix_address, limits=Limits(output_pause=1000, max_payload=2**23))
    server.service(lambda client, request: bytes(2**22))
    with server, RawPeer.connect(unix_address) as peer:
        peer.hello("sleepy")
        peer.srm(b"")
        wait_for(lambda: [row for row in server.clients.snapshot() if row.output_waiting >= 1000], "it to wait")
        assert "1 clients don't take what is sent to them" in findings(server)["output"][0]
        assert "'sleepy'" in findings(server)["output"][0]


def test_the_engine_in_python(server, monkeypatch):
    (check,) = [check for check in CHECKS if check.name == "engine"]
    with server:
        found = list(check.look(facts_of(server)))
        if server.backend == "native":
            assert found == []
            return
        assert "which is there" in found[0].text
        monkeypatch.setitem(sys.modules, "pysock._engine", None)  # it isn't there
        monkeypatch.delitem(sys.modules, "pysock.engine.native.engine", raising=False)
        monkeypatch.delitem(sys.modules, "pysock.engine.native.crossing", raising=False)
        (found,) = list(check.look(facts_of(server)))
        assert "there is a compiler" in found.text
        assert "pip install" in found.remedy
        monkeypatch.setenv("PATH", "/nowhere")
        assert list(check.look(facts_of(server))) == []


def test_too_few_descriptors(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        try:
            (found,) = findings(server)["descriptors"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "100 descriptors" in found
    assert "so 36 clients at once have one, and not 64" in found


def test_a_backlog_that_the_system_cuts(make_server, unix_address):
    server = served(make_server(unix_address, limits=Limits(max_clients=64, backlog=2**30)))
    with server:
        assert "a backlog of 1073741824 is asked for" in findings(server)["backlog"][0]


def test_short_queues_of_datagrams(server, tmp_path):
    (tmp_path / "sys/net/unix").mkdir(parents=True)
    (tmp_path / "sys/net/unix/max_dgram_qlen").write_text("10\n")
    with server:
        assert findings(server, proc=str(tmp_path)) == {}  # nobody is told anything
        told = findings(server, proc=str(tmp_path), environ={"INVOCATION_ID": "x"})
        assert "a queue of datagrams holds 10" in told["datagrams"][0]


def test_a_socket_file_that_is_gone(server, socket_dir):
    with server:
        os.rename(socket_dir / "s", socket_dir / "away")
        assert "can't be found" in findings(server)["socket files"][0]
        (socket_dir / "s").write_text("")
        assert "is no socket any more" in findings(server)["socket files"][0]
        os.rename(socket_dir / "away", socket_dir / "s")
        assert findings(server) == {}


def test_a_directory_in_which_everybody_may_write(server, socket_dir):
    with server:
        socket_dir.chmod(0o777)
        assert "everybody may write" in findings(server)["socket files"][0]
        socket_dir.chmod(0o1777)  # as /tmp is
        assert findings(server) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_lock_of_somebody_else(server, socket_dir):
    with server:
        (socket_dir / "s.lock").touch()
        os.chown(socket_dir / "s.lock", 65534, -1)
        assert "belongs to user 65534" in findings(server)["socket files"][0]
        (socket_dir / "s.lock").unlink()


@pytest.fixture
def over_tls(make_server, tmp_path):
    """``over_tls(driver)``: a server with a certificate in a file of its own."""
    cert = tmp_path / "cert.pem"
    cert.write_bytes(Path(certificates().server).read_bytes())
    tls = pysock.TLS(cert)
    return lambda **how: (served(make_server("tls://127.0.0.1:0", tls=tls, insecure=True, **how)), cert)


def test_a_certificate_that_ends_soon(over_tls):
    server, cert = over_tls(limits=Limits(max_clients=64))
    end = times_of(cert.read_text())[1]
    with server:
        assert findings(server, now=end - 15 * DAY) == {}
        assert "ends in 5 days" in findings(server, now=end - 5 * DAY)["certificates"][0]
        assert "has ended 2 days ago" in findings(server, now=end + 2 * DAY)["certificates"][0]
        cert.unlink()
        assert "can't be read (No such file or directory)" in findings(server)["certificates"][0]


def test_tls_by_the_module_ssl_beside_threads_that_compute(over_tls):
    server, _ = over_tls(limits=Limits(max_clients=64), tls_driver="ssl")
    with server:
        told = findings(server, busy=Busy(0.1, 0.9))
        assert findings(server) == {}
    assert ("tls driver" in told) == (server.backend == "native")


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """``systemd(Type="simple")``: what systemctl says of the unit that the process is in; the facts that follow."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/shop.service\n")

    def unit(**shown):
        tool = tmp_path / "systemctl"
        lines = "".join(f"echo {name}={value}\n" for name, value in shown.items())
        tool.write_text(f'#!/bin/sh\n[ "$2" = shop.service ] || exit 1\n{lines}')
        tool.chmod(0o755)
        return {"proc": str(tmp_path), "environ": {"INVOCATION_ID": "x"}}

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return unit


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"Type": "simple"}, "the unit shop.service has Type=simple"),
        ({"Type": "notify", "NotifyAccess": "none"}, "NotifyAccess=none"),
        ({"Type": "notify", "NotifyAccess": "main"}, None),
        ({}, None),
    ],
)
def test_a_systemd_unit(server, systemd, shown, words):
    with server:
        told = findings(server, **systemd(**shown)).get("systemd unit", [])
    assert (words in told[0]) if words else told == []


def test_a_check_that_fails_itself(server, monkeypatch):
    """The others have their say all the same."""

    def broken(facts):
        raise ZeroDivisionError("oh")
        yield Finding("", "")

    monkeypatch.setattr("pysock.admin.doctor.checks.CHECKS", (Check("broken", "nothing", broken), *CHECKS))
    server.lame()
    with server:
        told = findings(server)
    assert told.keys() == {"broken", "state"}
    assert "ZeroDivisionError: oh" in told["broken"][0]


def test_the_facts_are_gathered(server):
    with server:
        facts = gathered(server, lambda: 0.0)
        assert facts.stuck_for == 0.0
        assert facts.busy.loop is not None
        assert facts.number("sys/net/core/somaxconn")
    assert watched(server, 0.01).loop is None


def test_the_command(make_server, unix_address, capfd):
    server = served(make_server(unix_address, limits=Limits(max_clients=64, backlog=1)))
    with server, Admin(server):
        is_well = server.backend == "native" and "INVOCATION_ID" not in os.environ
        code, out = cli.main(["doctor", unix_address]), capfd.readouterr().out
        assert (code, out.endswith("checks: all is well\n")) == ((0, True) if is_well else (1, False))
        server.lame()
        assert cli.main(["doctor", unix_address]) == 1
        out = capfd.readouterr().out
        assert "state: the server is lame: health checks fail" in out
        assert "  -> pysock resume" in out
        assert max(map(len, out.splitlines())) <= 100
        assert cli.main(["doctor", unix_address, "--json"]) == 1
        answer = json.loads(capfd.readouterr().out)
        assert answer["checked"].keys() == {check.name for check in CHECKS}
