"""A program: a server and clients without memory, now and then: ``starved.py WHO BACKEND PATH FROM TO``.

Each time a client asks for something, and the n-th allocation of the interpreter from then on fails, in whichever
thread it is made. For WHO "server" it is a plain socket that asks, for "client" it is pysock's own client, for "ends"
the two ends of an asyncio client's connection, without a loop. At the end the server must serve, and end. What is
printed is for the test: what each client got, and the counters.
"""

from __future__ import annotations

import _testcapi
import json
import os
import socket
import sys
import time
from contextlib import suppress

import pysock
from pysock.engine.choice import choose
from pysock.engine.inbox import Inbox
from pysock.wire.format import MAGIC, Kind, encode

BYTES = (
    encode(Kind.CIR, MAGIC, code=1)
    + encode(Kind.SRM, b"x" * 100, request_id=1)
    + encode(Kind.SRM, b"y" * 100, request_id=2, code=1)
    + encode(Kind.SRM, b"z" * 20_000, request_id=3)
    + encode(Kind.BYE)
)


def make_server(backend: str, address: str) -> pysock.Server:
    server = pysock.Server(address, backend=backend, linger=0)
    server.service(lambda client, request: request.upper())
    server.batch_service("batch")(lambda clients, requests: list(requests))
    return server


def visit(path: str, nth: int) -> int:
    """How many bytes the client got."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.settimeout(10)
        fd, write, begin, end = sock.fileno(), os.write, _testcapi.set_nomemory, _testcapi.remove_mem_hooks
        with suppress(MemoryError):  # it may hit this thread as well
            begin(nth, nth + 1)
            write(fd, BYTES)
            time.sleep(0.003)
        end()
        got = 0
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                got += len(data)
        return got


def ask(path: str, nth: int) -> int:
    """How many replies the client got; the next one gets all, on this connection or on a new one."""
    begin, end, got = _testcapi.set_nomemory, _testcapi.remove_mem_hooks, 0
    client = pysock.connect(f"unix:{path}", backend=sys.argv[2], linger=0, timeout=5.0)
    payloads, large = [b"a", bytearray(b"b")], bytes(20_000)
    with suppress(MemoryError, pysock.PysockError):
        begin(nth, nth + 1)
        got += client.request(b"x") == b"X"
        got += client.request(large) == large
        got += client.request_many(payloads) == [b"A", b"B"]
        client.notify(b"y")
    end()
    if client.closed:
        client = pysock.connect(f"unix:{path}", backend=sys.argv[2], timeout=5.0)
    assert client.request(b"z") == b"Z"
    client.close()
    return got


class Waiter:
    """In the place of a future."""

    got = b""

    def done(self) -> bool:
        return False

    def set_result(self, payload: bytes) -> None:
        self.got = payload


ANSWERS = (
    encode(Kind.REPLY, b"one", request_id=1) + encode(Kind.PUSH, b"p") + encode(Kind.REPLY, b"z" * 20_000, request_id=2)
)


def use_ends(_path: str, nth: int) -> int:
    """How far it gets. What was refused for want of memory is not entered, and not packed."""
    begin, end, reached = _testcapi.set_nomemory, _testcapi.remove_mem_hooks, 0
    backend, waiting, inbox, waiters = choose(sys.argv[2]), {}, Inbox((), 10), [Waiter(), Waiter()]
    options = {
        "window": 9,
        "largest": 99,
        "timed": True,
        "unwanted": set(),
        "gathered": bool,
        "deadline": make_deadline,
    }
    one, other = socket.socketpair()
    with one, other, suppress(MemoryError, OSError):
        other.send(ANSWERS[:15_000])
        begin(nth, nth + 1)
        outlet, inlet = backend.outlet(waiting=waiting, **options), backend.inlet(100_000)
        reached = 1
        for waiter in waiters:
            reached += outlet.submit(waiter, 0, b"a", 1.0) > 0
        inlet.receive(one.fileno(), waiting, inbox)
        other.send(ANSWERS[15_000:])
        inlet.receive(one.fileno(), waiting, inbox)
        reached += 1
    end()
    if reached:
        assert len(outlet.take()) == 17 * (min(reached, 3) - 1)
    assert reached < 4 or [waiter.got for waiter in waiters] == [b"one", b"z" * 20_000]
    return reached


def make_deadline(when: float, number: int) -> list[float]:
    return [when, number, number]


def main() -> None:
    who, backend, path, *numbers = sys.argv[1:]
    server = make_server(backend, f"unix:{path}")
    with server:
        one = {"server": visit, "client": ask, "ends": use_ends}[who]
        got = [one(path, nth) for nth in range(*map(int, numbers))]
        with pysock.connect(f"unix:{path}") as client:
            assert client.request(b"still there") == b"STILL THERE"
            assert client.request_many([b"a", b"b"], service="batch") == [b"a", b"b"]
        stats = server.stats()
    assert server.state is pysock.ServerState.CLOSED
    json.dump({"got": got, "stats": stats}, sys.stdout)


if __name__ == "__main__":
    main()
