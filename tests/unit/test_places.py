from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from support import Program, plug, run_python, running

from pysock import Address, MasterSocket, connect
from pysock.files import place as places
from pysock.files.place import UnsafeDirectory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reaches longer paths")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED with other users: only root can become one")


def echo(client, request):
    return request


# Who may write to the directory


@pytest.mark.parametrize("mode", [0o777, 0o703, 0o702])
def test_a_directory_that_anybody_can_write_to_is_refused(make_server, socket_dir, mode):
    socket_dir.chmod(mode)
    server = make_server(f"unix:{socket_dir}/s")
    match = rf"unix:{socket_dir}/s: anybody may write to {socket_dir}, .* take that right away \(chmod o-w\)"
    with pytest.raises(PermissionError, match=match):
        server.start()
    assert list(socket_dir.iterdir()) == []


@pytest.mark.parametrize("mode", [0o1777, 0o770, 0o755, 0o700])
def test_a_sticky_bit_or_no_right_for_others_is_enough(make_server, socket_dir, mode):
    socket_dir.chmod(mode)
    with running(make_server(f"unix:{socket_dir}/s")):
        plug(f"unix:{socket_dir}/s").close()


def test_by_hand_it_is_refused_at_the_first_step_that_touches_it(backend, socket_dir):
    socket_dir.chmod(0o777)
    fds = set(os.listdir("/proc/self/fd"))
    with MasterSocket(f"unix:{socket_dir}/s", backend) as master:
        with pytest.raises(UnsafeDirectory):
            master.remove_stale()
        master.create()
        with pytest.raises(UnsafeDirectory):
            master.bind()
    assert set(os.listdir("/proc/self/fd")) == fds


# Who may not go into it

STRANGER = """
import os, sys
from pysock import MasterSocket, Server
path, backend = sys.argv[1:]
server = Server(f"unix:{path}", backend=backend)
master = MasterSocket(f"unix:{path}", backend)
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
fds = os.listdir("/proc/self/fd")
for step in (server.start, master.remove_stale, master.create, master.bind):
    try:
        step()
    except PermissionError as error:
        print(error.strerror)
master.close()
print(os.listdir("/proc/self/fd") == fds)
"""


@AS_ROOT
@pytest.mark.parametrize("below", ["", "/sub", "/sub/sub"])
def test_a_directory_that_may_not_be_searched(backend, socket_dir, below):
    """The error names the address and the directory, and says what to do."""
    (socket_dir / "sub").mkdir()
    path = f"{socket_dir}{below}/s"
    done = run_python(STRANGER, path, backend)
    line = (
        f"unix:{path}: this process may not search {socket_dir}{below}, or a directory above it; let its user do so"
        " (chmod +x), run it as another one, or choose another path\n"
    )
    assert (done.stdout, done.stderr) == (f"{line * 3}True\n", "")


# Paths through symbolic links


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=LINUX)])
def test_a_path_that_leaves_a_link_upwards_means_the_same_to_both_ends(make_server, socket_dir, long):
    """``link/..`` is the directory above the one that the link leads to, as everywhere."""
    (socket_dir / "here").mkdir()
    (socket_dir / "there" / "sub").mkdir(parents=True)
    (socket_dir / "here" / "link").symlink_to(socket_dir / "there" / "sub")
    detour = "../there/sub/../../here/" * 10 if long else "./"
    address = f"unix:{socket_dir}/here/{detour}link/../s"
    server = make_server(address)
    server.service(echo)
    with running(server):
        assert (socket_dir / "there" / "s").is_socket()
        for where in (address, server.addresses[0]):
            with connect(where, backend=server.backend) as client:
                assert client.request(b"hello") == b"hello"
    assert not (socket_dir / "there" / "s").exists()
    assert [path.name for path in (socket_dir / "here").iterdir()] == ["link"]


def test_a_way_that_does_not_exist_is_no_way_for_a_server_either(make_server, socket_dir):
    with pytest.raises(FileNotFoundError, match=f"the directory {socket_dir}/no/.. doesn't exist"):
        make_server(f"unix:{socket_dir}/no/../s").start()


