"""Clients that behave: raw sockets which check every byte they get, many in one process.

``talk`` sends as much as the server takes and counts what was lost, doubled, swapped or altered; ``pace`` sends a
request now and then and tells how long each took. Both are functions for a ``Child``.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import random
import select
import socket
import statistics
import struct
import time
from multiprocessing.connection import Connection
from zlib import crc32

import wire

from lab.experiment import Failed, check
from lab.processes import PATIENCE
from lab.served import BATCH, ECHO, RESIDUE, Served, sealed
from pysock import Address

HEADER = struct.Struct("!IBBHI")
_TAG = struct.Struct("!II")  # client, number of the request

#: Sources of the bytes and the sizes of requests; made once for each process.
_POOL, _SHAPES = 1 << 20, 4096

_sources = itertools.count()


def dial(address: str, timeout: float = PATIENCE, *, spread: bool = False) -> socket.socket:
    """Connect, whatever stands before us in the queue.

    :param spread: over TCP, come from many addresses, so that a storm of short connections doesn't run out of ports.
    """
    family, where = Address.parse(address).resolve(listening=False)[0]
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if spread:
                    sock.bind((f"127.0.1.{next(_sources) % 250 + 1}", 0))
            sock.connect(where)
            return sock
        except OSError as error:
            sock.close()
            # EAGAIN: the backlog of a Unix socket is full.
            if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        except BaseException:
            sock.close()
            raise


def let_in(
    address: str, name: bytes = b"", timeout: float = PATIENCE, *, room: int = 0, spread: bool = False
) -> socket.socket:
    """Connect and be let in.

    :param room: bytes that the kernel may keep for us, if not what it likes.
    :param spread: see :func:`dial`.
    """
    sock = dial(address, timeout, spread=spread)
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.sendall(wire.cir(name=name))
    got = next_frame(sock)
    if got is None or got.kind != wire.CIR_ACCEPTED:
        sock.close()
        raise Failed(f"a good client wasn't let in: {got}")
    return sock


def at_rest(server: Served) -> int:
    """How many descriptors a server has that has no client. It must have served one before, or some may not be there
    yet.
    """
    with dial(server.address) as sock:
        sock.sendall(wire.ping())
        check(next_frame(sock) == wire.ponged(), "a PING wasn't answered")
        count = server.descriptors() - 1
    server.wait_empty()
    server.check_descriptors(count)
    return count


def next_frame(sock: socket.socket) -> wire.Got | None:
    """The next frame; ``None`` at the end of the connection, orderly or not."""
    header = exactly(sock, HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, kind, flags, code, number = HEADER.unpack(header)
    payload = exactly(sock, length)
    return None if len(payload) < length else wire.Got(kind, flags, code, number, payload)


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end of the connection."""
    data = b""
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionError:
            return b""
        if not part:
            break
        data += part
    return data


def ask(sock: socket.socket, payload: bytes, number: int, service: int = ECHO) -> bytes:
    """One request and its reply."""
    sock.sendall(wire.srm(payload, number, service=service))
    got = next_frame(sock)
    if got is None or got.kind != wire.REPLY or got.id != number:
        raise Failed(f"request {number} was answered by {got}")
    return got.payload


# As fast as it goes


