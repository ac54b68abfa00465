from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import Program, run_python, running, wait_for

from pysock import Address, AddressInUse, MasterSocket, connect
from pysock.engine.choice import choose
from pysock.files.probe import Finding, probe
from pysock.files.socketfile import SocketFile

made = SocketFile.made


@pytest.fixture
def sockets(backend):
    return choose(backend).sockets


@pytest.fixture
def path(socket_dir):
    return socket_dir / "s"


def leave_stale(path: Path) -> None:
    """What a killed server leaves behind."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


@pytest.fixture
def socket_file(path, sockets):
    """The file at the path, which lets go of its lock after the test."""
    file = SocketFile(Address.parse(f"unix:{path}"))
    yield file
    file.remove(sockets)


# Before bind(): what may be removed


def test_nothing_there_is_nothing_to_remove(sockets, socket_file):
    assert socket_file.remove_stale(sockets) is False


def test_a_stale_socket_file_is_removed(sockets, path, socket_file):
    leave_stale(path)
    assert socket_file.remove_stale(sockets) is True
    assert not path.exists()


def test_a_live_servers_file_is_never_removed(sockets, path, socket_file):
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        before = path.stat().st_ino
        with pytest.raises(AddressInUse, match=rf"unix:{path}: a live server listens there \(.*\); stop it or choose"):
            socket_file.remove_stale(sockets)
        assert path.stat().st_ino == before


def test_a_live_server_that_is_too_busy_to_accept_is_alive(sockets, path, socket_file):
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waiting:
        live.bind(str(path))
        live.listen(0)
        waiting.connect(str(path))  # the backlog is full now
        with pytest.raises(AddressInUse):
            socket_file.remove_stale(sockets)
        assert path.exists()


def test_a_datagram_socket_is_alive_too(sockets, path, socket_file):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        live.bind(str(path))
        with pytest.raises(AddressInUse):
            socket_file.remove_stale(sockets)
        assert path.exists()


def make_file(path):
    path.write_text("precious")


def make_link(path):
    leave_stale(path.with_name("target"))
    path.symlink_to("target")


def make_dangling_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (make_file, "a regular file"),
        (Path.mkdir, "a directory"),
        (make_link, "a symbolic link"),
        (make_dangling_link, "a symbolic link"),
        (os.mkfifo, "a named pipe"),
    ],
)
def test_what_is_not_a_socket_is_left_alone(sockets, path, socket_file, make, what):
    make(path)
    before = path.lstat()
    with pytest.raises(
        FileExistsError, match=f"{what} is at that path, not a socket; it was left alone: remove it yourself"
    ):
        socket_file.remove_stale(sockets)
    assert path.lstat() == before
    assert not path.with_name("s.lock").exists()


def test_a_directory_is_at_the_path(backend):
    with (
        MasterSocket("unix:/tmp", backend) as master,
        pytest.raises(FileExistsError, match="a directory is at that path"),
    ):
        master.remove_stale()


def test_what_took_the_place_of_a_stale_file_is_left_alone(sockets, path, socket_file, monkeypatch):
    leave_stale(path)

    def replace_it(_):
        path.unlink()
        leave_stale(path)
        return Finding.STALE

    monkeypatch.setattr("pysock.files.socketfile.probe", replace_it)
    assert socket_file.remove_stale(sockets) is False
    assert path.exists()


def test_a_file_that_is_gone_before_it_is_asked_is_nothing_to_remove(sockets, path, socket_file, monkeypatch):
    leave_stale(path)
    monkeypatch.setattr(
        "pysock.files.place._DESCRIPTORS", "/nonexistent"
    )  # else the file is held, whatever becomes of it
    monkeypatch.setattr("pysock.files.socketfile.probe", lambda where: (path.unlink(), probe(where)))
    assert socket_file.remove_stale(sockets) is False


@pytest.mark.parametrize("make", [make_link, make_dangling_link])
def test_a_server_leaves_a_symbolic_link_and_its_target_alone(make_server, path, make):
    make(path)
    server = make_server(f"unix:{path}")
    with pytest.raises(FileExistsError, match="a symbolic link is at that path"):
        server.start()
    assert path.is_symlink()
    assert path.with_name("target").exists() is (make is make_link)
    assert not path.with_name("nowhere").exists()


def test_a_socket_file_that_may_not_be_probed_is_left_alone(sockets, path, socket_file, monkeypatch):
    leave_stale(path)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "no")

    class Probe(socket.socket):
        connect = refuse

    monkeypatch.setattr(socket, "socket", Probe)
    with pytest.raises(PermissionError, match="may not connect to, so whether a server listens there is unknown"):
        socket_file.remove_stale(sockets)
    assert path.exists()


# Between bind() and listen(): mode and owner


def bound(address: str, backend: str) -> MasterSocket:
    with ExitStack() as stack:
        master = stack.enter_context(MasterSocket(address, backend))
        master.create()
        master.bind()
        stack.pop_all()
    return master


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
@pytest.mark.parametrize(
    ("option", "mode"), [("", 0o600), ("?mode=0660", 0o660), ("?mode=0777", 0o777), ("?mode=000", 0)]
)
def test_the_mode_is_exact_whatever_the_umask(backend, path, umask, option, mode):
    before = os.umask(umask)
    try:
        with bound(f"unix:{path}{option}", backend):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="fchmod() before bind() works on Linux only")
def test_the_file_is_never_wider_open_than_it_should_be(backend, path, monkeypatch):
    before = os.umask(0)
    try:
        # What is there between bind() and chmod()?
        monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
        with bound(f"unix:{path}?mode=0640", backend):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_nobody_can_connect_before_the_mode_is_set(backend, path, monkeypatch):
    answers = []
    chmod = os.chmod

    def late(*args, **options):
        with socket.socket(socket.AF_UNIX) as early:
            answers.append(early.connect_ex(str(path)))
        chmod(*args, **options)

    monkeypatch.setattr(os, "chmod", late)
    before = os.umask(0o777)
    try:
        with bound(f"unix:{path}", backend):
            assert answers in ([errno.ECONNREFUSED], [errno.EACCES])  # root, whom no mode keeps out; everybody else
    finally:
        os.umask(before)


def test_the_mode_is_never_set_through_a_symbolic_link(backend, path, monkeypatch):
    """The owner of the directory may have put one into the socket's place just now."""
    target = path.with_name("target")
    target.touch(0o600)
    chmod = os.chmod

    def late(*args, **options):
        path.unlink()
        path.symlink_to("target")
        chmod(*args, **options)

    monkeypatch.setattr(os, "chmod", late)
    before = os.umask(0o077)
    try:
        bound(f"unix:{path}?mode=0666", backend).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert path.is_symlink()


