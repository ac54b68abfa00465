"""In the place of systemd: it starts a program with sockets, hears what that says, and keeps its descriptors."""

from __future__ import annotations

import array
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from support import PATIENCE, Program, environment

#: What the first process is: it has the descriptors at 3, 4 ..., and its own number in LISTEN_PID.
_LAUNCH = """
import json, os, sys
fds, names, command = json.loads(sys.argv[1])
for number, fd in enumerate(fds):
    os.dup2(fd, 100 + number)
for number, _ in enumerate(fds):
    os.dup2(100 + number, 3 + number)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(names))
os.execv(command[0], command)
"""


class HasNumber(Protocol):
    """A socket, or what stands for one."""

    def fileno(self) -> int: ...


class Activated(Program):
    """``python -m ...`` with these sockets, by name, as systemd starts it."""

    def __init__(self, sockets: Sequence[tuple[str, HasNumber]], *arguments: str, **changes: str) -> None:
        fds, names = [sock.fileno() for _, sock in sockets], [name for name, _ in sockets]
        told = json.dumps([fds, names, [sys.executable, "-m", *arguments]])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, told],
            env=environment(**changes),
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


class Stored(NamedTuple):
    """A descriptor out of the store."""

    fd: int

    def fileno(self) -> int:
        return self.fd


class Manager:
    """What listens at ``$NOTIFY_SOCKET``.

    :ivar sent: what was said, each datagram as its assignments, and when.
    :ivar stored: what came with FDSTORE=1, by name.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + where[1:] if where.startswith("@") else where)
        self.sent: list[tuple[float, int, dict[str, str]]] = []
        self.stored: list[tuple[str, int]] = []

    def next(self, timeout: float = PATIENCE) -> dict[str, str] | None:
        """The next datagram, or ``None`` if none comes in time."""
        self.socket.settimeout(timeout)
        try:
            data, ancillary, _, _ = self.socket.recvmsg(65536, 4096)
        except (TimeoutError, BlockingIOError):
            return None
        words = dict(line.split("=", 1) for line in data.decode().splitlines())
        sender = 0
        for _, kind, payload in ancillary:
            if kind == socket.SCM_CREDENTIALS:
                (sender,) = array.array("i", payload[:4])
            elif kind == socket.SCM_RIGHTS:
                self._keep(words, array.array("i", payload))
        if "FDSTOREREMOVE" in words:
            self._drop(words["FDNAME"])
        self.sent.append((time.monotonic(), sender, words))
        return words

    def _drop(self, name: str) -> None:
        for called, fd in self.stored:
            if called == name:
                os.close(fd)
        self.stored = [one for one in self.stored if one[0] != name]

    def hear_out(self, program: Program) -> None:
        """Until that has ended: what it has put into the store is there then."""
        deadline = time.monotonic() + PATIENCE
        while program.process.poll() is None and time.monotonic() < deadline:
            self.next(0.02)
        self.next(0)

    def given_back(self, seed: int) -> list[tuple[str, Stored]]:
        """What is in the store, in some order, each once, for the next process."""
        given = [(name, Stored(fd)) for name, fd in self.stored]
        random.Random(seed).shuffle(given)
        return given

    def until(self, wanted: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """The next for which that is true."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            words = self.next()
            if words is not None and wanted(words):
                return words
        raise AssertionError(f"it never said that, but {[words for _, _, words in self.sent]}")

    def until_says(self, word: str) -> dict[str, str]:
        return self.until(lambda words: word in words)

    def forget(self) -> None:
        """What it has said until now."""
        while self.next(0) is not None:
            pass
        self.sent.clear()

    def _keep(self, words: dict[str, str], fds: array.array[int]) -> None:
        for fd in fds:
            if "FDSTORE" in words:
                self.stored.append((words.get("FDNAME", "stored"), fd))
            else:
                os.close(fd)

    def close(self) -> None:
        self.socket.close()
        for _, fd in self.stored:
            os.close(fd)


@contextmanager
def managing(directory: Path, kind: str) -> Iterator[Manager]:
    """One at a path, or at an abstract name."""
    manager = Manager(f"{directory}/notify" if kind == "path" else f"@{directory}/notify")
    try:
        yield manager
    finally:
        manager.close()
