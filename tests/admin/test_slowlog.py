"""Which requests took long, and which ones there are: what engines tell, what is kept of it, and the two commands."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress

import pytest
from support import wait_for

import pysock
from pysock import Admin, RemoteError
from pysock.admin.merging import merged, spread
from pysock.admin.services import served
from pysock.cli import main as cli
from pysock.errors import ParameterError

SLOW = 0.02


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address, name="shop")
    server.service("quick")(lambda client, request: request)
    return server


@pytest.fixture
def ask(server):
    """``ask(service, **fields)`` of an admin socket whose requests are slow from ``SLOW`` on."""
    with server, Admin(server, slowlog=SLOW) as admin, pysock.connect(admin.address) as client:
        yield lambda service, **fields: json.loads(client.request(json.dumps(fields).encode(), service=service))


@pytest.fixture
def till(server, ask):
    with pysock.connect(server.addresses[0], name="till") as client:
        yield client


def at_once(client, request):
    time.sleep(SLOW * 1.5)
    return 2 * request


def fails(client, request):
    time.sleep(SLOW * 1.5)
    raise RemoteError("no")


async def in_a_task(client, request):
    await asyncio.sleep(SLOW * 1.5)
    return 2 * request


def in_pieces(client, request):
    yield b"a"
    time.sleep(SLOW * 1.5)


KINDS = {
    "at_once": lambda server: server.service("slow")(at_once),
    "fails": lambda server: server.service("slow")(fails),
    "in_a_task": lambda server: server.service("slow")(in_a_task),
    "by_a_worker": lambda server: server.service("slow", threads=1)(at_once),
    "in_a_batch": lambda server: server.batch_service("slow")(
        lambda clients, requests: [2 * at_once(None, b"abc")[:3]]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_who_was_slow(server, kind, request):
    KINDS[kind](server)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    for service in ("slow", "quick", "slow"):
        with suppress(RemoteError):
            till.request(b"abc", service)
    answer = wait_for(lambda: (found := ask("slowlog"))["total"] >= 2 and found, "both to be told of")
    assert answer["slow"] == SLOW
    first, last = (entry for entry in answer["slowlog"] if entry["service"] == "slow")
    client = server.clients.by_name("till")
    assert {last[name] for name in ("service", "name")} == {"slow", "till"}
    assert pysock.base.ids.read(last["client"]) == client.id
    assert last["took"] >= SLOW
    assert (last["size"], last["reply_size"]) == (3, 0 if kind == "fails" else 6)
    assert last["failed"] is (kind == "fails")
    assert (first["among"], last["among"]) == (1, 1)
    assert first["client"] == last["client"]
    assert abs(last["at"] - time.time()) < 60
    assert ask("slowlog", after=first["number"])["slowlog"] == [last]
    assert ask("slowlog", limit=1)["slowlog"] == [last]


def test_what_waits_for_a_worker(server, request):
    server.service("slow", threads=1)(at_once)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    till.request_many([b"a", b"b"], "slow")
    first, last = wait_for(lambda: (found := ask("slowlog")["slowlog"])[1:] and found, "both to be told of")
    assert first["waited"] < last["waited"]
    assert last["waited"] >= SLOW / 2
    assert last["took"] >= SLOW


def test_a_stream_is_never_slow(server, request):
    server.service("stream")(in_pieces)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    ask("tail")
    assert list(till.stream(b"abc", "stream")) == [b"a"]
    (entry,) = wait_for(lambda: ask("tail", after=0)["tail"], "it to be told of")
    assert entry["service"] == "stream"
    assert not [entry for entry in ask("slowlog")["slowlog"] if entry["client"]]


def test_one_of_several_in_a_turn(server, request, backend):
    server.service("slow")(at_once)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    till.request_many([b"abc"] * 3, "slow")
    told = wait_for(lambda: ask("slowlog")["slowlog"], "them to be told of")
    assert sum(entry["among"] for entry in told) == 3
    till.request_many([b"abc"] * 3, "slow")
    assert [entry["among"] for entry in ask("slowlog", after=told[-1]["number"])["slowlog"]] == [1, 1, 1]


def test_so_many_are_kept():
    ring = served._Ring(served.SLOW_KEPT)
    for _ in range(200):
        ring.add({})
    assert [entry["number"] for entry in ring.after(0)] == [*range(73, 201)]
    assert [entry["number"] for entry in ring.after(198)] == [199, 200]


def test_what_is_quick_is_not_there(ask, till):
    till.request(b"abc", "quick")
    answer = ask("slowlog")
    assert answer.pop("at") == pytest.approx(time.time(), abs=60)
    assert answer == {"slow": SLOW, "total": 0, "slowlog": [], "next": 0}


def test_tail(ask, till):
    till.request(b"before", "quick")
    after = ask("tail")["next"]
    till.request(b"abc", "quick")
    answer = ask("tail", after=after)
    (entry,) = answer["tail"]
    assert (entry["service"], entry["name"], entry["size"], entry["reply_size"]) == ("quick", "till", 3, 3)
    assert (answer["skipped"], answer["lease"]) == (0, served.LEASE)
    assert ask("tail", after=answer["next"])["tail"] == []


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"fails"}))
def test_tail_tells_of_each_once(server, kind, request):
    KINDS[kind](server)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    after = ask("tail")["next"]
    for service in ("slow", "quick"):
        till.request(b"abc", service)
    assert [entry["service"] for entry in ask("tail", after=after)["tail"]] == ["slow", "quick"]


def test_tail_of_many(ask, till):
    after = ask("tail")["next"]
    till.request_many([b"abc"] * 500, "quick")
    till.request(b"the last one", "quick")
    answer = ask("tail", after=after)
    assert len(answer["tail"]) + answer["skipped"] == 501
    assert answer["tail"][-1]["size"] == 12


def test_nobody_looks_any_more(server, ask, till, monkeypatch):
    monkeypatch.setattr(served, "LEASE", 0.0)
    after = ask("tail")["next"]
    till.request(b"abc", "quick")  # the lease is found to be over
    till.request(b"abc", "quick")
    monkeypatch.undo()
    assert ask("tail", after=after) | {"at": 0} == {"at": 0, "tail": [], "skipped": 0, "lease": 5.0, "next": after}


def test_each_of_two_has_what_is_slow_for_it(server, request):
    server.service("slow")(at_once)
    ask, till = (request.getfixturevalue(name) for name in ("ask", "till"))
    with (
        Admin(server, f"{server.addresses[0]}.second", slowlog=60.0) as second,
        pysock.connect(second.address) as client,
    ):
        till.request(b"abc", "slow")
        wait_for(lambda: ask("slowlog")["total"], "it to be told of")
        assert json.loads(client.request(b"", service="slowlog"))["total"] == 0


@pytest.mark.parametrize("slowlog", [0, -1, 0.0001, 1e9, True, "10ms", None, float("nan")])
def test_what_is_no_time(server, slowlog):
    with pytest.raises(ParameterError, match="a number of seconds from 0") as caught:
        Admin(server, slowlog=slowlog)
    assert caught.value.parameter == "slowlog"


def test_several_workers():
    entry = {"at": 1.0, "client": "1.7", "number": 4}
    answers = {
        0: {"at": 5, "total": 1, "slowlog": [entry], "next": 4},
        1: {"at": 6, "total": 0, "slowlog": [], "next": 0},
    }
    found = merged("slowlog", answers)
    assert (found["total"], found["next"]) == (1, {"0": 4, "1": 0})
    assert found["slowlog"] == [entry | {"client": "0.1.7", "worker": 0}]
    assert spread("slowlog", {"after": found["next"]}, [0, 1]) == {0: {"after": 4}, 1: {"after": 0}}
    assert spread("tail", {"after": {"1": 2}}, [0, 1]) == {0: {}, 1: {"after": 2}}  # it begins at one that is new


# --- the commands ---


@pytest.fixture
def command(server, command):
    return lambda name, *arguments: command(name, server.addresses[0], *arguments)


def test_slowlog_for_people(server, command, request):
    server.service("slow")(at_once)
    till = request.getfixturevalue("till")
    assert command("slowlog") == (0, "0 slow requests so far, of 20ms and more\n", "")
    till.request(b"abc", "slow")
    code, out, _ = command("slowlog")
    head, line, total = out.splitlines()
    assert (code, head.split()[:5]) == (0, ["TIME", "SERVICE", "CLIENT", "WAITED", "TOOK"])
    assert line.split()[1] == "slow"
    assert total == "1 slow request so far, of 20ms and more"
    assert json.loads(command("slowlog", "--json", "--limit", "1")[1])["total"] == 1
    assert command("slowlog", "--limit", "0")[0] == 2


def test_tail_for_people(ask, till, command, server):
    stop = threading.Event()

    def busy():
        with pysock.connect(server.addresses[0], name="busy") as client:
            while not stop.wait(0.01):
                client.request(b"abc", "quick")

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        code, out, err = command("tail", "--service", "quick", "--count", "2")
        assert (code, len(out.splitlines()), err) == (0, 2, "")
        assert all(line.split()[1] == "quick" for line in out.splitlines())
        code, out, _ = command("tail", "--count", "1", "--json")
        assert json.loads(out)["service"] == "quick"
    finally:
        stop.set()
        thread.join()


def test_serve_says_what_is_slow(capfd):
    assert cli.main(["serve", "a:b", "--slowlog", "soon"]) == 2
    assert "soon" in capfd.readouterr().err
    assert cli.main(["serve", "a:b", "--slowlog", "10us"]) == 2
