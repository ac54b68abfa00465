"""Programs with faults that type checkers must find, in the lines that end with "# wrong" and in no others."""

from collections.abc import Iterator

import pysock

server = pysock.Server("unix:x.sock")


@server.service  # wrong
def one_parameter(request: bytes) -> bytes:
    return request


@server.service  # wrong
def a_text(client: pysock.DataSocket, request: bytes) -> str:
    return request.decode()


@server.service("text")  # wrong
def of_a_text(client: pysock.DataSocket, request: str) -> bytes:
    return request.encode()


@server.batch_service  # wrong
def not_a_list(clients: list[pysock.DataSocket], requests: list[bytes]) -> bytes:
    return requests[0]


@server.batch_service("plain", max_batch=3)  # wrong
def plain(client: pysock.DataSocket, request: bytes) -> bytes:
    return request


@server.batch_service  # wrong
async def later_all(clients: list[pysock.DataSocket], requests: list[bytes]) -> list[bytes]:
    return requests


@server.service  # wrong
def a_stream_of_texts(client: pysock.DataSocket, request: bytes) -> Iterator[str]:
    yield request.decode()


@server.service("pieces")  # wrong
def undeclared(client: pysock.DataSocket, request: bytes) -> list[bytes]:
    return [request]


@server.service("processes", processes=1)  # wrong
def in_a_process(request: bytes) -> Iterator[bytes]:
    yield request


@server.on_connect  # wrong
def came(client: pysock.DataSocket, reason: str) -> None:
    pass


pysock.Server("unix:x.sock", framing="lines")  # wrong
pysock.Server("unix:x.sock", backend="rust")  # wrong
pysock.Server("unix:x.sock", allow="everyone")  # wrong
pysock.Serverr("unix:x.sock")  # wrong

with pysock.connect("unix:x.sock") as client:
    client.request("text")  # wrong
    client.request_many(["text"])  # wrong
    replies: list[bytes] = client.request_many([b""], return_exceptions=True)  # wrong
    client.ping(timeout="1")  # wrong
