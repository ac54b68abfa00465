"""Who may connect, and whom a client talks to: what the kernel says of the other end, before a byte is read or sent.

Other users are processes that give up root, so most of these tests need it.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time

import pytest
import wire
from programs import missing
from support import Program, wait_for
from wire import Good, Services, cir, parse, refused, replied, say, srm

import pysock
from pysock import Limits, Server, ServerState, connect
from pysock.wire import texts

ME = os.geteuid()
FOREIGN, FOREIGN_GROUP, CLUB = 54321, 54322, 54323
NOT_ALLOWED = refused(wire.REFUSED_NOT_ALLOWED, texts.NOT_ALLOWED)

needs_root = pytest.mark.skipif(ME != 0, reason="only root can become somebody else")

BECOME = f"""
import contextlib, os, socket, sys
def become(*groups):
    os.setgroups(groups)
    os.setresgid(*3 * [{FOREIGN_GROUP}])
    os.setresuid(*3 * [{FOREIGN}])
"""
#: Connects for each line on its standard input, sends what that says in hex, and says all that it is answered, in hex.
CLIENT = f"""{BECOME}
become(*map(int, sys.argv[2:]))
for line in sys.stdin:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(sys.argv[1].replace("@", chr(0)))
        with contextlib.suppress(OSError):  # the server may have refused and closed by now
            sock.sendall(bytes.fromhex(line))
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        print(answer.hex())
"""
#: Listens, and says what the one that connects sends.
SERVER = f"""{BECOME}
become()
with socket.socket(socket.AF_UNIX) as master:
    master.bind(sys.argv[1].replace("@", chr(0)))
    master.listen()
    print("listening")
    with master.accept()[0] as sock:
        print(sock.recv(65536).hex())
