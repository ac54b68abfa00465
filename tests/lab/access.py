"""Who may come in: a foreign user, a wrong key, a recorded proof, a squatter and passed descriptors stay outside."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import random
import socket
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import wire

import pysock
from lab.experiment import Failed, Missing, Scale, check, per_engine
from lab.load import ask, at_rest, dial, exactly, let_in, next_frame
from lab.processes import Child, raise_descriptors
from lab.served import Served, folder, sealed, serving
from pysock import Server

NOBODY = 65534
_names = itertools.count()


def become_somebody_else() -> None:
    """From here on this process is a foreign user's."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Missing("only root can become somebody else")


def _served(server: Served) -> None:
    with let_in(server.address) as sock:
        payload = sealed(b"one of us")
        check(ask(sock, payload, 1) == payload, "a good client got another's reply")


# A foreign user


def intrude(channel: Connection, address: str, count: int) -> dict[str, int]:
    """Try to get in as somebody else: what became of it."""
    become_somebody_else()
    told: Counter[str] = Counter()
    for number in range(count):
        try:
            with dial(address) as sock:
                with suppress(ConnectionError):
                    sock.sendall(wire.cir() + wire.srm(sealed(b"hello")))
                got = next_frame(sock)
        except PermissionError:
            told["not connected"] += 1
            continue
        if got is None:
            told["cut"] += 1
        else:
            told["refused" if (got.kind, got.code) == (wire.CIR_REFUSED, wire.REFUSED_NOT_ALLOWED) else str(got)] += 1
        if number % 10 == 0:
            try:
                pysock.connect(address).close()
                told["let in by connect()"] += 1
            except OSError:
                pass
    return dict(told)


def foreign(scale: Scale, engine: str, _: str) -> str:
    """A foreign user comes to a socket of the default mode, to one open to all, and to an abstract one."""
    _need_root()
    count = scale.of(300, 10_000)
    mine = os.geteuid()
    seen = []
    with folder() as directory:
        places: list[tuple[str, str, dict[str, object]]] = [
            ("not connected", f"unix:{directory}/a", {}),
            ("refused", f"unix:{directory}/b?mode=0666", {"allow": {"uid": mine}}),
            ("refused", f"unix:{directory}/c?mode=0666", {"allow": lambda peer: peer[1] == mine}),
            ("refused", f"unix:@lab-{os.getpid()}-{next(_names)}", {}),
        ]
        for expected, address, options in places:
            with Served(engine, address, **options) as server:
                before = at_rest(server)
                with Child(intrude, server.address, count) as intruder:
                    for _ in range(20):
                        _served(server)
                    told = intruder.result(120)
                stats = server.wait_empty()
                check(told == {expected: count}, f"{address}: {told}, not {count} {expected}")
                check(stats["calls"] == 20, f"{address}: handlers were called {stats['calls']} times, not 20")
                server.check_descriptors(before, address)
                seen.append(f"{count} {expected}")
        _squatter(engine, directory)
    return f"foreign user: {', '.join(seen)}; a foreign user's server isn't talked to"


def squat(channel: Connection, engine: str, address: str) -> int:
    """A foreign user's server; the bytes that it was told."""
    become_somebody_else()
    server = Server(address, backend=engine)
    server.service(lambda client, request: request)
    with server:
        channel.send(str(server.addresses[0]))
        channel.recv()
    return server.stats()["bytes_in"]


def _squatter(engine: str, directory: Path) -> None:
    theirs = directory / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with Child(squat, engine, f"unix:{theirs}/s?mode=0666") as child:
        address = child.receive()
        try:
            pysock.connect(address, server_uid=os.geteuid(), backend=engine).close()
        except OSError:
            pass
        else:
            raise Failed("connect(server_uid=) went to a foreign user's server")
        child.send("enough")
        told = child.result()
        check(told == 0, f"the squatter was told {told} bytes")


# Keys

KEY = b"the right key"


class _Handshake:
    """A client's side by hand."""

    def __init__(self, address: str, name: bytes, nonce: bytes) -> None:
        self.name, self.nonce = name, nonce
        self.sock = dial(address)
        self.sock.sendall(wire.cir(wire.field(wire.NONCE, nonce), name=name))
        got = next_frame(self.sock)
        if got is None or got.kind != wire.CHALLENGE:
            raise Failed(f"a CIR with a nonce was answered with {got}")
        fields = dict(wire.fields_of(got.payload))
        self.servers_nonce, self.servers_mac = fields[wire.NONCE], fields[wire.MAC]

    def mac(self, key: bytes = KEY) -> bytes:
        said = b"pysock1 client" + self.nonce + self.servers_nonce + self.name
        return hmac.new(key, said, hashlib.sha256).digest()

    def prove(self, mac: bytes) -> wire.Got | None:
        """Send this as the proof, and a request; what the server says to it."""
        with suppress(ConnectionError):
            self.sock.sendall(wire.frame(wire.PROOF, wire.field(wire.MAC, mac)) + wire.srm(sealed(b"let me in")))
        return next_frame(self.sock)


