"""``multiprocessing.connection``."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import connection

from bench.servers.common import endpoint, no_delay_fd

#: What is in flight: with more, both ends could wait for each other with full buffers. A message of its own costs the
#: kernel much more than its bytes.
WINDOW, OVERHEAD = 128 * 1024, 1024


class Client:
    def __init__(self, address: str) -> None:
        self.connection = connection.Client(endpoint(address)[1])
        no_delay_fd(self.connection.fileno())

    def request(self, payload: bytes) -> bytes:
        self.connection.send_bytes(payload)
        return self.connection.recv_bytes()

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        replies: list[bytes] = []
        window = max(1, WINDOW // (len(payloads[0]) + OVERHEAD))
        for first in range(0, len(payloads), window):
            burst = payloads[first : first + window]
            for payload in burst:
                self.connection.send_bytes(payload)
            replies += [self.connection.recv_bytes() for _ in burst]
        return replies

    def close(self) -> None:
        self.connection.close()


connect = Client