"""


class Foreigner:
    """A process of another user that connects, to where the server listens or to ``path``."""

    def __init__(self, server, *groups, path=None):
        self.program = Program(CLIENT, str(path or server.addresses[0].path), *map(str, groups))

    def say(self, data):
        self.program.process.stdin.write(data.hex() + "\n")
        self.program.process.stdin.flush()
        return bytes.fromhex(self.program.line())

    def __enter__(self):
        self.program.__enter__()
        return self

    def __exit__(self, *exc_info):
        self.program.__exit__(*exc_info)


@pytest.fixture
def serve(make_server, socket_dir):
    """``serve(**options)``: a server that anybody can connect to, as far as the permissions of its file say."""
    socket_dir.chmod(0o755)

    def start(*, framing="pysock", limits=None, options="?mode=0666", **more):
        server = make_server(f"unix:{socket_dir}/s{options}", framing=framing, limits=limits or Limits(), **more)
        if framing == "pysock":
            server.asked = Services(server)
        else:
            server.service(lambda client, request: request.upper())
        server.start()
        return server

    return start


def accepted(answer):
    """Whether it was let in, and served."""
    first, *rest = parse(answer)
    if rest:
        assert (first.kind, rest) == (wire.CIR_ACCEPTED, [replied(b"A")])
    else:
        assert first == NOT_ALLOWED
    return bool(rest)


HELLO = cir(name=b"me") + srm(b"a")


# Of the same user


@pytest.mark.parametrize(
    "allow",
    [
        None,
        "anyone",
        {"uid": ME},
        {"uid": str(ME)},
        {"uid": [FOREIGN, ME]},
        {"gid": os.getegid()},
        {"uid": FOREIGN, "gid": [CLUB, os.getegid()]},
        lambda peer: True,
        lambda peer: 1,
        lambda peer: peer == (os.getpid(), ME, os.getegid()),
        lambda peer: (peer.pid, peer.uid, peer.gid) == (os.getpid(), ME, os.getegid()),
    ],
)
@pytest.mark.parametrize("options", ["", "?mode=0666"])
def test_allowed(serve, allow, options):
    server = serve(allow=allow, options=options)
    assert accepted(say(server, HELLO))
    wire.counted(server, refused=0, refused_access=0, established=1)


def raising(peer):
    raise ZeroDivisionError("nobody's business outside")


def answering_later(peer):
    async def no():
        return False

    return no()


@pytest.mark.parametrize(
    "allow",
    [
        {"uid": FOREIGN},
        {"gid": CLUB},
        {"uid": FOREIGN, "gid": CLUB},
        lambda peer: False,
        lambda peer: None,
        raising,
        answering_later,
    ],
    ids=["uid", "gid", "both", "says no", "says nothing", "raises", "answers later"],
)
def test_not_allowed(serve, allow):
    """CIR_REFUSED, whatever it says; no handler, no hook."""
    server = serve(allow=allow)
    for data in (HELLO, b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)):
        assert not accepted(say(server, data, end=False))
    wire.counted(server, accepted=4, refused=4, refused_access=4, violations=0, established=0, bytes_in=0)
    assert server.asked.calls == server.asked.gone == []


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_not_allowed_in_the_other_framings(serve, framing):
    """Closed without a word, and nothing is served."""
    server = serve(framing=framing, allow={"uid": FOREIGN})
    assert say(server, b"\0\0\0\1a\n", end=False) == b""
    wire.counted(server, refused=1, refused_access=1, requests=0, bytes_in=0, established=0)


def test_checked_before_the_first_byte(serve):
    """The function is asked when the kernel has connected them, though nothing has been sent."""
    asked = []
    server = serve(allow=asked.append)
    with wire.dial(server) as peer:
        assert wire.rest_of(peer) == [NOT_ALLOWED]
    assert asked == [(os.getpid(), ME, os.getegid())]


@pytest.mark.parametrize(("allow", "error"), [(raising, ZeroDivisionError), (answering_later, TypeError)])
def test_what_it_raises_is_logged(serve, caplog, allow, error):
    """Once in full, and the server lives on; what is to be awaited is no answer."""
    server = serve(allow=allow)
    assert not accepted(say(server, HELLO))
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[0] is error
    assert f"uid={ME}" in record.getMessage()
    assert not accepted(say(server, HELLO))


def test_what_it_raises_again_and_again_is_logged_once_a_second(serve, caplog, monkeypatch):
    """Anybody who can connect could fill the log otherwise."""
    now = [100.0]
    monkeypatch.setattr("pysock.base.logs.monotonic", lambda: now[0])
    server = serve(allow=raising)
    for moment in (100.0, 100.2, 100.9, 101.0, 101.5):
        now[0] = moment
        assert not accepted(say(server, HELLO))
    told = [record.getMessage() for record in caplog.records if record.exc_info]
    assert [text.rpartition("which was refused")[2] for text in told] == ["", "; 3 times"]
    wire.counted(server, refused_access=5)


def test_an_exit_in_the_rule_ends_the_server(serve, caplog):
    """As one in a handler does; the one that was being asked about is closed, too."""

    def leave(peer):
        raise SystemExit(3)

    server = serve(allow=leave)
    with wire.dial(server) as peer:
        peer.rest()
    wait_for(lambda: server.state is ServerState.CLOSED)
    wait_for(lambda: any(record.exc_info and record.exc_info[0] is SystemExit for record in caplog.records))


def test_a_refusal_is_logged(serve, caplog):
    caplog.set_level(logging.WARNING, "pysock.server")
    server = serve(allow={"uid": FOREIGN})
    for _ in range(5):
        assert not accepted(say(server, HELLO))
    (record,) = caplog.records
    assert "refused: the peer isn't allowed (allow=)" in record.getMessage()
    wire.counted(server, refused_access=5)


def test_who_is_refused_displaces_nobody(serve):
    """Neither from the crowd that waits, nor from a full server."""
    answers = iter([True, True, False, False, False, True])
    limits = Limits(max_clients=2, max_pending_cir=1, cir_timeout=60)
    server = serve(limits=limits, allow=lambda peer: next(answers))
    with Good(server) as good, wire.dial(server) as silent:
        wire.counted(server, clients=1, pending=1)
        time.sleep(0.12)
        for _ in range(3):
            assert not accepted(say(server, HELLO, end=False))
        wire.counted(server, clients=1, pending=1, refused=3, refused_access=3, refused_crowd=0, refused_full=0)
        good.check()
        silent.send(HELLO)
        assert wire.next_frame(silent).kind == wire.CIR_ACCEPTED


@pytest.mark.parametrize("options", [{"allow": lambda peer: True}, {"limits": Limits(max_clients_per_uid=5)}])
def test_who_the_system_does_not_tell(socket_dir, monkeypatch, options):
    """Refused where it matters, and no function is asked: one that knows whom to keep out would let everybody in. The
    native engine asks the kernel itself, and does the same where that fails.
    """
    monkeypatch.setattr("pysock.engine.pure.door.access.peer_of", lambda sock: (-1, -1, -1))
    server = Server(f"unix:{socket_dir}/s?mode=0666", backend="pure", **options)
    server.service(lambda client, request: request.upper())
    with server:
        assert not accepted(say(server, HELLO))
        wire.counted(server, refused=1, refused_access=1)


def test_tcp_has_no_users(make_server, unix_address):
    """The rule is for Unix sockets, and for those alone where a server has both."""
    server = make_server("tcp://127.0.0.1:0", unix_address, allow={"uid": FOREIGN})
    server.service(lambda client, request: request.upper())
    with server:
        assert accepted(say(server, HELLO))


ONLY_TCP = r"allow= is about Unix sockets, and this server has none: .* authkey="
RULES = [{"uid": ME}, lambda peer: False, "anyone"]


@pytest.mark.parametrize("allow", RULES, ids=["listed", "asked", "anyone"])
def test_a_rule_on_tcp_alone(make_server, unix_address, allow):
    """It would keep nobody out."""
    with pytest.raises(ValueError, match=ONLY_TCP):
        make_server("tcp://127.0.0.1:0", "tcp://[::1]:0", allow=allow)
    server = make_server(unix_address, allow=allow)
    with pytest.raises(ValueError, match=ONLY_TCP):
        server.listen_at("tcp://127.0.0.1:0")


@pytest.mark.parametrize("more", [[], ["tcp://127.0.0.1:0"]], ids=["alone", "and another"])
def test_a_rule_on_tcp_that_was_inherited(make_server, more):
    """What it is shows when the server starts."""
    with socket.create_server(("127.0.0.1", 0)) as master:
        server = make_server(f"fd://{os.dup(master.fileno())}", *more, allow={"uid": ME})
    with pytest.raises(ValueError, match=ONLY_TCP):
        server.start()
    assert server.state is ServerState.CLOSED


def test_a_rule_on_tcp_that_was_inherited_and_a_unix_socket(make_server, unix_address):
    with socket.create_server(("127.0.0.1", 0)) as master:
        server = make_server(f"fd://{os.dup(master.fileno())}", unix_address, allow={"uid": ME})
    with server:
        assert server.state is ServerState.SERVING


def inherited(make_server, path, mode=0o600, **options):
    """A server at a socket that was made, bound and given its permissions by somebody else."""
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(path)
        if not path.startswith("\0"):
            os.chmod(path, mode)
        master.listen()
        server = make_server(f"fd://{os.dup(master.fileno())}", **options)
        server.service(lambda client, request: request.upper())
        return server


def test_an_inherited_socket(make_server, socket_dir):
    """It is checked where a rule is given, as it is a Unix socket."""
    with inherited(make_server, f"{socket_dir}/s", allow={"uid": FOREIGN}), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(f"{socket_dir}/s")
        assert parse(sock.recv(1000)) == [NOT_ALLOWED]


@pytest.mark.parametrize(
    ("allow", "error"),
    [
        ({}, ValueError),
        ({"uid": []}, ValueError),
        ({"uid": "no-such-user"}, ValueError),
        ({"pid": 1}, ValueError),
        ({"uid": 1.5}, TypeError),
        ("root", TypeError),
        (0, TypeError),
    ],
)
def test_what_is_no_rule(allow, error):
    with pytest.raises(error):
        Server("unix:/x", allow=allow, backend="pure")


ANYONE_AT_A_NAME = 'an abstract name has no permissions, so allow="anyone" would let in every user of this machine'


def test_anyone_at_an_abstract_name(make_server, socket_dir):
    """Nobody would be asked there at all; who means it says so with a function."""
    with pytest.raises(ValueError, match=ANYONE_AT_A_NAME):
        make_server(f"unix:{socket_dir}/s", "unix:@pysock-anyone", allow="anyone")
    server = make_server(f"unix:{socket_dir}/s", allow="anyone")
    with pytest.raises(ValueError, match=ANYONE_AT_A_NAME):
        server.listen_at("unix:@pysock-anyone")
    with server:
        assert [address.path for address in server.addresses] == [f"{socket_dir}/s"]


def test_anyone_at_an_inherited_abstract_name(make_server):
    """What an inherited socket is shows when the server starts."""
    server = inherited(make_server, f"\0pysock-anyone-{os.getpid()}", allow="anyone")
    with pytest.raises(ValueError, match=ANYONE_AT_A_NAME):
        server.start()
    assert server.state is ServerState.CLOSED


# Whom the rule names and the file doesn't let in


@pytest.mark.parametrize(
    ("allow", "options"),
    [
        ({"uid": FOREIGN}, ""),
        ({"uid": [ME, FOREIGN]}, ""),
        ({"gid": CLUB}, ""),
        ({"gid": CLUB}, f"?group={os.getegid()}"),
    ],
)
def test_a_rule_that_names_those_whom_the_file_keeps_out_is_logged(serve, caplog, allow, options):
    """Once, with the address and what to write: they would get an OSError, and the server would know nothing of it."""
    server = serve(allow=allow, options=options)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert server.addresses[0].path in record.getMessage()
    assert "allow= lets in users or groups that the socket file's mode 0600 keeps out" in record.getMessage()
    assert "?mode=0666" in record.getMessage()


@pytest.mark.parametrize(
    ("allow", "options"),
    [
        (None, ""),
        ("anyone", ""),
        (lambda peer: peer.uid == FOREIGN, ""),
        ({"uid": [ME, 0], "gid": os.getegid()}, ""),
        ({"uid": ME}, f"?user={ME}"),
        ({"uid": FOREIGN}, "?mode=0666"),
        ({"gid": CLUB}, "?mode=0600"),
        pytest.param({"uid": FOREIGN}, f"?user={FOREIGN}", marks=needs_root),
    ],
)
def test_a_rule_that_the_file_may_well_fit_is_not_logged(serve, caplog, allow, options):
    serve(allow=allow, options=options)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Of another user


@needs_root
def test_a_foreign_user(serve):
    """Kept out by a rule that doesn't name it, before its bytes are read; let in by one that does."""
    server = serve(allow={"uid": ME})
    with Good(server) as good, Foreigner(server) as foreigner:
        for _ in range(3):
            assert parse(foreigner.say(HELLO)) == [NOT_ALLOWED]
            good.check()
        wire.counted(server, clients=1, refused=3, refused_access=3)
    assert server.asked.called_for("me") == []