def test_a_file_that_was_replaced_as_soon_as_it_was_made_is_not_listened_at(backend, path, monkeypatch):
    monkeypatch.setattr(SocketFile, "made", lambda file: (path.unlink(), path.touch(), made(file)))
    with MasterSocket(f"unix:{path}", backend) as master:
        master.create()
        with pytest.raises(OSError, match="the socket file was taken away as soon as it was made"):
            master.bind()
    assert path.is_file()


def test_a_file_system_that_does_not_keep_the_mode_is_told(backend, path, monkeypatch):
    monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
    before = os.umask(0o777)
    try:
        with MasterSocket(f"unix:{path}", backend) as master:
            master.create()
            with pytest.raises(PermissionError, match="gave the socket file another mode or owner than was asked for"):
                master.bind()
    finally:
        os.umask(before)
    assert not path.exists()


STRANGER = """
import os, socket, sys
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
tries = got_in = 0
print("ready", flush=True)
os.set_blocking(0, False)
while True:
    try:
        if sys.stdin.buffer.raw.read(1) == b"":
            break
    except BlockingIOError:
        pass
    with socket.socket(socket.AF_UNIX) as sock:
        tries += 1
        got_in += sock.connect_ex(sys.argv[1]) in (0, 11)
print(tries, got_in, flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED that strangers are kept out: only root can become one")
def test_a_stranger_never_gets_in_while_servers_start_with_umask_0(make_server, path):
    path.parent.chmod(0o755)
    before = os.umask(0)
    try:
        with Program(STRANGER, str(path)) as stranger:
            assert stranger.line() == "ready"
            for _ in range(50):
                server = make_server(f"unix:{path}")
                server.start()
                server.stop(0)
            _, said, _ = stranger.end()
    finally:
        os.umask(before)
    tries, got_in = map(int, said.split())
    assert tries > 50
    assert got_in == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("option", ["user=65534&group=65534", "user=nobody&group=nogroup"])
def test_user_and_group_are_set_before_listen(backend, path, option):
    with bound(f"unix:{path}?{option}", backend):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (65534, 65534)
        assert stat.S_IMODE(found.st_mode) == 0o600


def test_a_group_alone_leaves_the_user_as_it_is(backend, path):
    with bound(f"unix:{path}?group={os.getegid()}", backend):
        assert path.stat().st_uid == os.geteuid()
        assert path.stat().st_gid == os.getegid()


@pytest.mark.parametrize(("option", "what"), [("user", "user"), ("group", "group")])
def test_an_unknown_user_or_group_is_told_before_anything_is_made(backend, path, option, what):
    with pytest.raises(ValueError, match=f"this machine has no {what} 'no-such-one'; give a name or a number"):
        MasterSocket(f"unix:{path}?{option}=no-such-one", backend)
    assert not path.exists()


@pytest.mark.parametrize("what", ["user", "group"])
def test_a_number_that_means_nobody_owns_no_file(backend, path, what):
    """chown(2) takes the last one for "leave it as it is"."""
    with pytest.raises(ValueError, match=rf"{path}\?.*: the number of a {what} is from 0 to 4294967294, not"):
        MasterSocket(f"unix:{path}?{what}=4294967295", backend)
    assert not path.exists()


def test_a_file_that_cannot_be_given_away_is_taken_back(backend, path, monkeypatch):
    def chown(*_, **__):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chown", chown)
    master = MasterSocket(f"unix:{path}?group=0", backend)
    master.create()
    with pytest.raises(PermissionError, match="may not give the socket file to that user or group; run it as root"):
        master.bind()
    assert not path.exists()
    assert master.fd == -1


# After close(): only what we made


def test_close_removes_the_file(backend, path):
    with bound(f"unix:{path}", backend):
        assert path.exists()
    assert not path.exists()


def test_close_leaves_a_successors_file_alone(backend, path):
    with bound(f"unix:{path}", backend):
        path.unlink()
        leave_stale(path)
    assert path.exists()


def test_close_does_not_mind_that_the_file_is_gone(backend, path):
    with bound(f"unix:{path}", backend):
        path.unlink()
    assert not path.exists()


def test_close_finds_the_file_after_the_working_directory_has_changed(backend, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with bound(f"unix:{path.name}", backend) as master:
        assert str(master.address) == f"unix:{path}"
        monkeypatch.chdir("/")
    assert not path.exists()


def test_a_relative_path_goes_where_an_absolute_one_is_too_long(backend, socket_dir, monkeypatch):
    deep = socket_dir / ("d" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    (deep / "s").touch()
    with pytest.raises(FileExistsError):
        MasterSocket("unix:s", backend).remove_stale()
    (deep / "s").unlink()
    leave_stale(Path("s"))
    with MasterSocket("unix:s", backend) as master:
        assert master.remove_stale()
        master.create()
        master.bind()
        assert str(master.address) == f"unix:{deep}/s"
        monkeypatch.chdir("/")
    assert not (deep / "s").exists()


def test_a_file_that_cannot_be_removed_is_logged(path, socket_file, caplog):
    class Refusing:
        def unlink(self, path):
            raise PermissionError(errno.EACCES, "no")

    leave_stale(path)
    socket_file.made()
    assert socket_file.remove(Refusing()) is False
    assert f"the socket file '{path}' couldn't be removed" in caplog.text
    assert f"may not remove the socket file {path} (of uid {os.geteuid()}); remove it yourself" in caplog.text


FORK = """
import os, sys
from pysock import MasterSocket
master = MasterSocket(sys.argv[1], sys.argv[2])
master.create(); master.bind(); master.listen()
if os.fork() == 0:
    master.close()
    os._exit(0)