# Long paths


@pytest.fixture
def deep(socket_dir):
    """A directory with a name of some 250 bytes."""
    path = socket_dir / ("a" * 120) / ("b" * 120)
    path.mkdir(parents=True)
    return path


@LINUX
def test_a_server_at_a_long_path(make_server, deep):
    address = f"unix:{deep}/s?mode=0660"
    server = make_server(address)
    server.service(echo)
    assert len(str(deep)) > 250
    with running(server):
        assert [str(address) for address in server.addresses] == [address]
        assert stat.S_IMODE((deep / "s").stat().st_mode) == 0o660
        fds = set(os.listdir("/proc/self/fd"))
        with connect(address, backend=server.backend) as client:
            assert client.request(b"hello") == b"hello"
            assert str(next(iter(server.clients.values())).address) == f"unix:{deep}/s"
            assert len(os.listdir("/proc/self/fd")) == len(fds) + 2  # both ends, and no directory
    assert list(deep.iterdir()) == []


@LINUX
def test_a_stale_file_at_a_long_path_is_removed_and_a_live_servers_is_not(backend, deep):
    code = """
import sys
from pysock import MasterSocket
master = MasterSocket(sys.argv[1], sys.argv[2])
master.create(); master.bind(); master.listen()
print("listening", flush=True)
sys.stdin.read()
"""
    address = f"unix:{deep}/s"
    with Program(code, address, backend) as program:
        assert program.line() == "listening"
        (deep / "s.lock").unlink()
        with MasterSocket(address, backend) as master, pytest.raises(OSError, match="a live server listens there"):
            master.remove_stale()
    with MasterSocket(address, backend) as master:
        assert master.remove_stale() is True
        for step in (master.create, master.bind, master.listen):
            step()
        assert str(master.address) == address
        with plug(address) as client, master.accept() as data:
            client.sendall(b"hello")
            assert data.recv() == b"hello"
    assert not (deep / "s").exists()


@LINUX
def test_a_relative_path_that_is_long(make_server, deep, monkeypatch):
    monkeypatch.chdir(deep.parent.parent)
    address = f"unix:{deep.relative_to(deep.parent.parent)}/s"
    with running(make_server(address)) as server:
        assert str(server.addresses[0]) == f"unix:{deep}/s"
        plug(address).close()
        monkeypatch.chdir("/")
    assert not (deep / "s").exists()


@LINUX
def test_the_longest_name_at_a_long_path(make_server, deep):
    address = f"unix:{deep}/{'n' * 85}"
    with running(make_server(address)):
        plug(address).close()


@LINUX
def test_the_load_generator_reaches_a_long_path(make_server, deep):
    load = pytest.importorskip("pysock.load")
    pytest.importorskip("pysock.engine.native.load")
    server = make_server(f"unix:{deep}/s")
    server.service(echo)
    with running(server):
        result = load.run_load(f"unix:{deep}/s", connections=2, duration=None, count=100)
        assert (result.messages, result.errors) == (100, 0)


@LINUX
def test_a_long_path_needs_proc(make_server, deep, monkeypatch):
    monkeypatch.setattr(places, "_DESCRIPTORS", "/nonexistent")
    with pytest.raises(OSError, match=rf"unix:{deep}/s: a path of more than 107 bytes .* needs /nonexistent, which"):
        make_server(f"unix:{deep}/s").start()
    with pytest.raises(OSError, match=rf"unix:{deep}/s: a path of more than 107 bytes"):
        connect(f"unix:{deep}/s")


def test_a_short_path_does_not_need_proc(make_server, socket_dir, monkeypatch):
    monkeypatch.setattr(places, "_DESCRIPTORS", "/nonexistent")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{socket_dir}/s")
    with running(make_server(f"unix:{socket_dir}/s")):
        plug(f"unix:{socket_dir}/s").close()
    assert not (socket_dir / "s").exists()


