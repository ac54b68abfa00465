"""Clients that keep the rules and mean harm, with a byte a second, or by never reading. Good ones don't notice."""

from __future__ import annotations

import fcntl
import heapq
import random
import select
import struct
import sys
import termios
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import wire

from lab.experiment import Failed, Scale, check, per_engine
from lab.load import between, dial, let_in, pace, typical_p99
from lab.processes import Child, give_way, raise_descriptors, set_apart
from lab.served import SIZE, Served, serving

DRIPPERS, HOARDERS, GOOD = 500, 500, 100
REPLY, PAUSE = 60_000, 128 * 1024
#: So many replies, that no kernel takes them all in a client's stead.
ASKED = 300
LIMITS = {
    "cir_timeout": 3.0,
    "frame_timeout": 4.0,
    "output_timeout": 4.0,
    "output_pause": PAUSE,
    "max_payload": 1024 * 1024,
    "max_clients": 2000,
}
#: What a bad client may cost: replies up to the limit, those that are made for one send, one that is half sent, a read
#: of its requests; and what a connection is.
COST = PAUSE + 64 * 1024 + 2 * REPLY + 64 * 1024 + 16 * 1024
#: Below this, in seconds, two 99th percentiles can't be compared: the scheduler's whims decide.
NOISE, NOISE_QUICK = 0.002, 0.02


class _Dripper:
    """Says one byte a second: of its CIR if the number is even, of a request otherwise."""

    def __init__(self, address: str, number: int) -> None:
        if number % 2:
            self.sock, self.limit = let_in(address, spread=True), LIMITS["frame_timeout"]
            self.bytes = struct.pack("!IBBHI", 1000, wire.SRM, 0, 0, 1) + bytes(1000)
        else:
            self.sock, self.limit = dial(address, spread=True), LIMITS["cir_timeout"]
            self.bytes = wire.cir(name=b"very slow")
        self.sock.setblocking(False)
        self.since = time.monotonic()
        self.said = 0
        self.drip()

    def drip(self) -> None:
        with suppress(OSError):
            self.sock.send(self.bytes[self.said : self.said + 1])
        self.said += 1

    def is_gone(self) -> bool:
        try:
            while self.sock.recv(4096):  # before it goes it may be told why
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True


def drip(channel: Connection, address: str, count: int, seed: object) -> tuple[int, float]:
    """So many slow clients at once; each that is dropped comes again. How many were, and the most overdue of them."""
    give_way()
    chance = random.Random(f"{seed}")
    epoll = select.epoll()
    epoll.register(channel, select.EPOLLIN)
    now = time.monotonic()
    timers = [(now + chance.random() * 3, number) for number in range(count)]
    heapq.heapify(timers)
    drippers: dict[int, _Dripper] = {}
    numbers: dict[int, int] = {}
    dropped, overdue, looked = 0, 0.0, now
    while True:
        asked = time.monotonic()
        away = asked - looked  # what has happened meanwhile is seen only now
        events = epoll.poll(max(0.0, timers[0][0] - time.monotonic()) if timers else 0.5)
        looked = time.monotonic()
        for fd, _ in events:
            if fd == channel.fileno():
                return dropped, overdue
            number = numbers[fd]
            dripper = drippers[number]
            if dripper.is_gone():
                dropped += 1
                overdue = max(overdue, looked - away - dripper.since - dripper.limit)
                epoll.unregister(fd)
                dripper.sock.close()
                drippers[number] = again = _Dripper(address, number)
                numbers[again.sock.fileno()] = number
                epoll.register(again.sock, select.EPOLLIN)
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            number = heapq.heappop(timers)[1]
            if number not in drippers:
                drippers[number] = first = _Dripper(address, number)
                numbers[first.sock.fileno()] = number
                epoll.register(first.sock, select.EPOLLIN)
            else:
                drippers[number].drip()
            dripper = drippers[number]
            if asked > dripper.since + dripper.limit + 3:  # since then we may have been kept from looking
                raise Failed(f"a client that says a byte a second is there after {asked - dripper.since:.1f} s")
            heapq.heappush(timers, (now + 1, number))


class _Hoarder:
    """Asks for much, and reads nothing."""

    def __init__(self, address: str, name: bytes) -> None:
        self.name = name
        self.sock = let_in(address, name, room=32 * 1024, spread=True)
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            self.sock.send(wire.srm(b"%d" % REPLY, service=SIZE) * ASKED)
        self.waiting = 0
        self.since = time.monotonic()  # so long nothing has come from the server

    def look(self) -> None:
        """The kernel may take some more in our stead, over TCP after a retransmission: that is progress."""
        waiting = int.from_bytes(fcntl.ioctl(self.sock, termios.FIONREAD, bytes(4)), sys.byteorder)
        if waiting != self.waiting:
            self.waiting, self.since = waiting, time.monotonic()


