"""A state machine that does the same to a native and to a pure server, one step after the other, and compares.

Every client is a pair of twins, one at each server. After each step both servers are asked to come to rest; then what
the twins have received, how their connections ended, what the handlers were given and the counters must be equal. The
servers live on from run to run: what is compared of the counters is how much they have grown.

Rest is reached by protocol: a step's bytes lie in the kernel before a PING on another connection is sent, so the turn
that answers it, or the one before, has read them too; and after a few of them everything that followed is done as well.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import struct
import time
from collections import Counter
from typing import Any, ClassVar

import wire
from compared import CLOSE, FAIL, GATHER, LATER, OTHER, PUSH, SAY, SIZE, STREAM, UPPER, Call, Waiting, serve_noting
from floods import Flood, Frame, flood_in, numbered
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import PATIENCE, plug, short_directory
from wire import cir, field, frame, ping, srm

from pysock import Limits, PysockError, RemoteError, Server
from pysock.base import kinds
from pysock.causes import COUNTERS

BACKENDS = ("native", "pure")
CAP = 40_000
LIMITS = Limits(
    max_payload=CAP, max_cir_bytes=300, max_in_flight=4, max_clients=100, output_pause=100_000, output_drop=50_000_000,
    stream_window=2500, cir_timeout=600.0, frame_timeout=600.0, output_timeout=600.0, push_soft=300_000,
    push_soft_seconds=600.0, push_hard=300_000,  # more than a step makes handlers push to one that reads
)  # fmt: skip
#: What becomes of too many pushes.
POLICIES: tuple[kinds.Slow, ...] = ("drop-old", "drop-new")
#: Connections at once. The servers take more: who is turned away where they are full depends on time.
_MOST = 7
#: Turns that a step may need to be done with, of each server.
TURNS = 4
COMPARED = (
    "clients", "pending", "accepted", "established", "refused", "disconnected", "requests", "errors", "pushes",
    "timeouts", "over_limit", "bytes_out", *COUNTERS,
)  # fmt: skip

#: What all runs have done, at the native side: for the table of the laboratory.
seen: Counter[str] = Counter()

_LOGGER = logging.getLogger("pysock")


class Difference(AssertionError):
    """The engines don't do the same."""


class Side:
    """One of the two servers, and a client of it that asks it to come to rest."""

    def __init__(self, backend: str, address: str, slow: kinds.Slow) -> None:
        self.calls: list[Call] = []
        self.gone: list[tuple[str, str]] = []
        self.waiting: list[Waiting] = []
        self.heard: list[tuple[str, str]] = []  # what clients answered to what they were asked
        self.slow = slow
        self.server = Server(address, backend=backend, limits=LIMITS, name=backend, slow=slow)
        serve_noting(self.server, self.calls, self.waiting)
        self.server.on_disconnect(lambda client, reason: self.gone.append((client.name, str(reason))))
        self.server.start()
        self.control = self.dial()
        self.control.settimeout(PATIENCE)
        self._asked = 0
        self.before: dict[str, int] = {}

    def dial(self) -> socket.socket:
        sock = plug(self.server.addresses[0])
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self) -> None:
        self._asked += 1
        self.control.sendall(ping(b"rest?", self._asked))

    def hear(self) -> None:
        pong, got = frame(wire.PONG, b"rest?", id=self._asked), b""
        while len(got) < len(pong):
            got += self.control.recv(len(pong) - len(got))
        assert got == pong

    def counters(self) -> dict[str, int]:
        stats = self.server.stats()
        return {name: stats[name] for name in COMPARED}

    def grown(self, floods: list[tuple[int, Flood]] | None = None) -> dict[str, int]:
        """:param floods: how many pushes each client was sent, and what came of them, which is left out."""
        now = self.counters()
        for sent, flood in floods or []:
            now["pushes_dropped"] -= sent - flood.came
            now["bytes_out"] -= flood.bytes
        return {name: now[name] - self.before[name] for name in COMPARED}

    def push(self, name: str, payload: bytes) -> str:
        """The name of the exception that it raised."""
        try:
            self.server.clients.by_name(name).send(payload)
        except (KeyError, ValueError, OSError) as error:
            return type(error).__name__
        return ""

    def question(self, name: str, payload: bytes) -> str:
        """Ask a client; the name of the exception that it raised."""
        try:
            client = self.server.clients.by_name(name)
            asks, engine = self.server._running.hooks.asking.begin(client)
            asks.ask(engine, b"\0", payload, Hearing(self.heard, name))
        except (KeyError, ValueError, OSError, PysockError) as error:
            return type(error).__name__
        return ""

    def answer(self, which: int, how: str) -> tuple[str, bytes, bool]:
        """One of those that wait, in an order that is the same on both sides; and whether somebody waited for it."""
        name, request, reply = self.waiting.pop(
            sorted(range(len(self.waiting)), key=self._place)[which % len(self.waiting)]
        )
        if how == "drop":
            return name, request, False
        return name, request, reply.fail(KeyError("later")) if how == "fail" else reply.send(how.encode() + request)

    def _place(self, at: int) -> tuple[str, int]:
        return self.waiting[at][0], at

    def close(self) -> None:
        self.waiting.clear()
        self.control.close()
        self.server.stop(1.0)