@LINUX
def test_without_proc_the_mode_cannot_be_set_against_the_umask(make_server, socket_dir, monkeypatch):
    def chmod(path, mode, *, follow_symlinks):
        assert follow_symlinks is False
        raise NotImplementedError  # what the C library does with it differs

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(places, "_DESCRIPTORS", "/nonexistent")
    before = os.umask(0o077)
    try:
        with pytest.raises(OSError, match="without /proc the socket file's mode can't be set against the umask"):
            make_server(f"unix:{socket_dir}/s?mode=0660").start()
    finally:
        os.umask(before)
    assert not (socket_dir / "s").exists()


def test_without_proc_a_relative_path_still_goes_where_its_absolute_form_is_too_long(backend, deep, monkeypatch):
    monkeypatch.setattr(places, "_DESCRIPTORS", "/nonexistent")
    monkeypatch.chdir(deep)
    with MasterSocket("unix:s", backend) as master:
        for step in (master.remove_stale, master.create, master.bind, master.listen):
            step()
        plug("unix:s").close()
    assert not (deep / "s").exists()


@LINUX
def test_a_client_whose_long_path_leads_nowhere(deep):
    gone = deep / "no" / "s"
    with pytest.raises(FileNotFoundError, match=rf"the directory {deep}/no can't be opened .* is the server running"):
        connect(f"unix:{gone}")
    with pytest.raises(FileNotFoundError, match="there is no such socket file; is the server running"):
        connect(f"unix:{deep}/s")


# No path at all


@pytest.fixture
def runtime(socket_dir, monkeypatch):
    """``XDG_RUNTIME_DIR``."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    return socket_dir


@pytest.fixture(params=["with XDG_RUNTIME_DIR", "without"])
def own(request, socket_dir, monkeypatch):
    """The directory for socket files without a path, which isn't there yet."""
    if request.param == "without":
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr("pysock.files.own_directory._TEMPORARY", str(socket_dir))
        return socket_dir / f"pysock-{os.geteuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    return socket_dir / "pysock"


@pytest.mark.parametrize(
    ("address", "name", "client", "file"),
    [
        ("unix:", None, "unix:", "server"),
        ("unix:?mode=0660", "demo", "unix:?name=demo", "demo"),
        ("unix:?name=other", "demo", "unix:?name=other", "other"),
    ],
)
def test_a_server_without_a_path(make_server, own, address, name, client, file):
    server = make_server(address, name=name)
    server.service(echo)
    assert str(server.addresses[0]) == address
    with running(server):
        real = f"unix:{own}/{file}.sock"
        assert str(server.addresses[0]).partition("?")[0] == real
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        for where in (client, real):
            with connect(where, backend=server.backend) as connected:
                assert connected.request(b"hello") == b"hello"
    assert list(own.iterdir()) == []


def test_two_servers_share_the_directory_but_no_name(make_server, own):
    with running(make_server("unix:", name="one")), running(make_server("unix:", name="two")):
        plug("unix:?name=one").close()
        plug("unix:?name=two").close()
        with pytest.raises(OSError, match=rf"another server .* holds the lock {own}/two\.sock\.lock"):
            make_server("unix:?name=two").start()


def test_a_servers_name_that_is_no_name_of_a_file(make_server, own):
    server = make_server("unix:", name="my server")
    with pytest.raises(ValueError, match="'my server' can't name a socket file"):
        server.start()
    assert not own.exists()
    with running(make_server("unix:?name=mine", name="my server")):
        plug("unix:?name=mine").close()


