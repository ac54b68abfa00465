"""Programs that type checkers must have nothing against. Never run: tests/typed/check.py has them checked."""

import array
import concurrent.futures
import functools
import mmap
from collections.abc import AsyncIterator, Generator, Iterator

import pysock
import pysock.aio

server = pysock.Server("unix:x.sock", framing="pysock", backend="pure", allow={"uid": ["www-data", 1000], "gid": 5})
pysock.Server("unix:x.sock", allow="anyone")
pysock.Server("unix:x.sock", allow=lambda peer: peer.uid == 0)


@server.service
def plain(client: pysock.DataSocket, request: bytes) -> bytes:
    return request.upper()


@server.service("nothing")
def nothing(client: pysock.DataSocket, request: bytes) -> None:
    client.send(array.array("b", request))


@server.service()
def view(client: pysock.DataSocket, request: bytes) -> memoryview | bytearray | None:
    return memoryview(request)


def with_more(scale: int, client: pysock.DataSocket, request: bytes, *, loud: bool = False) -> pysock.Buffer:
    return array.array("b", request)


class Service:
    def answer(self, client: object, request: bytes) -> bytes:
        return request

    def __call__(self, client: pysock.DataSocket, request: bytes) -> mmap.mmap:
        return mmap.mmap(-1, 1)


server.service(lambda client, request: request.upper())
server.service("partial")(functools.partial(with_more, 2))
server.service("method")(Service().answer)
server.service("object")(Service())


@server.batch_service
def batch(clients: list[pysock.DataSocket], requests: list[bytes]) -> list[bytes]:
    return requests


@server.batch_service("some", max_batch=5)
def some(clients: list[pysock.DataSocket], requests: list[bytes]) -> list[bytes | pysock.RemoteError | None]:
    return [None, pysock.RemoteError("no"), b""]


server.batch_service("lambda")(lambda clients, requests: [request.upper() for request in requests])


@server.on_connect
def came(client: pysock.DataSocket) -> bool | None:
    return client.peer is None or client.peer.uid == 0


@server.on_disconnect
def went(client: pysock.DataSocket, reason: pysock.DisconnectReason) -> None:
    assert reason is not pysock.states.DisconnectReason.LEFT


with server, pysock.connect(server.addresses[0], backend="auto") as client:
    one: bytes = client.request(bytearray(b"x"))
    all_of_them: list[bytes] = client.request_many([b"a", memoryview(b"b"), array.array("b", b"c")])
    told: list[bytes | pysock.RemoteError] = client.request_many([b"a"], return_exceptions=True)
    client.notify(mmap.mmap(-1, 1))
    try:
        client.ping()
    except (pysock.ConnectionLost, pysock.errors.RequestTimeout) as error:
        print(error)
    code: int = pysock.ErrorCode.NO_SUCH_SERVICE


@server.service("later")
def in_time(client: pysock.DataSocket, request: bytes) -> pysock.Reply:
    return pysock.later()


executor = concurrent.futures.ThreadPoolExecutor()


@server.service("executor")
def by_executor(client: pysock.DataSocket, request: bytes) -> concurrent.futures.Future[bytes]:
    return executor.submit(request.upper)


@server.service("awaited")
async def awaited(client: pysock.DataSocket, request: bytes) -> bytes:
    return request


@server.service("stream")
def stream(client: pysock.DataSocket, request: bytes) -> Iterator[bytes]:
    yield request


@server.service("with an end", threads=2, endless=True)
def with_an_end(client: pysock.DataSocket, request: bytes) -> Generator[memoryview, None, bytes | None]:
    yield memoryview(request)
    return request


@server.service("async stream", on_leave="finish")
async def async_stream(client: pysock.DataSocket, request: bytes) -> AsyncIterator[bytearray]:
    yield bytearray(request)


@server.service("pieces", kind="stream")
def pieces(client: pysock.DataSocket, request: bytes) -> list[bytes]:
    return [request]


def taken(client: pysock.Client, pool: pysock.Pool) -> bytes:
    with client.stream(b"", service="stream", timeout=1.0) as stream:
        piece: bytes = next(stream)
    return piece + b"".join(pool.stream(memoryview(b"")))


async def taken_by_a_task(client: pysock.aio.AsyncClient) -> list[bytes]:
    async with client.stream(b"", service="stream") as stream:
        return [piece async for piece in stream]


server.service("of a lambda", kind="stream")(lambda client, request: (request for _ in range(3)))


@server.service("asks")
async def asks(client: pysock.DataSocket, request: bytes) -> bytes:
    reply: bytes = await client.request(request, "roll", timeout=1.5)
    return reply


@server.service("asks in a thread", threads=2)
def asks_in_a_thread(client: pysock.DataSocket, request: bytes) -> bytes:
    reply: bytes = client.request(memoryview(request))
    return reply


def roll(client: pysock.Client, request: bytes) -> bytes | None:
    return client.request(request)


async def roll_later(client: pysock.aio.AsyncClient, request: bytes) -> bytes:
    return await client.request(request)


named = {"roll": roll}
pysock.connect("unix:x.sock", services=named)
pysock.connect("unix:x.sock", services={None: roll, "other": lambda client, request: request})
pysock.aio.connect("unix:x.sock", services={"roll": roll_later, "plain": lambda client, request: None})
