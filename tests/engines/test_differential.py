"""One script, two engines: what each client receives must be the same, byte by byte, and so must what the server says
of it: why the clients went, what the handlers were given, the counters.

The scripts are made from seeds: conversations of several clients at once, good and bad, cut into random pieces. A
failure names its seed; ``PYSOCK_SEED`` runs that one alone, ``PYSOCK_SCRIPTS`` sets how many there are.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import wire
from compared import CLOSE, FAIL, GATHER, PUSH, SAY, SIZE, UPPER, Call, serve_noting
from conftest import BACKENDS, native_is_missing
from support import PATIENCE, wait_for
from wire import Got, cir, field, frame, ping, srm

from pysock import Limits, Server
from pysock.causes import COUNTERS

CAP = 100_000
LIMITS = Limits(max_payload=CAP, max_cir_bytes=300, max_in_flight=5, output_pause=30_000, output_drop=50_000_000)
KEY, SERVERS_NONCE = b"the key of both", bytes(range(100, 132))

pytestmark = pytest.mark.skipif(native_is_missing(), reason="it takes two engines")


# Scripts


def _payload(chance: random.Random) -> bytes:
    size = chance.choice([0, 1, 5, 50, chance.randrange(300), chance.randrange(5000)])
    if chance.random() < 0.03:
        size = chance.choice([65_535, 65_536, 65_537, CAP - 1, CAP, CAP + 1, chance.randrange(CAP + 5000)])
    return chance.randbytes(min(size, 200)) * (size // 200 + 1) if size > 200 else chance.randbytes(size)


def _request(chance: random.Random) -> bytes:
    number, flags = chance.choice([0, 1, 2**32 - 1, chance.getrandbits(32)]), int(chance.random() < 0.1)
    service = chance.choice([UPPER] * 6 + [SIZE, SIZE, FAIL, SAY, PUSH, PUSH, GATHER])
    payload = _payload(chance)
    if service == SIZE:
        payload = b"%d" % chance.choice([0, 1, 1000, 20_000, CAP, CAP + 1])
    elif service == SAY:
        payload = chance.choice(["", "sorry", "näh" * chance.randrange(200)]).encode()
    elif service in {PUSH, GATHER}:
        payload = payload[:100]
    return srm(payload, number, service=service, flags=flags)


def _odd(chance: random.Random) -> bytes:
    """A frame that is seldom sent, mostly because it ends the connection."""
    number = chance.getrandbits(32)
    return chance.choice(
        [
            lambda: wire.BYE_FRAME,
            cir,
            lambda: srm(b"x", number, service=CLOSE),
            lambda: srm(b"x", number, service=chance.choice([7, 99, 65535])),
            lambda: srm(b"x", number, flags=chance.choice([2, 4, 0x80, 0xFF])),
            lambda: ping(bytes(chance.choice([65, 100, 70_000]))),
            lambda: frame(wire.PING, b"p", id=number, flags=1),
            lambda: frame(wire.BYE, b"x"),
            lambda: frame(wire.PROOF, bytes(35), id=number),
            lambda: frame(
                chance.choice(wire.SERVERS_KINDS + wire.UNKNOWN_KINDS), b"x", id=number, code=number & 0xFFFF
            ),
            lambda: wire.cancel(number),
            lambda: frame(chance.choice([wire.ANSWER, wire.ANSWER_ERROR]), b"x", id=number),
            lambda: wire.timed(b"x", number, left=chance.choice([0, 2**32 - 1])),
            lambda: frame(wire.SRM, bytes(50), id=number, length=chance.choice([CAP + 1, 2**31, 2**32 - 1])),
            lambda: frame(wire.CIR, b"PSK1", length=chance.getrandbits(32), code=1),
            lambda: chance.randbytes(chance.randrange(60)),
        ]
    )()


def _initiation(chance: random.Random, name: bytes) -> bytes:
    fields = [field(chance.choice([0, 1, 4, 9, 200]), bytes(chance.randrange(20))) for _ in range(chance.randrange(3))]
    if chance.random() < 0.1:
        fields.append(field(wire.NONCE, bytes(chance.choice([32, 32, 31, 33, 0]))))
    if chance.random() < 0.2:
        fields.append(field(wire.MAX_PAYLOAD, struct.pack("!I", chance.choice([10, 1000, CAP, 2**32 - 1]))))
    if chance.random() < 0.3:  # not the one by which the end of a stream, and when it comes, has a meaning
        fields.append(wire.features(chance.choice([1, 1, 5, 9, 2**32 - 3])))
    chance.shuffle(fields)
    first = ping(b"first") if chance.random() < 0.1 else b""
    if chance.random() < 0.9:
        return first + cir(*fields, name=name)
    return first + chance.choice(
        [
            cir(*fields, name=b"refused"),
            cir(*fields, name=b"welcome"),
            cir(name=name, magic=b"PSKX"),
            cir(name=name, version=chance.randrange(5)),
            cir(b"\2\0\7me"),
            cir(field(99, bytes(chance.choice([293, 294, 300])))),
            srm(b"too early"),
            b"GET / HTTP/1.1\r\n\r\n",
            _odd(chance),
        ]
    )


def _conversation(chance: random.Random, name: bytes) -> bytes:
    kinds = [_request, lambda chance: ping(chance.randbytes(chance.randrange(65))), _odd]
    count = chance.choice([0, 3, 10, 30])
    frames = [_initiation(chance, name), *[one(chance) for one in chance.choices(kinds, [80, 15, 3], k=count)]]
    if wire.BYE_FRAME in frames:  # over TCP, what is sent after it may cost the replies that are on their way still
        frames = [one for one in frames if len(one) < 10_000]
    data = b"".join(frames)
    if chance.random() < 0.05:  # the end is missing
        data = data[: chance.randrange(len(data) + 1)]
    if chance.random() < 0.1:  # a byte is wrong
        at = chance.randrange(max(1, len(data)))
        data = data[:at] + chance.randbytes(1) + data[at + 1 :]
    return data


def _locked_conversation(chance: random.Random, name: bytes) -> bytes:
    """With a server that has a key, and always the same nonce."""
    nonce = chance.randbytes(32)
    name = chance.choice([name, name, b"refused", b"welcome"])
    mac = hmac.digest(KEY, b"pysock1 client" + nonce + SERVERS_NONCE + name, "sha256")
    good, wrong = field(wire.MAC, mac), field(wire.MAC, bytes(32))
    proofs = [
        [wrong],
        [good, good],
        [good[:-1]],
        [],
        [field(wire.MAC, mac[:-1])],
        [field(99, b""), good, field(2, b"?")],
    ]
    proof = frame(wire.PROOF, b"".join([good] if chance.random() < 0.6 else chance.choice(proofs)))
    first = cir(field(wire.NONCE, nonce), name=name) if chance.random() < 0.9 else _initiation(chance, name)
    between = chance.choices([b"", ping(b"between"), _odd(chance), _request(chance)], [80, 10, 5, 5])[0]
    rest = [_request(chance) for _ in range(chance.choice([0, 3, 10]))]
    data = b"".join([first, between, proof, *rest])
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data


def _pieces(chance: random.Random, data: bytes) -> list[bytes]:
    most = chance.choice([1, 7, 50, 5000, 200_000]) if len(data) < 2000 else chance.choice([500, 20_000, 200_000])
    pieces, at = [], 0
    while at < len(data):
        pieces.append(data[at : at + chance.randint(1, most)])
        at += len(pieces[-1])
    return pieces


def script(seed: Any, converse: Any = _conversation) -> list[tuple[int, bytes]]:
    """Who sends which piece, in their order; the last piece of each is empty: it half-closes."""
    chance = random.Random(f"{seed}")
    count = chance.randint(1, 4)
    queues = [[*_pieces(chance, converse(chance, b"%d" % number)), b""] for number in range(count)]
    steps = []
    while any(queues):
        number = chance.choice([number for number, queue in enumerate(queues) if queue])
        run = chance.choice([1, 1, 3, 100])
        steps += [(number, piece) for piece in queues[number][:run]]
        del queues[number][:run]
    return steps


# Playing one


class Player:
    """Plays scripts to one server. It reads while it sends: a client that doesn't take its replies isn't read."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socks: list[socket.socket] = []
        self.inboxes: list[bytearray] = []
        self.ended: list[bool] = []

    def play(self, steps: list[tuple[int, bytes]]) -> list[bytes]:
        """What each client received up to the end of its connection."""
        with contextlib.ExitStack() as stack:
            count = 1 + max(number for number, _ in steps)
            self.socks = [stack.enter_context(wire.dial(self.server)).sock for _ in range(count)]
            for sock in self.socks:
                sock.setblocking(False)
            self.inboxes = [bytearray() for _ in self.socks]
            self.ended = [False] * len(self.socks)
            for number, piece in steps:
                self._send(number, piece)
            self._pump_until(lambda: all(self.ended))
            self.socks = []
            return [bytes(inbox) for inbox in self.inboxes]

    def _send(self, number: int, piece: bytes) -> None:
        sock = self.socks[number]
        with contextlib.suppress(OSError):  # the server may have closed it
            if not piece:
                sock.shutdown(socket.SHUT_WR)
            while piece:
                if not select.select([], [sock], [], 0)[1]:
                    self._pump(0.01)
                else:
                    piece = piece[sock.send(piece) :]

    def _pump_until(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"still open: {self.ended}"
            self._pump(1)

    def _pump(self, seconds: float) -> None:
        waiting = [sock for sock, ended in zip(self.socks, self.ended, strict=True) if not ended]
        for sock in select.select(waiting, [], [], seconds)[0]:
            number = self.socks.index(sock)
            try:
                data = sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            self.inboxes[number] += data
            self.ended[number] = not data


class Record:
    """What happened at a server during one script."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.gone: list[tuple[str, str]] = []
        self.gone_before = 0

    def take(self) -> tuple[Any, ...]:
        taken = sorted(self.calls), sorted(self.gone)
        self.gone_before += len(self.gone)
        self.calls.clear()
        self.gone.clear()
        return taken


def plain_server(server: Server, calls: list[Call]) -> None:
    """The one service of the other framings."""

    @server.service
    def upper(client: Any, request: bytes) -> bytes | None:
        calls.append(("upper", client.name, request))
        if request.startswith(b"f"):
            raise ZeroDivisionError
        if request.startswith(b"n"):
            return None
        if request.startswith(b"c"):
            client.close()
        if request.startswith(b"p"):
            client.send(b"push")
        if request.startswith(b"l"):
            return b"l" * (CAP + 1)
        return request.upper()


@pytest.fixture
def pair(address: str, socket_dir: Any) -> Any:
    """``pair(framing)``: for each engine a player, its server and its record."""
    stack = contextlib.ExitStack()

    def make(framing: str, **options: Any) -> list[tuple[Player, Record]]:
        made = []
        for backend in BACKENDS:
            where = address if address.startswith("tcp") else f"unix:{socket_dir}/{backend}"
            server, record = Server(where, backend=backend, framing=framing, limits=LIMITS, **options), Record()
            (serve_noting if framing == "pysock" else plain_server)(server, record.calls)

            def gone(client: Any, reason: Any, record: Record = record) -> None:
                record.gone.append((client.name, str(reason)))

            server.on_disconnect(gone)
            stack.enter_context(server)
            made.append((Player(server), record))
        return made

    with stack:
        yield make


# What is compared


def seen(data: bytes) -> tuple[list[Got], list[Got]]:
    """The frames in their order without those of the batch service, and those in any order: when a batch is answered
    depends on what came together. Client ids are masked: who comes first may differ."""
    frames = [
        got._replace(payload=got.payload[:3] + bytes(8) + got.payload[11:]) if got.kind == wire.CIR_ACCEPTED else got
        for got in wire.parse(data)
    ]
    return frames, sorted(frames)


COMPARED = (
    "clients", "pending", "accepted", "established", "refused", "disconnected", "requests", "errors", "pushes",
    "timeouts", "over_limit", "bytes_out", *COUNTERS,
)  # fmt: skip


def compare_outcomes(players: list[tuple[Player, Record]], told: str, names: Sequence[str] = COMPARED) -> None:
    """The counters, and what the handlers were given, once all is over; the last counters come a moment later."""

    def counters() -> list[dict[str, int]]:
        return [{name: player.server.stats()[name] for name in names} for player, _ in players]

    def over() -> bool:
        for player, record in players:
            stats = player.server.stats()
            told = len(record.gone) + record.gone_before
            if stats["clients"] + stats["pending"] or not told == stats["disconnected"] == stats["established"]:
                return False
        native, pure = counters()
        return native == pure

    with contextlib.suppress(AssertionError):
        wait_for(over, timeout=2)
    native, pure = counters()
    assert native == pure, told
    native, pure = (record.take() for _, record in players)
    assert native == pure or names is not COMPARED, told


def seeds(count: int) -> Iterator[int]:
    """Which scripts to play."""
    if (only := os.environ.get("PYSOCK_SEED")) is not None:
        return iter([int(only)])
    return iter(range(int(os.environ.get("PYSOCK_SCRIPTS", count))))


def has_batch(steps: list[tuple[int, bytes]]) -> list[bool]:
    """For each client, whether it may have asked the batch service."""
    streams = [b"".join(piece for who, piece in steps if who == number) for number in range(1 + max(steps)[0])]
    return [b"\x02\x00\x00" + bytes([GATHER]) in data or b"\x02\x01\x00" + bytes([GATHER]) in data for data in streams]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_native_framing(pair):
    """Frames, good and bad."""
    players = pair("pysock")
    for seed in seeds(300):
        steps = script(seed)
        received = [player.play(steps) for player, _ in players]
        for number, (batch, native, pure) in enumerate(zip(has_batch(steps), *received, strict=True)):
            told = f"seed {seed}, client {number}: native (left) and pure (right) answer differently"
            assert seen(native)[batch] == seen(pure)[batch], told
        compare_outcomes(players, f"seed {seed}")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_with_a_key(pair, monkeypatch):
    """Frames, good and bad, before and after the proof."""
    monkeypatch.setattr("pysock.wire.auth.secrets.token_bytes", lambda size: SERVERS_NONCE[:size])
    players = pair("pysock", authkey=KEY)
    for seed in seeds(150):
        steps = script(f"key {seed}", _locked_conversation)
        received = [player.play(steps) for player, _ in players]
        for number, (batch, native, pure) in enumerate(zip(has_batch(steps), *received, strict=True)):
            told = f"seed {seed}, client {number}: native (left) and pure (right) answer differently"
            assert seen(native)[batch] == seen(pure)[batch], told
        compare_outcomes(players, f"seed {seed}")
    stats = players[0][0].server.stats()
    assert all(stats[name] for name in ("established", "refused_proof", "violations", "refused"))


def _messages(encode: Any) -> Any:
    def converse(chance: random.Random, _name: bytes) -> bytes:
        messages = []
        for _ in range(chance.choice([0, 1, 5, 30])):
            first = chance.choices([b"a", b"p", b"n", b"f", b"c", b"l", b""], [80, 10, 10, 2, 2, 2, 10])[0]
            messages.append(encode(chance, first + _payload(chance).replace(b"\n", b"") if first else b""))
        return b"".join(messages)[: -1 if chance.random() < 0.1 else None]

    return converse


def _u32(chance: random.Random, message: bytes) -> bytes:
    wrong = chance.choice([2**31 - 1, 2**31, 2**32 - 1, CAP + 1])
    return struct.pack("!I", wrong if chance.random() < 0.01 else len(message)) + message


def _line(chance: random.Random, message: bytes) -> bytes:
    return message + b"\n"


def _raw(chance: random.Random, message: bytes) -> bytes:
    return b"x" * len(message)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("framing", "encode"), [("u32", _u32), ("line", _line), ("raw", _raw)])
def test_other_framings(pair, framing, encode):
    """Messages, good and too large, and handlers that fail, push and close."""
    players = pair(framing)
    for seed in seeds(100):
        steps = script(f"{framing} {seed}", _messages(encode))
        received = [player.play(steps) for player, _ in players]
        for number, (native, pure) in enumerate(zip(*received, strict=True)):
            assert native == pure, f"seed {seed}, client {number}"
        # Of raw the pieces are the messages.
        compare_outcomes(
            players, f"seed {seed}", ("bytes_out", "errors", "disconnected") if framing == "raw" else COMPARED
        )
