"""System calls of a running server that fail, by strace: whom it costs something, and that the server goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import wire

from lab.experiment import Failed, Missing, Scale, check, per_engine
from lab.load import ask, at_rest, let_in
from lab.processes import Child, until
from lab.served import BATCH, SIZE, Served, folder, sealed, serving


class Case(NamedTuple):
    """These system calls fail with this errno: from the ``first`` on every ``step``-th, as strace counts them."""

    calls: str
    error: str
    first: int
    step: int
    #: Nobody may notice. Otherwise it may cost the client concerned its connection.
    unseen: bool


CASES = (
    Case("accept4", "EMFILE", 2, 3, False),
    Case("accept4", "ENFILE", 2, 3, False),
    Case("accept4", "ENOMEM", 2, 3, True),
    Case("accept4", "ENOBUFS", 1, 4, True),
    Case("accept4", "EINTR", 1, 2, True),
    Case("accept4", "ECONNABORTED", 1, 2, True),
    Case("accept4", "EPERM", 2, 2, True),
    Case("?epoll_wait,?epoll_pwait", "EINTR", 1, 2, True),
    Case("epoll_ctl", "ENOMEM", 2, 5, False),
    Case("recvfrom", "EINTR", 1, 2, True),
    Case("recvfrom", "EAGAIN", 1, 2, True),
    Case("recvfrom", "ENOMEM", 5, 20, False),
    Case("recvfrom", "ECONNRESET", 5, 20, False),
    Case("sendto,sendmsg", "EAGAIN", 1, 2, True),
    Case("sendto,sendmsg", "EINTR", 1, 2, True),
    Case("sendto,sendmsg", "ENOBUFS", 3, 3, True),
    Case("sendto,sendmsg", "ENOMEM", 3, 3, True),
    Case("sendto,sendmsg", "EPIPE", 5, 20, False),
    Case("sendto,sendmsg", "ECONNRESET", 5, 20, False),
    # strace makes no call at all then, so that the descriptor stays open, and its number isn't used again.
    Case("close", "EINTR", 1, 2, True),
    Case("close", "EIO", 1, 2, True),
)


def visits(channel: Connection, address: str, count: int) -> list[str]:
    """So many clients one after the other, each with small, large and batched requests; what befell some of them."""
    lost = []
    for number in range(count):
        try:
            with let_in(address, b"visitor", timeout=15) as sock:
                for each in range(6):
                    payload = sealed(b"%d %d" % (number, each))
                    service = BATCH if each % 2 else 0
                    check(ask(sock, payload, each, service) == payload, "a client got another's reply")
                check(ask(sock, b"400000", 7, SIZE) == bytes(400_000), "a large reply was altered")
                sock.sendall(wire.BYE_FRAME)
        except TimeoutError:  # noqa: PERF203
            raise Failed(f"client {number} hangs") from None
        except (Failed, OSError) as error:
            if "another's" in str(error) or "altered" in str(error):
                raise
            lost.append(f"client {number}: {error}")
    return lost


@contextmanager
def injecting(server: Served, case: Case, times: int, log: Path) -> Iterator[None]:
    """The server's system calls fail like this, so often. Ends with the server: where strace lets go of a process in
    the middle of an injection, the call fails with ENOSYS, which no kernel of ours would ever say.
    """
    when = f"error={case.error}:when={case.first}..{case.first + case.step * times}+{case.step}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(server.pid), "-o", log, "-e", f"trace={case.calls}",
         "-e", f"inject={case.calls}:{when}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: _traced(server.pid) or tracer.poll() is not None, "strace to attach")
        if tracer.poll() is not None:
            raise Missing(f"strace can't attach here: {tracer.stderr.read().decode().strip()}")  # type: ignore[union-attr]
        yield
    finally:
        server.child.kill()
        tracer.communicate(timeout=20)


def _traced(pid: int) -> bool:
    """Whether somebody traces each of its threads."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError), open(f"/proc/{pid}/task/{thread}/status", encoding="ascii") as lines:
            if any(line.split() == ["TracerPid:", "0"] for line in lines):
                return False
    return True


def injected(scale: Scale, engine: str, transport: str) -> str:
    """Each case in turn, on a server of its own: clients come and go meanwhile, and all is in order afterwards."""
    if shutil.which("strace") is None:
        raise Missing("strace isn't installed")
    count, failures, lost = scale.of(8, 200), 0, 0
    with folder() as directory:
        for number, case in enumerate(CASES):
            log = directory / str(number)
            with serving(engine, transport) as server:
                before = at_rest(server)
                with injecting(server, case, scale.of(200, 10_000) if case.unseen else count, log):
                    cost = _tried(server, case, count)
                    made = log.read_text(errors="replace").count("(INJECTED)")
                    about = f"{case.calls} failing with {case.error}, {made} times"
                    check(made, f"{about}: the server never calls it")
                    check(not cost or not case.unseen, f"{about}: {cost}")
                    check(len(cost) <= made and len(cost) < count, f"{about}: {cost}")
                    stats = server.wait_empty()
                    check(not stats["altered"], f"{about}: {stats['altered']} requests were altered")
                    if case.calls == "close":
                        check(not _closed_again(log), f"{about}: it tries again, and may hit somebody else's")
                    else:
                        server.check_descriptors(before, about)
            failures, lost = failures + made, lost + len(cost)
            if scale.full:
                scale.say(f"{about}: {len(cost)} of {count} clients lost something")
    clients = count * len(CASES)
    return f"{failures:,} calls failed in {len(CASES)} ways: {lost} of {clients:,} clients lost their connection"


def _closed_again(log: Path) -> list[str]:
    """The descriptors that were closed again after close() had failed."""
    failed: set[str] = set()
    again = []
    for line in log.read_text(errors="replace").splitlines():
        if found := re.search(r" close\((\d+)", line):
            if found[1] in failed:
                again.append(found[1])
            if "(INJECTED)" in line:
                failed.add(found[1])
    return again


def _tried(server: Served, case: Case, count: int) -> list[str]:
    """Clients while it fails, and then until nobody loses anything any more; what befell the first."""
    with Child(visits, server.address, count) as visitors:
        cost = visitors.result(600)
    server.check_alive()
    for _ in range(count):
        with Child(visits, server.address, 5) as visitors:
            if not visitors.result(60):
                return cost
        server.check_alive()
    raise Failed(f"{case.calls} failed with {case.error}, and still it isn't in order")


EXPERIMENTS = per_engine("strace", "system calls of a server that fail, by strace", injected)
