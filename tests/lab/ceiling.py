"""A server that has run out of descriptors: it says so to those who come, serves those it has, and doesn't spin."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection

import wire

from lab.experiment import Failed, Scale, check, per_engine
from lab.load import at_rest, between, dial, let_in, next_frame, pace, typical_p99
from lab.processes import Child, give_way, raise_descriptors, set_apart
from lab.served import Served, serving

FILES, CONNECTS = 64, 1000
#: Below this, in seconds, two 99th percentiles can't be compared: the scheduler's whims decide.
NOISE = 0.002


def crowd(channel: Connection, address: str, count: int, seconds: float) -> dict[str, int]:
    """Connect so often within so many seconds, tell what the server said; hold who was let in until told to let go."""
    give_way()
    socks = []
    for _ in range(count):
        socks.append(dial(address))
        with suppress(ConnectionError):  # a full server may close without reading; its reason can be read all the same
            socks[-1].sendall(wire.cir())
        time.sleep(seconds / count)
    told: Counter[str] = Counter()
    held = []
    for sock in socks:
        got = next_frame(sock)
        if got is None:
            told["cut"] += 1
        elif got.kind == wire.CIR_ACCEPTED:
            told["let in"] += 1
            held.append(sock)
        elif (got.kind, got.code) == (wire.CIR_REFUSED, wire.FULL):
            told["refused"] += 1
        else:
            raise Failed(f"a client that found the server full was told {got}")
    channel.send(dict(told))
    channel.recv()
    return dict(told)


def ceiling(scale: Scale, engine: str, transport: str) -> str:
    """64 descriptors and 1,000 connects, while those who came first are served."""
    raise_descriptors(CONNECTS + 200)
    quiet, rush = scale.of(1.5, 15.0), scale.of(2.0, 60.0)
    with serving(engine, transport, files=FILES, limits={"max_clients": 10_000}) as server:
        set_apart(server.pid)
        before = at_rest(server)
        with Child(pace, server.address, 20, 0.05, (scale.seed, "ceiling")) as old:
            old.receive()
            began = time.monotonic()
            time.sleep(quiet)
            with Child(crowd, server.address, CONNECTS, rush) as newcomers:
                full_at, used = time.monotonic() + 0.5, server.cpu()
                time.sleep(0.5)
                used = server.cpu()
                told = newcomers.receive(rush + 60)
                full_until = time.monotonic()
                share = (server.cpu() - used) / (full_until - full_at)
                reopened = _reopened(server, newcomers)
            old.send("enough")
            took = old.result()
        stats = server.wait_empty()
        server.check_descriptors(before)
    calm, pressed = between(took, began, began + quiet), between(took, full_at, full_until)
    p99, p99_full = typical_p99(calm), typical_p99(pressed)
    seen = (
        f"{told.get('let in', 0)} let in, {told.get('refused', 0)} told that it is full; CPU {share:.0%}; p99 of the"
        f" old {p99 * 1e3:.2f} ms, then {p99_full * 1e3:.2f} ms; open again after {reopened * 1e3:.0f} ms"
    )
    check(told.get("let in", 0) >= 20, f"too few are let in: {seen}")
    check(told.get("cut", 0) <= CONNECTS // 100, f"{told.get('cut', 0)} were told nothing: {seen}")
    check(stats["accept_failures"], f"the ceiling wasn't reached: {seen}")
    check(reopened <= scale.of(0.5, 0.1), f"a descriptor was free, and nobody let in: {seen}")
    if scale.full:
        check(share < 0.2, f"it spins: {seen}")
        check(p99_full <= max(2 * p99, NOISE), f"the old clients wait: {seen}")
    return seen


def _reopened(server: Served, newcomers: Child) -> float:
    """Seconds from when the crowd goes until somebody new is let in."""
    newcomers.send("go")
    newcomers.result()
    began = time.monotonic()
    while True:
        with suppress(Failed, OSError):
            let_in(server.address).close()
            return time.monotonic() - began
        check(time.monotonic() < began + 10, "nobody is let in again")
        time.sleep(0.005)


EXPERIMENTS = per_engine("ceiling", f"RLIMIT_NOFILE = {FILES} and {CONNECTS:,} connects", ceiling, alone=True)