class Hearing:
    """Who waits for what a client answers."""

    def __init__(self, heard: list[tuple[str, str]], name: str) -> None:
        self._heard = heard
        self._name = name

    def done(self) -> bool:
        return False

    def set_result(self, payload: bytes) -> None:
        self._heard.append((self._name, repr(payload)))

    def set_exception(self, error: Exception) -> None:
        # Whether it was closed or has gone by itself, where both are on their way, nobody can say.
        self._heard.append((self._name, repr(error)[:20] if isinstance(error, RemoteError) else type(error).__name__))


class Sides:
    """Both servers of one transport. Made when they are first wanted, and anew after they were stopped."""

    def __init__(self, transport: str, slow: kinds.Slow) -> None:
        self._transport = transport
        self._slow = slow
        self._folder = ""
        self._sides: tuple[Side, ...] = ()

    def get(self) -> tuple[Side, ...]:
        if not self._sides:
            self._folder = self._folder or str(short_directory())
            _LOGGER.setLevel(logging.CRITICAL)  # handlers fail on purpose, by the thousand
            self._sides = tuple(Side(backend, self._address(backend), self._slow) for backend in BACKENDS)
        return self._sides

    def _address(self, backend: str) -> str:
        return "tcp://127.0.0.1:0" if self._transport == "tcp" else f"unix:{self._folder}/{backend}"

    def stop(self) -> None:
        sides, self._sides = self._sides, ()
        for side in sides:
            side.close()

    def close(self) -> None:
        self.stop()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


