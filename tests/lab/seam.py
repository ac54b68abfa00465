"""The system calls of the pure engine, of which one fails, and a count of all.

The seam is Python's: the modules ``socket``, ``select`` and ``os`` as the engine's own modules see them. Everybody
else, and every thread that isn't a subject, goes on with the real ones. What Python tries again by itself (EINTR, PEP
475) never reaches the engine, and isn't among the faults.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import socket
import sys
import threading
from types import ModuleType
from typing import Any

#: Errors that concern one connection: the kernel has taken it from the queue by then (accept(2), "Error handling").
EATING = frozenset(
    (
        *(errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET),
        *(errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT),
    )
)


class Seam:
    """What strikes, and what was counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.subjects: set[int] = set()  # threads
        self.sites: dict[tuple[str, str], list[int]] = {}  # hits, struck, first
        self.reset("close", 0, 0, 0, "once")

    def reset(self, call: str, error: int, cap: int, n: int, mode: str) -> None:
        """The next fault."""
        self.call, self.error, self.cap, self.n, self.mode = call, error, cap, n, mode
        self.armed = n > 0
        self.counts: dict[str, int] = {}
        self.struck = self.turn = self.eaten = 0
        self.fd = -1

    def passes(self) -> bool:
        """EAGAIN can't last: the kernel says so until it says that the socket is ready."""
        return self.error == errno.EAGAIN

    def strikes(self, call: str, fd: int = -1) -> bool:
        """Count this call; whether it is to fail."""
        if threading.get_ident() not in self.subjects:
            return False
        with self.lock:
            count = self.counts[call] = self.counts.get(call, 0) + 1
            struck = self._is_struck(call, count, fd)
            site = self.sites.setdefault((call, _place()), [0, 0, count])
            site[0] += 1
            site[1] += struck
            self.struck += struck
            if call == "close" and fd == self.fd:
                self.fd = -1
            return struck

    def _is_struck(self, call: str, count: int, fd: int) -> bool:
        if not self.armed or call != self.call or count < self.n:
            return False
        if self.mode == "once":
            return count == self.n
        if self.mode == "same":
            if count == self.n:
                self.fd = fd
            if fd != self.fd or fd < 0:
                return False
        self.turn += 1
        return not self.passes() or self.turn % 3 == 1

    def fail(self) -> None:
        """As the call would have failed."""
        if self.call == "object":
            raise MemoryError
        raise OSError(self.error, os.strerror(self.error))

    def check(self, call: str, fd: int = -1) -> None:
        """Count this call, and fail if it is to."""
        if self.strikes(call, fd):
            self.fail()

    def cut(self, call: str, fd: int, size: int) -> int:
        """How many bytes this call may move; or it fails."""
        if not self.strikes(call, fd):
            return size
        if self.error:
            self.fail()
        return min(size, self.cap)


SEAM = Seam()


def _place() -> str:
    """The line of pysock that makes the call."""
    frame: Any = sys._getframe(2)
    while frame is not None and f"{os.sep}pysock{os.sep}" not in frame.f_code.co_filename:
        frame = frame.f_back
    return "?" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


