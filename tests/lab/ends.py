"""How a server ends: Ctrl-C and SIGTERM, idle and under load, and an interpreter that exits while it runs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import wire

import pysock
from lab.experiment import Failed, Scale, check, per_engine
from lab.load import let_in, next_frame
from lab.processes import PATIENCE, Child, until
from lab.served import SLEEP, Served, place, sealed

#: Seconds in which a server must have ended, and in which one that is told twice must.
END, AT_ONCE = 2.0, 0.5


def press(channel: Connection, address: str) -> tuple[int, bool]:
    """Ask as much as is taken until the connection ends; how many replies came, each right and in its order, and
    whether the server said goodbye.
    """
    sock = let_in(address)
    channel.send("pressing")
    sock.setblocking(False)
    sent = answered = 0
    goodbye, data, out = False, b"", b""
    while True:
        if not out and not goodbye and sent - answered < 500:
            out = b"".join(wire.srm(sealed(b"%d" % each), each) for each in range(sent, sent + 50))
            sent += 50
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            out = out[sock.send(out) :] if out else b""
        try:
            more = sock.recv(65536)
        except BlockingIOError:
            continue
        except ConnectionError:
            more = b""
        if not more:
            return answered, goodbye
        data += more
        while len(data) >= 12 and len(data) >= 12 + int.from_bytes(data[:4], "big"):
            end = 12 + int.from_bytes(data[:4], "big")
            (got,), data = wire.parse(data[:end]), data[end:]
            if got.kind == wire.GOAWAY:
                goodbye = True
            elif got.kind == wire.ERROR and goodbye:
                check(got.code == wire.SHUTTING_DOWN, f"after GOAWAY: {got}")
            else:
                check(got == wire.replied(sealed(b"%d" % answered), answered), f"instead of reply {answered}: {got}")
                answered += 1


def _no_client(address: str) -> Any:
    return None


def _idle(address: str) -> socket.socket:
    return let_in(address)


def _pressed(address: str) -> Child:
    child = Child(press, address)
    child.receive()
    return child


def _in_handler(address: str) -> socket.socket:
    """A handler runs, for longer than the server has time."""
    sock = let_in(address)
    sock.sendall(wire.srm(b"3", service=SLEEP))
    time.sleep(0.02)
    return sock


SITUATIONS: dict[str, Callable[[str], Any]] = {
    "alone": _no_client,
    "idle": _idle,
    "pressed": _pressed,
    "twice": _in_handler,
}


class _Ends:
    """The signals of one run, and the longest that each situation took to end."""

    def __init__(self, scale: Scale, engine: str, address: str) -> None:
        self.chance = scale.random("ends", engine, address.partition(":")[0])
        self.engine, self.address = engine, address
        self.longest: dict[str, float] = dict.fromkeys(SITUATIONS, 0.0)
        self.numbers: Counter[str] = Counter()

    def end_one(self, situation: str) -> None:
        number = self.chance.choice((signal.SIGINT, signal.SIGTERM))
        self.numbers[number.name] += 1
        with Served(self.engine, self.address) as server:
            client = SITUATIONS[situation](server.address)
            time.sleep(self.chance.random() * 0.03)
            began = time.monotonic()
            server.child.signal(number)
            if situation == "twice":
                self._ended_at_once(server, number)
            else:
                self._ended_in_order(server, situation, client)
            self.longest[situation] = max(self.longest[situation], time.monotonic() - began)
            if isinstance(client, Child):
                client.kill()
            if self.address.startswith("unix:"):
                path = Path(self.address.removeprefix("unix:"))
                check(not path.exists(), f"{situation}, {number.name}: the socket file is still there")

    def _ended_in_order(self, server: Served, situation: str, client: Any) -> None:
        stats = server.child.result()
        if situation == "idle":
            got = next_frame(client)
            check(got is not None and got.kind == wire.GOAWAY, f"an idle client was told {got}")
            check(next_frame(client) is None, "an idle client's connection stays open")
        if situation == "pressed":
            answered, goodbye = client.result()
            check(goodbye, "a client under load wasn't told that the server goes")
            check(answered == stats["calls"], f"{stats['calls']} requests were served, {answered} replies arrived")

    def _ended_at_once(self, server: Served, number: int) -> None:
        time.sleep(0.05)
        server.child.signal(number)
        try:
            server.child.result()
        except Failed as failure:
            expected = "KeyboardInterrupt" if number == signal.SIGINT else "SystemExit: 143"
            check(str(failure).startswith(expected), f"a second signal ended it with {failure}")
        else:
            raise Failed("a second signal in the middle of a handler had no effect")


def signals(scale: Scale, engine: str, transport: str) -> str:
    """SIGINT or SIGTERM to a server without a client, with an idle one, under load; twice while a handler runs."""
    count = scale.of(24, 400)
    with place(transport) as address:
        ends = _Ends(scale, engine, address)
        for number in range(count):
            ends.end_one(list(SITUATIONS)[number % len(SITUATIONS)])
    longest = ", ".join(f"{name} {seconds * 1e3:.0f}" for name, seconds in ends.longest.items())
    seen = f"{', '.join(f'{times} {name}' for name, times in ends.numbers.items())}; ended after at most, ms: {longest}"
    check(max(ends.longest.values()) <= END, seen)
    check(ends.longest["twice"] <= AT_ONCE, seen)
    return seen


EXIT = """
import os, sys, threading, pysock
engine, address, way = sys.argv[1:]
server = pysock.Server(address, backend=engine)
server.service(lambda client, request: request)
server.start()
print("serving", flush=True)
sys.stdin.readline()
if way == "sys.exit":
    sys.exit(3)
