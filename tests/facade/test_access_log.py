"""The access log: which lines there are, what they say, and that nobody waits for them."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

import pytest
from support import wait_for

import pysock
from pysock.accesslog import log as module
from pysock.accesslog.lines import line_of
from pysock.accesslog.wanted import Wanted, checked_wanted
from pysock.base.ids import shown


class Lines(logging.Handler):
    """What was written, as dicts; ``held``: nothing is, for now."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.free = threading.Event()
        self.free.set()

    def emit(self, record):
        self.free.wait(10)
        self.records.append(record)

    def of(self, what):
        return [record.access for record in self.records if record.access["what"] == what]


@pytest.fixture
def lines(monkeypatch):
    logger, lines = logging.getLogger("pysock.access"), Lines()
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(lines)
    yield lines
    lines.free.set()
    logger.removeHandler(lines)
    logger.setLevel(logging.NOTSET)


def echo(_client, request):
    return request * 2


def fails(_client, _request):
    raise pysock.RemoteError("no")


async def in_a_task(_client, request):
    return request * 2


def in_pieces(_client, request):
    yield request
    yield request * 2


KINDS = {
    "at once": lambda server: server.service("one")(echo),
    "in a task": lambda server: server.service("one")(in_a_task),
    "by a thread": lambda server: server.service("one", threads=1)(echo),
    "in a batch": lambda server: server.batch_service("one")(lambda clients, requests: [2 * each for each in requests]),
}


def test_a_line_for_each_connection_that_has_ended(make_server, address, lines):
    server = make_server(address, access_log="connections")
    server.service(echo)
    with server:
        where = server.addresses[0]
        with pysock.connect(where, name="till 7\n") as client:
            client.request(b"abc")
            first = client.id
        wait_for(lambda: lines.of("connection"), "the first to be told of")
        stays = pysock.connect(where)
        at = time.time()
    stays.close()
    one, other = lines.of("connection")
    assert 0 <= one.pop("seconds") < 60
    assert one.pop("in") > 3
    assert one.pop("out") > 6
    who = {name: one.pop(name) for name in ("address", "pid", "uid")}
    if where.transport == "unix":
        assert who == {"address": str(where.bare()), "pid": os.getpid(), "uid": os.getuid()}
    else:
        assert (who["address"].rpartition(":")[0], who["pid"]) == (where.host, None)
    assert one == {"what": "connection", "client": shown(first), "name": "till 7\n", "via": None, "requests": 1,
                   "reason": "left"}  # fmt: skip
    assert (other["name"], other["requests"], other["reason"]) == (None, 0, "server_stopping")
    text = lines.records[0].getMessage()
    assert text.startswith(f"connection client={shown(first)} name='till 7\\n' address=")
    assert text.endswith(" reason=left")
    assert abs(lines.records[1].created - at) < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "pysock-access"]


def test_the_other_framings(make_server, unix_address, lines):
    server = make_server(unix_address, framing="line", access_log="connections,requests")
    server.service(echo)
    with server, socket.socket(socket.AF_UNIX) as client:
        client.connect(server.addresses[0].path)
        client.sendall(b"ab\n")
        assert client.recv(100) == b"abab\n"
    assert [(one["requests"], one["in"], one["out"]) for one in lines.of("connection")] == [(1, 3, 5)]
    assert [(one["service"], one["in"], one["out"]) for one in lines.of("request")] == [("", 2, 4)]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_line_for_each_so_manieth_request(make_server, unix_address, lines, kind, every):
    server = make_server(unix_address, access_log=f"requests:1/{every}")
    KINDS[kind](server)
    with server, pysock.connect(server.addresses[0], name="till") as client:
        client.request(b"a", "one")  # the first one is told of
        client.request_many([b"abc"] * 8, "one")
        who = shown(client.id)
    found = lines.of("request")
    assert len(found) == 9 // every
    assert (found[0]["in"], found[-1]["in"], found[-1]["out"]) == (1, 3, 6)
    assert {(one["client"], one["name"], one["service"], one["outcome"]) for one in found} == {
        (who, "till", "one", "ok")
    }
    assert all(0 <= one["waited"] < 10 and 0 <= one["took"] < 10 for one in found)
    assert lines.of("connection") == lines.of("missing") == []


def test_one_that_failed_and_a_stream(make_server, unix_address, lines):
    server = make_server(unix_address, access_log="requests")
    server.service("fails")(fails)
    server.service("pieces")(in_pieces)
    with server, pysock.connect(server.addresses[0]) as client:
        with pytest.raises(pysock.RemoteError):
            client.request(b"abc", "fails")
        assert b"".join(client.stream(b"abc", "pieces")) == b"abc" * 3
    first, second = lines.of("request")
    assert (first["service"], first["outcome"], first["out"]) == ("fails", "failed", 0)
    assert (second["service"], second["outcome"]) == ("pieces", "ok")


