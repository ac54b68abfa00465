"""What ``pysock serve --workers`` tells of all its workers: ``--metrics`` and ``--agent``."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
from crews import PATH, Crew, Held, is_alive, stopped
from scraping import ask, samples
from support import left_in, own_host, plug, wait_for

import pysock

SERVED = 'pysock_requests_total{service="(unnamed)",code="OK"}'


class Measured(Crew):
    """One that is scraped."""

    def __init__(self, socket_dir, *options: str, **changes: str) -> None:
        self.metrics = f"unix:{socket_dir}/m"
        super().__init__(f"unix:{socket_dir}/s", "--metrics", self.metrics, *options, **changes)

    def scraped(self) -> dict[str, float]:
        status, text, _ = ask(self.metrics)
        assert status == 200
        found = samples(text)
        assert len(found) == sum(not line.startswith("#") for line in text.splitlines())  # none is there twice
        return found

    def at_least(self, name: str, value: float) -> dict[str, float]:
        return wait_for(lambda: (found := self.scraped()).get(name, 0) >= value and found, f"{name} to be {value}")


def restarts(found: dict[str, float]) -> dict[str, float]:
    begin = 'pysock_worker_restarts_total{why="'
    named = {name: value for name, value in found.items() if name.startswith(begin) and value}
    return {name.removeprefix(begin).removesuffix('"}'): value for name, value in named.items()}


def test_one_scrape_tells_of_all_workers_also_of_those_that_are_gone(backend, socket_dir):
    """No sum goes back: not when a worker is killed, not at a reload, not when there are fewer of them."""
    with Measured(socket_dir, "--workers", "2", PYSOCK_BACKEND=backend) as crew:
        first = crew.workers(2)
        wait_for(
            lambda: crew.scraped()['pysock_clients{worker="0"}'] + crew.scraped()['pysock_clients{worker="1"}'] == 0
        )
        before = crew.at_least(SERVED, 2)
        assert (before['pysock_worker_up{worker="0"}'], before['pysock_worker_up{worker="1"}']) == (1, 1)
        assert before["pysock_workers"] == 2
        assert restarts(before) == {}
        os.kill(first[1], signal.SIGKILL)
        found = crew.at_least('pysock_worker_restarts_total{why="died"}', 1)
        assert found[SERVED] >= before[SERVED]
        second = crew.workers(2)
        assert second[1] != first[1]
        found = crew.at_least(SERVED, before[SERVED] + 2)
        crew.signal(signal.SIGHUP)
        third = crew.changed(second, 2)
        after = crew.at_least(SERVED, found[SERVED] + 2)
        assert restarts(after) == {"died": 1, "reload": 2}
        assert after['pysock_worker_up{worker="1"}'] == 1
        crew.signal(signal.SIGTTOU)
        wait_for(lambda: not is_alive(third[1]))
        fewer = wait_for(lambda: 'pysock_worker_up{worker="1"}' not in (found := crew.scraped()) and found)
        assert fewer[SERVED] >= after[SERVED]
        assert (
            fewer['pysock_connections_total{transport="unix"}'] >= after['pysock_connections_total{transport="unix"}']
        )
        assert crew.stopped()[0] == 0
    assert left_in(socket_dir) == []


def test_of_a_stopped_worker_its_last_values_are_told_at_once(backend, socket_dir):
    with Measured(socket_dir, "--workers", "2", PYSOCK_BACKEND=backend) as crew:
        pids = crew.workers(2)
        with Held(crew, 4):
            total = 'pysock_clients{worker="0"}', 'pysock_clients{worker="1"}'
            before = wait_for(lambda: sum((found := crew.scraped())[name] for name in total) == 4 and found)
            one, other = sorted((0, 1), key=lambda number: -before[total[number]])
            with stopped(pids[one]):
                wait_for(lambda: crew.scraped()[f'pysock_worker_up{{worker="{one}"}}'] == 0)
                begin = time.perf_counter()
                found = crew.scraped()
                took = time.perf_counter() - begin
                assert found[total[one]] == before[total[one]] > 0
                assert found[f'pysock_worker_up{{worker="{other}"}}'] == 1
                assert took < 1  # nobody was asked
                assert ask(crew.metrics, "/livez")[0] == ask(crew.metrics, "/readyz")[0] == 200
                with stopped(pids[other]):
                    wait_for(lambda: ask(crew.metrics, "/readyz")[0] == ask(crew.metrics, "/livez")[0] == 503)
            wait_for(lambda: crew.scraped()[f'pysock_worker_up{{worker="{one}"}}'] == 1)
        assert crew.stopped()[0] == 0


def told(address: str) -> str:
    with plug(address) as sock:
        line = b""
        while part := sock.recv(100):
            line += part
    return line.decode()


def test_haproxy_is_told_of_all_workers(backend, socket_dir):
    with socket.create_server((own_host(), 0)) as free:
        agent = "{}:{}".format(*free.getsockname())
    options = "--workers", "2", "--agent", agent
    with Measured(socket_dir, *options, PYSOCK_BACKEND=backend) as crew:
        pids = crew.workers(2)
        wait_for(lambda: told(agent) == "ready up 100%\n")
        with pysock.connect(crew.address) as client:
            client.request(b"", service="_drain")
            wait_for(lambda: told(agent) == "drain\n")
            assert ask(crew.metrics, "/readyz")[:2] == (503, "the service drains: new clients should go elsewhere\n")
            client.request(b"", service="_resume")
            wait_for(lambda: told(agent) == "ready up 100%\n")
        with stopped(pids[0]):
            assert told(agent) == "ready up 100%\n"
            with stopped(pids[1]):
                wait_for(lambda: told(agent) == "down\n")
        assert crew.stopped()[0] == 0


@pytest.mark.parametrize("option", ["--metrics", "--agent"])
def test_where_it_cannot_be_told_nothing_is_served(socket_dir, option):
    with socket.create_server((own_host(), 0)) as taken:
        there = "{}:{}".format(*taken.getsockname())
        with pytest.raises(AssertionError, match="another socket has that port"):
            Crew(f"unix:{socket_dir}/s", "--workers", "1", option, there)
    assert left_in(socket_dir) == []


def test_old_workers_that_die_while_new_ones_come_are_followed_by_those(backend, socket_dir, tmp_path):
    """There is nobody to take over from, so others come in their place; and each worker is counted once."""
    slow = tmp_path / "slow"
    (tmp_path / "slowly.py").write_text(
        f"import os, time\ntime.sleep(1.5 if os.path.exists({str(slow)!r}) else 0)\nfrom supervised import server\n"
    )
    changes = {"PYSOCK_BACKEND": backend, "PYTHONPATH": f"{PATH}:{tmp_path}"}
    with Measured(socket_dir, "--workers", "2", program="slowly:server", **changes) as crew:
        first = crew.workers(2)
        slow.touch()
        crew.signal(signal.SIGHUP)
        time.sleep(0.5)  # both have begun to import it
        os.kill(first[1], signal.SIGKILL)
        second = crew.changed(first, 2)
        assert not set(second.values()) & set(first.values())
        found = restarts(crew.scraped())
        code, errors = crew.stopped()
        assert (code, "Traceback" in errors) == (0, False), errors
        assert "it was ended by SIGKILL (out of memory?); one that comes already follows it" in errors
        assert found == {"died": 1, "reload": 1}
    assert left_in(socket_dir) == []
