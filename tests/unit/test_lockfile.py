from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest
from support import Program, run_python, running

from pysock import Address, AddressInUse, MasterSocket
from pysock.files.lock import LockFile
from pysock.files.place import Place

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED with other users: only root can become one")


@pytest.fixture
def path(socket_dir):
    return socket_dir / "s"


@pytest.fixture
def lock_path(socket_dir):
    return socket_dir / "s.lock"


@pytest.fixture
def place(path):
    with closing(Place(Address.parse(f"unix:{path}"))) as place:
        yield place


# Held by one


def test_the_lock_is_held_by_one(place, lock_path):
    with closing(LockFile(place)):
        match = rf"unix:{place.path}: another server of this process \({os.getpid()}\) holds the lock {lock_path};"
        with pytest.raises(AddressInUse, match=match):
            LockFile(place)
    LockFile(place).close()


def test_a_holder_that_is_not_to_be_found_out_is_not_named(place, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    with closing(LockFile(place)), pytest.raises(AddressInUse, match="another server holds the lock"):
        LockFile(place)


def test_its_holder_removes_it_at_the_end(place, lock_path):
    lock = LockFile(place)
    assert lock_path.is_file()
    lock.close()
    assert not lock_path.exists()


def test_who_opened_it_before_it_was_removed_begins_anew(place, lock_path, monkeypatch):
    """Two that would share the path: one has the lock of a file without a name, the other that of the new one."""
    holder, opened = LockFile(place), []
    flock = fcntl.flock

    def late(fd, how):
        if how == fcntl.LOCK_EX | fcntl.LOCK_NB and not opened:
            opened.append(os.fstat(fd).st_ino)
            holder.close()  # between the other's open() and its flock()
            assert not lock_path.exists()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with closing(LockFile(place)) as lock:
        assert os.fstat(lock._fd).st_ino == lock_path.stat().st_ino
        monkeypatch.undo()
        with pytest.raises(AddressInUse):
            LockFile(place)
    assert not lock_path.exists()


def test_one_that_a_killed_server_left_is_removed_by_the_next(place, lock_path):
    lock_path.touch(0o600)
    LockFile(place).close()
    assert not lock_path.exists()


def test_another_file_of_that_name_is_left_to_its_owner(place, lock_path):
    lock = LockFile(place)
    lock_path.unlink()
    lock_path.touch()
    lock.close()
    assert lock_path.exists()


def test_a_child_does_not_remove_it(place, lock_path):
    with closing(LockFile(place)) as lock:
        if (child := os.fork()) == 0:
            lock.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert lock_path.exists()
        with pytest.raises(AddressInUse):
            LockFile(place)


def test_one_that_cannot_be_removed_stays(place, lock_path, monkeypatch):
    lock = LockFile(place)
    monkeypatch.setattr("os.unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no")))
    lock.close()
    monkeypatch.undo()
    assert lock_path.exists()
    LockFile(place).close()
    assert not lock_path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_its_owner_can_open_it(place, lock_path, umask):
    before = os.umask(umask)
    try:
        with closing(LockFile(place)):
            assert stat.S_IMODE(lock_path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_programs_that_are_started_do_not_inherit_it(place):
    with closing(LockFile(place)) as lock:
        assert os.get_inheritable(lock._fd) is False


def test_close_can_be_called_again(place):
    lock = LockFile(place)
    lock.close()
    with closing(LockFile(place)):
        lock.close()
        with pytest.raises(AddressInUse):
            LockFile(place)


def test_another_programs_lock_file_is_left_as_it_is(place, lock_path):
    """Many programs have files that end so, and not all of them are for locking."""
    lock_path.write_text("precious")
    lock_path.chmod(0o644)
    LockFile(place).close()
    assert lock_path.read_text() == "precious"
    assert stat.S_IMODE(lock_path.stat().st_mode) == 0o644


# Something else is there


def make_link(path):
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


def make_dangling_link(path):
    path.symlink_to("nowhere")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "a directory"),
        (make_link, "a symbolic link"),
        (make_dangling_link, "a symbolic link"),
        (os.mkfifo, "a named pipe"),
        (make_socket, "a socket"),
    ],
)
def test_what_is_no_file_is_left_alone(make_server, path, lock_path, make, what):
    make(lock_path)
    before = lock_path.lstat()
    match = f"unix:{path}: {what} is in place of the lock file {lock_path}; it was left alone: remove it yourself"
    with pytest.raises(FileExistsError, match=match):
        make_server(f"unix:{path}").start()
    after = lock_path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    assert not lock_path.with_name("nowhere").exists()
    assert not path.exists()


@AS_ROOT
def test_a_strangers_file_is_left_alone(make_server, path, lock_path):
    lock_path.touch()
    os.chown(lock_path, 65534, 65534)
    with pytest.raises(FileExistsError, match=f"a file of uid 65534 is in place of the lock file {lock_path}"):
        make_server(f"unix:{path}").start()
    with lock_path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it


# By somebody else, in a directory of theirs

STRANGER = """
import os, sys
from pysock import Server
server = Server(sys.argv[1], backend="pure")
os.umask(int(sys.argv[2], 8))
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    server.start()
except OSError as error:
    print(type(error).__name__, error)
else:
    print("serving", oct(os.stat(server.addresses[0].path + ".lock").st_mode & 0o777))
    server.stop(0)
"""


def stranger_says(path: Path, umask: str = "022") -> str:
    path.parent.chmod(0o755)
    os.chown(path.parent, 65534, 65534)
    with Program(STRANGER, f"unix:{path}", umask) as program:
        return program.line()


