"""Thousands of clients at once: all stay, and each is answered in its order."""

from __future__ import annotations

import random
import select
import socket
import time
from multiprocessing.connection import Connection

import wire

from lab.experiment import Failed, Scale, check, per_engine
from lab.load import at_rest, dial, exactly, next_frame
from lab.processes import Child, raise_descriptors
from lab.served import sealed, serving

_BURST = 5  # requests that a client sends at once


def hold(channel: Connection, address: str, count: int, rounds: int, seed: object) -> tuple[int, float]:
    """Let ``count`` clients in, tell, and when told ask rounds of them all; requests answered, longest round."""
    chance = random.Random(f"{seed}")
    socks = []
    for number in range(count):
        socks.append(dial(address))
        socks[-1].sendall(wire.cir(name=b"held-%d" % number))
    for sock in socks:
        got = next_frame(sock)
        if got is None or got.kind != wire.CIR_ACCEPTED:
            raise Failed(f"one of {count} clients wasn't let in: {got}")
    channel.send("held")
    channel.recv()
    asked, longest = 0, 0.0
    for turn in range(rounds):
        began = time.monotonic()
        order = list(range(count))
        chance.shuffle(order)
        expected = {}
        for index in order:
            payloads = [
                sealed(b"%d %d " % (index, turn) + chance.randbytes(chance.randint(0, 40))) for _ in range(_BURST)
            ]
            first = turn * _BURST
            socks[index].sendall(b"".join(wire.srm(payload, first + each) for each, payload in enumerate(payloads)))
            expected[index] = b"".join(
                wire.frame(wire.REPLY, payload, id=first + each) for each, payload in enumerate(payloads)
            )
        chance.shuffle(order)
        for index in order:
            got = exactly(socks[index], len(expected[index]))
            if got != expected[index]:
                raise Failed(f"client {index} of {count}, round {turn}: {got!r} instead of {expected[index]!r}")
            asked += _BURST
        longest = max(longest, time.monotonic() - began)
    _nothing_more(socks)
    return asked, longest


def _nothing_more(socks: list[socket.socket]) -> None:
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN | select.POLLRDHUP)
    if events := poll.poll(0):
        raise Failed(f"{len(events)} connections ended, or were sent something that nobody asked for")


def held(scale: Scale, engine: str, transport: str) -> str:
    """As many as the table says; the server knows them all, and afterwards none of them."""
    count = 2000 if engine == "pure" else scale.of(5000, 9000)
    rounds = scale.of(5, 100)
    raise_descriptors(count + 500)
    with serving(engine, transport, limits={"max_clients": count}) as server:
        before = at_rest(server)
        with Child(hold, server.address, count, rounds, (scale.seed, "held")) as clients:
            check(clients.receive(120) == "held", "not all were let in")
            stats = server.stats()
            check(stats["clients"] == count, f"{stats['clients']} of {count} clients are in the table")
            clients.send("go")
            asked, longest = clients.result(scale.of(120, 1800))
        stats = server.wait_empty()
        check(stats["requests"] == asked, f"{asked} answered, {stats['requests']} counted")
        check(not stats["refused"] and not stats["timeouts"], f"the server counted {stats}")
        server.check_descriptors(before)
    return f"{count:,} clients at once, {asked:,} requests in order; slowest round {longest:.2f} s"


EXPERIMENTS = per_engine("held", "clients held at once, and all served in order", held)
