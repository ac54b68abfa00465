"""What the tests share: waiting for conditions, raw peers that speak the wire by hand, programs in other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pysock import Address, Server, ServerState
from pysock.files.place import reachable
from pysock.wire.cir import encode_accepted, encode_cir, encode_welcome
from pysock.wire.format import HEADER, Frame, Kind, encode

#: Long enough for a busy machine; a test that reaches it fails.
PATIENCE = 10.0

ROOT = Path(__file__).resolve().parents[2]


#: The environment variable with the directory that all others of one run are in.
TEST_DIRECTORY = "PYSOCK_TEST_DIRECTORY"


def short_directory() -> Path:
    """A new directory with a short name: pytest's own are too long for the 107 bytes of a Unix socket's path."""
    return Path(tempfile.mkdtemp(prefix="", dir=os.environ.get(TEST_DIRECTORY, "/tmp")))


def wait_for(condition: Callable[[], Any], what: str = "", timeout: float = PATIENCE) -> Any:
    """Return the first true value of ``condition()``; fail when it takes too long."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} seconds in vain for {what or condition}")
        time.sleep(0.002)
    return value


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run it in the background, and see to it that it ends."""
    server.start()
    try:
        yield server
    finally:
        server.stop(1.0)
        assert server.state is ServerState.CLOSED


def left_in(directory: Path) -> list[str]:
    """The files there."""
    return sorted(path.name for path in directory.iterdir())


def plug(address: Address | str) -> socket.socket:
    """A plain connected socket."""
    address = Address.parse(address) if isinstance(address, str) else address
    with reachable(address) as targets:
        family, where = targets[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(where)
            if address.transport == "tls":
                from certificates import secure  # noqa: PLC0415  # it imports this module

                return secure(sock)  # type: ignore[return-value]  # it is used as one
        except BaseException:
            sock.close()
            raise
        return sock


class RawPeer:
    """One end of a connection that speaks frames by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    @classmethod
    def connect(cls, address: Address | str) -> RawPeer:
        return cls(plug(address))

    def hello(self, name: str = "") -> Frame:
        """Send a CIR; the answer must be CIR_ACCEPTED."""
        self.send(encode_cir(name))
        answer = self.frame()
        assert answer is not None
        assert answer.kind == Kind.CIR_ACCEPTED, answer
        return answer

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def srm(self, payload: bytes, *, service: int = 0, request_id: int = 1, flags: int = 0) -> None:
        self.send(encode(Kind.SRM, payload, code=service, request_id=request_id, flags=flags))

    def frame(self) -> Frame | None:
        """The next frame; ``None`` at the end of the connection."""
        header = self.read(HEADER.size)
        if len(header) < HEADER.size:
            assert header == b""
            return None
        length, kind, flags, code, request_id = HEADER.unpack(header)
        payload = self.read(length)
        assert len(payload) == length
        return Frame(kind, flags, code, request_id, payload)

    def read(self, size: int) -> bytes:
        data = bytearray()  # of bytes each part would copy all before it, and TLS has a part for each record
        while len(data) < size and (part := self._recv(size - len(data))):
            data += part
        return bytes(data)

    def _recv(self, size: int) -> bytes:
        try:
            return self.sock.recv(size)
        except ConnectionResetError:
            return b""

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        data = b""
        while part := self._recv(65536):
            data += part
        return data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


WELCOME = encode_accepted(0x1_0000_0001, encode_welcome(1000, 4, [(1, "add")], "fake/1"))


class FakeServer:
    """A server that follows a script: ``play(peer)`` runs in a thread for the one client that comes."""

    def __init__(self, path, play):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.address = f"unix:{path}"
        self.errors = []
        self.play = play
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            sock, _ = self.listener.accept()
            with RawPeer(sock) as peer:
                self.play(peer)
        except Exception as error:
            self.errors.append(error)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.listener.close()
        assert self.errors == []


def welcomed(play):
    """The script after a CIR was taken and accepted."""

    def whole(peer):
        assert peer.frame().kind == Kind.CIR
        peer.send(WELCOME)
        play(peer)

    return whole


def until_bye(peer):
    while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
        pass


def own_host() -> str:
    """An address of the loopback interface for servers of this process alone.

    At 127.0.0.1 the port of a server that has ended may be given to one of another test.
    """
    pid = os.getpid()
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}" if sys.platform == "linux" else "127.0.0.1"


def environment(**changes: str) -> dict[str, str]:
    """For a program of ours in another process."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error", **changes}


def run_python(code: str, *arguments: str, timeout: float = 30.0, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    with Program(code, *arguments, **changes) as program:
        return subprocess.CompletedProcess(program.process.args, *program.end(timeout))


class Program:
    """A program of ours in another process, with a session of its own; it says with a line on its standard output how
    far it is. Nothing that it started outlives it.
    """

    def __init__(self, code: str, *arguments: str, **changes: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment(**changes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """The next line it says, and no more: what is in a buffer of Python's is lost to ``communicate``."""
        assert self.process.stdout is not None
        line = b""
        while byte := os.read(self.process.stdout.fileno(), 1):
            if byte == b"\n":
                return line.decode()
            line += byte
        raise AssertionError(f"it ended without a word: {line!r}, {self.end()}")

    def end(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Wait for its end: exit code, the rest of its output, its errors."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a child of its that hangs would keep the pipes open
        self.process.communicate()
