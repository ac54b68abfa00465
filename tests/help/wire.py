"""The wire by hand: frames and fields as the protocol page has them, without pysock's own encoder; ways to send them.

What is written here is what somebody would write who has that page alone. So a mistake in ``pysock.wire.format`` can't
hide in the tests.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from support import PATIENCE, RawPeer, plug, wait_for

from pysock import RemoteError, Server
from pysock.wire import texts

# The numbers of the page.

CIR, SRM, PING, BYE, CANCEL, CREDIT, PROOF = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08
ANSWER, ANSWER_ERROR, ASK, ASK_CANCEL = 0x09, 0x0A, 0x89, 0x8A
CIR_ACCEPTED, CIR_REFUSED, REPLY, ERROR, PUSH, PONG, GOAWAY, CHALLENGE = range(0x81, 0x89)
SERVERS_KINDS = tuple(range(0x81, 0x8B))
UNKNOWN_KINDS = (0x00, 0x05, 0x07, 0x09, 0x0A, 0x0B, 0x7F, 0x80, 0x8B, 0xFF)
CLIENT_ID, NAME, NONCE, MAC, MAX_PAYLOAD, MAX_IN_FLIGHT, SERVICE, SOFTWARE, FEATURES = range(1, 10)
STREAM_WINDOW, SERVICE_OPTIONS = 10, 11
NO_REPLY, DEADLINE, TAKES_STREAM, MORE, NOT_STARTED, GAP = 1, 2, 4, 1, 1, 1
SPEAKS_DEADLINE, SPEAKS_CANCEL, SPEAKS_STREAM, SPEAKS_ASK, SPEAKS_GAP = 1, 2, 4, 8, 16
SPEAKS_TRACE, RESERVED = 32, 0xFFFFFFC0

HANDLER_FAILED, NO_SUCH_SERVICE, TOO_LARGE, TOO_MANY, SHUTTING_DOWN, NOT_ALLOWED, MALFORMED, TOO_LATE = range(1, 9)
CANCELLED, OVERLOADED, NEEDS_STREAM = 9, 10, 11
SETTLED = 2  # of GOAWAY
BAD_MAGIC, REFUSED_NOT_ALLOWED, WRONG_PROOF, FULL, REFUSED_SHUTTING_DOWN, CIR_LATE, REFUSED_MALFORMED = range(1, 8)

#: Why a test of one who is turned away can't hold over TLS.
AT_THE_DOOR = "who is turned away at the door hears an alert: tls/test_tls_clients.py has that"


def socket_of(transport: str) -> str:
    """What the directory calls it: TLS is spoken over TCP."""
    return "tcp" if transport.startswith("tls") else transport


class Got(NamedTuple):
    """One frame as it was received."""

    kind: int
    flags: int
    code: int
    id: int
    payload: bytes


# What a client sends


def frame(kind: int, payload: bytes = b"", *, id: int = 0, code: int = 0, flags: int = 0, length: int = -1) -> bytes:  # noqa: A002
    """A frame; ``length`` may tell a lie."""
    return struct.pack("!IBBHI", len(payload) if length < 0 else length, kind, flags, code, id) + payload


def field(tag: int, value: bytes) -> bytes:
    return struct.pack("!BH", tag, len(value)) + value


def cir(*fields: bytes, name: bytes = b"", magic: bytes = b"PSK1", version: int = 1) -> bytes:
    """A connection initiation request."""
    named = (field(NAME, name),) if name else ()
    return frame(CIR, magic + b"".join(named + fields), code=version)


def srm(payload: bytes = b"", id: int = 1, *, service: int = 0, flags: int = 0) -> bytes:  # noqa: A002
    """A service request message."""
    return frame(SRM, payload, id=id, code=service, flags=flags)


def features(bits: int) -> bytes:
    """The field of a CIR that says what the client speaks."""
    return field(FEATURES, struct.pack("!I", bits))


def timed(payload: bytes, id: int = 1, *, left: int, service: int = 0, flags: int = 0) -> bytes:  # noqa: A002
    """A request whose client waits so many microseconds."""
    return srm(struct.pack("!I", left) + payload, id, service=service, flags=DEADLINE | flags)


def cancel(id: int) -> bytes:  # noqa: A002
    return frame(CANCEL, id=id)


def credit(id: int, size: int) -> bytes:  # noqa: A002
    """So many bytes more of the stream that answers this request."""
    return frame(CREDIT, struct.pack("!I", size), id=id)


def ping(payload: bytes = b"", id: int = 1) -> bytes:  # noqa: A002
    return frame(PING, payload, id=id)


BYE_FRAME = frame(BYE)

# What a client expects


def replied(payload: bytes, id: int = 1) -> Got:  # noqa: A002
    return Got(REPLY, 0, 0, id, payload)


def failed(code: int, text: str, id: int = 1) -> Got:  # noqa: A002
    return Got(ERROR, 0, code, id, text.encode())


def not_started(code: int, text: str, id: int = 1) -> Got:  # noqa: A002
    return Got(ERROR, NOT_STARTED, code, id, text.encode())


def refused(code: int, text: str) -> Got:
    return Got(CIR_REFUSED, 0, code, 0, text.encode())


def ponged(payload: bytes = b"", id: int = 1, code: int = 0) -> Got:  # noqa: A002
    return Got(PONG, 0, code, id, payload)


def pushed(payload: bytes, lost: int = 0) -> Got:
    """With ``lost`` it tells of so many before it that were dropped."""
    return Got(PUSH, GAP, 0, 0, struct.pack("!I", lost) + payload) if lost else Got(PUSH, 0, 0, 0, payload)


def goaway(text: str, code: int | None = None) -> Got:
    """Of a server that stops with the code that says: what has no answer now was not run."""
    settled = SETTLED if text == texts.SHUTTING_DOWN else 0
    return Got(GOAWAY, 0, settled if code is None else code, 0, text.encode())


#: What one hears first that waits for an answer still.
LEAVING = goaway(texts.SHUTTING_DOWN, 0)


def parse(data: bytes) -> list[Got]:
    """The frames that these bytes are; they must end with one."""
    found, at = [], 0
    while at < len(data):
        length, kind, flags, code, number = struct.unpack_from("!IBBHI", data, at)
        assert at + 12 + length <= len(data), f"the last frame is cut: {data[at:]!r}"
        found.append(Got(kind, flags, code, number, data[at + 12 : at + 12 + length]))
        at += 12 + length
    return found


def fields_of(payload: bytes) -> list[tuple[int, bytes]]:
    """The fields that these bytes are."""
    found, at = [], 0
    while at < len(payload):
        tag, length = struct.unpack_from("!BH", payload, at)
        assert at + 3 + length <= len(payload)
        found.append((tag, payload[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


# Ways to send it

#: How a stream may be cut: the ids of the fixture ``cut``.
CUTS = ("whole", "bytes", "random")


def pieces(data: bytes, cut: str, seed: Any = 1) -> Iterator[bytes]:
    """Cut a stream in one of the ways; the random one is the same each time."""
    if cut == "whole":
        yield data
        return
    chance = random.Random(f"{seed}")
    at = 0
    while at < len(data):
        size = 1 if cut == "bytes" else min(chance.randint(1, 40), chance.randint(1, 40))
        if cut == "random" and len(data) > 4000:
            size *= len(data) // 1000
        yield data[at : at + size]
        at += size


def is_gone(sock: socket.socket) -> bool:
    """The other end sends nothing more."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def send_cut(server: Server, sock: socket.socket, data: bytes, cut: str) -> None:
    """Send it in pieces, and see to it that the server reads each by itself. It may close before the end."""
    for piece in pieces(data, cut):
        before = server.stats()["bytes_in"]
        try:
            sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        if cut == "whole":
            continue
        deadline = time.monotonic() + PATIENCE
        while server.stats()["bytes_in"] < before + len(piece) and not is_gone(sock):
            assert time.monotonic() < deadline, "the server doesn't read"
            time.sleep(0.00005)


