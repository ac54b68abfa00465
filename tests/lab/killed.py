"""Clients killed in the middle of anything: the server loses nothing by it but them."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import wire

from lab.experiment import Scale, check, per_engine
from lab.load import at_rest, dial, pace
from lab.processes import Child
from lab.served import BATCH, SIZE, SLEEP, sealed, serving

#: Clients in one process: all of them die when it does.
CLIENTS = 5
#: Processes at once.
HERDS = 10
#: Clients that nothing happens to.
SPARED = 4

LIMITS = {"cir_timeout": 1.0, "frame_timeout": 1.0, "output_timeout": 1.0, "idle_timeout": 2.0}

#: How a process ends, and how often in a hundred.
ENDS = {"SIGKILL": 45, "SIGSTOP": 15, "reset": 15, "half-close": 15, "silent": 10}


class _Client:
    """One that does something at random, and is somewhere in the middle of it when its process ends."""

    def __init__(self, address: str, chance: random.Random) -> None:
        self.chance = chance
        self.sock = dial(address, spread=True)
        self.sock.setblocking(False)
        self.out = b""
        self.is_in = False

    def step(self) -> None:
        """Send a piece of something; read a little, or nothing."""
        if not self.out:
            self.out = self._words()
        piece = self.out[: self.chance.randint(1, len(self.out))] if self.chance.random() < 0.5 else self.out
        with suppress(OSError):
            self.out = self.out[self.sock.send(piece) :]
        if self.chance.random() < 0.4:
            with suppress(OSError):
                self.sock.recv(self.chance.choice((1, 100, 65536)))

    def _words(self) -> bytes:
        if not self.is_in:
            self.is_in = True
            return wire.cir(name=b"to be killed")
        chance = self.chance
        kind = chance.randrange(6)
        if kind == 0:
            return wire.srm(b"%d" % chance.choice((10, 60_000, 1_000_000)), service=SIZE)
        if kind == 1:
            return wire.srm(sealed(chance.randbytes(300_000)))
        if kind == 2:
            return wire.srm(b"0.001", service=SLEEP)
        service = BATCH if kind == 3 else 0
        return b"".join(wire.srm(sealed(b"%d" % each), each, service=service) for each in range(chance.randint(1, 100)))


def herd(channel: Connection, address: str, end: str, seed: object) -> None:
    """A few clients that are busy until their process ends in this way; SIGKILL and SIGSTOP come from outside."""
    chance = random.Random(f"{seed}")
    clients = [_Client(address, chance) for _ in range(CLIENTS)]
    until = time.monotonic() + (chance.random() * 0.02 if end in {"reset", "half-close", "silent"} else 3600)
    while time.monotonic() < until:
        chance.choice(clients).step()
    for client in clients:
        if end == "reset":
            wire.reset(client.sock)
        elif end == "half-close":
            _half_close(client.sock)
    if end == "silent":
        time.sleep(2.5)


def _half_close(sock: socket.socket) -> None:
    sock.settimeout(3)
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def kill_one(child: Child, end: str, chance: random.Random) -> float:
    """Begin to end it; seconds until it is to be killed for good."""
    if end == "SIGKILL":
        return 0.005 + chance.random() * 0.02
    if end == "SIGSTOP":
        time.sleep(chance.random() * 0.01)
        os.kill(child.pid, signal.SIGSTOP)
        return chance.choice((0.01, 0.05, 1.3))
    return 4.0


def massacre(address: str, go_on: Callable[[int], bool], seed: object) -> Counter[str]:
    """End client processes while ``go_on(clients)`` says so; how many clients went with them in each way."""
    chance = random.Random(f"{seed}")
    ends: Counter[str] = Counter()
    alive: deque[tuple[Child, str, float]] = deque()
    number = 0
    while (more := go_on(number * CLIENTS)) or alive:
        if more and len(alive) < HERDS:
            end = chance.choices(list(ENDS), list(ENDS.values()))[0]
            child = Child(herd, address, end, (seed, number))
            number += 1
            alive.append((child, end, time.monotonic() + kill_one(child, end, chance)))
        for _ in range(len(alive)):
            child, end, at = alive.popleft()
            if child.poll() is None and time.monotonic() < at:
                alive.append((child, end, at))
                continue
            if end == "SIGSTOP" and chance.random() < 0.5:
                os.kill(child.pid, signal.SIGCONT)
                time.sleep(0.002)
            child.kill()
            child.channel.close()
            ends[end] += CLIENTS
        time.sleep(0.001)
    return ends


def killed(scale: Scale, engine: str, transport: str) -> str:
    """Processes killed, stopped and resumed, resetting, half-closing, falling silent; others are served meanwhile."""
    target = scale.of(500, 50_000)
    with serving(engine, transport, limits=LIMITS) as server:
        before = at_rest(server)

        def kill(clients: int, what: str) -> Counter[str]:
            def go_on(number: int) -> bool:
                server.check_alive()
                return number < clients

            return massacre(server.address, go_on, (scale.seed, what))

        with Child(pace, server.address, SPARED, 0.02, (scale.seed, "spared")) as spared:
            spared.receive()
            ends = kill(target // 5, "at first")
            server.wait_empty(spared=SPARED)  # what the dying made it hold for a while is no matter
            settled = server.memory()
            ends += kill(target - target // 5, "then")
            server.wait_empty(spared=SPARED)
            grown = server.memory() - settled
            spared.send("enough")
            took = spared.result()
        stats = server.wait_empty()
        server.check_descriptors(before)
    seen = (
        f"{sum(ends.values()):,} clients killed ({', '.join(f'{count} {end}' for end, count in ends.items())});"
        f" {before} descriptors before and after; memory {grown / 2**20:+.1f} MiB; {len(took):,} replies to others"
    )
    # After a few only, how full the heap's pages are is still a matter of chance.
    check(grown <= scale.of(32, 8) * 2**20, f"memory grows: {seen}")
    check(not stats["altered"], f"{stats['altered']} requests were altered: {seen}")
    check(max(seconds for _, seconds in took) < 1, f"another client waited {max(took)[1]:.1f} s: {seen}")
    return seen


EXPERIMENTS = per_engine("killed", "clients killed in the middle", killed)
