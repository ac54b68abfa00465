"""``pysock serve --workers``: the life of workers, of which their own clients see something only where one dies."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from crews import PATH, Crew, Held, Load, is_alive
from programs import pysock_command
from service_manager import managing
from support import PATIENCE, left_in, wait_for

import pysock
from pysock.supervision.pace import Pace
from pysock.wire.format import ErrorCode


def test_workers_share_the_clients_and_are_followed_when_they_die(backend, unix_address, socket_dir):
    with Crew(unix_address, "--workers", "2", PYSOCK_BACKEND=backend) as crew:
        first = crew.workers(2)
        assert sorted(first) == [0, 1]
        assert crew.process.pid not in first.values()
        with Held(crew, 4):  # two at each, say
            os.kill(first[1], signal.SIGKILL)
            wait_for(lambda: not is_alive(first[1]))
            second = crew.workers(2)  # meanwhile the other one serves
        assert second[0] == first[0]
        assert second[1] != first[1]
        code, errors = crew.stopped()
        assert code == 0
        assert f"worker 1 (process {first[1]}): it was ended by SIGKILL (out of memory?)" in errors
        assert "Traceback" not in errors
    assert not any(map(is_alive, second.values()))
    assert left_in(socket_dir) == []


@pytest.mark.parametrize(("backend", "transport"), [("native", "tcp"), ("pure", "unix")], indirect=True)
def test_a_reload_under_load_fails_no_request(backend, address):
    """Of clients that connect again, which are told by a goodbye; also of those that come in its very moment."""
    with Crew(address, "--workers", "2", PYSOCK_BACKEND=backend) as crew:
        with Load(crew.address, backend) as load:
            old = crew.workers(2)
            wait_for(lambda: set(old.values()) <= set(load.answers))
            crew.signal(signal.SIGHUP)
            new = crew.changed(old, 2)
            assert not set(new.values()) & set(old.values())
            wait_for(lambda: set(new.values()) <= set(load.answers))
        assert load.failed == []
        assert crew.stopped()[0] == 0


def was_not_run(error: Exception) -> bool:
    if isinstance(error, pysock.RemoteError):
        return (error.code, error.started) == (ErrorCode.SHUTTING_DOWN, False)
    return isinstance(error, pysock.ConnectionLost) and "goodbye" in str(error) and error.fates == [False]


def test_no_connect_is_refused_during_a_reload(backend, unix_address):
    """Of clients that don't connect again, either: what they are told at their first request is a goodbye at the worst,
    and then it was not run.
    """
    with Crew(unix_address, "--workers", "1", PYSOCK_BACKEND=backend) as crew:
        old = crew.workers(1)
        crew.signal(signal.SIGHUP)
        answers: list[int] = []
        told: list[Exception] = []
        while not answers or answers[-1] in old.values() or is_alive(old[0]):
            with pysock.connect(crew.address, backend=backend) as client:
                try:
                    answers.append(json.loads(client.request(b"pid")))
                except (pysock.RemoteError, pysock.ConnectionLost) as error:
                    told.append(error)
        assert all(was_not_run(error) for error in told), told
        assert crew.stopped()[0] == 0


PROGRAM = """
import pysock
{}
server = pysock.Server("unix:unused.sock")

@server.service("version")
def version(client, request):
    return b"{} %d %d" % (server.worker, server.workers)