def dial(server: Server) -> RawPeer:
    """A connection, and nothing said on it yet."""
    sock = plug(server.addresses[0])
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return RawPeer(sock)


def say(server: Server, data: bytes, cut: str = "whole", *, end: bool = True) -> bytes:
    """Connect, send, half-close (unless told not to); everything the server says until it closes the connection."""

    def send() -> None:
        send_cut(server, peer.sock, data, cut)
        if end:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_WR)

    with dial(server) as peer:
        if len(data) < 10_000:
            send()
            return peer.rest()
        # A server doesn't read a client that takes no replies.
        sender = threading.Thread(target=send)
        sender.start()
        answers = peer.rest()
        sender.join(PATIENCE)
        return answers


def talk(server: Server, data: bytes, cut: str = "whole", *, end: bool = True) -> list[Got]:
    """``say`` after a CIR, which must be accepted; what follows CIR_ACCEPTED."""
    accepted, *answers = parse(say(server, cir() + data, cut, end=end))
    assert accepted.kind == CIR_ACCEPTED
    return answers


def let_in(server: Server, *fields: bytes, name: bytes = b"") -> RawPeer:
    """A client that was let in."""
    peer = dial(server)
    peer.send(cir(*fields, name=name))
    answer = peer.frame()
    assert answer is not None
    assert answer.kind == CIR_ACCEPTED, answer
    return peer