def hoard(channel: Connection, address: str, count: int, seed: object) -> dict[bytes, float]:
    """So many clients at once that read nothing; each stays for longer than it may, and then another comes in its
    place. From when on the server could send nothing to each, by its name.
    """
    give_way()
    chance = random.Random(f"{seed}")
    since: dict[bytes, float] = {}
    there: dict[int, _Hoarder] = {}
    now = looked = time.monotonic()
    timers = [(now + chance.random() * 3, number) for number in range(count)]
    heapq.heapify(timers)
    stay = LIMITS["output_timeout"] + 1.5
    while not channel.poll(max(0.0, min(0.25, timers[0][0] - time.monotonic()))):
        now = time.monotonic()
        if now > looked + 0.25:
            looked = now
            for hoarder in there.values():
                hoarder.look()
        while timers[0][0] <= now:
            number = heapq.heappop(timers)[1]
            old = there.get(number)
            if old is not None and old.since + stay > now:
                heapq.heappush(timers, (old.since + stay, number))
                continue
            if old is not None:
                since[old.name] = old.since
                old.sock.close()
            there[number] = hoarder = _Hoarder(address, b"hoarder-%d-%d" % (number, len(since)))
            heapq.heappush(timers, (hoarder.since + stay, number))
    return since | {hoarder.name: hoarder.since for hoarder in there.values()}


def hostile(scale: Scale, engine: str, transport: str) -> str:
    """500 that say a byte a second, 500 that never read, each back as soon as it is dropped; and 100 good ones."""
    raise_descriptors(DRIPPERS + HOARDERS + GOOD + 200)
    quiet, siege = scale.of(3.0, 30.0), scale.of(17.0, 600.0)
    # Where the kernel is short of memory for TCP it takes more later, and that is progress; so let it take little.
    room = 64 * 1024 if transport == "tcp" else None
    with serving(engine, transport, limits=LIMITS, watch=True, room=room) as server:
        set_apart(server.pid)
        with Child(pace, server.address, GOOD, 0.1, (scale.seed, "good")) as good:
            good.receive()
            began = time.monotonic()
            time.sleep(quiet)
            empty = server.memory()
            drippers = Child(drip, server.address, DRIPPERS, (scale.seed, "drip"))
            hoarders = Child(hoard, server.address, HOARDERS, (scale.seed, "hoard"))
            with drippers, hoarders:
                most = _watch(server, siege, [good, drippers, hoarders])
                ended = time.monotonic()
                gone = server.ask("gone")
                drippers.send("enough")
                dropped, overdue = drippers.result()
                hoarders.send("enough")
                since = hoarders.result()
            good.send("enough")
            took = good.result()
        server.wait_empty()
    late, hoarded = _hoarders_late(since, gone, ended)
    calm, pressed = between(took, began, began + quiet), between(took, began + quiet, ended)
    p99, p99_hostile = typical_p99(calm), typical_p99(pressed)
    grown = most - empty
    seen = (
        f"p99 of the good {p99 * 1e3:.2f} ms, under siege {p99_hostile * 1e3:.2f} ms; {grown / 2**20:.0f} MiB of"
        f" {HOARDERS * COST / 2**20:.0f}; dropped {dropped} slow (latest {overdue:+.2f} s) and {hoarded} that don't"
        f" read (latest {late:+.2f} s)"
    )
    check(dropped > DRIPPERS and hoarded > HOARDERS, f"too few were dropped: {seen}")
    check(overdue <= 1, f"a slow client stayed too long: {seen}")
    check(late <= 1, f"a client that doesn't read stayed too long: {seen}")
    check(grown <= HOARDERS * COST + DRIPPERS * 16 * 1024, f"more memory than all limits together: {seen}")
    check(p99_hostile <= max(2 * p99, scale.of(NOISE_QUICK, NOISE)), f"good clients wait: {seen}")
    return seen


def _watch(server: Served, seconds: float, children: list[Child]) -> int:
    """The most memory that the server has had in this time."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.2)
        most = max(most, server.memory())
        for child in children:
            if child.channel.poll():  # only when it failed
                child.result()
    return most


def _hoarders_late(since: dict[bytes, float], gone: list[tuple[str, str, float]], now: float) -> tuple[float, int]:
    """By how much the slowest of them to go was late, and how many have gone; who came lately doesn't count yet."""
    went = {name.encode(): at for name, reason, at in gone if reason == "timed out"}
    limit = LIMITS["output_timeout"]
    due = {name: at for name, at in since.items() if at + limit + 1 < now}
    return max((went.get(name, now) - at - limit for name, at in due.items()), default=0.0), len(went)


EXPERIMENTS = per_engine(
    "hostile", f"{DRIPPERS} slowloris, {HOARDERS} that never read, {GOOD} good clients", hostile, alone=True
)
