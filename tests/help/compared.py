"""The services of servers that are compared: of each kind one, and what they are given is noted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pysock
from pysock import ConnectionRefused, RemoteError, Reply, Server

#: Their numbers.
UPPER, SIZE, FAIL, SAY, PUSH, CLOSE, GATHER, OTHER, LATER, STREAM = range(10)

#: The name of the service, that of the client, and the request.
Call = tuple[str, str, bytes]
#: What is to be answered later: the name of the client, the request, and the reply.
Waiting = tuple[str, bytes, Reply]


def serve_noting(server: Server, calls: list[Call], waiting: list[Waiting] | None = None) -> None:  # noqa: C901
    """Give the server all of them, in the order of their numbers; what they are given goes to ``calls``.

    :param waiting: where replies go that come later; without it there is no such service.
    """

    def note(service: str, client: Any, request: bytes) -> None:
        calls.append((service, client.name, request))

    @server.service
    def upper(client: Any, request: bytes) -> bytes:
        note("upper", client, request)
        return request.upper()

    @server.service("size")
    def size(client: Any, request: bytes) -> bytes:
        note("size", client, request)
        return b"s" * int(request)

    @server.service("fail")
    def fail(client: Any, request: bytes) -> bytes:
        note("fail", client, request)
        raise ZeroDivisionError

    @server.service("say")
    def say(client: Any, request: bytes) -> bytes:
        note("say", client, request)
        raise RemoteError(request.decode(errors="replace"), 6)

    @server.service("push")
    def push(client: Any, request: bytes) -> bytearray:
        note("push", client, request)
        client.send(request)
        client.send(request[:50])
        return bytearray(request)

    @server.service("close")
    def close(client: Any, request: bytes) -> bytes:
        note("close", client, request)
        client.close()
        return request

    @server.batch_service("gather")
    def gather(clients: list[Any], requests: list[bytes]) -> list[Any]:
        for client, request in zip(clients, requests, strict=True):
            note("gather", client, request)
        return [request[::-1] if len(request) != 1 else ZeroDivisionError() for request in requests]

    @server.service("other")
    def other(client: Any, request: bytes) -> None:
        """Close the client of this name."""
        note("other", client, request)
        with contextlib.suppress(KeyError):
            server.clients.by_name(request.decode()).close()

    if waiting is not None:

        @server.service("later")
        def later(client: Any, request: bytes) -> Reply:
            note("later", client, request)
            waiting.append((client.name, request, pysock.later()))
            return waiting[-1][2]

        @server.service("stream")
        def stream(client: Any, request: bytes) -> Iterator[bytes]:
            """So many pieces of such a size, in hundreds; one of 99 pieces fails instead of the last."""
            note("stream", client, request)
            count, size = request
            for number in range(count):
                if number == 98:
                    raise ZeroDivisionError
                yield bytes([number]) * (size * 100)
            return b"end"

    @server.on_connect
    def admit(client: Any) -> None:
        if client.name.endswith("refused"):
            raise ConnectionRefused("members only")
        if client.name.endswith("welcome"):
            client.send(b"welcome")
        if client.name.endswith("closed"):
            client.close()