@needs_root
@pytest.mark.parametrize(
    ("allow", "groups", "let_in"),
    [
        ({"uid": FOREIGN}, (), True),
        ({"uid": [1, FOREIGN]}, (), True),
        ({"gid": FOREIGN_GROUP}, (), True),
        ({"gid": CLUB}, (), False),
        ({"gid": CLUB}, (7, CLUB, 8), True),
        ({"uid": ME, "gid": CLUB}, (CLUB,), True),
        ({"uid": ME, "gid": CLUB}, (7, 8), False),
        ({"uid": FOREIGN_GROUP}, (), False),
        ({"gid": FOREIGN}, (), False),
        ({"gid": CLUB}, (*range(60000, 60200), CLUB), True),
        ("anyone", (), True),
        (None, (), True),
        (lambda peer: peer.uid == FOREIGN and peer.gid == FOREIGN_GROUP, (), True),
        (lambda peer: peer.uid != FOREIGN, (), False),
    ],
)
def test_users_and_groups(serve, allow, groups, let_in):
    """Without a rule it is the mode of the file that decides."""
    server = serve(allow=allow)
    with Foreigner(server, *groups) as foreigner:
        assert accepted(foreigner.say(HELLO)) == let_in
    wire.counted(server, refused_access=0 if let_in else 1)