@AS_ROOT
def test_roots_lock_file_cannot_be_opened_by_others(path, lock_path):
    lock_path.touch(0o600)
    said = stranger_says(path)
    assert said.startswith("PermissionError ")
    assert f"this process may not open the lock file {lock_path} (of uid 0, mode 0600); it was left alone" in said


@AS_ROOT
def test_roots_lock_file_that_others_may_open_will_do(path, lock_path):
    lock_path.touch()
    lock_path.chmod(0o666)
    assert stranger_says(path) == "serving 0o666"


@AS_ROOT
@pytest.mark.parametrize("left_behind", [False, True])
def test_a_umask_that_takes_from_the_owner_too(path, lock_path, left_behind):
    if left_behind:  # by a server that was killed before it had set the mode
        lock_path.touch()
        os.chown(lock_path, 65534, 65534)
        lock_path.chmod(0)
    assert stranger_says(path, "777") == "serving 0o600"


@AS_ROOT
def test_a_directory_that_may_not_be_written_to(path, lock_path):
    os.chown(path.parent, 65534, 65534)
    path.parent.chmod(0o555)
    with Program(STRANGER, f"unix:{path}", "022") as program:
        said = program.line()
    assert said.startswith("PermissionError ")
    assert f"this process may not create files in {path.parent}; change its mode or choose another path" in said


def test_a_file_system_without_locks(make_server, path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"can't be locked \(No locks available\); choose a path on a file system with"):
        make_server(f"unix:{path}").start()
    assert not path.exists()


# Somebody removes it


def test_a_lock_file_that_was_removed_before_it_was_locked_is_worth_nothing(place, lock_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def late(*args):
        if not removed:
            removed.append(lock_path.stat())
            lock_path.rename(lock_path.with_name("removed"))  # so that its inode isn't used again
        flock(*args)

    monkeypatch.setattr(fcntl, "flock", late)
    with closing(LockFile(place)):
        assert lock_path.stat().st_ino != removed[0].st_ino
        with pytest.raises(AddressInUse):
            LockFile(place)


def test_a_lock_file_that_is_removed_all_the_time(place, lock_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: lock_path.unlink())
    fds = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AddressInUse, match="can't be had: others make and remove it all the time"):
        LockFile(place)
    assert set(os.listdir("/proc/self/fd")) == fds


def test_without_its_lock_file_a_live_server_is_still_found_alive(make_server, path, lock_path):
    with running(make_server(f"unix:{path}")):
        lock_path.unlink()
        with pytest.raises(AddressInUse, match=r"a live server listens there \(a pysock server\); stop it or choose"):
            make_server(f"unix:{path}").start()
        assert path.is_socket()


# Forks


FORK = """
import os, sys
from pysock import Address, AddressInUse
from pysock.files.lock import LockFile
from pysock.files.place import Place

place = Place(Address.parse(sys.argv[1]))

def taken():
    try:
        LockFile(place).close()
    except AddressInUse:
        return True
    return False

lock = LockFile(place)
wait, end = os.pipe()
"""


def test_a_forked_child_that_closes_does_not_let_go_of_it(path):
    code = """
if os.fork() == 0:
    lock.close()
    os._exit(0)
os.wait()
print(taken())
lock.close()
print(taken())
"""
    assert run_python(FORK + code, f"unix:{path}").stdout.split() == ["True", "False"]


def test_a_forked_child_does_not_keep_it(path):
    code = """
if os.fork() == 0:
    os.close(end)
    os.read(wait, 1)  # it lives on, with a copy of the descriptor
    os._exit(0)
print(taken())
lock.close()
print(taken())
os.close(end)
os.wait()
"""
    assert run_python(FORK + code, f"unix:{path}").stdout.split() == ["True", "False"]


# By hand


def taken(path: Path) -> bool:
    with closing(Place(Address.parse(f"unix:{path}"))) as place:
        try:
            LockFile(place).close()
        except AddressInUse:
            return True
        return False


@pytest.mark.parametrize("first", ["remove_stale", "bind"])
def test_a_master_socket_holds_it_from_the_first_step_at_the_file_to_close(backend, path, first):
    with MasterSocket(f"unix:{path}", backend) as master:
        steps = ["remove_stale", "create", "bind", "listen"]
        held = False
        for step in steps if first == "remove_stale" else steps[1:]:
            getattr(master, step)()
            held = held or step == first
            assert taken(path) is held
    assert taken(path) is False


def test_it_is_held_until_the_socket_file_is_gone(path, monkeypatch):
    seen = []
    with MasterSocket(f"unix:{path}", "pure") as master:
        master.create()
        master.bind()
        unlink = os.unlink
        monkeypatch.setattr(os, "unlink", lambda name: (seen.append(taken(path)), unlink(name)))
    assert seen == [True, True]  # the socket file, then the lock file


def test_a_master_socket_that_found_a_live_server_does_not_keep_it(backend, path):
    with socket.socket(socket.AF_UNIX) as live, MasterSocket(f"unix:{path}", backend) as master:
        live.bind(str(path))
        live.listen()
        with pytest.raises(AddressInUse, match="a live server listens there"):
            master.remove_stale()
        assert taken(path) is False


def test_no_descriptors_are_left(backend, path):
    before = set(os.listdir("/proc/self/fd"))
    with MasterSocket(f"unix:{path}", backend) as master:
        master.remove_stale()
        master.create()
        master.bind()
        master.listen()
        assert len(os.listdir("/proc/self/fd")) == len(before) + 2  # the master socket and the lock
    assert set(os.listdir("/proc/self/fd")) == before
