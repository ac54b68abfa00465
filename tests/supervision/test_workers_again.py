"""``pysock serve --workers``: the supervisor runs anew in its process at SIGUSR2, and log files are at SIGUSR1."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest
from crews import PATH, Crew, Load, is_alive
from scraping import ask, samples
from service_manager import managing
from support import left_in, wait_for

import pysock

SERVED = 'pysock_requests_total{service="(unnamed)",code="OK"}'


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def scraped(where: str) -> dict[str, float]:
    return samples(ask(where)[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_supervisor_runs_anew_and_nobody_notices(backend, socket_dir):
    """Its number, its workers until others follow them, its socket, and what was counted: all as it was."""
    where = f"unix:{socket_dir}/m"
    options = "--workers", "2", "--metrics", where, "--admin"
    with Crew(f"unix:{socket_dir}/s", *options, PYSOCK_BACKEND=backend) as crew:
        first = crew.workers(2)
        begun = Path(f"/proc/{crew.process.pid}/stat").read_text().split()[21]
        with Load(crew.address, backend) as load:
            wait_for(lambda: len(load.answers) == 2)
            before = wait_for(lambda: (found := scraped(where)).get(SERVED, 0) > 2 and found)
            crew.signal(signal.SIGUSR2)
            second = crew.changed(first, 2)
            wait_for(lambda: set(second.values()) <= load.answers.keys())
        assert load.failed == []
        assert set(first.values()) & set(second.values()) == set()
        after = wait_for(lambda: (found := scraped(where)).get(SERVED, 0) > before[SERVED] and found)
        assert after['pysock_worker_restarts_total{why="reload"}'] == 2
        with pysock.connect(f"{crew.address}.admin") as admin:
            stats = json.loads(admin.request(b"", service="stats"))
        assert (stats["pid"], len(stats["workers"])) == (crew.process.pid, 2)
        assert Path(f"/proc/{crew.process.pid}/stat").read_text().split()[21] == begun
        open_then = wait_for(lambda: descriptors(crew.process.pid))
        crew.signal(signal.SIGUSR2)  # and once more
        third = crew.changed(second, 2)
        wait_for(lambda: descriptors(crew.process.pid) <= open_then)
        os.kill(third[0], signal.SIGKILL)  # who was there before is followed, too
        wait_for(lambda: not is_alive(third[0]))
        crew.workers(2)
        code, errors = crew.stopped()
        assert code == 0
        assert errors.count("the supervisor runs anew, with the workers of the one before") == 2
        assert "Traceback" not in errors
        assert "Warning" not in errors
    assert left_in(socket_dir) == []


def test_a_worker_that_ends_in_that_moment_is_buried(backend, unix_address, socket_dir):
    with Crew(unix_address, "--workers", "2", PYSOCK_BACKEND=backend) as crew:
        first = crew.workers(2)
        crew.signal(signal.SIGUSR2)
        os.kill(first[1], signal.SIGKILL)
        second = crew.changed(first, 2)
        assert not set(second.values()) & set(first.values())
        assert crew.stopped()[0] == 0
    assert left_in(socket_dir) == []


@pytest.mark.slow
def test_where_the_command_cannot_run_any_more_nothing_is_changed(socket_dir, tmp_path, unix_address):
    """Its file of options has become wrong, say."""
    options = tmp_path / "options.toml"
    options.write_text("grace = 5\n")
    with Crew(unix_address, "--workers", "1", "--config", str(options)) as crew:
        first = crew.workers(1)
        options.write_text("grace = 'none'\n")
        crew.signal(signal.SIGUSR2)
        crew.signal(signal.SIGTTIN)  # obeyed afterwards, by the same one
        assert crew.workers(2)[0] == first[0]
        options.write_text("grace = 4\n")
        crew.signal(signal.SIGUSR2)
        crew.changed(first, 2)
        code, errors = crew.stopped()
        assert code == 0
        assert "the supervisor doesn't run anew, nothing was changed: " in errors
    assert left_in(socket_dir) == []


def test_where_there_would_be_no_supervisor_any_more_nothing_is_served_to_try_it(socket_dir, tmp_path, unix_address):
    options = tmp_path / "options.toml"
    options.write_text("workers = 1\n")
    with Crew(unix_address, "--config", str(options)) as crew:
        first = crew.workers(1)
        options.write_text(f'bind = ["{unix_address}", "unix:{socket_dir}/other"]\n')
        crew.signal(signal.SIGUSR2)
        crew.signal(signal.SIGTTIN)
        assert crew.workers(2)[0] == first[0]
        code, errors = crew.stopped()
        assert code == 0
        assert "nothing was changed: pysock: there is no --workers any more" in errors, errors
    assert left_in(socket_dir) == []


NO_EXECVE = """
import os