@needs_root
@pytest.mark.parametrize(("groups", "on_pure"), [(256, True), (257, False)])
def test_more_groups_than_python_can_be_told(serve, groups, on_pure):
    """Then the pure engine knows the peer's own group alone, and rather lets nobody in than the wrong one."""
    server = serve(allow={"gid": CLUB})
    with Foreigner(server, CLUB, *range(60000, 60000 + groups - 1)) as foreigner:
        assert accepted(foreigner.say(HELLO)) == (on_pure or server.backend == "native")
    server = serve(options="2?mode=0666", allow={"gid": FOREIGN_GROUP})
    with Foreigner(server, *range(60000, 60000 + groups)) as foreigner:
        assert accepted(foreigner.say(HELLO))


@needs_root
def test_the_default_is_the_own_user(serve, socket_dir):
    """Even where somebody has opened the file's permissions by hand."""
    server = serve(options="")
    (socket_dir / "s").chmod(0o666)
    with Foreigner(server) as foreigner:
        assert not accepted(foreigner.say(HELLO))
    assert accepted(say(server, HELLO))


@needs_root
def test_an_abstract_name_is_checked(make_server):
    """It has no permissions at all."""
    server = make_server(f"unix:@pysock-{os.getpid()}")
    server.service(lambda client, request: request.upper())
    with server:
        with Foreigner(server, path=f"@pysock-{os.getpid()}") as foreigner:
            assert not accepted(foreigner.say(HELLO))
        assert accepted(say(server, HELLO))