def test_beside_tail_and_slowlog_it_has_its_own(make_server, unix_address, lines):
    server = make_server(unix_address, access_log="requests:1/4")
    server.service("slow")(lambda client, request: time.sleep(0.002) or b"")
    server.service("quick")(echo)
    admin, client = pysock.Admin(server, slowlog=0.001), pysock.connect
    with server, admin, client(server.addresses[0]) as till, client(admin.address) as asks:
        till.request(b"", "slow")  # that one is told of as the first
        for _ in range(3):
            till.request(b"", "slow")
        wait_for(lambda: b'"total":4' in asks.request(b"{}", "slowlog"), "the slow ones to be told of")
        asks.request(b"{}", "tail")
        for _ in range(8):
            till.request(b"", "quick")
        assert asks.request(b'{"after": 0}', "tail").count(b'"quick"') == 8
    assert len(lines.of("request")) in {2, 3, 4}  # where tail begins, it is counted anew
    assert sum(one["service"] == "slow" for one in lines.of("request")) == 1


def test_nobody_waits_for_a_line_and_what_is_missing_is_said(make_server, unix_address, lines, monkeypatch):
    monkeypatch.setattr(module, "ROOM", 10)
    lines.free.clear()
    server = make_server(unix_address, access_log="requests")
    server.service(echo)
    with server, pysock.connect(server.addresses[0]) as client:
        for _ in range(40):
            assert client.request(b"a") == b"aa"
        lines.free.set()
    told = len(lines.of("request"))
    assert 10 <= told < 40
    assert sum(one["lines"] for one in lines.of("missing")) == 40 - told


def test_more_have_gone_than_are_known(make_server, unix_address, lines):
    server = make_server(unix_address, framing="raw", access_log="connections")
    server.service(echo)
    lines.free.clear()
    with server:
        path = server.addresses[0].path
        for _ in range(1100):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        wait_for(lambda: server.stats()["disconnected"] == 1100, "all to have gone")
        lines.free.set()
    told = len(lines.of("connection"))
    assert 1000 <= told < 1100
    assert sum(one["lines"] for one in lines.of("missing")) == 1100 - told
    assert len({one["client"] for one in lines.of("connection")}) == told


def test_who_goes_is_told_of_once_however_many(make_server, unix_address, lines):
    server = make_server(unix_address, framing="raw", access_log="connections")
    server.service(echo)
    gone = 0
    with server:
        for size in (1, 150, 2, 300):
            clients = [socket.socket(socket.AF_UNIX) for _ in range(size)]
            for client in clients:
                client.connect(server.addresses[0].path)
            for client in clients:
                client.close()
            gone += size
            wait_for(lambda: server.stats()["disconnected"] == gone, "them to go")  # noqa: B023
    ids = [one["client"] for one in lines.of("connection")]
    assert len(ids) == len(set(ids)) == 453
    assert lines.of("missing") == []


def test_a_filter_that_raises_costs_a_line(make_server, unix_address, lines, monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: told.append(str(args.exc_value)))

    def refuse(record):
        if record.access["what"] == "request":
            raise ValueError("not this one")
        return True

    monkeypatch.setattr(logging.getLogger("pysock.access"), "filters", [refuse])
    server = make_server(unix_address, access_log="connections,requests")
    server.service(echo)
    with server, pysock.connect(server.addresses[0]) as client:
        client.request(b"a")
    assert (told, len(lines.of("connection"))) == (["not this one"], 1)


def test_where_nobody_listens_nothing_is_written(make_server, unix_address, lines):
    logging.getLogger("pysock.access").setLevel(logging.ERROR)
    server = make_server(unix_address, access_log="connections,requests")
    server.service(echo)
    with server, pysock.connect(server.addresses[0]) as client:
        client.request(b"a")
    assert lines.records == []


def test_once_and_before_the_start(make_server, unix_address):
    server = make_server(unix_address)
    server.service(echo)
    server.log_access("connections")
    with pytest.raises(pysock.PysockError, match="has an access log already"):
        server.log_access("requests")
    with server:
        pass
    with pytest.raises(pysock.PysockError, match="has run"):
        server.log_access("requests")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("connections", (True, 0)),
        ("requests", (False, 1)),
        ("requests:1/250", (False, 250)),
        ("requests:1/1000000,connections", (True, 1_000_000)),
    ],
)
def test_what_may_be_asked_for(text, wanted):
    assert checked_wanted(text) == Wanted(*wanted)


@pytest.mark.parametrize(
    "text",
    ["", "all", "requests:2", "requests:1/0", "requests:1/1000001", "requests:1/x", "requests,requests", "connections,",
     "connections,connections", "requests:1/2 ", None, 5],
)  # fmt: skip
def test_what_may_not(text):
    with pytest.raises(ValueError, match="access_log must be 'connections', 'requests'"):
        checked_wanted(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("till-7", "till-7"), ("a b", "'a b'"), ("a\nb", "'a\\nb'"), ("ä", "'ä'"), ("", "''"), ('"', "'\"'"),
     ("a=b", "'a=b'"), (0.0000014, "0.000001"), (3, "3"), ("[::1]:80", "'[::1]:80'")],
)  # fmt: skip
def test_a_value(value, shown):
    assert line_of("what", {"key": value, "none": None}) == f"what key={shown}"