class End:
    """One of two twins: a plain socket, and what it has received."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.received = bytearray()
        self.flood: tuple[int, Flood] | None = None  # what came of one, when so much was received
        self.end = ""  # how the connection ended

    def send(self, data: bytes) -> None:
        """What the kernel takes; it takes all that a step sends, unless the other end has closed."""
        try:
            sent = self.sock.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert sent == len(data)

    def kinds(self) -> set[int]:
        """Of the first frames that it got."""
        found, at = set(), 0
        while len(self.received) - at >= 12 and len(found) < 3:
            size, kind = struct.unpack_from("!IB", self.received, at)
            found.add(kind)
            at += 12 + size
        return found

    def pull(self) -> int:
        """Read what has come; how much that was, and 1 for an end."""
        before = len(self.received) + bool(self.end)
        while not self.end:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                self.end = "reset"
                break
            self.received += data
            self.end = "" if data else "closed"
        return len(self.received) + bool(self.end) - before


class Twins:
    """One client at both servers."""

    def __init__(self, name: str, ends: list[End]) -> None:
        self.name = name
        self.ends = ends
        self.rest = b""  # of a frame that was begun
        self.asked = False  # a CIR was sent, or begun
        self.slow = False  # doesn't read
        self.gathers = False  # has asked the batch service
        self.speaks = False  # of features: whether a number is in flight, in a batch, depends on what came together
        self.waits = False  # has asked for answers that come later: one that doesn't read doesn't
        self.finished = False  # sends nothing more
        self.flooded = 0  # pushes that it was sent while it didn't read

    @property
    def open(self) -> bool:
        return not any(end.end for end in self.ends)

    @property
    def let_in(self) -> bool:
        return self.asked and all(wire.CIR_ACCEPTED in end.kinds() for end in self.ends)

    def send(self, data: bytes) -> None:
        for end in self.ends:
            end.send(data)

    def flood(self, side: int) -> Flood:
        """What came of that, at one of the servers."""
        end = self.ends[side]
        if end.flood is None or end.flood[0] < len(end.received):
            end.flood = len(end.received), flood_in(_frames(end.received))
        return end.flood[1]

    def close(self) -> None:
        for end in self.ends:
            end.sock.close()
            end.end = end.end or "left"


_sizes = st.sampled_from([0, 1, 12, 300, 5000, CAP - 1, CAP, CAP + 1])
_payloads = st.one_of(st.binary(max_size=8), _sizes.map(lambda size: b"q" * size))
_numbers = st.sampled_from([0, 1, 7, 2**32 - 1])
_services = st.sampled_from([UPPER, UPPER, FAIL, PUSH, 10, 65535])
_texts = st.sampled_from(["", "sorry", "n\u00e4h" * 99])
_requests = st.one_of(
    st.builds(srm, _payloads, _numbers, service=_services, flags=st.sampled_from([0, 0, 0, 1])),
    st.builds(lambda size, number: srm(b"%d" % size, number, service=SIZE), _sizes, _numbers),
    st.builds(lambda text, number: srm(text.encode(), number, service=SAY), _texts, _numbers),
    st.builds(lambda payload: ping(payload, 5), st.binary(max_size=64)),
)
_odd = st.sampled_from(
    [
        wire.BYE_FRAME, cir(), ping(bytes(65)), frame(wire.PING, b"p", flags=1), frame(wire.BYE, b"x"),
        frame(wire.PROOF, bytes(35), id=3), frame(wire.REPLY, b"x"), frame(0x7F, b"x", id=9), frame(0xFF),
        srm(b"x", flags=2), srm(b"x", service=CLOSE), frame(wire.SRM, bytes(50), length=CAP + 60, id=4),
        frame(wire.SRM, b"", length=2**32 - 1, id=4), b"GET / HTTP/1.1\r\n\r\n",
    ]
)  # fmt: skip
_initiations = st.sampled_from(
    [*["good"] * 3, "speaks", "refused", "welcome", "closed", "little", "magic", "version", "field", "long", "late"]
)


_welcome_initiations = st.sampled_from(
    ["good", "good", "good", "speaks", "speaks", "welcome", "little", "refused", "closed"]
)
_which = st.integers(0, 7)
_cuts = st.sampled_from([0, 0, 0, 1, 11, 40, 300])


def _pick(twins: list[Twins], which: int) -> Twins:
    return twins[which % len(twins)]


def _initiation(kind: str, name: bytes) -> bytes:
    made = {
        "little": lambda: cir(field(wire.MAX_PAYLOAD, struct.pack("!I", 10)), name=name),
        "speaks": lambda: cir(wire.features(31), name=name),
        "magic": lambda: cir(name=name, magic=b"PSKX"),
        "version": lambda: cir(name=name, version=2),
        "field": lambda: cir(b"\2\0\7me", name=name),
        "long": lambda: cir(field(99, bytes(300)), name=name),
        "late": lambda: srm(b"before the CIR") + cir(name=name),
    }
    named = name + kind.encode() if kind in {"refused", "welcome", "closed"} else name
    return made.get(kind, lambda: cir(field(99, b"?"), name=named))()


class Machine(RuleBasedStateMachine):
    """The steps, in one of the two transports."""

    transport: ClassVar[str]
    sides_of: ClassVar[dict[tuple[str, str], Sides]] = {}
    steps_before_stop: ClassVar[int] = 40

    def __init__(self) -> None:
        super().__init__()
        self.sides: Sides
        self.twins: list[Twins] = []
        self.steps = 0
        self.stopped = False

    @initialize(slow=st.sampled_from(POLICIES))
    def begin(self, slow: kinds.Slow) -> None:
        """With servers that do so with who is slow."""
        which = self.transport, slow
        if which not in self.sides_of:
            self.sides_of[which] = Sides(*which)
        self.sides = self.sides_of[which]
        self._begin()

    def _begin(self) -> None:
        self._rest()
        for side in self.sides.get():
            side.calls.clear()
            side.gone.clear()
            side.heard.clear()
            side.before = side.counters()

    # --- whom a step may concern ---

    def _fresh(self) -> list[Twins]:
        """Connected, and no CIR was begun."""
        return [twins for twins in self.twins if twins.open and not twins.asked]

    def _clients(self) -> list[Twins]:
        """Let in, and free to send."""
        return [twins for twins in self.twins if twins.open and twins.let_in and not twins.finished]

    def _begun(self) -> list[Twins]:
        """In the middle of a frame."""
        return [twins for twins in self.twins if twins.open and twins.rest and not twins.finished]

    def _readers(self) -> list[Twins]:
        """Those whose connection may end now: of one that doesn't read, nobody knows how much it will get."""
        return [twins for twins in self.twins if twins.open and not twins.slow]

    def _heard(self) -> list[Twins]:
        """Clients whose requests are read: whether one's are that reads nothing, is up to the kernel's buffers."""
        return [twins for twins in self._clients() if not twins.slow]

    def _slow(self) -> list[Twins]:
        return [twins for twins in self.twins if twins.slow]

    def _may_connect(self) -> bool:
        """Few at first, so that much is done with each."""
        most = 4 if self.steps < 30 else _MOST
        return sum(twins.open for twins in self.twins) < most and len(self._fresh()) < 2

    # --- steps ---

    def _connect(self) -> Twins:
        made = Twins(f"c{len(self.twins)}", [End(side.dial()) for side in self.sides.get()])
        self.twins.append(made)
        return made

    @precondition(_may_connect)
    @rule()
    def connect(self) -> None:
        self._connect()

    @precondition(_may_connect)
    @rule(kind=_welcome_initiations)
    def enter(self, kind: str) -> None:
        """Connect and send a CIR at once."""
        self._initiate(self._connect(), kind, 0)

    @precondition(_fresh)
    @rule(which=_which, kind=_initiations, cut=_cuts)
    def initiate(self, which: int, kind: str, cut: int) -> None:
        """A CIR: good, bad, or the beginning of one."""
        self._initiate(_pick(self._fresh(), which), kind, cut)

    @precondition(_heard)
    @rule(which=_which, requests=st.lists(_requests, min_size=1, max_size=6), cut=_cuts)
    def ask(self, which: int, requests: list[bytes], cut: int) -> None:
        """Requests, the last of which may be begun only."""
        self._send_cut(_pick(self._heard(), which), b"".join(requests), cut)

    def _gatherers(self) -> list[Twins]:
        return [twins for twins in self._clients() if not twins.speaks and not twins.waits]

    @precondition(_gatherers)
    @rule(which=_which, count=st.integers(1, 9), payload=st.binary(max_size=3))
    def ask_for_batch(self, which: int, count: int, payload: bytes) -> None:
        """More than may be in flight, now and then."""
        twins = _pick(self._gatherers(), which)
        twins.gathers = True
        self._send_cut(twins, b"".join(srm(payload + b"%d" % i, i, service=GATHER) for i in range(count)), 0)

    def _may_wait(self) -> list[Twins]:
        """How many a batch leaves in flight for a moment depends on what came together, and so what is read then."""
        return [twins for twins in self._heard() if not twins.gathers]

    @precondition(_may_wait)
    @rule(
        which=_which,
        numbers=st.lists(st.integers(1, 5), min_size=1, max_size=5),
        payload=st.binary(max_size=3),
        left=st.sampled_from([None, None, 0, 3_600_000_000]),
    )
    def ask_for_later(self, which: int, numbers: list[int], payload: bytes, left: int | None) -> None:
        """More than may be in flight, now and then; and a number twice. Some have a deadline, which has passed or is
        far away.
        """
        twins = _pick(self._may_wait(), which)
        twins.waits = True
        if twins.speaks and left is not None:
            asked = [wire.timed(payload, number, left=left, service=LATER) for number in numbers]
        else:
            asked = [srm(payload, number, service=LATER) for number in numbers]
        self._send_cut(twins, b"".join(asked), 0)

    @precondition(_may_wait)
    @rule(
        which=_which, number=st.integers(1, 5), count=st.sampled_from([0, 1, 20, 99]), size=st.sampled_from([0, 1, 7])
    )
    def ask_for_stream(self, which: int, number: int, count: int, size: int) -> None:
        """Of one that doesn't speak of it that is an offence."""
        twins = _pick(self._may_wait(), which)
        twins.waits = True
        self._send_cut(twins, srm(bytes([count, size]), number, service=STREAM, flags=wire.TAKES_STREAM), 0)

    @precondition(_heard)
    @rule(which=_which, number=st.integers(1, 5), given=st.sampled_from([1, 100, 3000, 3000, 2**32 - 1]))
    def credit(self, which: int, number: int, given: int) -> None:
        """Likewise; and too much of it."""
        self._send_cut(_pick(self._heard(), which), wire.credit(number, given), 0)

    @precondition(_heard)
    @rule(which=_which, number=st.integers(1, 6))
    def cancel(self, which: int, number: int) -> None:
        """Of one that doesn't speak of it that is an offence."""
        self._send_cut(_pick(self._heard(), which), wire.cancel(number), 0)

    @precondition(_heard)
    @rule(which=_which, payload=st.binary(max_size=20))
    def question(self, which: int, payload: bytes) -> None:
        """From another thread than the servers' own; some clients answer none."""
        name = _pick(self._heard(), which).name
        native, pure = (side.question(name, payload) for side in self.sides.get())
        if native != pure:
            raise Difference(f"native {native!r}, pure {pure!r}")

    @precondition(_heard)
    @rule(which=_which, number=st.integers(1, 3), kind=st.sampled_from([wire.ANSWER, wire.ANSWER_ERROR]))
    def answer_question(self, which: int, number: int, kind: int) -> None:
        """To one that wasn't asked that is an offence."""
        self._send_cut(_pick(self._heard(), which), frame(kind, b"answer", id=number, code=number), 0)

    @precondition(lambda self: self.sides.get()[0].waiting)
    @rule(which=_which, how=st.sampled_from(["send", "send", "send", "fail", "drop"]))
    def answer(self, which: int, how: str) -> None:
        """By another thread than the servers' own."""
        native, pure = (side.answer(which, how) for side in self.sides.get())
        if native != pure:
            raise Difference(f"native {native!r}, pure {pure!r}")

    def _answer_all(self) -> None:
        """Those too that are read only then. One after the other: what is read after which doesn't depend on time."""
        while any(side.waiting for side in self.sides.get()):
            for side in self.sides.get():
                if side.waiting:
                    side.answer(0, "send")
            self._rest()

    @precondition(_begun)
    @rule(which=_which, most=st.integers(1, 5000))
    def go_on(self, which: int, most: int) -> None:
        """Some more of what was begun."""
        twins = _pick(self._begun(), which)
        piece, twins.rest = twins.rest[:most], twins.rest[most:]
        twins.send(piece)

    def _may_be_slow(self) -> list[Twins]:
        return [twins for twins in self._clients() if not twins.waits]

    @precondition(_may_be_slow)
    @rule(which=_which, count=st.integers(1, 12))
    def read_slowly(self, which: int, count: int) -> None:
        """Ask for more than the kernel keeps for a client, which doesn't read from now on."""
        twins = _pick(self._may_be_slow(), which)
        twins.slow = True
        self._send_cut(twins, b"".join(srm(b"%d" % CAP, i, service=SIZE) for i in range(count)), 0)

    def _may_be_flooded(self) -> list[Twins]:
        return [twins for twins in self._may_be_slow() if twins.speaks]

    @precondition(_may_be_flooded)
    @rule(which=_which, count=st.sampled_from([1, 8, 24]), size=st.sampled_from([20, 3000, CAP]))
    def flood(self, which: int, count: int, size: int) -> None:
        """More pushes than a server keeps for a client, which doesn't read from now on."""
        twins = _pick(self._may_be_flooded(), which)
        twins.slow = True
        for number in range(twins.flooded, twins.flooded + count):
            payload = numbered(number, size)
            if any(side.push(twins.name, payload) for side in self.sides.get()):
                raise Difference(f"{twins.name} isn't sent number {number}")
        twins.flooded += count

    @precondition(_slow)
    @rule()
    def read_again(self) -> None:
        for twins in self._slow():
            twins.slow = False

    @precondition(_readers)
    @rule(which=_which, payload=_payloads)
    def push(self, which: int, payload: bytes) -> None:
        """From another thread than the servers' own."""
        name = _pick(self._readers(), which).name
        native, pure = (side.push(name, payload) for side in self.sides.get())
        if native != pure:
            raise Difference(f"native {native!r}, pure {pure!r}")

    @precondition(lambda self: not self._slow())
    @rule(payload=st.binary(max_size=20))
    def broadcast(self, payload: bytes) -> None:
        for side in self.sides.get():
            side.server.clients.broadcast(payload)

    @precondition(lambda self: len(self._readers()) > 1)
    @rule(which=_which, how=st.sampled_from(["odd", "half", "leave", "reset", "disconnect", "other"]), data=_odd)
    def end(self, which: int, how: str, data: bytes) -> None:
        """One of many ways for a connection to end."""
        twins = _pick(self._readers(), which)
        if how in {"leave", "reset"} and twins.waits and not twins.speaks:
            self._answer_all()  # whether an answer is sent to one that has left is up to the kernel
            self.compare()
        if how == "leave":
            twins.close()
        elif how == "reset":
            self._reset(twins)
        elif how == "disconnect":
            for side in self.sides.get():
                with contextlib.suppress(KeyError):
                    side.server.clients.by_name(twins.name).close()
        elif how == "other" and self._heard():
            self._send_cut(_pick(self._heard(), which), srm(twins.name.encode(), 2, service=OTHER), 0)
        elif how == "odd" and not twins.finished:
            self._send_cut(twins, data, 0)
        elif how == "half" and not twins.finished:
            twins.finished = True
            for end in twins.ends:
                end.sock.shutdown(socket.SHUT_WR)

    def _reset(self, twins: Twins) -> None:
        """Over TCP by a RST; a Unix socket is reset when it is closed with bytes that nobody read."""
        if not twins.finished and not twins.rest:
            twins.send(ping(b"unread"))
            self._rest()
        for end in twins.ends:
            end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        twins.close()

    @precondition(lambda self: self.steps > self.steps_before_stop and not self.stopped)
    @rule(grace=st.sampled_from([0.0, 2.0]))
    def stop(self, grace: float) -> None:
        self.stopped = True
        for twins in self.twins:
            twins.slow = False
        self.compare()
        sides = self.sides.get()
        self._remember()
        if grace:
            self._answer_all()
        for side in sides:
            side.server.stop(grace)
        self._compare_until(lambda: all(end.end for twins in self.twins for end in twins.ends), sides)
        self.sides.stop()
        for twins in self.twins:
            twins.close()
        self.twins.clear()
        self.steps = 0
        self._begin()

    # --- comparing ---

    @invariant()
    def compare(self) -> None:
        self.steps += 1
        self._rest()
        while self._pull():  # over TCP the last bytes may come a little later
            self._rest()
        self._compare_until(lambda: True, self.sides.get())

    def teardown(self) -> None:
        try:
            for twins in self.twins:
                twins.slow = False
            self.compare()
            self._answer_all()
            self.compare()
            for twins in self.twins:
                twins.close()
            self.compare()
            self._remember()
            seen["runs"] += 1
            assert all(side.counters()["clients"] == 0 for side in self.sides.get())
        except BaseException:
            for twins in self.twins:
                twins.close()
            self.sides.stop()  # a run that failed must not spoil the next
            raise

    def _remember(self) -> None:
        native = self.sides.get()[0]
        seen["pushes dropped"] += sum(sent - flood.came for sent, flood in self._floods(0))
        seen.update(steps=self.steps, requests=len(native.calls), connections=native.grown()["accepted"])

    def _initiate(self, twins: Twins, kind: str, cut: int) -> None:
        twins.asked = True
        twins.speaks = kind == "speaks"
        self._send_cut(twins, _initiation(kind, twins.name.encode()), cut)

    def _send_cut(self, twins: Twins, data: bytes, cut: int) -> None:
        """All but the last ``cut`` bytes, which follow later."""
        data = twins.rest + data
        keep = min(cut, len(data) - 1)
        data, twins.rest = data[: len(data) - keep], data[len(data) - keep :]
        twins.send(data)

    def _rest(self) -> None:
        sides = self.sides.get()
        for _ in range(TURNS):
            for side in sides:
                side.ask()
            for side in sides:
                side.hear()

    def _compare_until(self, done: Any, sides: tuple[Side, ...]) -> None:
        """Over TCP a few bytes may be on their way yet."""
        deadline = time.monotonic() + 1.0
        while True:
            differences = self._differences(sides)
            if not differences and done():
                return
            if time.monotonic() > deadline:
                raise Difference("\n".join(differences) or "the connections don't end")
            time.sleep(0.001)
            if sides == self.sides.get() and not self.stopped:
                self._rest()

    def _pull(self) -> int:
        """Read what has come; how much that was."""
        return sum(end.pull() for twins in self.twins if not twins.slow for end in twins.ends)

    def _floods(self, side: int) -> list[tuple[int, Flood]]:
        return [(twins.flooded, twins.flood(side)) for twins in self.twins if twins.flooded]

    def _differences(self, sides: tuple[Side, ...]) -> list[str]:
        found = []
        self._pull()
        for twins in self.twins:
            if twins.slow:
                continue
            if twins.ends[0].end != twins.ends[1].end:
                found.append(f"{twins.name}: native ended {twins.ends[0].end!r}, pure {twins.ends[1].end!r}")
            if twins.flooded:
                found += [_ill(twins, at, side.slow) for at, side in enumerate(sides)]
            if twins.ends[0].received != twins.ends[1].received:
                found += _different(twins)
        found = [difference for difference in found if difference]
        if not any(twins.slow for twins in self.twins):
            native, pure = (
                (side.grown(self._floods(at)), sorted(side.calls), sorted(side.gone), sorted(side.heard))
                for at, side in enumerate(sides)
            )
            found += [f"native {mine}, pure {its}" for mine, its in zip(native, pure, strict=True) if mine != its]
        return found