class _Talker:
    """One client: batches of requests, cut anywhere, with pauses; each reply is held against what was sent."""

    def __init__(self, load: _Load, index: int, chance: random.Random) -> None:
        self.load, self.index, self.chance = load, index, chance
        # Some have so little room that the server can't send all at once.
        self.sock = let_in(load.address, b"talker-%d" % index, room=chance.choice((0, 0, 8 * 1024)))
        self.sock.setblocking(False)
        self.number = chance.randrange(1 << 32)
        self.shape = chance.randrange(_SHAPES)
        self.window = chance.choice((1, 2, 8, 32, 128, 256, 1000))
        self.waiting: dict[int, bytes] = {}
        self.out = bytearray()
        self.rest = b""
        self.paused = False
        self.interest = select.EPOLLIN

    def go_on(self) -> None:
        """Ask for more, if there is room, and send."""
        if self.paused:
            return
        if len(self.waiting) * 2 <= self.window and not self.out:
            self._ask(self.load.take(self.chance.randint(1, self.window - len(self.waiting))))
        if self.out:
            self._send()
        else:
            self._await(select.EPOLLIN)

    def _ask(self, count: int) -> None:
        pool, shapes, waiting, index = self.load.pool, self.load.shapes, self.waiting, self.index
        shape, number, service = self.shape, self.number, BATCH if self.chance.random() < 0.15 else ECHO
        parts = []
        for _ in range(count):
            number = (number + 1) & 0xFFFFFFFF
            shape = (shape + 1) % _SHAPES
            begin, end = shapes[shape]
            data = _TAG.pack(index, number) + pool[begin:end]
            data += crc32(data).to_bytes(4, "little")
            waiting[number] = data
            parts += HEADER.pack(len(data), wire.SRM, 0, service, number), data
        self.shape, self.number = shape, number
        self.out += b"".join(parts)

    def _send(self) -> None:
        end, chance = len(self.out), self.chance.random()
        if chance < 0.1:
            end = self.chance.randint(1, end)
        try:
            sent = self.sock.send(memoryview(self.out)[:end])
        except BlockingIOError:
            sent = 0
        del self.out[:sent]
        if chance < 0.1:
            self._await(0 if chance < 0.03 else select.EPOLLIN)  # some don't listen, either
            self.load.pause(self, self.chance.random() * 0.01)
        else:
            self._await(select.EPOLLIN | select.EPOLLOUT if self.out else select.EPOLLIN)

    def _await(self, interest: int) -> None:
        if interest != self.interest:
            self.interest = interest
            self.load.epoll.modify(self.sock, interest)

    def receive(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            if not self._is_done():
                raise Failed(f"the server closed a good client's connection; {self.load.counts}")
            self.load.epoll.unregister(self.sock)
        if self.rest:
            data = self.rest + data
        at, size, waiting, view = 0, len(data), self.waiting, memoryview(data)
        while size - at >= 12:
            length, kind, _, _, number = HEADER.unpack_from(data, at)
            end = at + 12 + length
            if end > size:
                break
            expected = waiting.pop(number, None)
            if view[at + 12 : end] != expected or kind != wire.REPLY:
                self._wrong(kind, number, data[at + 12 : end], expected)
            self.load.counts["pairs"] += 1
            at = end
        self.rest = data[at:]

    def _wrong(self, kind: int, number: int, payload: bytes, expected: bytes | None) -> None:
        counts = self.load.counts
        if kind == wire.GOAWAY and self._is_done():
            return
        if kind != wire.REPLY:
            raise Failed(f"instead of a reply: kind {kind:#x}, {payload[:100]!r}; {counts}")
        if expected is None:
            counts["doubled"] += 1
        elif crc32(payload) == RESIDUE:
            counts["swapped"] += 1
        else:
            counts["altered"] += 1

    def _is_done(self) -> bool:
        """It has all its replies and asks no more: the server may call it idle while others wait for theirs."""
        return self.load.left == 0 and not self.waiting


class _Load:
    """All clients of one process."""

    def __init__(self, address: str, clients: int, total: int | None, seed: object) -> None:
        chance = random.Random(f"{seed}")
        self.address, self.left = address, total
        self.pool = chance.randbytes(_POOL)
        self.shapes = [_shape(chance) for _ in range(_SHAPES)]
        self.counts = dict.fromkeys(("pairs", "lost", "doubled", "swapped", "altered"), 0)
        self.epoll = select.epoll()
        self.timers: list[tuple[float, int, _Talker]] = []
        self._ticket = itertools.count()
        self.talkers = [_Talker(self, index, random.Random(f"{seed} {index}")) for index in range(clients)]
        self.by_fd = {talker.sock.fileno(): talker for talker in self.talkers}
        for talker in self.talkers:
            self.epoll.register(talker.sock, select.EPOLLIN)

    def take(self, wanted: int) -> int:
        """So many of the requests that are still to be sent."""
        if self.left is None:
            return wanted
        taken = min(wanted, self.left)
        self.left -= taken
        return taken

    def pause(self, talker: _Talker, seconds: float) -> None:
        talker.paused = True
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self._ticket), talker))

    def run(self, channel: Connection) -> dict[str, int]:
        """Until everything is sent, or ``channel`` says something; and all replies are there."""
        last, heard = time.monotonic(), time.monotonic()
        for talker in self.talkers:
            talker.go_on()
        while self.left != 0 or any(talker.waiting for talker in self.talkers):
            now = time.monotonic()
            if self._turn():
                heard = now
            elif now > heard + PATIENCE:
                break
            if now > last + 1:
                last = now
                if channel.poll():  # enough
                    self.left = 0
        for fd, _ in self.epoll.poll(0.05):  # what comes now, nobody has asked for
            self.by_fd[fd].receive()
        self.counts["lost"] = sum(len(talker.waiting) for talker in self.talkers)
        return self.counts

    def _turn(self) -> bool:
        """What can be done now; whether anything was to be done on a socket."""
        events = self.epoll.poll(0.001 if self.timers else 0.1)
        for fd, event in events:
            talker = self.by_fd[fd]
            if event & ~select.EPOLLOUT:
                talker.receive()
            talker.go_on()
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            talker = heapq.heappop(self.timers)[2]
            talker.paused = False
            talker.go_on()
        return bool(events)