os.wait()
print("there" if os.path.exists(sys.argv[3]) else "gone", flush=True)
master.close()
print("there" if os.path.exists(sys.argv[3]) else "gone", flush=True)
"""


def test_a_forked_child_does_not_remove_its_parents_file(backend, path):
    with Program(FORK, f"unix:{path}", backend, str(path)) as program:
        assert (program.line(), program.line()) == ("there", "gone")


KILLED = """
import sys
from pysock import MasterSocket
master = MasterSocket(sys.argv[1], sys.argv[2])
master.remove_stale(); master.create(); master.bind(); master.listen()
print("listening", flush=True)
sys.stdin.read()
"""


def test_after_a_kill_the_next_server_starts(backend, path):
    for _ in range(2):
        with Program(KILLED, f"unix:{path}", backend) as program:
            assert program.line() == "listening"
            program.signal(signal.SIGKILL)
            program.end()
            wait_for(path.exists)


def test_after_a_kill_the_next_server_serves(make_server, backend, path):
    code = """
import sys
from pysock import Server
server = Server(sys.argv[1], backend=sys.argv[2], linger=0)
server.start()
print("serving", flush=True)
sys.stdin.read()
"""
    for _ in range(2):
        with Program(code, f"unix:{path}", backend) as program:
            assert program.line() == "serving"
            program.signal(signal.SIGKILL)
            program.end()
        assert path.is_socket()
    server = make_server(f"unix:{path}")
    with running(server), connect(f"unix:{path}") as client:
        assert client.ping() > 0
    assert not path.exists()


def test_a_server_that_was_taken_over_leaves_its_successors_file_alone(make_server, path):
    old, new = make_server(f"unix:{path}"), make_server(f"unix:{path}")
    old.start()
    path.unlink()
    path.with_name("s.lock").unlink()
    with running(new):
        old.stop(0)
        with connect(f"unix:{path}") as client:
            assert client.ping() > 0
    assert not path.exists()


STARTERS = """
import os, sys
from pysock import AddressInUse, Server, connect

