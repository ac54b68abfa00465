"""Clients that only listen, and one that makes the server say something to all of them: one broadcast after the other.

Each begins when all clients have the last one. What is counted is a message to one client; its latency runs from when
the broadcast was asked for. Clients that don't read are none of these: nobody waits for them.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import Any, Final

from bench.herd import plug
from bench.servers.common import pack

#: What a client reads at once: more than a frame.
ROOM: Final = 64 * 1024
PATIENCE: Final = 30.0
#: Events of one look.
EVENTS: Final = 1024


class Fanout:
    """So many clients, and the one that asks. Framing u32."""

    def __init__(self, address: str, count: int, size: int, mute: int) -> None:
        self.frame: bytes = pack(size) + b"x" * size
        self.others = [plug(address) for _ in range(mute)]
        self.socks = {sock.fileno(): sock for sock in (plug(address) for _ in range(count))}
        self.asking = plug(address)  # last: a server that reads of it has accepted all others
        self.poll = select.epoll()
        for fd, sock in self.socks.items():
            sock.setblocking(False)
            self.poll.register(fd, select.EPOLLIN)
        self.asking.setblocking(False)

    def run(self, seconds: float) -> dict[str, Any]:
        """As the load generator tells it."""
        latencies: list[float] = []
        cpu, began = time.process_time(), time.perf_counter()
        while time.perf_counter() < began + seconds:
            self._broadcast(latencies)
        took = time.perf_counter() - began
        return {
            "messages": len(latencies),
            "messages_per_second": len(latencies) / took,
            "seconds": took,
            "client_core": (time.process_time() - cpu) / took,
            "errors": 0,
            "latency_us": _percentiles(latencies),
        }

    def _broadcast(self, latencies: list[float]) -> None:
        """One, until everybody has it."""
        missing, left = len(self.socks), dict.fromkeys(self.socks, len(self.frame))
        asked = time.perf_counter()
        self._say()
        while missing:
            ready = self.poll.poll(PATIENCE, EVENTS)
            if not ready:
                raise TimeoutError(f"{missing} of {len(left)} clients didn't get a broadcast")
            for fd, _ in ready:
                left[fd] -= self._read(self.socks[fd])
                if not left[fd]:
                    missing -= 1
                    latencies.append((time.perf_counter() - asked) * 1e6)
        if any(left.values()):
            raise AssertionError("a client got something else")

    def _say(self) -> None:
        """What came to this one, a broadcast like the others' and an answer perhaps, is of no interest."""
        with suppress(BlockingIOError):
            while True:
                self._read(self.asking)
        self.asking.send(self.frame)

    def _read(self, sock: socket.socket) -> int:
        data = sock.recv(ROOM)
        if not data:
            raise ConnectionResetError("the server hung up on a client")
        return len(data)

    def close(self) -> None:
        self.poll.close()
        for sock in (self.asking, *self.others, *self.socks.values()):
            sock.close()


def _percentiles(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies) or [0.0]
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in shares.items()}