def next_frame(peer: RawPeer) -> Got | None:
    """The next frame, ``None`` at the end."""
    found = peer.frame()
    return None if found is None else Got(*found)


def rest_of(peer: RawPeer) -> list[Got]:
    """All frames up to the end of the connection."""
    return parse(peer.rest())


def reset(sock: socket.socket) -> None:
    """Close it so that, over TCP, the other end gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    getattr(sock, "plain", sock).close()  # of TLS without a word


# Servers


class Services:
    """What the servers of these tests do, and a record of what was asked of them."""

    UPPER, SIZE, FAIL, SAY, GATHER = range(5)

    def __init__(self, server: Server) -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self.gone: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        server.service(self._upper)
        server.service("size")(self._size)
        server.service("fail")(self._fail)
        server.service("say")(self._say)
        server.batch_service("gather", max_batch=100)(self._gather)
        server.on_disconnect(lambda client, reason: self.gone.append((client.name, reason.value)))

    def called_for(self, name: str) -> list[tuple[str, bytes]]:
        """Service and request of each call for the client of this name."""
        return [(service, request) for service, client, request in list(self.calls) if client == name]

    def wait_gone(self, *expected: tuple[str, str]) -> None:
        """Wait until these clients and no others are gone, by name and reason."""
        wait_for(lambda: len(self.gone) >= len(expected), f"{expected}, not {self.gone}")
        assert sorted(self.gone) == sorted(expected)

    def _note(self, service: str, client: Any, request: bytes) -> None:
        self.calls.append((service, client.name, request))

    def _upper(self, client: Any, request: bytes) -> bytes:
        self._note("upper", client, request)
        return request.upper()

    def _size(self, client: Any, request: bytes) -> bytes:
        """As many bytes as the request says."""
        self._note("size", client, request)
        return b"s" * int(request)

    def _fail(self, client: Any, request: bytes) -> bytes:
        self._note("fail", client, request)
        raise ZeroDivisionError("nobody's business outside")

    def _say(self, client: Any, request: bytes) -> bytes:
        self._note("say", client, request)
        raise RemoteError(request.decode())

    def _gather(self, clients: list[Any], requests: list[bytes]) -> list[bytes]:
        for client, request in zip(clients, requests, strict=True):
            self._note("gather", client, request)
        return [request[::-1] for request in requests]


class Good:
    """A client that behaves, to be served whatever others do."""

    def __init__(self, server: Server) -> None:
        self.peer = let_in(server, name=b"good")
        self.count = 0

    def check(self) -> None:
        """One request, as it should be."""
        self.count += 1
        self.peer.send(srm(b"good %d" % self.count, self.count))
        assert next_frame(self.peer) == replied(b"GOOD %d" % self.count, self.count)

    def __enter__(self) -> Good:
        self.check()
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is None:
            self.check()
        self.peer.close()


def counted(server: Server, **expected: int) -> None:
    """Wait until these counters of the server stand so; and see to it that nobody is left, unless it says who."""
    expected = {"clients": 0, "pending": 0, **expected}
    deadline = time.monotonic() + PATIENCE
    while (now := {name: server.stats()[name] for name in expected}) != expected:
        assert time.monotonic() < deadline, f"{now} instead of {expected}"
        time.sleep(0.002)