def execve(*_):
    raise PermissionError(13, "Permission denied")

os.execve = execve
"""


@pytest.mark.slow
def test_where_the_process_cannot_become_another_it_goes_on(unix_address, socket_dir, tmp_path):
    """With the same workers, of which it is told as another one would be."""
    (tmp_path / "sitecustomize.py").write_text(NO_EXECVE)
    with Crew(unix_address, "--workers", "2", "--admin", PYTHONPATH=f"{tmp_path}:{PATH}") as crew:
        first = crew.workers(2)
        crew.signal(signal.SIGUSR2)
        second = crew.changed(first, 2)
        os.kill(second[0], signal.SIGKILL)
        wait_for(lambda: not is_alive(second[0]))
        crew.workers(2)
        code, errors = crew.stopped()
        assert code == 0
        assert "the supervisor can't run anew, and goes on: " in errors
        assert "Warning" not in errors
    assert left_in(socket_dir) == []


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names, prlimit(2)")
def test_where_there_are_too_few_descriptors_left_nothing_is_changed(unix_address, socket_dir):
    with Crew(unix_address, "--workers", "4", "--admin", "--metrics", f"unix:{socket_dir}/m") as crew:
        first = crew.workers(4)
        soft, hard = resource.prlimit(crew.process.pid, resource.RLIMIT_NOFILE)
        # Enough for the child that tries the command, too few for a copy of all that there is.
        few = descriptors(crew.process.pid) + 10
        resource.prlimit(crew.process.pid, resource.RLIMIT_NOFILE, (few, hard))
        crew.signal(signal.SIGUSR2)
        crew.signal(signal.SIGTTOU)  # obeyed by the same one
        assert crew.workers(3).items() <= first.items()
        wait_for(lambda: descriptors(crew.process.pid) < few - 10)  # without those of the worker that has gone
        resource.prlimit(crew.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        crew.signal(signal.SIGUSR2)
        crew.changed(first, 3)
        code, errors = crew.stopped()
        assert code == 0
        assert errors.count("the supervisor doesn't run anew, nothing was changed: [Errno 24] ") == 1, errors
    assert left_in(socket_dir) == []


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_service_manager_sees_a_reload(backend, unix_address, socket_dir, kind):
    with (
        managing(socket_dir, kind) as manager,
        Crew(unix_address, "--workers", "1", PYSOCK_BACKEND=backend, NOTIFY_SOCKET=manager.where) as crew,
    ):
        manager.until_says("READY")
        crew.signal(signal.SIGUSR2)
        assert "MONOTONIC_USEC" in manager.until_says("RELOADING")
        assert manager.until_says("READY")["STATUS"] == f"serving on {crew.address}"
        assert crew.stopped()[0] == 0


PROGRAM = """
import logging, os
import pysock
handler = logging.FileHandler(os.environ["LOG"])
logging.getLogger("shop").addHandler(handler)
server = pysock.Server("unix:unused.sock")

@server.service
def note(client, request):
    logging.getLogger("shop").error("%s", request.decode())
    return b""
"""


def test_log_files_are_opened_anew(backend, unix_address, tmp_path):
    (tmp_path / "noting.py").write_text(PROGRAM)
    file, away = tmp_path / "log", tmp_path / "log.1"
    changes = {"PYTHONPATH": f"{PATH}:{tmp_path}", "PYSOCK_BACKEND": backend, "LOG": str(file)}
    with Crew(unix_address, "--workers", "1", program="noting:server", **changes) as crew:
        with pysock.connect(crew.address) as client:
            client.request(b"before")
            file.rename(away)
            client.request(b"between")
            crew.signal(signal.SIGUSR1)
            wait_for(file.exists)
            client.request(b"after")
        assert (away.read_text(), file.read_text()) == ("before\nbetween\n", "after\n")
        assert crew.stopped()[0] == 0
