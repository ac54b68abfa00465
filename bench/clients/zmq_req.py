"""pyzmq, REQ: one request in flight, by its nature."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from bench.clients.zmq_dealer import url


class Client:
    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.connect(url(address))

    def request(self, payload: bytes) -> bytes:
        self.socket.send(payload)
        return self.socket.recv()

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        return [self.request(payload) for payload in payloads]

    def close(self) -> None:
        self.socket.close()
        self.context.term()


connect = Client
