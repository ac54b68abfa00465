"""Scripts of clients against the pure engine, of which one system call fails. See ``faults.py`` for how it is driven.

    python faulty_pure.py SCRIPT FRAMING TRANSPORT     engine | guest | client, pysock | u32, unix | tcp

What holds for each fault: the loop survives it, or ends with the error where it can't be done without; no client sees a
wrong byte; those that the fault doesn't concern are served; nothing spins; no descriptor is left over.
"""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import gc
import logging
import os
import select
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "help"))

import wire
from support import own_host, wait_for
from wire import BYE_FRAME, CIR_ACCEPTED, CIR_REFUSED, ERROR, GOAWAY, PONG, PUSH, REPLY, cir, frame, ping, srm

import pysock
from lab.seam import EATING, SEAM, install
from pysock import Limits, Server, ServerState

PATIENCE, SOME_PATIENCE, IMPATIENCE, QUIET, GRACE = 5.0, 0.5, 0.03, 0.01, 0.1
TURNS_MAX = 60
#: So many seconds for one fault are a deadlock.
HANGS = 60.0
PATTERN = bytes(i * 7 + i // 253 & 0xFF for i in range(1 << 18))
#: Of a stream: so many pieces, and the last one; what is sent without credit; and the number of the service.
PIECES, LAST, WINDOW, STREAM = 4, b"the last", 500, 1
#: The guests that come and go; as many may be lost where a fault concerns everybody.
GUESTS = 5

HARMLESS = frozenset(("getsockopt", "setsockopt", "close", "accept4", "write"))
#: They can't be done without: the loop ends, and says why.
VITAL = frozenset(("epoll_wait", "read"))
SHORT_OF_MEMORY = frozenset((errno.ENOBUFS, errno.ENOMEM))


class Wrong(AssertionError):
    """Something that mustn't be."""


def must(condition: object, text: str) -> None:
    if not condition:
        raise Wrong(text)


def is_harmless() -> bool:
    """Nobody who is in loses anything by it, even if it lasts."""
    return SEAM.call in HARMLESS or SEAM.passes() or not SEAM.error


def is_fatal() -> bool:
    """The loop may end by it."""
    return SEAM.call in VITAL and not SEAM.passes() and SEAM.struck > 0


def bearable_losses() -> int:
    """How many guests may be lost by it."""
    full = SEAM.call == "accept4" and SEAM.error in {errno.EMFILE, errno.ENFILE}
    eaten = SEAM.call == "accept4" and SEAM.error in EATING
    if SEAM.mode == "ever" and (SEAM.call in {"accept4", "getsockopt"} or not is_harmless()):
        return GUESTS  # nobody may get in; for those who are in, see look_at
    if SEAM.mode == "once" and SEAM.call in {"sendto", "sendmsg"} and SEAM.error in SHORT_OF_MEMORY:
        return 0
    if full:
        return 2  # who waits is told so, and refused; and so is who comes in the middle of that
    unknown = SEAM.call == "getsockopt"  # who it is, so it isn't let in
    return 0 if is_harmless() and not eaten and not unknown else 1


def stuck() -> int:
    """How many of those who have left may still be there: the engine keeps what it can't send, or receive."""
    if not SEAM.armed or SEAM.error not in SHORT_OF_MEMORY or SEAM.mode == "once" or is_harmless():
        return 0
    return 1 if SEAM.mode == "same" else sys.maxsize


def patience(joining: bool) -> float:
    """How long a guest waits."""
    if SEAM.armed and SEAM.mode == "ever":
        door = SEAM.call == "accept4" and not SEAM.passes()
        if not is_harmless() or (joining and door):
            return IMPATIENCE
    if SEAM.armed and SEAM.mode == "same" and SEAM.error in SHORT_OF_MEMORY:
        return SOME_PATIENCE
    return PATIENCE


class Guest:
    """A client. What it gets is right to the last byte; or its connection ends; or it is told why."""

    def __init__(self, party: Party) -> None:
        self.party = party
        family = socket.AF_UNIX if isinstance(party.address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.lost = self.late = self.came_in = False
        self.told = party.told()
        try:
            if family != socket.AF_UNIX:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.connect(party.address)
            party.plugged += 1
        except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError):
            self.lost = True
        self.sock.setblocking(False)

    def transfer(self, asked: bytes, wanted: bytes, slow: bool = False, joining: bool = False) -> bytes:
        """Send what is asked, receive what is wanted; a slow guest reads when nothing more is taken from it."""
        got, waits = bytearray(), patience(joining)
        left = memoryview(asked)
        while not self.lost and (left or len(got) < len(wanted)):
            reads = len(got) < len(wanted) and not (slow and left)
            readers, writers = [self.sock] if reads else [], [self.sock] if left else []
            ready = select.select(readers, writers, [], waits if reads else 0.005)
            if not any(ready):
                if not reads:
                    slow = False
                    continue
                self.late = self.lost = True
            if ready[0]:
                got += self._receive(len(wanted) - len(got))
                self._compare(got, wanted)
            if ready[1]:
                left = self._send(left)
        return bytes(got)

    def _send(self, left: memoryview) -> memoryview:
        try:
            return left[self.sock.send(left, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return left
        except OSError:
            return left[:0]  # the end is read, with the reason in front of it perhaps

    def _receive(self, room: int) -> bytes:
        try:
            data = self.sock.recv(room)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.lost = not data
        return data

    def _compare(self, got: bytearray, wanted: bytes) -> None:
        if wanted.startswith(got):
            return
        must(self.party.framed, f"wrong bytes: {bytes(got[:40])!r}")
        at = 0
        while got[at : at + 5] == wanted[at : at + 5] and at + 12 <= len(got):
            at += 12 + struct.unpack_from("!I", wanted, at)[0]
        if len(got) >= at + 5:
            must(got[at + 4] in {ERROR, CIR_REFUSED, GOAWAY}, f"wrong bytes at {at}: {bytes(got[at : at + 40])!r}")
            self.lost = True

    def rest(self) -> bool:
        """Everything up to the end of the connection; whether it comes."""
        while select.select([self.sock], [], [], PATIENCE)[0]:
            self._receive(65536)
            if self.lost:
                return True
        return False

    def leave(self) -> None:
        self.sock.close()


def pieces(client: Any, request: bytes) -> Iterator[bytes]:
    """The service whose replies come in pieces of so many bytes."""
    for number in range(PIECES):
        yield PATTERN[number : number + int(request)]
    return LAST


class Answers:
    """Who waits for what a client answers."""

    def __init__(self) -> None:
        self.came: list[bytes] = []

    def done(self) -> bool:
        return False

    def set_result(self, payload: bytes) -> None:
        self.came.append(payload)

    def set_exception(self, error: Exception) -> None:
        """It has gone."""


class Party:
    """A server, and its guests."""

    def __init__(self, framing: str, transport: str, folder: str, as_guest: bool) -> None:
        self.framed = framing == "pysock"
        self.lost = self.plugged = 0
        self.guests: dict[str, Guest] = {}
        self.error: BaseException | None = None
        self._run = self._as_guest if as_guest else self._alone
        path = f"{folder}/s"
        limits = Limits(max_clients=6, max_pending_cir=4, output_pause=65536, stream_window=WINDOW)
        where = f"unix:{path}" if transport == "unix" else f"tcp://{own_host()}:0"
        self.server = Server(where, backend="pure", framing=framing, linger=0, limits=limits)
        self.server.service(lambda client, request: request)
        self.server.service("stream")(pieces)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        wait_for(lambda: self.server.state is ServerState.SERVING or not self.thread.is_alive())
        listening = self.server.addresses[0]
        self.address: Any = path if transport == "unix" else (listening.host, listening.port)

    def _serve(self) -> None:
        SEAM.subjects.add(threading.get_ident())
        try:
            self._run()
        except BaseException as error:
            self.error = error
        finally:
            SEAM.subjects.discard(threading.get_ident())

    def _alone(self) -> None:
        self.server.serve_forever(grace=GRACE)

    def _as_guest(self) -> None:
        async def serve() -> None:
            async with self.server:
                await self.server.wait_closed()

        asyncio.run(serve())

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def told(self) -> int:
        """The counters that tell of a client's end, or of one that didn't come in."""
        stats = self.server.stats()
        at_the_door = stats["accepted"] - stats["established"] - stats["pending"]  # it never got in
        names = ("refused", "disconnected", "over_limit", "accept_failures", "errors")
        return at_the_door + sum(stats[name] for name in names)

    # Guests

    def come_in(self, name: str) -> Guest:
        before = self.told()
        guest = self.guests[name] = Guest(self)
        if self.framed:
            speaks = wire.SPEAKS_CANCEL | wire.SPEAKS_STREAM | wire.SPEAKS_ASK
            guest.transfer(cir(wire.features(speaks), name=name.encode()), b"")
            head = self._exactly(guest, 12)
            if not guest.lost:
                must(head[4] in {CIR_ACCEPTED, CIR_REFUSED}, f"no answer to a CIR: {head!r}")
                self._exactly(guest, struct.unpack("!I", head[:4])[0])
                guest.lost = guest.lost or head[4] == CIR_REFUSED
        else:
            guest.transfer(self.request(b"hello", 1), self.reply(b"hello", 1), joining=True)
        guest.came_in = not guest.lost
        self.look_at(guest, before)
        return guest

    def _exactly(self, guest: Guest, size: int) -> bytes:
        got = b""
        while len(got) < size and not guest.lost:
            if not select.select([guest.sock], [], [], patience(joining=True))[0]:
                guest.late = guest.lost = True
            else:
                got += guest._receive(size - len(got))
        return got

    def look_at(self, guest: Guest, before: int) -> None:
        """After an exchange: it is well, or it is lost, and a counter tells.

        :param before: what was told when that exchange began: the server may already have lost a guest that has just
            got all it waited for.
        """
        if not guest.lost:
            guest.told = before
            return
        self.lost += 1
        must(not (guest.came_in and is_harmless()), "a guest that was in is lost")
        must(not guest.late or bearable_losses(), "a guest wasn't served in time")
        if SEAM.mode == "once" and not guest.late and SEAM.call != "accept4":
            wait_for(lambda: self.ended or self.told() > guest.told, "a counter that tells of a lost client", PATIENCE)

    def converse(self, guest: Guest, messages: list[bytes], slow: bool = False) -> None:
        asked = b"".join(self.request(message, i) for i, message in enumerate(messages, 1))
        wanted = b"".join(self.reply(message, i) for i, message in enumerate(messages, 1))
        self.exchange(guest, asked, wanted, slow)

    def exchange(self, guest: Guest, asked: bytes, wanted: bytes, slow: bool = False) -> None:
        if not guest.lost:
            before = self.told()
            guest.transfer(asked, wanted, slow)
            if wanted or guest.lost:  # else nobody knows how it is
                self.look_at(guest, before)

    def request(self, payload: bytes, number: int) -> bytes:
        return srm(payload, number) if self.framed else struct.pack("!I", len(payload)) + payload

    def reply(self, payload: bytes, number: int) -> bytes:
        return frame(REPLY, payload, id=number) if self.framed else struct.pack("!I", len(payload)) + payload

    def pushed(self, payload: bytes) -> bytes:
        return frame(PUSH, payload) if self.framed else struct.pack("!I", len(payload)) + payload

    def call(self, function: Any, *arguments: Any) -> Any:
        """Something that other threads may ask of the engine; ``None`` if the fault prevents it."""
        SEAM.subjects.add(threading.get_ident())
        try:
            return function(*arguments)
        except (OSError, pysock.PysockError):
            must(SEAM.struck, "a call failed without a fault")
            return None
        finally:
            SEAM.subjects.discard(threading.get_ident())

    def a_crowd(self, count: int) -> None:
        """Some who say nothing: one too many for the door, or for the house."""
        before = self.server.stats()["accepted"]
        silent = [Guest(self) for _ in range(count)]
        end = time.monotonic() + 0.005
        while self.server.stats()["accepted"] < before + count and time.monotonic() < end:
            time.sleep(0.0005)
        for guest in silent:
            guest.leave()

    def the_gone_are_gone(self) -> None:
        for name, guest in list(self.guests.items()):
            if guest.lost:
                guest.leave()
                del self.guests[name]

        shut = SEAM.armed and SEAM.call in {"accept4", "object"} and SEAM.mode == "ever"

        def are_gone() -> bool:
            stats = self.server.stats()
            came = shut or stats["accepted"] + SEAM.eaten == self.plugged
            return self.ended or (came and stats["clients"] + stats["pending"] <= len(self.guests) + stuck())

        wait_for(are_gone, "the end of those who have left", PATIENCE)

    # The script

    def while_it_lasts(self) -> None:
        scale = 8000 if SEAM.error else 400
        first = self.come_in("a guest")
        self.small(first)
        self.take_stream(first, 2 * scale)
        self.a_crowd(5)
        self.the_gone_are_gone()
        second = self.come_in("second")
        self.in_two_pieces(second, 3000, 3)
        self.in_two_pieces(second, 20000 if SEAM.error else 1000, 700)
        for _ in range(2):
            self.converse(first, [PATTERN[: 5 * scale]])
        slow = self.come_in("slow")
        self.read_slowly(slow, scale)
        self.push(slow)
        self.ask("slow")
        self.a_crowd(4)
        self.the_gone_are_gone()
        polite = self.come_in("polite")
        if self.framed:
            self.leave_stream(polite)
            self.exchange(polite, BYE_FRAME, b"")
        polite.lost = True
        self.the_gone_are_gone()
        self.send_away(self.come_in("unwanted"))
        self.converse(second, [PATTERN[: 3 * scale]])
        self.small(first)
        self.read_slowly(slow, scale)
        if SEAM.mode != "once" and not self.ended:
            self.no_spinning()

    def small(self, guest: Guest) -> None:
        if self.framed:
            self.exchange(guest, ping(b"well?"), frame(PONG, b"well?", id=1))
        self.converse(guest, [PATTERN[i : 11 * i] for i in range(4)])

    def in_two_pieces(self, guest: Guest, size: int, first: int) -> None:
        asked, wanted = self.request(PATTERN[:size], 1), self.reply(PATTERN[:size], 1)
        before = self.server.stats()["bytes_in"]
        self.exchange(guest, asked[:first], b"")
        end = time.monotonic() + 0.01
        while self.server.stats()["bytes_in"] < before + first and time.monotonic() < end:
            time.sleep(0.0005)
        self.exchange(guest, asked[first:], wanted)

    def read_slowly(self, guest: Guest, scale: int) -> None:
        self.converse(guest, [PATTERN[i : i + 6 * scale] for i in range(10)] + [PATTERN[:200]] * 100, slow=True)

    def push(self, guest: Guest) -> None:
        clients = self.call(lambda: list(self.server.clients.values())) or []
        all_are_there = len(clients) == sum(not each.lost for each in self.guests.values())
        for client in clients[-1:] if all_are_there else []:  # else the last one may be another than this guest
            self.call(lambda client=client: (client.peer, client.name, client.bytes_out))
            if not guest.lost and self.call(lambda client=client: client.send(PATTERN[:1000]) is None):
                self.exchange(guest, b"", self.pushed(PATTERN[:1000]))
        if self.call(self.server.clients.broadcast, PATTERN[:300]):
            for other in self.guests.values():
                if other.came_in:
                    self.exchange(other, b"", self.pushed(PATTERN[:300]))

    def take_stream(self, guest: Guest, size: int) -> None:
        """One piece comes without credit; the others, and the last one, behind it."""
        if not self.framed:
            return
        sent = [PATTERN[number : number + size] for number in range(PIECES)]
        first, *others = [frame(REPLY, piece, id=7, flags=wire.MORE) for piece in sent]
        asked = srm(b"%d" % size, 7, service=STREAM, flags=wire.TAKES_STREAM)
        self.exchange(guest, asked, first)
        self.exchange(guest, wire.credit(7, 1 << 20), b"".join(others) + frame(REPLY, LAST, id=7))

    def leave_stream(self, guest: Guest) -> None:
        """It has begun, and its client goes."""
        self.exchange(guest, srm(b"5000", 8, service=STREAM, flags=wire.TAKES_STREAM), b"")

    def ask(self, name: str) -> None:
        """A client; its answer has come when a PING behind it is answered."""
        guest, answers = self.guests[name], Answers()

        def post() -> int:
            try:
                client = self.server.clients.by_name(name)
            except KeyError:
                raise pysock.ConnectionLost("it has gone") from None
            asks, engine = self.server._running.hooks.asking.begin(client)
            return asks.ask(engine, b"\0", PATTERN[:2000], answers)

        if not self.framed or guest.lost:
            return
        number = self.call(post)
        if number is None:
            return
        self.exchange(guest, b"", frame(wire.ASK, b"\0" + PATTERN[:2000], id=number))
        self.exchange(guest, frame(wire.ANSWER, PATTERN[:700], id=number) + ping(b"well?"), frame(PONG, b"well?", id=1))
        must(guest.lost or answers.came == [PATTERN[:700]], f"answers: {answers.came}")

    def send_away(self, guest: Guest) -> None:
        clients = self.call(lambda: list(self.server.clients.values())) or []
        if guest.lost or not clients:
            return
        before = SEAM.struck
        self.call(clients[-1].close)
        must(guest.rest() or SEAM.struck > before or bearable_losses(), "a guest that was sent away is still there")
        guest.lost = True

    def no_spinning(self) -> None:
        before = SEAM.counts.get("epoll_wait", 0)
        time.sleep(QUIET)
        must(SEAM.counts.get("epoll_wait", 0) - before < TURNS_MAX, "the loop spins")

    def when_it_is_over(self) -> None:
        self.the_gone_are_gone()
        control = self.come_in("control")
        self.small(control)
        self.converse(control, [PATTERN[:50000]])
        must(control.came_in and not control.lost, "nobody new is served when the fault is over")

    def end(self) -> None:
        SEAM.armed = SEAM.mode == "ever"
        if not self.ended:
            self.call(self.server.stop, GRACE)
        SEAM.armed = SEAM.armed and self.ended
        if not self.ended:
            self.server.stop(GRACE)
        self.thread.join(PATIENCE)
        must(self.ended, "the loop doesn't end")
        must(self.server.state is ServerState.CLOSED, f"the server is {self.server.state.name}")
        for guest in self.guests.values():
            must(guest.lost or guest.rest(), "a connection outlives the server")
            guest.leave()
        stats = self.server.stats()
        must(stats["clients"] == stats["pending"] == 0, f"clients are left: {stats}")
        must(stats["established"] == stats["disconnected"], f"ends are missing: {stats}")


def engine_script(framing: str, transport: str, folder: str, as_guest: bool = False) -> int:
    party = Party(framing, transport, folder, as_guest)
    wait_for(lambda: party.ended or SEAM.counts.get("epoll_wait"))
    started = not party.ended or is_fatal()
    if started:
        party.while_it_lasts()
        must(party.lost <= bearable_losses() or is_fatal(), f"{party.lost} guests were lost: {party.error!r}")
        must(not party.ended or is_fatal(), f"the loop has ended: {party.error!r}")
        before = party.lost
        if SEAM.mode != "once":
            SEAM.armed = False
            if not party.ended:
                party.when_it_is_over()
        must(party.lost == before, "a guest was lost when the fault was over")
    party.end()
    if party.error is not None:
        must(SEAM.struck, f"{party.error!r} without a fault")
        must(not started or SEAM.call in VITAL, f"the loop ended: {party.error!r}")
        must(isinstance(party.error, OSError) and party.error.errno == SEAM.error, f"another error: {party.error!r}")
    return party.lost


def guest_script(framing: str, transport: str, folder: str) -> int:
    """In a loop of the program's."""
    return engine_script(framing, transport, folder, as_guest=True)


def client_script(framing: str, transport: str, folder: str) -> int:
    """The client's end: a call works, or says what went wrong, and then the connection is of no use any more."""
    where = f"unix:{folder}/s" if transport == "unix" else f"tcp://{own_host()}:0"
    server = Server(where, backend="pure", linger=0)
    server.service(lambda client, request: request)
    with server:
        SEAM.subjects.add(threading.get_ident())
        try:
            _converse(server)
        except (OSError, pysock.PysockError) as error:
            must(SEAM.struck, f"{error!r} without a fault")
            must(not isinstance(error, TimeoutError) or SEAM.error == errno.ETIMEDOUT, f"it took too long: {error!r}")
        except MemoryError:
            must(SEAM.call == "object", "no memory")
        finally:
            SEAM.subjects.discard(threading.get_ident())
        wait_for(lambda: server.stats()["clients"] + server.stats()["pending"] == 0, "the client's end", PATIENCE)
    return 0


def _converse(server: Server) -> None:
    size = 100000 if SEAM.error else 5000  # byte by byte it takes long enough
    with pysock.connect(server.addresses[0], backend="pure", timeout=4 * PATIENCE, linger=0) as client:
        must(client.request(b"hello") == b"hello", "a wrong reply")
        many = [PATTERN[: size if i % 20 == 19 else i] for i in range(60)]
        must(client.request_many(many) == many, "wrong replies")
        server.clients.broadcast(PATTERN[:40000])
        must(next(client.pushes(PATIENCE)) == PATTERN[:40000], "a wrong push")
        must(client.request(PATTERN[:size]) == PATTERN[:size], "a wrong reply")


SCRIPTS = {"engine": engine_script, "guest": guest_script, "client": client_script}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


#: Exceptions that nobody could catch, and what Python warns of: a socket that was left to the garbage collector, say.
UNHEARD: list[str] = []


def run_with(script: str, framing: str, transport: str, line: str) -> int:
    call, error, cap, n, mode = line.split()
    SEAM.reset(call, int(error), int(cap), int(n), mode)
    folder = tempfile.mkdtemp(prefix="psk", dir="/tmp")
    try:
        return SCRIPTS[script](framing, transport, folder)
    finally:
        SEAM.armed = False
        shutil.rmtree(folder)


def main() -> None:
    script, framing, transport = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    install()
    sys.unraisablehook = lambda unheard: UNHEARD.append(repr(unheard.exc_value))
    nothing = "close 9 0 0 once"
    run_with(script, framing, transport, nothing)
    for line in sys.stdin:
        gc.collect()
        files = open_files()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        with suppress(BrokenPipeError):
            lost = run_with(script, framing, transport, line)
        gc.collect()
        must(not UNHEARD, f"behind the scenes: {UNHEARD}")
        must(open_files() == files, f"{open_files() - files} descriptors are left over")
        print("ok", SEAM.struck, lost, flush=True)
    for (call, place), (hits, struck, first) in SEAM.sites.items():
        print("site", call, place, hits, struck, first)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # whatever threads are left
