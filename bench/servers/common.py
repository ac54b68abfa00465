"""What the Python servers share: their command line, the handler, and the cutting of u32 frames."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

U32 = struct.Struct(">I")
unpack_from, pack = U32.unpack_from, U32.pack

BACKLOG = 4096

#: Replies of more bytes in all are handed over as they are: a copy costs more than an iovec.
JOIN_MAX = 64 * 1024

Handler = Callable[[bytes], bytes]


def echo(request: bytes) -> bytes:
    return request


def working(microseconds: float) -> Handler:
    """A handler that computes for so long."""
    nanoseconds, clock = int(microseconds * 1000), time.perf_counter_ns

    def work(request: bytes) -> bytes:
        end = clock() + nanoseconds
        while clock() < end:
            pass
        return request

    return work


def start_hog() -> None:
    """A thread that wants the GIL all the time. Who measures is told its id."""

    def burn() -> None:
        print("hog", threading.get_native_id(), flush=True)
        while True:
            pass

    threading.Thread(target=burn, daemon=True).start()


class Arguments(argparse.Namespace):
    """``address`` is ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``."""

    address: str
    handler: Handler
    cert: str | None
    ask: bool
    is_unix: bool
    where: Any  # what bind() takes
    broadcast: bool

    @property
    def context(self) -> ssl.SSLContext | None:
        """By what TLS is spoken, the same by everybody: version 1.3, and one ticket."""
        if self.cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0 if self.ask else 1
        context.load_cert_chain(self.cert)
        if self.ask:
            context.load_verify_locations(self.cert)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def url(self) -> str:
        """As ZeroMQ and nng write it."""
        return f"ipc://{self.where}" if self.is_unix else f"tcp://{self.where[0]}:{self.where[1]}"


def arguments(**choices: list[str] | bool | None) -> Arguments:
    """Read the command line: of each option its choices, ``None`` for any text, ``False`` for a switch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--cert", help="of a tls: address: a file with a certificate and its key")
    parser.add_argument("--ask", action="store_true", help="clients have to show that certificate, too")
    parser.add_argument("--hog", action="store_true", help="a Python thread burns the CPU beside the server")
    parser.add_argument("--broadcast", action="store_true", help="send what a client says to all, if it can do that")
    parser.add_argument("--work-us", type=float, default=0.0, help="what the handler computes")
    for name, choice in choices.items():
        if isinstance(choice, bool):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", choices=choice, default=choice and choice[0])
    parsed = parser.parse_args(namespace=Arguments())
    parsed.is_unix, parsed.where = endpoint(parsed.address)
    parsed.handler = working(parsed.work_us) if parsed.work_us else echo
    if parsed.hog:
        start_hog()
    return parsed


def endpoint(address: str) -> tuple[bool, Any]:
    """Whether it is a Unix socket, and what connect() takes."""
    transport, _, rest = address.partition(":")
    if transport == "unix":
        return True, rest
    host, _, port = rest.rpartition(":")
    return False, (host, int(port))


def prepare(sock: socket.socket, is_unix: bool, where: Any) -> socket.socket:
    """Let it listen."""
    if not is_unix:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(where)
    sock.listen(BACKLOG)
    return sock


def no_delay(sock: Any) -> None:
    """A reply must not wait for an ACK."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def no_delay_fd(fd: int) -> None:
    """The same, of a connection that shows nothing but its descriptor."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        no_delay(sock)


class Frames:
    """Cuts what arrives into frames, calls the handler for each whole one, and gathers the replies."""

    __slots__ = ("handler", "need", "rest")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.rest: bytes | bytearray = b""
        self.need = 0  # bytes of a large frame that is being gathered in rest

    def feed(self, data: bytes) -> list[bytes]:
        """Return what is to be sent."""
        if self.need:
            return self._gather(data)
        return self._cut(self.rest + data if self.rest else data)

    def _cut(self, data: bytes) -> list[bytes]:
        replies: list[bytes] = []
        at, end, handler = 0, len(data), self.handler
        while end - at >= 4:
            (size,) = unpack_from(data, at)
            stop = at + 4 + size
            if stop > end:
                break
            reply = handler(data[at + 4 : stop])
            replies.append(pack(len(reply)))
            replies.append(reply)
            at = stop
        self.rest = data[at:]
        if end - at >= 4 and size > JOIN_MAX:
            self.rest, self.need = bytearray(self.rest), size + 4
        return replies

    def _gather(self, data: bytes) -> list[bytes]:
        """Without a copy of all that has come for each piece that comes."""
        rest, need = self.rest, self.need
        rest += data
        if len(rest) < need:
            return []
        with memoryview(rest) as view:
            reply, after = self.handler(bytes(view[4:need])), bytes(view[need:])
        self.need = 0
        return [pack(len(reply)), reply, *self._cut(after)]


def serve_blocking(sock: Any, handler: Handler) -> None:
    """One client of a server with a thread, or greenlet, for each."""
    no_delay(sock)
    frames = Frames(handler)
    while data := sock.recv(65536):
        replies = frames.feed(data)
        if replies:
            sock.sendall(b"".join(replies))