@needs_root
def test_an_inherited_socket_is_open_to_whom_its_file_lets_in(make_server, socket_dir):
    """Without a rule who may connect is for him to decide who made the socket, by the permissions of its file."""
    socket_dir.chmod(0o755)
    path = f"{socket_dir}/s"
    with inherited(make_server, path, mode=0o666) as server, Foreigner(server, path=path) as foreigner:
        assert accepted(foreigner.say(HELLO))
        wire.counted(server, established=1, refused_access=0)


@needs_root
def test_an_inherited_abstract_name_is_checked(make_server):
    name = f"@pysock-inherited-{os.getpid()}"
    with inherited(make_server, name.replace("@", "\0")) as server, Foreigner(server, path=name) as foreigner:
        assert not accepted(foreigner.say(HELLO))
        wire.counted(server, established=0, refused_access=1)


@needs_root
def test_every_user_has_so_many_places(serve):
    """Who has all of theirs takes none of another's."""
    server = serve(limits=Limits(max_clients_per_uid=2), allow="anyone")
    full = [refused(wire.FULL, texts.PEER_FULL)]
    with Good(server) as good, wire.let_in(server), Foreigner(server) as foreigner:
        assert parse(say(server, HELLO, end=False)) == full
        assert accepted(foreigner.say(HELLO))
        good.check()
        wire.counted(server, clients=2, refused=1, refused_peer=1, refused_full=0, over_limit=0)


# The server's user


@pytest.mark.parametrize("user", [ME, str(ME), [FOREIGN, ME]])
def test_the_right_server(backend, serve, user):
    server = serve()
    with connect(server.addresses[0], server_uid=user, backend=backend) as client:
        assert client.request(b"a") == b"A"


def test_the_wrong_server(backend, serve):
    """Nothing is sent to it."""
    server = serve()
    with pytest.raises(PermissionError, match=f"runs as user {ME}, not as {FOREIGN}; nothing was sent"):
        connect(server.addresses[0], server_uid=FOREIGN, backend=backend)
    wire.counted(server, accepted=1, bytes_in=0, refused=0)