def _flipped(mac: bytes, chance: random.Random) -> bytes:
    bit = chance.randrange(8 * len(mac))
    return (int.from_bytes(mac, "big") ^ 1 << bit).to_bytes(len(mac), "big")


def _attempts(chance: random.Random, address: str, recorded: bytes) -> dict[str, Callable[[], wire.Got | None]]:
    """Ways to get in without the key; what the server says."""

    def shake() -> _Handshake:
        return _Handshake(address, b"thief", chance.randbytes(32))

    def reflected() -> wire.Got | None:
        hand = shake()
        return hand.prove(hand.servers_mac)

    def flipped() -> wire.Got | None:
        hand = shake()
        return hand.prove(_flipped(hand.mac(), chance))

    def as_another() -> wire.Got | None:
        hand = shake()
        hand.name = b"somebody"
        return hand.prove(hand.mac())

    def unasked(data: bytes) -> wire.Got | None:
        with dial(address) as sock:
            with suppress(ConnectionError):
                sock.sendall(data + wire.srm(sealed(b"let me in")))
            return next_frame(sock)

    def no_proof() -> wire.Got | None:
        hand = shake()
        hand.sock.sendall(wire.srm(sealed(b"let me in")))
        return next_frame(hand.sock)

    return {
        "wrong key": lambda: (hand := shake()).prove(hand.mac(b"another key")),
        "replayed": lambda: _Handshake(address, b"owner", bytes(32)).prove(recorded),
        "reflected": reflected,
        "a bit flipped": flipped,
        "another name": as_another,
        "short": lambda: (hand := shake()).prove(hand.mac()[:31]),
        "empty key": lambda: (hand := shake()).prove(hand.mac(b"")),
        "no nonce": lambda: unasked(wire.cir(name=b"thief")),
        "no CIR": lambda: unasked(wire.frame(wire.PROOF, wire.field(wire.MAC, recorded))),
        "no proof": no_proof,
    }


def keys(scale: Scale, engine: str, transport: str) -> str:
    """Whoever lacks the key isn't let in, whatever was recorded of those who have it; who has it, is."""
    count = scale.of(500, 20_000)
    chance = scale.random("keys", engine, transport)
    done: Counter[str] = Counter()
    good = 0
    with serving(engine, transport, authkey=KEY) as server:
        before = at_rest(server)
        owner = _Handshake(server.address, b"owner", bytes(32))
        recorded = owner.mac()
        got = owner.prove(recorded)
        check(got is not None and got.kind == wire.CIR_ACCEPTED, f"the right proof was answered with {got}")
        got = next_frame(owner.sock)
        check(got == wire.replied(sealed(b"let me in")), f"after the right proof: {got}")
        owner.sock.close()
        attempts = _attempts(chance, server.address, recorded)
        for number in range(count):
            kind = chance.choice(list(attempts))
            got = attempts[kind]()
            done[kind] += 1
            check(got is not None and got.kind == wire.CIR_REFUSED, f"{kind}: the server said {got}")
            if number % 50 == 0:
                good += 1
                with pysock.connect(server.address, authkey=KEY, backend=engine) as client:
                    check(client.request(sealed(b"mine")) == sealed(b"mine"), "a good client got another's reply")
                for wrong in (b"another key", None):
                    try:
                        pysock.connect(server.address, authkey=wrong, backend=engine).close()
                    except OSError:
                        continue
                    raise Failed(f"connect(authkey={wrong!r}) was let in")
        stats = server.wait_empty()
        server.check_descriptors(before)
    check(stats["calls"] == good + 1, f"handlers were called {stats['calls']} times, not {good + 1}")
    check(stats["established"] == good + 1, f"{stats['established']} were let in, not {good + 1}")
    return f"{count:,} attempts of {len(done)} kinds refused; {good + 1} with the key let in"


# What is in the socket's place


def _in_the_way(directory: Path, live: str) -> dict[str, Path]:
    """Things that are where the socket should be."""
    places = {
        name: directory / name.replace(" ", "-") for name in ("live link", "dangling link", "file", "folder", "fifo")
    }
    places["live link"].symlink_to(live)
    places["dangling link"].symlink_to(directory / "nothing")
    places["file"].write_text("precious")
    places["folder"].mkdir()
    os.mkfifo(places["fifo"])
    return places