def _frames(data: bytearray) -> list[Frame]:
    """Client ids are masked, since who came first may differ. What is left over is a frame of kind 0."""
    found, at = [], 0
    while len(data) - at >= 12:
        size, kind, flags, code, number = struct.unpack_from("!IBBHI", data, at)
        if len(data) - at - 12 < size:
            break
        payload = bytes(data[at + 12 : at + 12 + size])
        found.append((kind, flags, code, number, payload[11:] if kind == wire.CIR_ACCEPTED else payload))
        at += 12 + size
    return [*found, (0, 0, 0, 0, bytes(data[at:]))]


def _ill(twins: Twins, at: int, slow: str) -> str:
    """What is wrong with the flood that came from one of the servers."""
    flood = twins.flood(at)
    known = flood.following == twins.flooded if slow == "drop-old" else flood.following <= twins.flooded
    wrong = flood.wrong or (
        "" if known else f"{flood.came} came, and {flood.following} of {twins.flooded} are known of"
    )
    return wrong and f"{twins.name}, {BACKENDS[at]}, {slow}: {wrong}"


def _different(twins: Twins) -> list[str]:
    """What the twins got differently, beside a flood. When a batch is answered depends on what came together, so where
    one was asked for, the order says nothing."""
    native, pure = (twins.flood(at).others for at in range(2))
    if twins.gathers:
        native, pure = sorted(native), sorted(pure)
    if native == pure:
        return []
    at = next((at for at, (mine, its) in enumerate(zip(native, pure)) if mine != its), min(len(native), len(pure)))  # noqa: B905
    return [f"{twins.name}: after {at} frames native has {_shown(native, at)}, pure {_shown(pure, at)}"]


