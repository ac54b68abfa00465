"""A pysock server in a process of its own, and the services that the experiments ask for."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from support import own_host

from lab.experiment import Failed
from lab.processes import PATIENCE, Child, cpu, descriptors, memory, until
from pysock import Limits, Server, ServerState
from pysock.engine.choice import choose

# A fork shall find both engines loaded. Where the native one isn't built, an experiment on it says so.
choose("pure")
with suppress(ImportError):
    choose("native")

#: The CRC-32 of anything that ends with its own CRC-32, low byte first.
RESIDUE = 0x2144DF1C

#: The numbers of the services.
ECHO, BATCH, SIZE, SLEEP, WHO = range(5)

#: Below the range that clients' ports are from: a client must never get a server's port while that is down.
_PORTS = range(20_000, 32_000)


def sealed(data: bytes) -> bytes:
    """The same, with its CRC-32 at the end."""
    return data + crc32(data).to_bytes(4, "little")


class Services:
    """What a server of an experiment does, and how often it was asked."""

    def __init__(self, server: Server) -> None:
        self.calls = 0
        self.altered = 0  # requests that aren't what any client sent
        self.gone: list[tuple[str, str, float]] = []  # name, reason, when
        server.service(self.echo)
        server.batch_service("batch")(self.batch)
        server.service("size")(self.size)
        server.service("sleep")(self.sleep)
        server.service("who")(self.who)

    def echo(self, client: Any, request: bytes) -> bytes:
        self.calls += 1
        if crc32(request) != RESIDUE:
            self.altered += 1
        return request

    def batch(self, clients: list[Any], requests: list[bytes]) -> list[bytes]:
        self.calls += len(requests)
        for request in requests:
            if crc32(request) != RESIDUE:
                self.altered += 1
        return requests

    def size(self, client: Any, request: bytes) -> bytes:
        """As many bytes as the request says."""
        self.calls += 1
        return bytes(int(request))

    def sleep(self, client: Any, request: bytes) -> bytes:
        """A handler that takes so many seconds, and then sends the request back."""
        self.calls += 1
        time.sleep(float(request.split()[0]))
        return request

    def note(self, client: Any, reason: Any) -> None:
        self.gone.append((client.name, reason.value, time.monotonic()))

    def who(self, client: Any, request: bytes) -> bytes:
        """The process, and the request."""
        return b"%d " % os.getpid() + request


class _Process(NamedTuple):
    """What is special about a server's process."""

    files: int | None
    mask: int | None
    watch: bool
    room: int | None


class Served:
    """A server in a process of its own: ``with Served(engine, address) as server: ...``.

    :param files: RLIMIT_NOFILE of its process.
    :param mask: the process's umask.
    :param watch: note who goes, when, and why: ``ask("gone")``.
    :param room: over TCP, bytes that the kernel may keep of what a client doesn't take, if not as many as it likes.
    :param limits: of the server, by name; other ``options`` are those of :class:`pysock.Server`.
    :raises Failed: it doesn't start; the text names the exception.
    """

    def __init__(
        self,
        engine: str,
        address: str,
        *,
        files: int | None = None,
        mask: int | None = None,
        watch: bool = False,
        room: int | None = None,
        limits: dict[str, Any] | None = None,
        wait: bool = True,
        **options: Any,
    ) -> None:
        options |= {"backend": engine, "limits": Limits(**(limits or {}))}
        self.child = Child(_serve, address, _Process(files, mask, watch, room), options)
        self.pid = self.child.pid
        self.address = address
        self._is_serving = False
        if wait:
            self.wait_serving()

    def wait_serving(self) -> None:
        """Wait until it has started. Called again it does nothing."""
        if self._is_serving:
            return
        try:
            self.address = self.child.receive()
        except Failed as failure:
            self.child.kill()
            raise Failed(f"the server didn't start: {failure}") from None
        self._is_serving = True

    def ask(self, what: str) -> Any:
        self.child.send(what)
        return self.child.receive()

    def stats(self) -> dict[str, int]:
        """The server's counters, with the services' ``calls`` and ``altered``."""
        return self.ask("stats")

    def wait_empty(self, timeout: float = PATIENCE, *, spared: int = 0) -> dict[str, int]:
        """Wait until no client is left but so many; the counters."""

        def empty() -> dict[str, int] | None:
            stats = self.stats()
            return stats if stats["clients"] <= spared and not stats["pending"] else None

        return until(empty, "the server to see that its clients are gone", timeout, 0.02)

    def descriptors(self) -> int:
        return descriptors(self.pid)

    def check_descriptors(self, before: int, seen: str = "") -> None:
        """See that it has as many as before; it may still be closing the last."""
        deadline = time.monotonic() + 5
        while (now := self.descriptors()) != before:
            if time.monotonic() > deadline:
                raise Failed(f"{before} descriptors before, {now} after; {seen}")
            time.sleep(0.01)

    def memory(self) -> int:
        return memory(self.pid)

    def cpu(self) -> float:
        return cpu(self.pid)

    def check_alive(self) -> None:
        """See that its process goes on serving."""
        if self.child.channel.poll():
            raise Failed(f"the server ended: {self.child.receive()}")

    def stop(self) -> None:
        """An orderly end."""
        self.child.send("stop")
        self.child.result()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.child.kill()
        self.child.channel.close()


def _serve(channel: Connection, address: str, process: _Process, options: dict[str, Any]) -> dict[str, int]:
    """Serve until stopped, by a signal for example; the last counters."""
    logging.basicConfig(handlers=[logging.NullHandler()])
    if process.mask is not None:
        os.umask(process.mask)
    server = Server(_listening(address, process.room) if process.room else address, **options)
    services = Services(server)
    if process.watch:
        server.on_disconnect(services.note)
    if process.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (process.files, process.files))
    told = address if process.room else None
    threading.Thread(target=_answer, args=(channel, server, services, told), daemon=True).start()
    server.serve_forever(grace=5.0)
    return _counters(server, services)


def _listening(address: str, room: int) -> str:
    """A master socket whose data sockets inherit that room; the address of the descriptor."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    sock.bind((host, int(port)))
    sock.listen(4096)
    return f"fd://{sock.detach()}"


def _counters(server: Server, services: Services) -> dict[str, int]:
    return server.stats() | {"calls": services.calls, "altered": services.altered}


def _answer(channel: Connection, server: Server, services: Services, address: str | None) -> None:
    """The experiment's questions, in a thread beside the loop."""
    while server.state is not ServerState.SERVING:
        time.sleep(0.0005)
    channel.send(address or str(server.addresses[0]))
    while True:
        question = channel.recv()
        if question == "stats":
            channel.send(_counters(server, services))
        elif question == "gone":
            channel.send(services.gone)
        elif question == "stop":
            server.stop(0.5)
            return


@contextmanager
def folder() -> Iterator[Path]:
    """A directory with a short name, which others may look into."""
    path = Path(tempfile.mkdtemp(prefix="lab", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def place(transport: str) -> Iterator[str]:
    """An address that a server can be started at again and again."""
    if transport == "unix":
        with folder() as path:
            yield f"unix:{path}/s"
    else:
        yield f"tcp://{own_host()}:{_free_port()}"


def _free_port() -> int:
    for port in _PORTS[os.getpid() * 97 % 8000 :]:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((own_host(), port))
            except OSError:
                continue
            return port
    raise Failed("no port is free")


@contextmanager
def serving(engine: str, transport: str, **options: Any) -> Iterator[Served]:
    """A server of this kind, for the time of the ``with`` statement."""
    with place(transport) as address, Served(engine, address, **options) as server:
        yield server
