"""A proxy between a client and its server that is slow, or cuts the connection after so many bytes of one way."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import tempfile
import threading
from collections.abc import Iterator

from support import TEST_DIRECTORY, plug

#: The longest sleep of its thread, in seconds.
_NAP = 0.005


class Proxy:
    """It has an address of its own; each connection to it gets one to the server.

    :param piece: bytes that are passed on at once.
    :param cut_up: so many bytes of the first client go to the server, then the connection is cut.
    :param cut_down: the same of what the server sends.
    """

    def __init__(self, target: str, *, piece: int = 65536, cut_up: int | None = None, cut_down: int | None = None):
        self.target = target
        self.path = tempfile.mktemp(dir=os.environ.get(TEST_DIRECTORY, "/tmp"))  # of a socket
        self.address = f"unix:{self.path}"
        self.piece = piece
        self.left = {"up": cut_up, "down": cut_down}
        self.pause = 0.0
        self.passed = {"up": 0, "down": 0}
        self.accepted = 0
        self.cuts = 0
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.over = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.over:
            watched = [self.listener, *(one for pair in self.pairs for one in pair)]
            ready, _, _ = select.select(watched, [], [], _NAP)
            if self.listener in ready:
                self.accept()
            for pair in tuple(self.pairs):
                client, server = pair
                if (client in ready and not self.move(client, server, "up")) or (
                    server in ready and not self.move(server, client, "down")
                ):
                    self.cut(pair)

    def accept(self) -> None:
        client, _ = self.listener.accept()
        try:
            server = plug(self.target)
        except OSError:
            client.close()
            return
        self.accepted += 1
        self.pairs.append((client, server))

    def move(self, source: socket.socket, target: socket.socket, way: str) -> bool:
        """Pass some bytes on; whether the connection lives."""
        left = self.left[way]
        try:
            data = source.recv(self.piece if left is None else min(self.piece, left) if left else 1)
            if not data or left == 0:
                self.left[way] = None  # the next connection lives
                return False
            target.sendall(data)
        except OSError:
            return False
        self.passed[way] += len(data)
        if left is not None:
            self.left[way] = left - len(data)
            if not self.left[way]:
                self.left[way] = None
                return False
        return True

    def cut(self, pair: tuple[socket.socket, socket.socket]) -> None:
        if pair in self.pairs:
            self.pairs.remove(pair)
        for one in pair:
            one.close()
        self.cuts += 1

    def close(self) -> None:
        self.over = True
        self.thread.join(10)
        for pair in tuple(self.pairs):
            self.cut(pair)
        self.listener.close()
        os.unlink(self.path)


@contextlib.contextmanager
def between(target: str, **options: int) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(target, **options)
    try:
        yield proxy
    finally:
        proxy.close()