def _shown(frames: list[Frame], at: int) -> str:
    told = [
        (kind, flags, code, number, body[:60], len(body)) for kind, flags, code, number, body in frames[at : at + 3]
    ]
    return f"{told} of {len(frames)}"


class UnixMachine(Machine):
    transport = "unix"


class TcpMachine(Machine):
    transport = "tcp"


MACHINES: dict[str, type[Machine]] = {"unix": UnixMachine, "tcp": TcpMachine}


def play(transport: str, seed: int, runs: int, steps: int = 50) -> bool:
    """So many runs; whether they went to their end.

    Where the kernel was slow to deliver, a run can't be repeated as Hypothesis wants it: then the rest is given up.

    :raises Difference: with what differed and the steps that led there.
    """
    profile = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    try:
        run_state_machine_as_test(seeded(seed)(MACHINES[transport]), settings=profile, _min_steps=steps)
    except (AssertionError, HypothesisException) as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, Difference):
            found = found.__context__
        if found is None and isinstance(error, HypothesisException):
            return False
        steps_there = "\n".join([*getattr(error, "__notes__", []), *getattr(found, "__notes__", [])])
        raise Difference(f"{found or error}\n{steps_there}\n(Hypothesis seed {seed}, {runs} runs)") from None
    return True


def close_servers() -> None:
    """End what the machines have left running."""
    while Machine.sides_of:
        Machine.sides_of.popitem()[1].close()
    _LOGGER.setLevel(logging.NOTSET)