def test_nothing_is_made_before_a_server_starts(make_server, own):
    make_server("unix:")
    Address.parse("unix:?name=demo").resolve(listening=False)
    with pytest.raises(
        FileNotFoundError, match=rf"unix:: the directory {own} can't be opened .* is the server running"
    ):
        connect("unix:")
    assert not own.exists()


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_directory_is_the_users_own_whatever_the_umask(make_server, own, umask):
    before = os.umask(umask)
    try:
        with running(make_server("unix:")):
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
            assert stat.S_IMODE((own / "server.sock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def open_to_others(own: Path) -> None:
    own.mkdir()
    own.chmod(0o750)


def elsewhere(own: Path) -> None:
    own.with_name("elsewhere").mkdir(0o700)
    own.symlink_to("elsewhere")


def no_directory(own: Path) -> None:
    own.touch(0o600)


def a_strangers(own: Path) -> None:
    own.mkdir(0o700)
    os.chown(own, 65534, 65534)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (open_to_others, "its mode is 0750, open to others; chmod it to 0700"),
        (elsewhere, "it isn't a real directory"),
        (no_directory, "it isn't a real directory"),
        pytest.param(a_strangers, f"it belongs to uid 65534, and this process has uid {os.geteuid()}", marks=AS_ROOT),
    ],
)
def test_a_directory_that_may_be_somebody_elses_is_refused_on_both_sides(make_server, own, make, what):
    make(own)
    fds = set(os.listdir("/proc/self/fd"))
    server = make_server("unix:")
    with pytest.raises(PermissionError, match=f"unix:: {own} can't be trusted with the socket file: {what}; look who"):
        server.start()
    with pytest.raises(PermissionError, match=f"unix:: {own} can't be trusted with the socket file: {what}; look who"):
        connect("unix:")
    assert set(os.listdir("/proc/self/fd")) == fds
    assert list(own.parent.rglob("*.lock")) == []


def test_an_xdg_runtime_dir_that_is_not_there(make_server, runtime, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{runtime}/no")
    with pytest.raises(
        FileNotFoundError, match=rf"{runtime}/no/pysock can't be made \(No such .*\); look at XDG_RUNTIME"
    ):
        make_server("unix:").start()


def test_a_long_xdg_runtime_dir(make_server, deep, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with running(make_server("unix:", name="demo")) as server:
        assert str(server.addresses[0]) == f"unix:{deep}/pysock/demo.sock"
        plug("unix:?name=demo").close()


@AS_ROOT
def test_each_user_has_a_directory_of_their_own_in_tmp(backend):
    code = """
import os, shutil, sys
from pysock import Server, connect
server = Server("unix:", backend=sys.argv[1], name=f"pysock-test-{os.getpid()}")
server.service(lambda client, request: request)
os.environ.pop("XDG_RUNTIME_DIR", None)
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
mine = not os.path.exists("/tmp/pysock-65534")
server.start()
print(server.addresses[0].path == f"/tmp/pysock-65534/{server.name}.sock")
server.stop(0)
if mine:
    shutil.rmtree("/tmp/pysock-65534")
"""
    done = run_python(code, backend)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_variable_of_another_users_is_not_taken(make_server, monkeypatch, socket_dir):
    """``sudo -E``, cron, su: root made its directory in that of the user's."""
    if os.geteuid() != 0:
        pytest.skip("only root can have a directory of another user's")
    theirs = socket_dir / "run"
    theirs.mkdir()
    os.chown(theirs, 54321, 54321)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    monkeypatch.setattr("pysock.files.own_directory._TEMPORARY", str(socket_dir))
    server = make_server("unix:")
    server.service(echo)
    with running(server):
        assert server.addresses[0].path == f"{socket_dir}/pysock-0/server.sock"
        with connect("unix:", backend=server.backend) as client:
            assert client.request(b"x") == b"x"
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("there", [True, False], ids=["no server", "no directory"])
@pytest.mark.parametrize("variable", [True, False], ids=["set", "not set"])
def test_the_error_without_a_path_tells_what_each_side_chooses(backend, monkeypatch, socket_dir, variable, there):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("pysock.files.own_directory._TEMPORARY", str(socket_dir))
    own = socket_dir / ("pysock" if variable else f"pysock-{os.geteuid()}")
    if variable:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    if there:
        own.mkdir(0o700)
    with pytest.raises(FileNotFoundError) as caught:
        connect("unix:?name=demo", backend=backend)
    text = str(caught.value)
    assert "unix:?name=demo: " in text
    assert f"without a path it is {own}/demo.sock (here XDG_RUNTIME_DIR is" in text
    assert (
        f"takes $XDG_RUNTIME_DIR/pysock/demo.sock or {socket_dir}/pysock-UID/demo.sock; give both sides a path" in text
    )