"""


def write(directory: Path, top: str, version: int) -> None:
    (directory / "changing.py").write_text(PROGRAM.format(top, version))


@pytest.fixture
def changing(socket_dir, tmp_path):
    """``changing(...)``: a crew of a program that is written anew by :func:`write`."""
    write(tmp_path, "", 1)

    def make(*options: str, **changes: str) -> Crew:
        return Crew(f"unix:{socket_dir}/s", *options, program="changing:server",
                    PYTHONPATH=f"{PATH}:{tmp_path}", PYTHONDONTWRITEBYTECODE="1", **changes)  # fmt: skip

    return make


def version(crew: Crew) -> bytes:
    """By whoever takes this client; who is about to go may say goodbye before it asks, so it connects again."""
    with pysock.connect(crew.address, reconnect=True) as client:
        return client.request(b"", service="version")


def test_new_code_that_fails_changes_nothing_and_good_code_is_served(changing, tmp_path, socket_dir):
    with managing(socket_dir, "path") as manager, changing("--workers", "1", NOTIFY_SOCKET=manager.where) as crew:
        assert manager.until_says("READY")["STATUS"] == f"serving on {crew.address}"
        assert version(crew) == b"1 0 1"
        write(tmp_path, "1 / 0", 2)
        crew.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC" in manager.until_says("RELOADING")
        assert "ZeroDivisionError" in manager.until_says("READY")["STATUS"]
        assert version(crew) == b"1 0 1"
        write(tmp_path, "", 3)
        crew.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC" in manager.until_says("RELOADING")
        assert manager.until_says("READY")["STATUS"] == f"serving on {crew.address}"
        wait_for(lambda: version(crew) == b"3 0 1")
        crew.signal(signal.SIGTTIN)
        wait_for(lambda: version(crew) == b"3 0 2")
        crew.signal(signal.SIGTTOU)
        wait_for(lambda: version(crew) == b"3 0 1")
        code, errors = crew.stopped(signal.SIGINT)
        assert code == 130
        assert "nothing was changed, the old workers serve on: worker 0" in errors
        assert errors.count("ZeroDivisionError") == 1
        manager.until_says("STOPPING")


def test_who_does_not_live_long_is_followed_later_and_later():
    pace = Pace()
    assert [pace.next(1.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert pace.next(60.0) == 0.1
    assert pace.next(1.0) == 0.2


@pytest.mark.parametrize(
    ("top", "target", "code", "words"),
    [
        ("raise SystemExit(0)", "changing:server", 3, "module 'changing' can't be imported: SystemExit"),
        ("import os; os._exit(7)", "changing:server", 3, "it ended with status 7"),
        ("", "changing:no", 2, "module 'changing' has no 'no'"),
    ],
)
def test_what_never_serves_ends_with_a_word_and_a_code(tmp_path, socket_dir, top, target, code, words):
    write(tmp_path, top, 1)
    done = pysock_command("serve", target, "--bind", f"unix:{socket_dir}/s", "--workers", "2",
                          PYTHONPATH=f"{PATH}:{tmp_path}")  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.count(words.encode()) == 1, done.stderr
    assert done.stdout == b""
    assert left_in(socket_dir) == []


def has_gone(client: pysock.Client) -> bool:
    try:
        client.request(b"", service="version")
    except pysock.PysockError:
        return True
    return False


def test_without_their_supervisor_workers_drain_and_a_new_one_can_come(changing, socket_dir):
    with changing("--workers", "2") as crew, pysock.connect(crew.address) as client:
        crew.signal(signal.SIGKILL)
        crew.process.wait(PATIENCE)
        wait_for(lambda: has_gone(client))
    with changing("--workers", "1") as crew:
        assert version(crew) == b"1 0 1"
        assert crew.stopped()[0] == 0
    assert left_in(socket_dir) == []


def test_all_workers_are_lame_and_no_more_at_once(changing):
    with changing("--workers", "2") as crew, Held(crew, 0):
        clients = [pysock.connect(crew.address) for _ in range(2)]
        numbers = {client.request(b"", service="version") for client in clients}
        while len(numbers) < 2:
            clients.append(pysock.connect(crew.address))
            numbers.add(clients[-1].request(b"", service="version"))
        assert pysock_command("drain", crew.address).returncode == 0
        wait_for(lambda: {client.ping().state for client in clients} == {"draining"})
        assert pysock_command("resume", crew.address).returncode == 0
        wait_for(lambda: {client.ping().state for client in clients} == {"serving"})
        for client in clients:
            client.close()
        assert crew.stopped()[0] == 0


def test_a_second_signal_ends_what_hangs(backend, unix_address, socket_dir):
    with Crew(unix_address, "--workers", "1", PYSOCK_BACKEND=backend) as crew:
        (pid,) = crew.workers(1).values()
        with pysock.connect(crew.address) as client:
            client.notify(f"hang {socket_dir}/until".encode())
            wait_for((socket_dir / "until.begun").exists)
            for _ in range(2):
                crew.signal(signal.SIGTERM)
                time.sleep(0.05)  # two that wait are one
            code, _, _ = crew.end()
        assert code == 143
        assert not is_alive(pid)
    assert not (socket_dir / "s").exists()


@pytest.mark.slow
def test_a_worker_that_hangs_is_told_of_with_its_stack_and_killed_if_wanted(backend, unix_address, socket_dir):
    with Crew(unix_address, "--workers", "1", "--hang-kill", "3", PYSOCK_BACKEND=backend) as crew:
        old = crew.workers(1)
        with pysock.connect(crew.address) as client:
            client.notify(f"hang {socket_dir}/until".encode())
            crew.changed(old, 1)
        code, errors = crew.stopped()
        assert code == 0
        name = f"worker 0 (process {old[0]})"
        assert errors.count(f"{name} hangs: its loop hasn't come round for") == 1
        assert "seconds, in service ''\n" in errors
        assert " in hang\n" in errors
        assert f"{name}: it hung for" in errors


@pytest.mark.slow
@pytest.mark.parametrize("bound", [("--max-requests", "200"), ("--max-age", "1.5"), ("--max-rss", "1")])
def test_a_worker_that_has_come_so_far_is_replaced_and_no_request_fails(unix_address, backend, bound):
    with Crew(unix_address, "--workers", "1", *bound, PYSOCK_BACKEND=backend) as crew:
        with Load(crew.address, backend) as load:
            wait_for(lambda: len(load.answers) >= 2)
        assert load.failed == []
        code, errors = crew.stopped()
        assert code == 0
        assert "is replaced: it " in errors
        assert "ERROR" not in errors
