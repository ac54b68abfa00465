"""``multiprocessing.connection``."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import connection

from bench.servers.common import endpoint

#: Bytes in flight: with more, both ends could wait for each other with full buffers.
WINDOW = 64 * 1024


class Client:
    def __init__(self, address: str) -> None:
        self.connection = connection.Client(endpoint(address)[1])

    def request(self, payload: bytes) -> bytes:
        self.connection.send_bytes(payload)
        return self.connection.recv_bytes()

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        replies: list[bytes] = []
        window = max(1, WINDOW // (len(payloads[0]) + 4))
        for first in range(0, len(payloads), window):
            burst = payloads[first : first + window]
            for payload in burst:
                self.connection.send_bytes(payload)
            replies += [self.connection.recv_bytes() for _ in burst]
        return replies

    def close(self) -> None:
        self.connection.close()


connect = Client
