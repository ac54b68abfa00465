"""The admin socket: who may ask, what is answered, in which form, and that the server has nothing to do with it."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from contextlib import ExitStack

import pytest
from support import PATIENCE, RawPeer, left_in, wait_for

import pysock
from pysock import Admin, Limits, PysockError, RemoteError
from pysock.base.ids import read


class Asking:
    """An admin socket and a client of it."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self.client = pysock.connect(admin.address)

    def __call__(self, service, **fields):
        return json.loads(self.client.request(json.dumps(fields).encode(), service=service))

    def refusal(self, service, **fields):
        with pytest.raises(RemoteError) as caught:
            self(service, **fields)
        return caught.value.message


@pytest.fixture
def server(make_server, unix_address):
    server = make_server(unix_address, name="shop", limits=Limits(max_clients=2000))
    server.service("echo")(lambda client, request: request)
    return server


@pytest.fixture
def ask(server):
    with server, Admin(server) as admin:
        asking = Asking(admin)
        yield asking
        asking.client.close()


@pytest.fixture
def come(server):
    """``come(name)``: a client that is let in."""
    with ExitStack() as stack:
        yield lambda name="", **how: stack.enter_context(pysock.connect(server.addresses[0], name=name, **how))


def test_it_is_beside_the_first_unix_socket_for_its_owner_alone(server, socket_dir):
    with server, Admin(server) as admin:
        assert str(admin.address) == f"unix:{socket_dir}/s.admin"
        assert stat.S_IMODE(os.stat(f"{socket_dir}/s.admin").st_mode) == 0o600
    assert left_in(socket_dir) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_not_let_in(ask, socket_dir):
    """Whatever the file's mode: the kernel tells who asks."""
    socket_dir.chmod(0o755)
    os.chmod(f"{socket_dir}/s.admin", 0o666)
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            pysock.connect(f"unix:{socket_dir}/s.admin", timeout=5)
        except (pysock.ConnectionRefused, ConnectionError):
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_it_says_what_it_is(ask):
    names = {"clients", "kill", "stats", "drain", "resume", "log", "doctor"}
    said = json.loads(ask.client.request(b"", service="_admin"))
    assert (said["name"], said["pid"]) == ("shop", os.getpid())
    assert names <= set(said["services"]) == set(ask.client.services) - {"_admin"}


def test_clients(ask, server, come):
    first = come("first")
    come("second")
    first.request(b"abc", service="echo")
    (one,) = server.clients.where(name="first")
    one.join("red")
    answer = ask("clients")
    assert (answer["total"], answer["next"], answer["gone"]) == (2, None, [])
    row = answer["clients"][0]
    assert read(row["id"]) == one.id
    assert (row["name"], row["requests"], row["in_flight"], row["groups"]) == ("first", 1, 0, ["red"])
    assert (row["pid"], row["uid"], row["state"]) == (os.getpid(), os.geteuid(), "ESTABLISHED")
    assert [row["name"] for row in ask("clients", name="s*")["clients"]] == ["second"]
    assert [row["name"] for row in ask("clients", group="red")["clients"]] == ["first"]
    assert ask("clients", uid=os.geteuid() + 1)["clients"] == []


def test_those_who_went(ask, come, server):
    come("late").close()
    wait_for(server.clients.left, "it to be gone")
    (left,) = ask("clients", gone=5)["gone"]
    assert (left["name"], left["reason"]) == ("late", "LEFT")
    assert left["left_at"] >= left["connected_at"]


def test_a_long_table_comes_in_pages(ask, server):
    with ExitStack() as stack:
        for _ in range(25):
            stack.enter_context(RawPeer.connect(server.addresses[0])).hello()
        found, after = [], None
        while True:
            page = ask("clients", limit=10, **({"after": after} if after else {}))
            assert page["total"] == 25
            found += [row["id"] for row in page["clients"]]
            after = page["next"]
            if after is None:
                break
            stack.enter_context(RawPeer.connect(server.addresses[0])).hello()  # who comes meanwhile moves nobody
            next(iter(server.clients.values())).close()
            wait_for(lambda: len(server.clients) == 25, "one to go")
        assert len(found) == len(set(found)) >= 25


