"""pyzmq, DEALER: any number of requests in flight."""

from __future__ import annotations

from collections.abc import Sequence

import zmq


def url(address: str) -> str:
    """As ZeroMQ and nng write it."""
    transport, _, rest = address.partition(":")
    return f"ipc://{rest}" if transport == "unix" else f"tcp://{rest}"


class Client:
    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.connect(url(address))

    def request(self, payload: bytes) -> bytes:
        self.socket.send(payload)
        return self.socket.recv()

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        for payload in payloads:
            self.socket.send(payload)
        return [self.socket.recv() for _ in payloads]

    def close(self) -> None:
        self.socket.close()
        self.context.term()


connect = Client