@needs_root
@pytest.mark.parametrize("place", ["path", "abstract name"])
def test_an_impostor(backend, socket_dir, place):
    """Somebody else has taken the address while the server was down. At an abstract name that is the default."""
    socket_dir.chmod(0o777)
    path = f"{socket_dir}/s" if place == "path" else f"@pysock-impostor-{os.getpid()}"
    options = {"server_uid": ME} if place == "path" else {}
    with Program(SERVER, path) as program:
        assert program.line() == "listening"
        with pytest.raises(PermissionError, match=f"runs as user {FOREIGN}, not as {ME}"):
            connect(f"unix:{path}", backend=backend, **options)
        assert program.end()[1] == "\n"  # it was sent nothing


@needs_root
def test_a_server_of_another_user_that_is_expected(backend):
    path = f"@pysock-expected-{os.getpid()}"
    with Program(SERVER, path) as program:
        assert program.line() == "listening"
        with pytest.raises(ConnectionError):
            connect(f"unix:{path}", server_uid=[FOREIGN], backend=backend)
        assert bytes.fromhex(program.line()).startswith(b"\0\0\0")  # the CIR


@pytest.mark.parametrize(
    ("address", "user", "error"),
    [
        ("tcp://127.0.0.1:9", 0, ValueError),
        ("unix:/x", "no-such-user", ValueError),
        ("unix:/x", [], ValueError),
        ("unix:/x", 1.5, TypeError),
    ],
)
def test_what_is_no_user(address, user, error):
    with pytest.raises(error, match=r"server_uid|user"):
        connect(address, server_uid=user, backend="pure")


def test_a_wrong_server_leaves_no_descriptor_behind(backend, serve):
    server = serve()
    connect(server.addresses[0], backend=backend).close()
    wire.counted(server)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError):
        connect(server.addresses[0], server_uid=FOREIGN, backend=backend)
    wait_for(lambda: len(os.listdir("/proc/self/fd")) == before)


# Peers whose user isn't mapped into the server's user namespace: the kernel shows all of them as user 65534

SERVER_IN_A_NAMESPACE = """
import logging, sys, pysock
logging.basicConfig(format="%(message)s")
server = pysock.Server(sys.argv[1], backend=sys.argv[2], allow=eval(sys.argv[3]))
server.service(lambda client, request: request)
server.on_state(lambda old, new: new.name == "SERVING" and print("serving", flush=True))
server.serve_forever()
"""


def in_a_namespace(*arguments):
    """A Python in a user namespace of its own, as user and group 65534, which are mapped to this process's own."""
    maps = ["--map-user=65534", "--map-group=65534"]
    return ["unshare", "--user", *maps, sys.executable, "-c", *arguments]


def can_make_namespaces():
    return subprocess.run(in_a_namespace("pass"), capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "rule",
    [
        "None", "{'uid': 65534}", "{'uid': 'nobody'}", "{'gid': 65534}",
        "lambda peer: 65534 in (peer.uid, peer.gid)",
        "lambda peer: (peer.uid, peer.gid) != (-1, -1)",
    ],
)  # fmt: skip
def test_users_that_are_not_mapped_match_no_rule(backend, rule):
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED with users that aren't mapped: only root can make such a namespace everywhere")
    if not can_make_namespaces():
        missing("no user namespace can be made here")
    address = f"unix:@{os.urandom(8).hex()}"
    command = in_a_namespace(SERVER_IN_A_NAMESPACE, address, backend, rule)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "serving\n", server.stderr.read()
            with pytest.raises(pysock.ConnectionRefused, match="not allowed"):
                connect(address, backend=backend, server_uid=os.geteuid())
        finally:
            server.terminate()
            said = server.communicate(timeout=10)[1]
    if "lambda" not in rule:
        assert "nobody is let in as user or group 65534: in this user namespace" in said
    assert "refused: the peer isn't allowed (allow=), or its user isn't mapped into this user namespace" in said


def test_where_all_users_are_mapped_that_number_is_a_user_like_any(backend, unix_address):
    server = pysock.Server(unix_address, allow={"uid": 65534}, backend=backend)
    assert server._running.rule.access.uids == {65534}