def test_kill(ask, server, come):
    clients = [come(f"sensor-{number}") for number in range(3)]
    other = come("other")
    names = {row["name"]: row["id"] for row in ask("clients")["clients"]}
    assert ask("kill", id=names["sensor-0"]) == {"killed": 1, "ids": [names["sensor-0"]]}
    assert ask("kill", id=names["other"], name="sensor-*")["killed"] == 0
    wait_for(lambda: len(server.clients) == 3, "one to go")
    assert ask("kill", name="sensor-*", uid=os.geteuid())["killed"] == 2
    wait_for(lambda: len(server.clients) == 1, "the others to go")
    assert ask("kill", id=names["sensor-0"])["killed"] == 0
    assert other.request(b"x", service="echo") == b"x"
    for client in clients:
        with pytest.raises(ConnectionError):
            client.request(b"x", service="echo")


def test_stats(ask, server, come):
    come().request(b"x", service="echo")
    said = ask("stats")
    assert said["counters"]["requests"] == 1
    assert said["counters"].keys() == server.stats().keys()
    assert (said["name"], said["pid"], said["engine"]) == ("shop", os.getpid(), server.backend)
    assert (said["state"], said["lame"], said["stuck_for"]) == ("SERVING", False, 0.0)
    assert said["addresses"] == [str(server.addresses[0])]


def test_drain_and_resume(ask, server):
    assert ask("drain") == {"state": "draining"}
    assert server.is_lame
    assert ask("stats")["lame"]
    assert ask("resume") == {"state": "serving"}
    assert not server.is_lame


def test_a_loop_that_hangs_is_told_of(make_server, unix_address):
    """And all else is answered meanwhile; what is to be done is done when it goes on."""
    server = make_server(unix_address)
    entered, go_on = threading.Event(), threading.Event()

    @server.service("hang")
    def hang(client, request):
        entered.set()
        assert go_on.wait(PATIENCE)
        return b""

    with server, Admin(server) as admin, pysock.connect(server.addresses[0], name="it") as client:
        ask = Asking(admin)
        waiting = threading.Thread(target=client.request, args=(b"",), kwargs={"service": "hang"})
        waiting.start()
        assert entered.wait(PATIENCE)
        first = ask("stats")["stuck_for"]
        assert 0 < first < ask("stats")["stuck_for"]
        assert [row["name"] for row in ask("clients")["clients"]] == ["it"]
        assert ask("kill", name="it")["killed"] == 1
        go_on.set()
        waiting.join(PATIENCE)  # it has its answer: a kill is in order
        wait_for(lambda: len(server.clients) == 0, "it to be closed")
        wait_for(lambda: ask("stats")["stuck_for"] == 0, "the loop to turn")
        ask.client.close()


@pytest.fixture
def logger():
    """One of the program's own."""
    found = logging.getLogger("shop.till")
    found.setLevel(logging.ERROR)
    yield found
    found.setLevel(logging.NOTSET)


def test_log(ask, logger):
    said = ask("log", level="debug", logger="shop.till")
    assert said == {"logger": "shop.till", "level": "debug", "was": "error", "for": None}
    assert logger.level == logging.DEBUG
    ask("log", level="warning", logger="shop.till")
    assert logger.level == logging.WARNING


def test_log_for_a_while(ask, logger):
    ask("log", level="debug", logger="shop.till", **{"for": 60})
    ask("log", level="info", logger="shop.till", **{"for": 0.05})  # it is to be as it was before both
    assert logger.level == logging.INFO
    wait_for(lambda: logger.level == logging.ERROR, "the level to be as it was")


def test_what_was_lent_is_given_back_with_the_socket(server, logger):
    with server, Admin(server) as admin:
        admin.answer("log", {"level": "debug", "logger": "shop.till", "for": 60})
        assert logger.level == logging.DEBUG
    assert logger.level == logging.ERROR