def squatted(scale: Scale, engine: str, _: str) -> str:
    """A server doesn't start where something else is, and leaves it as it is."""
    done = 0
    with folder() as directory, Served(engine, f"unix:{directory}/live") as live:
        places = _in_the_way(directory, f"{directory}/live")
        for _round in range(scale.of(5, 50)):
            for name, path in places.items():
                before = path.lstat()
                try:
                    Served(engine, f"unix:{path}").child.kill()
                except Failed:
                    pass
                else:
                    raise Failed(f"a server started in the place of a {name}")
                now = path.lstat()
                same = (before.st_ino, stat.S_IFMT(before.st_mode)) == (now.st_ino, stat.S_IFMT(now.st_mode))
                check(same, f"the {name} isn't what it was")
                check(not (directory / "nothing").exists(), "the link was followed")
                done += 1
            _served(live)
    return f"{done} starts refused: {', '.join(places)}"


def start_often(channel: Connection, engine: str, address: str, count: int) -> None:
    """Start and stop a server so often, with no umask to help."""
    os.umask(0)
    for _ in range(count):
        server = Server(address, backend=engine)
        server.service(lambda client, request: request)
        server.start()
        server.stop(0)


def knock(channel: Connection, path: str) -> tuple[int, int]:
    """Connect in a loop as somebody else, until told to stop: how often it could, how often it wasn't allowed to."""
    become_somebody_else()
    channel.send("ready")
    entered = denied = 0
    while True:
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as sock:
                error = sock.connect_ex(path)
            entered += error == 0
            denied += error == 13
        if channel.poll():
            return entered, denied


def windows(scale: Scale, engine: str, _: str) -> str:
    """While a server starts under umask 0, no foreign user gets through to its socket."""
    _need_root()
    count = scale.of(200, 10_000)
    with folder() as directory, Child(knock, f"{directory}/s") as foreigner:
        foreigner.receive()
        with Child(start_often, engine, f"unix:{directory}/s", count) as starter:
            starter.result(scale.of(120, 1800))
        foreigner.send("enough")
        entered, denied = foreigner.result()
    check(entered == 0, f"a foreign user connected {entered} times in {count} starts, {denied} times not")
    check(denied > 0, "the foreign user never found the socket: nothing was tried")
    return f"{count:,} starts under umask 0: {denied:,} connects of a foreign user denied, 0 possible"


# Passed descriptors

_MOST = 253  # SCM_MAX_FD


def descriptors_passed(scale: Scale, engine: str, _: str) -> str:
    """Messages with as many descriptors as the kernel takes: none of them stays with the server."""
    count = scale.of(1000, 1000)
    raise_descriptors(1024)
    files = [os.dup(0) for _ in range(_MOST)]
    most = 0
    with serving(engine, "unix") as server:
        before = at_rest(server) + 1
        with let_in(server.address) as sock:
            for number in range(count):
                payload = sealed(b"%d" % number)
                data = wire.srm(payload, number)
                # In two pieces, so that some arrive with half a frame.
                socket.send_fds(sock, [data[:7]], files)
                socket.send_fds(sock, [data[7:]], files[: number % _MOST])
                expected = wire.frame(wire.REPLY, payload, id=number)
                check(exactly(sock, len(expected)) == expected, "a request that came with descriptors isn't served")
                most = max(most, server.descriptors())
            check(most == before, f"{before} descriptors before, {most} while {_MOST} were passed each time")
            check(ask(sock, sealed(b"end"), count) == sealed(b"end"), "it isn't served any more")
        with dial(server.address) as sock:  # before the CIR, too
            socket.send_fds(sock, [wire.cir()], files)
            got = next_frame(sock)
            check(got is not None and got.kind == wire.CIR_ACCEPTED, f"a CIR with descriptors was answered with {got}")
            check(server.descriptors() == before, "descriptors that came with a CIR stay")
        server.wait_empty()
    return f"{count:,} messages of {_MOST} descriptors: {before} open before, {most} at most"


EXPERIMENTS = [
    *per_engine("access/foreign", "a foreign user", foreign, transports=["unix"]),
    *per_engine("access/keys", "wrong keys, recorded and reflected proofs", keys),
    *per_engine("access/squatted", "something else in the socket's place", squatted, transports=["unix"]),
    *per_engine("access/windows", "umask 0 while a server starts", windows, transports=["unix"]),
    *per_engine("access/passed", "messages of 253 passed descriptors", descriptors_passed, transports=["unix"]),
]
