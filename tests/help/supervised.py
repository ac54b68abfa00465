"""A program for ``pysock serve``: what a service of it sees of its process, and what it can do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pysock

server = pysock.Server("unix:supervised.sock")


def handler(client: pysock.DataSocket, request: bytes) -> bytes:
    """By the first word of a request, one of those below."""
    name, _, rest = request.decode().partition(" ")
    return json.dumps(COMMANDS[name](rest)).encode()


server.service(handler)


def seen(_: str) -> object:
    """The variables of a service manager, here and in a child, and which descriptors that one has."""
    code = "import json, os; print(json.dumps([sorted(os.environ), sorted(map(int, os.listdir('/proc/self/fd')))]))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, close_fds=False)
    names, fds = json.loads(there.stdout)
    ours = ("LISTEN_", "NOTIFY_", "WATCHDOG_")
    return {"here": [n for n in os.environ if n.startswith(ours)], "there": [n for n in names if n.startswith(ours)],
            "sockets": [fd for fd in fds if fd > 2 and _is_socket(fd)]}  # fmt: skip


def _is_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") and os.get_inheritable(fd)
    except OSError:
        return False


def hang(until: str) -> object:
    """Not return before there is a file ``until``; it says by another one that it has begun."""
    Path(f"{until}.begun").touch()
    while not Path(until).exists():
        time.sleep(0.005)
    return True


def pid(_: str) -> object:
    return os.getpid()


def compute(microseconds: str) -> object:
    """Keep a processor busy for so long."""
    end = time.perf_counter_ns() + int(microseconds) * 1000
    while time.perf_counter_ns() < end:
        pass
    return None


def die(by: str) -> object:
    os.kill(os.getpid(), getattr(signal, by))
    time.sleep(10)
    return None


def leave(code: str) -> object:
    os._exit(int(code))


def which(_: str) -> object:
    return [server.worker, server.workers, os.getpid()]


COMMANDS = {"seen": seen, "hang": hang, "pid": pid, "compute": compute, "die": die, "leave": leave, "which": which}
