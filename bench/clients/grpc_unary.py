"""grpcio, a unary call whose messages are plain bytes."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from bench.servers.common import endpoint

ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    def __init__(self, address: str) -> None:
        is_unix, where = endpoint(address)
        self.channel = grpc.insecure_channel(f"unix:{where}" if is_unix else f"{where[0]}:{where[1]}", options=ANY_SIZE)
        self.call = self.channel.unary_unary("/bench.Echo/echo")

    def request(self, payload: bytes) -> bytes:
        reply: bytes = self.call(payload)
        return reply

    def request_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        return [call.result() for call in [self.call.future(payload) for payload in payloads]]

    def close(self) -> None:
        self.channel.close()


connect = Client