@pytest.mark.parametrize(
    ("service", "fields", "words"),
    [
        ("clients", {"colour": "red"}, "'colour' isn't a field of 'clients': it takes uid, name, group"),
        ("clients", {"uid": "me"}, "'uid' must be a number"),
        ("clients", {"uid": 1.5}, "'uid' must be a whole number"),
        ("clients", {"after": "seven"}, "'after' must be the id of a client, for example '1.7'"),
        ("clients", {"limit": 100_000}, "'limit' must be a number from 1 to 1000"),
        ("kill", {}, "'id' or name, uid or group must say whom"),
        ("kill", {"id": 7}, "'id' must be a text"),
        ("stats", {"x": 1}, "it takes none"),
        ("log", {"level": "loud"}, "'level' must be one of debug, info"),
        ("log", {"level": "info", "logger": "nobody.knows"}, "'logger' must be the name of one that there is"),
        ("log", {"level": "info", "for": True}, "'for' must be a number"),
    ],
)
def test_a_wrong_field(ask, service, fields, words):
    assert words in ask.refusal(service, **fields)


@pytest.mark.parametrize(
    "request_", [b"[]", b"7", b"{", b"\xff", b"[" * 60_000, b" " * 70_000], ids=lambda value: value[:2].hex()
)
def test_what_is_no_object(ask, request_):
    with pytest.raises(RemoteError, match="a request is a JSON object"):
        ask.client.request(request_, service="stats")
    assert ask("stats")["state"] == "SERVING"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:0", "must be a Unix socket"),
        ("unix:/tmp/x?mode=0666", "own user and root alone"),
        ("unix:/tmp/x?group=www", "own user and root alone"),
        ("nonsense", "bad address"),
    ],
)
def test_a_wrong_address(server, address, words):
    with pytest.raises(ValueError, match=words):
        Admin(server, address)


def test_a_server_that_it_cannot_be_beside_of(make_server):
    with pytest.raises(ValueError, match="the server has no Unix address") as caught:
        Admin(make_server("tcp://127.0.0.1:0"))
    assert caught.value.parameter == "address"


def test_a_place_that_was_named_and_cannot_be_used_is_an_error(server, socket_dir):
    admin = Admin(server, f"unix:{socket_dir}/none/here")
    with pytest.raises(OSError, match="none"):
        admin.start()
    admin.stop()
    with pytest.raises(PysockError, match="make a new one"):
        admin.start()


def test_a_place_that_was_not_named_and_cannot_be_used_is_a_line(server, socket_dir, caplog):
    """Nothing else: it serves as it would without."""
    caplog.set_level(logging.INFO, "pysock.server")
    (socket_dir / "s.admin").mkdir()
    with Admin(server), server, pysock.connect(server.addresses[0]) as client:
        assert client.request(b"x", service="echo") == b"x"
    told = [record for record in caplog.records if "there is no admin socket" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.INFO]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_before_the_start_and_after_the_end(server):
    with Admin(server) as admin:
        ask = Asking(admin)
        assert ask("stats")["state"] == "NEW"
        assert ask("clients")["clients"] == []
        with server:
            pass
        assert (ask("stats")["state"], ask("stats")["stuck_for"]) == ("CLOSED", 0.0)
        assert "can't resume" in ask.refusal("resume")
        ask.client.close()


def test_an_abstract_name(make_server, socket_dir):
    server = make_server(f"unix:@{socket_dir}/s")
    with server, Admin(server) as admin:
        ask = Asking(admin)
        assert str(admin.address) == f"unix:@{socket_dir}/s.admin"
        assert ask("stats")["state"] == "SERVING"
        ask.client.close()


def test_more_services(server):
    with server, Admin(server, services={"add": lambda fields: {"sum": fields["a"] + fields["b"]}}) as admin:
        ask = Asking(admin)
        assert ask("add", a=1, b=2) == {"sum": 3}
        ask.client.close()


def test_what_changes_something_is_logged(ask, caplog):
    caplog.set_level(logging.INFO, "pysock.server")
    ask("kill", name="nobody")
    ask("stats")
    (line,) = [record.getMessage() for record in caplog.records if "asked for" in record.getMessage()]
    assert line == f'kill {{"name": "nobody"}}: asked for by process {os.getpid()} of user {os.geteuid()}'


def test_a_forked_child_leaves_it_alone(server, socket_dir):
    with server, Admin(server) as admin:
        child = os.fork()
        if not child:
            try:
                admin.stop()
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ask = Asking(admin)
        assert ask("stats")["state"] == "SERVING"
        ask.client.close()