class FaultySocket(socket.socket):
    """A socket whose calls may fail."""

    def accept(self) -> tuple[socket.socket, Any]:
        SEAM.check("object")
        if SEAM.strikes("accept4", self.fileno()):
            if SEAM.error in EATING:
                os.close(self._accept()[0])  # type: ignore[attr-defined]
                SEAM.eaten += 1
            SEAM.fail()
        fd, address = self._accept()  # type: ignore[attr-defined]
        return FaultySocket(self.family, self.type, self.proto, fileno=fd), address

    def recv(self, size: int, flags: int = 0) -> bytes:
        SEAM.check("object")
        return super().recv(SEAM.cut("recvfrom", self.fileno(), size), flags)

    def send(self, data: Any, flags: int = 0) -> int:
        return super().send(memoryview(data)[: SEAM.cut("sendto", self.fileno(), len(data))], flags)

    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, *rest: Any) -> int:
        pieces = [memoryview(buffer) for buffer in buffers]
        most = SEAM.cut("sendmsg", self.fileno(), sum(map(len, pieces)))
        some = []
        for piece in pieces:
            some.append(piece[:most])
            most -= len(some[-1])
        return super().sendmsg(some, ancillary, flags, *rest)

    def setsockopt(self, *arguments: Any) -> None:
        SEAM.check("setsockopt", self.fileno())
        super().setsockopt(*arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        SEAM.check("getsockopt", self.fileno())
        return super().getsockopt(*arguments)

    def setblocking(self, flag: bool) -> None:
        SEAM.check("fcntl", self.fileno())
        super().setblocking(flag)

    def bind(self, address: Any) -> None:
        SEAM.check("bind", self.fileno())
        super().bind(address)

    def listen(self, *backlog: Any) -> None:
        SEAM.check("listen", self.fileno())
        super().listen(*backlog)

    def close(self) -> None:
        """Linux has freed the number, whatever it says (close(2))."""
        struck = self.fileno() >= 0 and SEAM.strikes("close", self.fileno())
        super().close()
        if struck:
            SEAM.fail()


def _new_socket(family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None) -> FaultySocket:
    if fileno is None:
        SEAM.check("socket")
    return FaultySocket(family, kind, proto, fileno)


class FaultyEpoll:
    """``select.epoll``."""

    def __init__(self) -> None:
        SEAM.check("epoll_create1")
        self._real = select.epoll()

    def register(self, fd: int, events: int) -> None:
        SEAM.check("epoll_ctl", fd)
        self._real.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        SEAM.check("epoll_ctl", fd)
        self._real.modify(fd, events)

    def unregister(self, fd: int) -> None:
        SEAM.check("epoll_ctl", fd)
        self._real.unregister(fd)

    def poll(self, *timeout: Any) -> Any:
        SEAM.check("epoll_wait", self._real.fileno())
        return self._real.poll(*timeout)

    def fileno(self) -> int:
        return self._real.fileno()

    def close(self) -> None:
        fd = self._real.fileno()
        self._real.close()
        SEAM.check("close", fd)


class FaultyPoll:
    """``select.poll``."""

    def __init__(self) -> None:
        self._real = select.poll()
        self.register, self.modify = self._real.register, self._real.modify

    def poll(self, *timeout: Any) -> Any:
        SEAM.check("ppoll")
        return self._real.poll(*timeout)


def _pipe() -> tuple[int, int]:
    SEAM.check("pipe2")
    return os.pipe()


def _read(fd: int, size: int) -> bytes:
    SEAM.check("read", fd)
    return os.read(fd, size)


def _write(fd: int, data: bytes) -> int:
    """EAGAIN: the pipe is full, so there are bytes in it."""
    struck = SEAM.strikes("write", fd)
    if not struck or SEAM.error == errno.EAGAIN:
        os.write(fd, data)
    if struck:
        SEAM.fail()
    return len(data)


def _close(fd: int) -> None:
    struck = SEAM.strikes("close", fd)
    os.close(fd)
    if struck:
        SEAM.fail()


def _set_blocking(fd: int, flag: bool) -> None:
    SEAM.check("fcntl", fd)
    os.set_blocking(fd, flag)


class Module:
    """A module with some of its names replaced."""

    def __init__(self, real: ModuleType, **replaced: Any) -> None:
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


_MODULES = {
    "socket": Module(socket, socket=_new_socket),
    "select": Module(select, epoll=FaultyEpoll, poll=FaultyPoll),
    "os": Module(os, pipe=_pipe, read=_read, write=_write, close=_close, set_blocking=_set_blocking),
}
_ENGINE = (
    *("accept", "client.exchange", "client.waiter", "commands", "connection", "listener", "output", "poll"),
    "sockets",
)


def install() -> None:
    """From now on the pure engine's calls go through the seam."""
    for name in _ENGINE:
        module = importlib.import_module(f"pysock.engine.pure.{name}")
        there = [imported for imported in _MODULES if hasattr(module, imported)]
        if not there:
            raise LookupError(f"{name} makes no system calls any more: where have they gone?")
        for imported in there:
            setattr(module, imported, _MODULES[imported])
