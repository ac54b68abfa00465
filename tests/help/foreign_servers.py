"""Servers that aren't pysock's: plain sockets, a thread for each connection. They echo, or do it wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support import PATIENCE, RawPeer

from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.format import Frame, Kind, encode

Play = Callable[[socket.socket], None]

WELCOME = encode_accepted(1, encode_welcome(1_000_000, 100, [], "foreign/1"))


class Foreign:
    """``play(sock)`` runs in a thread of its own for each client; then the connection is closed."""

    def __init__(self, listener: socket.socket, play: Play) -> None:
        self.accepted = 0
        self._listener, self._play = listener, play
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        name = self._listener.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"tcp://{name[0]}:{name[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._socks.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=[sock]))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        with suppress(OSError), sock:
            self._play(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self._listener.close()
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(PATIENCE)


@contextmanager
def foreign_server(folder: Path, transport: str, play: Play) -> Iterator[Foreign]:
    if transport == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/foreign")
        listener.listen()
    server = Foreign(listener, play)
    try:
        yield server
    finally:
        server.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def echo_one_by_one(sock: socket.socket) -> None:
    """In the smallest pieces there are."""
    while data := sock.recv(65536):
        for byte in data:
            sock.sendall(bytes([byte]))


def swallow(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def hang_up(sock: socket.socket) -> None:
    sock.recv(1)


def say(data: bytes) -> Play:
    """Whatever comes, answer this."""

    def play(sock: socket.socket) -> None:
        while sock.recv(65536):
            sock.sendall(data)

    return play


def native(answer: Callable[[RawPeer, Frame], None]) -> Play:
    """Let every client in; then ``answer(peer, frame)`` for each frame."""

    def play(sock: socket.socket) -> None:
        peer = RawPeer(sock)
        frame = peer.frame()
        assert frame is not None
        assert frame.kind == Kind.CIR
        peer.send(WELCOME)
        while (frame := peer.frame()) is not None:
            answer(peer, frame)

    return play


def reply(peer: RawPeer, frame: Frame) -> None:
    peer.send(encode(Kind.REPLY, frame.payload, request_id=frame.request_id))