if way == "exception":
    raise SystemError("on purpose")
if way == "os._exit":
    os._exit(3)
"""

CODES = {"end of the program": 0, "sys.exit": 3, "exception": 1, "os._exit": 3}


def badger(channel: Connection, address: str, engine: str) -> int:
    """Ask until the server is gone; the replies."""
    replies = 0
    try:
        with pysock.connect(address, backend=engine) as client:
            channel.send("badgering")
            while True:
                payloads = [b"%d" % each for each in range(replies, replies + 20)]
                check(client.request_many(payloads, timeout=PATIENCE) == payloads, "a reply is wrong")
                replies += 20
    except pysock.RequestTimeout as error:
        raise Failed(f"a client of a program that ended hangs: {error}") from None
    except pysock.RemoteError as error:
        check(error.code == wire.SHUTTING_DOWN, f"a client of a program that ends got {error!r}")
    except OSError:
        pass  # the connection is lost
    return replies


def exits(scale: Scale, engine: str, transport: str) -> str:
    """A program that ends in any way while its server runs in the background, under load."""
    count, slowest, replies = scale.of(8, 200), 0.0, 0
    chance = scale.random("exits", engine, transport)
    with place(transport) as address:
        for number in range(count):
            way = list(CODES)[number % len(CODES)]
            with subprocess.Popen(
                [sys.executable, "-c", EXIT, engine, address, way],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as program:  # fmt: skip
                try:
                    line = program.stdout.readline()  # type: ignore[union-attr]
                    check(
                        line == b"serving\n", f"it didn't start: {program.stderr.read()!r}" if not line else f"{line!r}"
                    )  # type: ignore[union-attr]
                    with Child(badger, address, engine) as client:
                        client.receive()
                        time.sleep(chance.random() * 0.05)
                        began = time.monotonic()
                        program.stdin.write(b"go\n")  # type: ignore[union-attr]
                        program.stdin.flush()  # type: ignore[union-attr]
                        until(lambda: program.poll() is not None, f"the end of the program, by {way}")
                        slowest = max(slowest, time.monotonic() - began)
                        replies += client.result()
                    check(program.returncode == CODES[way], f"{way}: exit code {program.returncode}")
                finally:
                    program.kill()
    seen = f"{count} exits in {len(CODES)} ways, after {slowest * 1e3:.0f} ms at most; {replies:,} replies before"
    check(slowest <= END, seen)
    return seen


EXPERIMENTS = [
    *per_engine("signals", "Ctrl-C and SIGTERM, idle and under load", signals),
    *per_engine("exits", "an interpreter that exits while its server runs", exits, transports=["unix"]),
]
