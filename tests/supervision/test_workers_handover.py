"""``pysock serve --workers``: new workers take over the clients of the old ones, who notice new code alone."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from contextlib import ExitStack

import pytest
from crews import PATH, Crew, is_alive
from programs import pysock_command
from service_manager import managing
from support import PATIENCE, left_in, wait_for

import pysock
from pysock.wire.format import ErrorCode

PROGRAM = """
import os
import pysock

server = pysock.Server("unix:unused.sock", **{options})

@server.on_connect
def greet(client):
    client.data = {{"seen": 0}}
    client.join("all")

@server.service({named})
def which(client, request):
    client.data["seen"] += 1
    return f"{version} {{os.getpid()}} {{client.id}} {{client.data['seen']}} {{len(client.groups)}}".encode()

if {named!r} != 'None':
    @server.service({more!r})
    def more(client, request):
        return b"more"
"""


@pytest.fixture
def crew(socket_dir, tmp_path, backend):
    """``crew(...)``: of a program that ``write`` writes anew."""

    def write(version, more="more", options=None, top="", named='"which"', end=""):
        text = PROGRAM.format(version=version, more=more, options=options or {}, named=named)
        (tmp_path / "moving_on.py").write_text(top + text + end)

    def make(*options, **changes):
        changes = {"PYSOCK_BACKEND": backend, "PYTHONDONTWRITEBYTECODE": "1", **changes}
        return Crew(f"unix:{socket_dir}/s", *options, program="moving_on:server", PYTHONPATH=f"{PATH}:{tmp_path}",
                    **changes)  # fmt: skip

    write(1)
    make.write = write
    return make


def which(client):
    version, pid, client_id, seen, groups = map(int, client.request(b"", service="which").split())
    return {"version": version, "pid": pid, "id": client_id, "seen": seen, "groups": groups}


def until_of(version, clients):
    """All are served by that code; what each says."""
    wait_for(lambda: all(which(client)["version"] == version for client in clients), f"version {version}")
    return [which(client) for client in clients]


def plain(stack, crew, count, **options):
    """Clients that don't connect again."""
    return [stack.enter_context(pysock.connect(crew.address, **options)) for _ in range(count)]


def test_clients_stay_with_their_ids_and_their_data_and_are_served_by_new_code(crew, socket_dir):
    with ExitStack() as stack, crew("--workers", "2") as two:
        clients = plain(stack, two, 6)
        before = [which(client) for client in clients]
        assert {one["version"] for one in before} == {1}
        crew.write(2, more="another")
        two.signal(signal.SIGHUP)
        after = until_of(2, clients)
        for old, new in zip(before, after, strict=True):
            assert (new["id"], new["groups"], new["seen"] > old["seen"]) == (old["id"], 1, True)
        assert not {one["pid"] for one in after} & {one["pid"] for one in before}
        wait_for(lambda: not any(is_alive(one["pid"]) for one in before), "the old workers to end")
        with pysock.connect(two.address) as fresh:
            assert fresh.request(b"", service="another") == b"more"
        with pytest.raises(pysock.RemoteError) as gone:  # by the number that it had learned
            clients[0].request(b"", service="more")
        assert gone.value.code == ErrorCode.NO_SUCH_SERVICE
        code, errors = two.stopped()
        assert (code, "Traceback" in errors) == (0, False), errors
        assert errors.count("clients were handed over, 0 are told to connect again") == 2
    assert left_in(socket_dir) == []


