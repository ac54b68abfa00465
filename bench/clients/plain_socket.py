"""A blocking socket and u32 frames by hand: what a user writes who wants no dependency."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from bench.servers.common import U32, endpoint, no_delay, pack, unpack_from

#: Bytes sent before their replies are read: more might fill the sockets' buffers in both directions.
BURST = 64 * 1024


class Client:
    def __init__(self, address: str) -> None:
        is_unix, where = endpoint(address)
        self.sock = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
        self.sock.connect(where)
        no_delay(self.sock)

    def request(self, payload: bytes) -> bytes:
        self.sock.sendall(pack(len(payload)) + payload)
        return self.read(U32.unpack(self.read(4))[0]) if len(payload) > BURST else self.read_small()

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            count = self.sock.recv_into(view[have:])
            if not count:
                raise ConnectionResetError("the server hung up")
            have += count
        return bytes(data)

    def read_small(self) -> bytes:
        """A frame that mostly comes in one piece."""
        data = self.more(b"")
        while len(data) < 4 or len(data) < 4 + unpack_from(data)[0]:
            data = self.more(data)
        return data[4:]

    def more(self, data: bytes) -> bytes:
        piece = self.sock.recv(2 * BURST)
        if not piece:
            raise ConnectionResetError("the server hung up")
        return data + piece if data else piece

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        replies: list[bytes] = []
        step = max(1, BURST // (len(payloads[0]) + 4))
        for first in range(0, len(payloads), step):
            replies += self.burst(payloads[first : first + step])
        return replies

    def burst(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Join, send, receive, slice."""
        self.sock.sendall(b"".join([part for payload in payloads for part in (pack(len(payload)), payload)]))
        replies: list[bytes] = []
        data, at = b"", 0
        while len(replies) < len(payloads):
            data, at = self.more(data[at:]), 0
            while len(data) - at >= 4:
                stop = at + 4 + unpack_from(data, at)[0]
                if stop > len(data):
                    break
                replies.append(data[at + 4 : stop])
                at = stop
        return replies

    def close(self) -> None:
        self.sock.close()


connect = Client