address, backend, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
go, let_go = os.pipe()
end, let_end = os.pipe()
reports, report = os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(let_go)
        os.close(let_end)
        server = Server(address, backend=backend, linger=0)
        server.service(lambda client, request: request)
        os.read(go, 1)  # until the parent closes its end
        try:
            server.start()
        except AddressInUse:
            os.write(report, b"-")
        except BaseException as error:
            os.write(report, repr(error).encode())
        else:
            os.write(report, b"+")
            os.read(end, 1)
            server.stop(0)
        os._exit(0)
os.close(let_go)
said = b""
while len(said) < count:
    said += os.read(reports, 4096)
with connect(address) as client:
    client.ping()
os.close(let_end)
for _ in range(count):
    os.wait()
print("".join(sorted(said.decode())), os.path.exists(address.removeprefix("unix:")))
"""


def test_of_many_processes_that_start_at_one_path_one_wins(backend, path):
    leave_stale(path)
    done = run_python(STARTERS, f"unix:{path}", backend, "12")
    assert (done.stdout, done.stderr) == (f"+{'-' * 11} False\n", "")


ROUNDS = """
import os, sys, time
from pysock import AddressInUse, MasterSocket

path, backend, starters, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
MasterSocket(f"unix:{path}", backend).close()  # loads what is loaded lazily
reports, report = os.pipe()
end, let_end = os.pipe()
begin = time.monotonic() + 0.1
for starter in range(starters):
    if os.fork() == 0:
        os.close(let_end)
        won = []
        for number in range(rounds):
            while time.monotonic() < begin + number * 0.02:
                pass
            master = MasterSocket(f"unix:{path}{number}", backend)
            try:
                master.remove_stale()
                master.create()
                master.bind()
                master.listen()
                won.append(master)
            except AddressInUse:
                master.close()
        os.write(report, "".join(f"{master.address}\\n" for master in won).encode())
        os.close(report)
        os.read(end, 1)  # keep them until all have reported
        os._exit(0)
os.close(report)
with os.fdopen(reports) as reports:
    print(reports.read(), end="", flush=True)
"""


def test_of_processes_that_start_in_the_same_instant_one_wins_each_time(backend, path):
    """Processes that are woken one after the other rarely meet: here each waits for the same moment."""
    for number in range(0, 30, 2):
        leave_stale(path.with_name(f"s{number}"))
    done = run_python(ROUNDS, str(path), backend, "5", "30")
    assert (sorted(done.stdout.split()), done.stderr) == (sorted(f"unix:{path}{number}" for number in range(30)), "")


def test_of_many_threads_that_start_at_one_path_one_wins(make_server, path):
    leave_stale(path)
    servers = [make_server(f"unix:{path}", linger=0) for _ in range(30)]
    barrier = threading.Barrier(len(servers))
    won, lost = [], []

    def start(server):
        barrier.wait()
        try:
            server.start()
            won.append(server)
        except AddressInUse:
            lost.append(server)

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 29)
    with connect(f"unix:{path}") as client:
        assert client.ping() > 0


# What bind() says


def test_a_missing_directory(backend, socket_dir):
    with pytest.raises(FileNotFoundError, match=f"the directory {socket_dir}/no doesn't exist; create it or choose"):
        bound(f"unix:{socket_dir}/no/s", backend)


def test_a_directory_that_is_a_file(backend, socket_dir):
    (socket_dir / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"{socket_dir}/file isn't a directory; choose another path"):
        bound(f"unix:{socket_dir}/file/s", backend)


def test_a_file_in_the_way(backend, path):
    path.touch()
    with pytest.raises(FileExistsError, match="a regular file is at that path, not a socket"):
        bound(f"unix:{path}", backend)
    assert path.exists()


UNPRIVILEGED = """
import os, sys
from pysock import MasterSocket
with MasterSocket(sys.argv[1], sys.argv[2]) as first:
    first.create()  # loads what is loaded lazily: somebody else may not be able to read this installation
os.setgid(65534); os.setuid(65534)
master = MasterSocket(sys.argv[1], sys.argv[2])
master.create()
try:
    master.bind()
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_may_not_be_written_to(backend, socket_dir):
    socket_dir.chmod(0o755)
    with Program(UNPRIVILEGED, f"unix:{socket_dir}/s", backend) as program:
        text = program.line()
    assert text.startswith("PermissionError ")
    assert f"this process may not create files in {socket_dir}; change its mode or choose another path" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(
    not Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").is_file()
    or int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 1024,
    reason="this machine has no privileged ports",
)
def test_a_privileged_port(backend):
    with Program(UNPRIVILEGED, "tcp://127.0.0.1:81", backend) as program:
        text = program.line()
    assert text.startswith("PermissionError ")
    assert "port 81 is privileged; run as root, or choose a port from 1024 on" in text