def _shape(chance: random.Random) -> tuple[int, int]:
    """Where in the pool a request's bytes are: mostly few, some a few KiB, now and then more than one read takes."""
    kind = chance.random()
    size = chance.randint(0, 64 if kind < 0.75 else 700 if kind < 0.97 else 8_000 if kind < 0.9995 else 200_000)
    begin = chance.randrange(_POOL - size)
    return begin, begin + size


def talk(channel: Connection, address: str, clients: int, total: int | None, seed: object) -> dict[str, int]:
    """Send ``total`` requests over so many clients, or go on until told to stop; count what came back."""
    return _Load(address, clients, total, seed).run(channel)


# A request now and then


class _Pacer:
    def __init__(self, address: str, index: int) -> None:
        self.sock = let_in(address, b"pacer-%d" % index)
        self.index, self.number, self.asked_at = index, 0, 0.0

    def ask(self, now: float) -> None:
        self.number += 1
        self.asked_at = now
        self.sock.sendall(wire.srm(self._payload(), self.number))

    def answered(self) -> float:
        got = next_frame(self.sock)
        if got != wire.replied(self._payload(), self.number):
            raise Failed(f"a good client got {got} for its request {self.number}")
        return self.asked_at

    def _payload(self) -> bytes:
        return sealed(_TAG.pack(self.index, self.number))


def pace(channel: Connection, address: str, clients: int, interval: float, seed: object) -> list[tuple[float, float]]:
    """Each client sends a request every ``interval`` seconds until ``channel`` says something: when each was sent, and
    how many seconds later the reply was there. Says ``"ready"`` when all are let in.
    """
    chance = random.Random(f"{seed}")
    pacers = [_Pacer(address, index) for index in range(clients)]
    channel.send("ready")
    epoll = select.epoll()
    epoll.register(channel, select.EPOLLIN)
    by_fd = {pacer.sock.fileno(): pacer for pacer in pacers}
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    now = time.monotonic()
    timers = [(now + interval * chance.random(), pacer.index) for pacer in pacers]
    heapq.heapify(timers)
    took: list[tuple[float, float]] = []
    unanswered: set[int] = set()
    while True:
        for fd, _ in epoll.poll(max(0.0, timers[0][0] - time.monotonic()) if timers else 0.5):
            if fd == channel.fileno():
                if unanswered:
                    time.sleep(0.2)
                now = time.monotonic()
                return took + [(pacers[index].asked_at, now - pacers[index].asked_at) for index in unanswered]
            asked_at = by_fd[fd].answered()
            now = time.monotonic()
            took.append((asked_at, now - asked_at))
            unanswered.discard(by_fd[fd].index)
            heapq.heappush(timers, (now + interval * (0.5 + chance.random()), by_fd[fd].index))
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            index = heapq.heappop(timers)[1]
            unanswered.add(index)
            pacers[index].ask(time.monotonic())


def between(took: list[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    """Those that were sent in this time."""
    return [each for each in took if begin <= each[0] < end]


def typical_p99(took: list[tuple[float, float]]) -> float:
    """The 99th percentile of each second, and of these the median: what others do on this machine for a moment, and
    the first milliseconds of a new load, are none of the server's doing.
    """
    seconds: dict[int, list[float]] = {}
    for at, lasted in took:
        seconds.setdefault(int(at), []).append(lasted)
    p99s = [sorted(each)[int(0.99 * len(each))] for each in seconds.values()]
    return statistics.median(p99s) if p99s else 0.0
