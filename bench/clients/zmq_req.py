"""pyzmq, REQ: one request in flight, by its nature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from bench.clients.zmq_dealer import url


class Client:
    def __init__(self, address: str, copy: bool = True) -> None:
        self.copy = copy
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.connect(url(address))

    def request(self, payload: bytes) -> Any:
        self.socket.send(payload, copy=self.copy)
        return self.socket.recv(copy=self.copy)

    def request_many(self, payloads: Sequence[bytes]) -> list[Any]:
        return [self.request(payload) for payload in payloads]

    def close(self) -> None:
        self.socket.close()
        self.context.term()


def connect_without_copy(address: str) -> Client:
    """Replies are frames."""
    return Client(address, copy=False)


connect = Client
