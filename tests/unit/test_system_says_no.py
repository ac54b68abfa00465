"""Each call around a socket file fails in each way: every error names the address, and says what to do."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys

import pytest
from programs import missing, tool
from support import environment

from pysock import MasterSocket, Server, connect
from pysock.base.faults import _ADVICE, explained_fault

ERRNOS = [
    errno.EPERM, errno.EACCES, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EBUSY, errno.ELOOP,
    errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTSUP, errno.EINVAL,
    errno.ENOLCK,
]  # fmt: skip

STEPS = {
    "open": (os, "open"), "mkdir": (os, "mkdir"), "chmod": (os, "chmod"), "fchmod": (os, "fchmod"),
    "chown": (os, "chown"), "stat": (os, "stat"), "lstat": (os, "lstat"),
    "flock": (fcntl, "flock"), "unlink": (os, "unlink"),
}  # fmt: skip


@pytest.fixture
def addresses(socket_dir, monkeypatch):
    """One with a stale file at its path, one whose directory is chosen."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(socket_dir))
    return [f"unix:{socket_dir}/s?mode=0660&user={os.geteuid()}", "unix:?name=chosen"]


def leave_stale(directory):
    with socket.socket(socket.AF_UNIX) as dead:
        (directory / "s").unlink(missing_ok=True)
        dead.bind(f"{directory}/s")


class FailsAt:
    """The call with this number fails."""

    def __init__(self, real, number, error):
        self.real, self.left, self.error = real, number, error

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left == 0:
            name = arguments[0] if arguments and isinstance(arguments[0], str) else None
            raise OSError(self.error, os.strerror(self.error), name)
        return self.real(*arguments, **options)


def check(error, address):
    text = str(error)
    assert address.partition("?mode")[0] in text, text
    assert "/proc/self/fd" not in text, text
    assert not text.startswith(f"[Errno {error.errno}] {os.strerror(error.errno)}"), text
    assert len(text) > len(address) + 30, text


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_cannot_start_says_why(addresses, backend, socket_dir, monkeypatch, caplog, step, number):
    module, name = STEPS[step]
    caplog.set_level(logging.WARNING)
    for address in addresses:
        for call in range(1, 12):
            leave_stale(socket_dir)
            fails = FailsAt(getattr(module, name), call, number)
            server = Server(address, backend=backend)
            server.service(lambda client, request: request)
            with monkeypatch.context() as patch:
                patch.setattr(module, name, fails)
                try:
                    server.start()
                    server.stop()
                except OSError as error:
                    check(error, address)
            if fails.left > 0:
                break
    for record in caplog.records:
        assert "unix:" in record.getMessage()
        assert "/proc/self/fd" not in record.getMessage()


@pytest.mark.parametrize("number", sorted({*_ADVICE} - {errno.ETIMEDOUT}), ids=errno.errorcode.get)
def test_a_client_that_cannot_connect_is_told_why(backend, monkeypatch, number):
    def fails(*arguments):
        raise OSError(number, os.strerror(number))

    class Refuses(socket.socket):
        connect = fails

    monkeypatch.setattr(socket, "socket", Refuses)
    with pytest.raises(OSError, match=r"^\[Errno \d+\] unix:/nowhere/s: ...") as caught:
        connect("unix:/nowhere/s", timeout=1, backend=backend)
    assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENOBUFS])
@pytest.mark.parametrize("step", ["socket", "bind", "listen"])
def test_by_hand(backend, step, number):
    with MasterSocket("tcp://127.0.0.1:0", backend) as master:

        class Fails:
            def __getattr__(self, name):
                def call(*arguments):
                    if name == step:
                        raise OSError(number, os.strerror(number))
                    return getattr(real, name)(*arguments)

                return call

        real, master._sockets = master._sockets, Fails()
        steps = [master.create, master.bind, master.listen][: ["socket", "bind", "listen"].index(step) + 1]
        for act in steps[:-1]:
            act()
        with pytest.raises(OSError, match=r"tcp://127.0.0.1:\d+: ") as caught:
            steps[-1]()
        check(caught.value, "tcp://127.0.0.1")
        assert caught.value.errno == number


# All is imported before: where the directory is gone, CPython 3.13.0 fails at `import socket`, for one (SystemError).
GONE = """
import os, sys, pysock
pysock.connect, pysock.Server("unix:@never", backend=sys.argv[1])
os.rmdir(os.getcwd())
for act in (pysock.Server(sys.argv[2], backend=sys.argv[1]).start, lambda: pysock.connect(sys.argv[2])):
    try:
        act()
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("path", ["s", f"{'a' * 120}/s"])
def test_a_working_directory_that_is_gone(backend, socket_dir, path):
    (socket_dir / "gone").mkdir()
    command = [sys.executable, "-c", GONE, backend, f"unix:{path}"]
    done = subprocess.run(
        command, cwd=socket_dir / "gone", env=environment(), capture_output=True, text=True, check=False
    )
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert all(line.startswith(f"[Errno 2] unix:{path}: ") for line in said), said


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_loop_that_cannot_be_made(backend, socket_dir, monkeypatch, number):
    def fails(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pysock.running.Running._make_engine", fails)
    server = Server(f"unix:{socket_dir}/s", f"unix:{socket_dir}/t", backend=backend)
    with pytest.raises(OSError, match=r"/s and unix:.*/t: making the server's loop failed") as caught:
        server.start()
    assert caught.value.errno == number


def test_over_tcp_no_path_is_advised(backend):
    error = explained_fault(OSError(errno.EINVAL, os.strerror(errno.EINVAL)), "tcp://[fe80::1]:0", "bind()")
    assert "path" not in str(error)
    with pytest.raises(OSError, match=r"tcp://\[fe80::1\]:0: ") as caught:
        Server("tcp://[fe80::1]:0", insecure=True, backend=backend).start()
    assert "path" not in str(caught.value)


MOUNTED = """
import socket, subprocess, sys, pysock
with socket.socket(socket.AF_UNIX) as dead:
    dead.bind("s")
subprocess.run(["mount", "--bind", "s", "s"], check=True)
try:
    pysock.Server("unix:s", backend=sys.argv[1]).start()
except OSError as error:
    print(error)
"""


def test_a_stale_file_that_is_a_mount_point(backend, socket_dir):
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED at a mount point: only root can mount")
    command = [tool("unshare"), "--mount", "--propagation", "private"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        missing("no mount namespace can be made here")
    command += [sys.executable, "-c", MOUNTED, backend]
    done = subprocess.run(command, cwd=socket_dir, env=environment(), capture_output=True, text=True, check=False)
    assert "[Errno 16] unix:s: removing a stale socket file failed (Device or resource busy)" in done.stdout
    assert "umount" in done.stdout
