"""grpcio, one unary method whose messages are plain bytes. For context: it does more than move bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from bench.servers.common import arguments

given = arguments()
handler = given.handler


def echo(request: bytes, _context: Any) -> bytes:
    return handler(request)


ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(ThreadPoolExecutor(), options=ANY_SIZE)
method = grpc.unary_unary_rpc_method_handler(echo)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"echo": method}),))
server.add_insecure_port(f"unix:{given.where}" if given.is_unix else f"{given.where[0]}:{given.where[1]}")
server.start()
server.wait_for_termination()
