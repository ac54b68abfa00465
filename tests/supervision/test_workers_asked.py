"""``pysock serve --workers --admin``: one admin socket, which the supervisor answers for all workers."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from crews import PROGRAM, Crew, Held, is_alive, stopped
from support import left_in, wait_for
from test_workers_served import version, write

import pysock
from pysock.supervision.inquiry import PATIENCE, Answerer, Inquiry, Refused, ask_all


class Asked(Crew):
    """One with an admin socket beside its own."""

    def __init__(self, socket_dir, *options: str, program: str = PROGRAM, **changes: str) -> None:
        super().__init__(f"unix:{socket_dir}/s", "--admin", *options, program=program, **changes)

    def admin(self, service: str, **fields):
        with pysock.connect(f"{self.address}.admin") as client:
            return json.loads(client.request(json.dumps(fields).encode(), service=service))


@pytest.fixture
def two(backend, socket_dir):
    """Two workers."""
    with Asked(socket_dir, "--workers", "2", "--slowlog", "1ms", PYSOCK_BACKEND=backend) as crew:
        yield crew
        code, errors = crew.stopped()
        assert code == 0
        assert "Traceback" not in errors
    assert left_in(socket_dir) == []


def named(crew, *names: str) -> list[pysock.Client]:
    return [pysock.connect(crew.address, name=name) for name in names]


def test_clients_of_all_are_told_of_and_killed(two, command):
    pids = two.workers(2)
    wait_for(lambda: two.admin("clients")["total"] == 0)
    held = named(two, *(f"till-{number}" for number in range(8)))
    while len({row["worker"] for row in two.admin("clients")["clients"]}) < 2:
        held += named(two, f"till-{len(held)}")
    found = two.admin("clients")
    assert found["hung"] == []
    assert [row["name"] for row in found["clients"]] == [f"till-{number}" for number in range(len(held))]
    assert all(row["id"].startswith(f"{row['worker']}.") for row in found["clients"])
    for row, client in zip(found["clients"], held, strict=True):
        assert json.loads(client.request(b"pid")) == pids[row["worker"]]
    last = found["clients"][-1]["id"]
    assert command("kill", two.address, last)[:2] == (0, "1 client killed\n")
    assert command("kill", two.address, last)[:2] == (1, "0 clients killed\n")
    assert command("kill", two.address, "--name", "till-0")[:2] == (0, "1 client killed\n")
    killed = two.admin("kill", name="till-*")
    assert (killed["killed"], killed["hung"]) == (len(held) - 2, [])
    assert sorted(killed["ids"]) == sorted(row["id"] for row in found["clients"][1:-1])
    with pytest.raises(pysock.RemoteError, match="of which there are several workers here"):
        two.admin("kill", id="1.7")
    with pytest.raises(pysock.RemoteError, match="isn't a field of 'clients'"):
        two.admin("clients", nonsense=1)
    for client in held:
        client.close()


def test_counters_slow_requests_and_those_that_are_served(two, command):
    two.workers(2)
    before = two.admin("stats")
    assert (before["pid"], before["wanted"], sorted(before["workers"])) == (two.process.pid, 2, ["0", "1"])
    begins = two.admin("tail")["next"]
    with pysock.connect(two.address, name="till") as client:
        client.request(b"compute 30000")
    slow = wait_for(lambda: two.admin("slowlog")["slowlog"])
    assert (slow[-1]["name"], slow[-1]["client"].split(".")[0]) == ("till", str(slow[-1]["worker"]))
    assert two.admin("stats")["counters"]["requests"] == before["counters"]["requests"] + 1
    assert [entry["name"] for entry in two.admin("tail", after=begins)["tail"]] == ["till"]
    code, out, _ = command("stats", two.address)
    assert (code, out.splitlines()[0].split(",")[:2]) == (
        0,
        ["server: serving", f" process {two.process.pid} and 2 workers"],
    )
    code, out, _ = command("top", two.address, "--count", "1", "--every", "0.1")
    assert code == 0
    assert re.search(r"^WORKER +PROCESS +CLIENTS +REQUESTS/S", out, re.MULTILINE)
    assert len(re.findall(r"^     [01] +\d+ +0 ", out, re.MULTILINE)) == 2


def test_one_that_hangs_is_told_of_and_costs_less_than_a_second(two, command):
    pids = two.workers(2)
    with Held(two, 6):
        before = two.admin("stats")
        with stopped(pids[1]):
            begin = time.perf_counter()
            found = two.admin("clients")
            assert time.perf_counter() - begin < PATIENCE + 1
            assert found["hung"] == [1]
            assert {row["worker"] for row in found["clients"]} <= {0}
            after = two.admin("stats")
            assert after["hung"] == [1]
            assert after["workers"]["1"]["stuck_for"] > 0
            assert after["counters"]["clients"] == before["counters"]["clients"]  # as it said last
            assert "worker 1 doesn't answer: it hangs\n" in command("clients", two.address)[1]
            assert "WORKER 1 HANGS, or is stopped" in command("stats", two.address)[1]
            out = command("top", two.address, "--count", "1", "--every", "0.1")[1]
            assert re.search(r"^     1 .*hangs since ", out, re.MULTILINE)
            assert "hung workers: worker 1 doesn't answer" in command("doctor", two.address)[1]
        wait_for(lambda: two.admin("clients")["hung"] == [])


def test_drain_log_and_doctor_reach_all(two, command):
    two.workers(2)
    assert command("drain", two.address)[:2] == (0, f"{two.address}: draining\n")
    wait_for(lambda: two.admin("stats")["lame"])
    assert command("resume", two.address)[:2] == (0, f"{two.address}: serving\n")
    wait_for(lambda: not any(worker["lame"] for worker in two.admin("stats")["workers"].values()))
    assert command("log", two.address, "warning", "pysock.server")[:2] == (
        0,
        "pysock.server: warning; it was notset\n",
    )
    found = two.admin("doctor")
    assert {"hung workers", "old workers"} <= found["checked"].keys()
    assert [finding for finding in found["findings"] if "worker" in finding["check"]] == []


def test_reload_and_scale(two, command):
    first = two.workers(2)
    code, out, _ = command("reload", two.address)
    assert (code, re.sub("[0-9.]+", "N", out)) == (0, "N new workers serve, after Nms\n" if "ms" in out else
                                                  "N new workers serve, after Ns\n")  # fmt: skip
    second = two.changed(first, 2)
    assert not set(first.values()) & set(second.values())
    assert command("scale", "3", two.address)[:2] == (0, "3 workers from now on; there were 2\n")
    third = two.workers(3)
    assert (third[0], third[1]) == (second[0], second[1])
    assert command("scale", "1", two.address)[:2] == (0, "1 worker from now on; there were 3\n")
    wait_for(lambda: not is_alive(third[1]) and not is_alive(third[2]))
    with pytest.raises(pysock.RemoteError, match="must be a number from 1 to"):
        two.admin("scale", workers=0)


def test_a_reload_that_fails_says_why(socket_dir, tmp_path, command, backend):
    write(tmp_path, "", 1)
    with Asked(socket_dir, "--workers", "2", program="changing:server", PYTHONPATH=f"{tmp_path}:{os.getcwd()}",
               PYSOCK_BACKEND=backend) as crew:  # fmt: skip
        write(tmp_path, "1 / 0", 2)
        code, out, err = command("reload", crew.address)
        assert (code, out) == (1, "")
        assert "nothing was changed, the old workers serve on: " in err
        assert "ZeroDivisionError: division by zero" in err
        assert len(crew.admin("stats")["workers"]) == 2
        write(tmp_path, "", 3)
        assert command("reload", crew.address)[0] == 0
        assert version(crew).startswith(b"3 ")
        assert crew.stopped()[0] == 0


def test_reloads_at_once_are_one_or_two(two):
    """Each is told of a change that began after it was asked for."""
    two.workers(2)
    with pysock.connect(f"{two.address}.admin") as client:
        assert client.services  # a socket that takes requests while others wait
        two.signal(signal.SIGHUP)
        answers = [two.admin("reload"), two.admin("reload")]
    assert [answer["workers"] for answer in answers] == [2, 2]


@pytest.mark.parametrize(("admin", "code", "words"), [("unix:no/such/dir/a", 1, "doesn't exist")])
def test_a_place_that_was_named_and_cannot_be_used(socket_dir, admin, code, words):
    with pytest.raises(AssertionError, match=words):
        Crew(f"unix:{socket_dir}/s", "--workers", "1", "--admin", admin)
    assert left_in(socket_dir) == []


def test_a_worker_of_an_older_pysock_says_that_it_does_not_know_a_service():
    """Its supervisor may have become a newer one meanwhile; and it answers the next question."""
    line = Inquiry.new()
    Answerer(line.theirs.detach(), {"old": lambda fields: {"told": fields}})
    answer = ask_all("new", {0: (line, {})}, 5.0)[0]
    assert isinstance(answer, Refused)
    assert str(answer) == "this worker is of an older pysock, which doesn't know that"
    assert ask_all("old", {0: (line, {"a": 1})}, 5.0) == {0: {"told": {"a": 1}}}
