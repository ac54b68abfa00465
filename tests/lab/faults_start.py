"""A server's start, of which one step fails: nothing stays behind, neither descriptor nor file, the error says what and
where, and the next server at the address starts."""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support import own_host, plug

from lab.errnos import ERRNOS
from lab.experiment import Scale, check, per_engine
from pysock import Address, Server, ServerState
from pysock.engine.choice import choose

#: By the name in errnos.py: what makes that call. The sockets are the engine's, the rest is the facade's.
_SOCKETS = ("socket", "bind", "listen", "unlink", "close")
_FILES = ("lstat", "chmod", "fchmod")

#: Beyond so many descriptors a start needs no more.
_ENOUGH = 40


class Striker:
    """Makes the n-th call of one kind fail."""

    def __init__(self, n: int, error: int) -> None:
        self.n, self.error, self.calls = n, error, 0

    def wrap(self, real: Callable[..., Any], closes: bool) -> Callable[..., Any]:
        """A close() that fails has closed all the same (close(2))."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls != self.n:
                return real(*arguments, **options)
            if closes:
                real(*arguments, **options)
            raise OSError(self.error, os.strerror(self.error))

        return call

    @property
    def struck(self) -> bool:
        return self.calls >= self.n


@contextmanager
def _failing(engine: str, call: str, striker: Striker) -> Iterator[None]:
    owner: Any = type(choose(engine).sockets) if call in _SOCKETS else os
    with patch.object(owner, call, striker.wrap(getattr(owner, call), call == "close")):
        yield


class Place:
    """An address to listen at, and what is there."""

    def __init__(self, transport: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psk", dir="/tmp"))
        self.path = self.folder / "s"
        self.address = f"unix:{self.path}" if transport == "unix" else f"tcp://{own_host()}:0"

    def leave_stale_file(self) -> None:
        """As a server does that was killed."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))

    def left_over(self) -> list[str]:
        """A lock file stays where its removal is the call that fails."""
        return [path.name for path in self.folder.iterdir() if path.suffix != ".lock"]

    def clear(self) -> None:
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                path.unlink()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _serves(address: Address) -> None:
    with plug(address) as client:
        client.sendall(b"\0\0\0\5\3\0\0\0\0\0\0\7hello")  # a PING
        check(client.recv(100)[12:] == b"hello", f"{address} isn't served")


def _try(engine: str, place: Place, what: str) -> None:
    """Start once; whatever comes of it, nothing stays."""
    server = Server(place.address, backend=engine)
    files = _open_files()
    try:
        server.start()
    except OSError as error:
        check(str(error) and error.errno, f"{what}: the error says nothing: {error!r}")
        check(server.state is ServerState.CLOSED, f"{what}: the server is {server.state.name}")
    else:
        _serves(server.addresses[0])
        server.stop()
    gc.collect()
    check(_open_files() == files, f"{what}: {_open_files() - files} descriptors are left over")


def _steps(engine: str, transport: str, place: Place, scale: Scale) -> int:
    count = 0
    calls = _SOCKETS + (_FILES if transport == "unix" else ())
    for call in calls:
        for error in ERRNOS[call]:
            if error == errno.EINTR and call not in {"close"}:
                continue  # Python calls again by itself (PEP 475)
            for stale in (False, True) if transport == "unix" else (False,):
                count += _each_call(engine, call, error, stale, place, scale)
    return count


def _each_call(engine: str, call: str, error: int, stale: bool, place: Place, scale: Scale) -> int:
    for n in range(1, scale.of(6, 1000)):
        place.clear()
        if stale:
            place.leave_stale_file()
        striker = Striker(n, error)
        what = f"{call}: {errno.errorcode[error]}, call {n}{', over a stale file' if stale else ''}"
        with _failing(engine, call, striker):
            _try(engine, place, what)
        if not striker.struck:
            return n
        left = place.left_over()
        # Whose file it is can't be known without lstat(): it stays, and is stale for the next one.
        may_stay = stale or call in {"unlink", "lstat"}
        check(may_stay or not left, f"{what}: left over: {left}")
        _try(engine, place, f"after {what}")
        check(not place.left_over() or call == "unlink", f"after {what}: left over: {place.left_over()}")
    return n


def _without_descriptors(engine: str, place: Place) -> int:
    """The limit is reached after 0, 1, 2 ... descriptors: each open, socket, epoll_create1 and pipe2 fails once."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(_ENOUGH):
        place.clear()
        server = Server(place.address, backend=engine)
        files = _open_files()
        fillers, end = _fill_holes()
        resource.setrlimit(resource.RLIMIT_NOFILE, (end + spare, limits[1]))
        try:
            server.start()
            return spare
        except OSError as error:
            check(error.errno == errno.EMFILE, f"with {spare} descriptors: {error!r}")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fillers:
                os.close(fd)
            server.stop()
            gc.collect()
            check(_open_files() == files, f"with {spare} descriptors: {_open_files() - files} are left over")
            check(not place.left_over(), f"with {spare} descriptors: left over: {place.left_over()}")
    raise AssertionError("a start needs more descriptors than it should")


def _fill_holes() -> tuple[list[int], int]:
    """Descriptors in the holes below the highest one in use, and the number behind that."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken: list[int] = []
    while not taken or taken[-1] <= highest:
        taken.append(os.dup(0))
    end = taken.pop()
    os.close(end)
    return taken, end


def _run(scale: Scale, engine: str, transport: str) -> str:
    place = Place(transport)
    try:
        starts = _steps(engine, transport, place, scale)
        needed = _without_descriptors(engine, place)
    finally:
        shutil.rmtree(place.folder)
    return f"{starts} starts with a step that failed, {needed} without descriptors enough"


EXPERIMENTS = per_engine("faults/start", "a step of a server's start fails", _run)
