"""Connection initiation requests that are wrong, partial, oversized or missing: nobody gets in, and good clients do."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import wire

from lab.experiment import Failed, Scale, check, per_engine
from lab.load import ask, at_rest, dial, let_in, next_frame
from lab.processes import Child, raise_descriptors
from lab.served import sealed, serving

#: How long a good client may wait to be let in, in seconds.
WAIT = 1.0

_OPEN, _SILENT = 32, 200  # connections whose answer is still to be read; those that say nothing and stay

REQUEST = wire.srm(sealed(b"let me in"))


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randint(1, len(data) - 1)]


#: What is said instead of a good CIR. A request follows each: it must never be served.
BAD: dict[str, Callable[[random.Random], bytes]] = {
    "wrong magic": lambda chance: wire.cir(magic=chance.choice((b"PSK2", b"\0\0\0\0", b"psk1", b"PSK"))),
    "wrong version": lambda chance: wire.cir(version=chance.choice((0, 2, 255, 65535))),
    "broken fields": lambda chance: wire.cir(
        chance.choice((b"\x02", b"\x02\0", b"\x02\0\x05abc", wire.field(wire.NAME, b"\xff\xfe"), b"\x05\0\x01x"))
    ),
    "oversized": lambda chance: wire.cir(wire.field(99, bytes(chance.randint(4097, 9000)))),
    "announced": lambda chance: wire.frame(
        wire.CIR, b"PSK1", code=1, length=chance.choice((4097, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1))
    ),
    "missing": lambda chance: b"",
    "a reply": lambda chance: wire.frame(chance.choice(wire.SERVERS_KINDS), b"PSK1", code=1),
    "unknown kind": lambda chance: wire.frame(chance.choice(wire.UNKNOWN_KINDS), b"PSK1", code=1),
    "a proof": lambda chance: wire.frame(wire.PROOF, wire.field(wire.MAC, bytes(32))),
    "BYE": lambda chance: wire.BYE_FRAME,
    "PING, then junk": lambda chance: wire.ping(b"there?") + wire.frame(0x7F),
    "a long PING": lambda chance: wire.ping(bytes(65)),
    "another protocol": lambda chance: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": lambda chance: chance.randbytes(chance.randint(12, 200)),
}
#: What is said, and nothing more.
SHORT: dict[str, Callable[[random.Random], bytes]] = {
    "partial": lambda chance: _cut(chance, wire.cir(name=b"partial")),
    "nothing": lambda chance: b"",
}
KINDS = (*BAD, *SHORT)


def flood(channel: Connection, address: str, count: int, seed: object) -> dict[str, int]:
    """So many bad CIRs, or until told to stop; how many of each kind. Whoever is let in, or served, makes it fail."""
    chance = random.Random(f"{seed}")
    done: Counter[str] = Counter()
    awaited: deque[tuple[str, socket.socket]] = deque()
    silent: deque[socket.socket] = deque()
    for number in range(count):
        if number % 100 == 0 and channel.poll():
            break
        kind = chance.choice(KINDS)
        done[kind] += 1
        sock = dial(address, spread=True)
        with suppress(ConnectionError):  # refused already
            sock.sendall(BAD[kind](chance) + REQUEST if kind in BAD else SHORT[kind](chance))
        if kind in BAD:
            awaited.append((kind, sock))
        elif chance.random() < 0.5:
            sock.close()
        else:
            silent.append(sock)
        if len(awaited) > _OPEN:
            _refused(*awaited.popleft())
        if len(silent) > _SILENT:
            silent.popleft().close()
    while awaited:
        _refused(*awaited.popleft())
    return dict(done)


def _refused(kind: str, sock: socket.socket) -> None:
    """See that the server closes it, and lets nothing happen before."""
    with sock:
        try:
            while (got := next_frame(sock)) is not None:
                if got.kind in {wire.CIR_ACCEPTED, wire.REPLY, wire.PUSH, wire.CHALLENGE}:
                    raise Failed(f"{kind} instead of a CIR was answered with {got}")
        except TimeoutError:
            raise Failed(f"{kind} instead of a CIR: the server leaves the connection open") from None


def visit(channel: Connection, address: str, seed: object) -> list[float]:
    """Good clients, one after the other, until told to stop; how long each waited to be let in."""
    waited: list[float] = []
    while not channel.poll():
        began = time.monotonic()
        with let_in(address, b"good") as sock:
            waited.append(time.monotonic() - began)
            payload = sealed(b"%d" % len(waited))
            check(ask(sock, payload, 1) == payload, "a good client got another's reply")
            sock.sendall(wire.BYE_FRAME)
        time.sleep(0.002)
    return waited


def handshakes(scale: Scale, engine: str, transport: str) -> str:
    """A flood of bad CIRs from two processes; a good client now and then."""
    total = scale.of(20_000, 500_000)
    raise_descriptors(1024)
    limits = {"cir_timeout": 1.0, "max_pending_cir": 100}
    with serving(engine, transport, limits=limits) as server:
        before, began = at_rest(server), time.monotonic()
        visitor = Child(visit, server.address, (scale.seed, "visit"))
        floods = [Child(flood, server.address, total // 2, (scale.seed, "flood", each)) for each in range(2)]
        with visitor, floods[0], floods[1]:
            done = Counter[str]()
            for each in floods:
                done.update(each.result(scale.of(120, 3600)))
            seconds = time.monotonic() - began
            visitor.send("enough")
            waited = visitor.result()
        stats = server.wait_empty()
        server.check_descriptors(before)
    seen = (
        f"{sum(done.values()):,} bad CIRs of {len(KINDS)} kinds, {total / seconds:,.0f} a second;"
        f" {len(waited):,} good clients waited {max(waited) * 1e3:.0f} ms at most"
    )
    check(stats["established"] == len(waited), f"{stats['established']} were let in, {len(waited)} are good: {seen}")
    check(stats["calls"] == len(waited), f"handlers were called {stats['calls']} times: {seen}")
    check(max(waited) <= WAIT, f"a good client waited too long: {seen}")
    return seen


EXPERIMENTS = per_engine("cirs", "wrong, partial, oversized and missing CIRs", handshakes, alone=True)
