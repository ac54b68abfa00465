"""pynng, Req0: one request in flight for each of its contexts."""

from __future__ import annotations

from collections.abc import Sequence

import pynng

from bench.servers.common import endpoint

CONTEXTS = 64


class Client:
    def __init__(self, address: str) -> None:
        is_unix, where = endpoint(address)
        url = f"ipc://{where}" if is_unix else f"tcp://{where[0]}:{where[1]}"
        self.socket = pynng.Req0(dial=url, recv_max_size=0)
        self.contexts: list[pynng.Context] = []

    def request(self, payload: bytes) -> bytes:
        self.socket.send(payload)
        return self.socket.recv()

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        if not self.contexts:
            self.contexts = [self.socket.new_context() for _ in range(CONTEXTS)]
        replies: list[bytes] = []
        for first in range(0, len(payloads), CONTEXTS):
            pairs = list(zip(self.contexts, payloads[first : first + CONTEXTS], strict=False))
            for context, payload in pairs:
                context.send(payload)
            replies += [context.recv() for context, _ in pairs]
        return replies

    def close(self) -> None:
        for context in self.contexts:
            context.close()
        self.socket.close()


connect = Client