@pytest.mark.slow
def test_no_request_fails_while_workers_are_replaced_again_and_again(crew):
    with ExitStack() as stack, crew("--workers", "2") as two:
        clients = plain(stack, two, 4)
        answers, failed, over = set(), [], threading.Event()

        def load(client):
            try:
                while not over.is_set():
                    answers.add(which(client)["version"])
                    answers.update(client.request_many([b""] * 20, service="which") and ())
            except pysock.PysockError as error:
                failed.append(error)

        threads = [threading.Thread(target=load, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for version in (2, 3, 4):
                crew.write(version)
                two.signal(signal.SIGHUP)
                wait_for(lambda version=version: version in answers or failed, f"version {version}")
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert failed == []
        assert two.stopped()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"top": "1 / 0\n"}, "ZeroDivisionError"),
        ({"options": {"framing": "u32"}, "named": "None"}, "it has another framing"),
        ({"options": {"authkey": b"of sixteen bytes, or more"}}, "it has another authkey"),
    ],
    ids=["import", "framing", "authkey"],
)
def test_what_cant_follow_changes_nothing_and_says_why(crew, socket_dir, changed, why):
    with ExitStack() as stack:
        manager = stack.enter_context(managing(socket_dir, "path"))
        one = stack.enter_context(crew("--workers", "1", NOTIFY_SOCKET=manager.where))
        (client,) = plain(stack, one, 1)
        before = which(client)
        crew.write(2, **changed)
        one.signal(signal.SIGHUP)
        told = manager.until(lambda words: words.get("STATUS", "").startswith("serving on with the old workers"))
        assert why in told["STATUS"]
        assert which(client) == {**before, "seen": before["seen"] + 1}
        crew.write(3)
        one.signal(signal.SIGHUP)
        assert until_of(3, [client])[0]["id"] == before["id"]
        assert one.stopped()[0] == 0


def test_a_cold_reload_moves_nobody_and_takes_another_framing(crew):
    with ExitStack() as stack, crew("--workers", "1", "--admin") as one:
        (client,) = plain(stack, one, 1)
        before = which(client)
        crew.write(2, options={"framing": "u32"}, named="None")
        done = pysock_command("reload", one.address)
        assert (done.returncode, b"pysock reload --cold" in done.stderr) == (1, True)
        assert which(client)["pid"] == before["pid"]
        assert pysock_command("reload", "--cold", one.address).returncode == 0
        with pytest.raises(pysock.PysockError):
            which(client)
        with socket.socket(socket.AF_UNIX) as fresh:
            fresh.settimeout(PATIENCE)
            fresh.connect(one.address.removeprefix("unix:"))
            fresh.sendall(struct.pack(">I", 0))
            assert fresh.recv(100)[4:].startswith(b"2 ")
        assert one.stopped()[0] == 0


@pytest.mark.slow
def test_where_one_of_them_fails_late_its_old_one_serves_on(crew):
    """Everybody keeps the connection, whoever serves it."""
    dies = """
import os
def later(server):
    @server.on_state
    def changed(was, now):
        if server.worker == 1 and now.name == "LISTENING":
            os._exit(9)
"""
    with ExitStack() as stack, crew("--workers", "2") as two:
        clients = plain(stack, two, 1)
        while len({which(client)["pid"] for client in clients}) < 2:
            clients += plain(stack, two, 1)
        before = [which(client) for client in clients]
        crew.write(2, top=dies, end="later(server)")
        two.signal(signal.SIGHUP)
        wait_for(lambda: {which(client)["version"] for client in clients} == {1, 2}, "one of two")
        after = [which(client) for client in clients]
        assert [one["id"] for one in after] == [one["id"] for one in before]
        crew.write(3)
        two.signal(signal.SIGHUP)
        until_of(3, clients)
        code, errors = two.stopped()
        assert (code, "not all workers were replaced: worker 1" in errors) == (0, True)


@pytest.mark.slow
def test_a_worker_that_has_come_so_far_gives_its_clients_to_the_next_one(crew):
    with ExitStack() as stack, crew("--workers", "1", "--max-requests", "50") as one:
        (client,) = plain(stack, one, 1)
        before = which(client)
        wait_for(lambda: which(client)["pid"] != before["pid"], "the next worker")
        assert which(client)["id"] == before["id"]
        wait_for(lambda: not is_alive(before["pid"]), "the old worker to end")
        second = which(client)["pid"]
        assert os.getpgid(second)  # and that one isn't replaced at once for what the other one has served
        assert one.stopped()[0] == 0
