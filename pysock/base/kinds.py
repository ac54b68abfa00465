"""The kinds of values that users hand over, for type checkers and for annotations of users' own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any, Literal, TypeAlias, TypedDict

    if sys.version_info >= (3, 12):
        from collections.abc import Buffer
    else:
        from typing_extensions import Buffer

    from asyncio import AbstractEventLoop
    from ssl import SSLContext

    from pysock.access.peers import Ids
    from pysock.address import AddressLike
    from pysock.aio.client import AsyncClient
    from pysock.client import Client
    from pysock.data import DataSocket, Peer
    from pysock.metrics.page import Page
    from pysock.replies.later import Reply
    from pysock.tls import config
    from pysock.tls.info import TLSInfo
    from pysock.wire.proxy.facts import ProxyHeader

    #: ``framing=`` of a server.
    FramingName: TypeAlias = Literal["pysock", "u32", "line", "raw"]
    #: ``backend=``.
    BackendName: TypeAlias = Literal["auto", "native", "pure"]
    #: ``deadline=`` of a client.
    Deadline: TypeAlias = Literal["inherit", "ignore"]
    #: ``balance=`` of a client.
    Balance: TypeAlias = Literal["first", "p2c", "round"]
    #: ``expose=`` of a server.
    Expose: TypeAlias = Literal["type", "message", "traceback"]
    #: ``slow=`` of a server.
    Slow: TypeAlias = Literal["disconnect", "drop-new", "drop-old"]
    #: ``loop=`` of a server, for async handlers.
    Loop: TypeAlias = Literal["auto", "asyncio", "uvloop"] | Callable[[], AbstractEventLoop]
    #: ``names=`` of a server.
    Names: TypeAlias = Literal["any", "unique"]
    #: ``allow=`` of a server; over TLS the function is called with a TLSInfo.
    Allow: TypeAlias = Literal["anyone"] | Mapping[str, Ids] | Callable[[Peer], bool] | Callable[[TLSInfo], bool]
    #: ``tls=`` of a server or a client.
    TLS: TypeAlias = config.TLS | SSLContext
    #: ``tls_driver=`` of a server.
    TLSDriver: TypeAlias = Literal["auto", "ssl", "libssl"]
    #: ``metrics=`` of a server.
    Metrics: TypeAlias = bool | int | Page
    #: ``advertise=`` of a server.
    Advertise: TypeAlias = AddressLike | Iterable[AddressLike]

    #: An address as ``getpeername()`` returns it, or as a text; and ``proxy=`` of ``connect()``.
    Endpoint: TypeAlias = str | tuple[Any, ...]
    Proxy: TypeAlias = ProxyHeader | tuple[Endpoint, Endpoint]

    class Where(TypedDict, total=False):
        """``where=`` of a broadcast: which clients are meant."""

        uid: int
        name: str
        group: str

    #: What answers at a client's end; and at that of an asyncio client.
    ClientService: TypeAlias = Callable[[Client, bytes], Buffer | None]
    AsyncClientService: TypeAlias = Callable[[AsyncClient, bytes], Buffer | Awaitable[Buffer | None] | None]
    #: ``services=`` of either. The keys of a mapping are of one type to type checkers, not of a narrower one.
    ClientServices: TypeAlias = Mapping[str, ClientService] | Mapping[str | None, ClientService]
    AsyncClientServices: TypeAlias = Mapping[str, AsyncClientService] | Mapping[str | None, AsyncClientService]
    #: What a handler may return in place of a reply that it hasn't got yet.
    Later: TypeAlias = Reply | Future[Any]
    #: What answers one request.
    Handler: TypeAlias = Callable[
        [DataSocket, bytes],
        Buffer | Later | Awaitable[Buffer | Later | None] | Iterator[Buffer] | AsyncIterator[Buffer] | None,
    ]
    #: The same of ``kind="stream"``.
    StreamHandler: TypeAlias = Callable[
        [DataSocket, bytes],
        Buffer | Iterable[Buffer] | Awaitable[Buffer | Iterable[Buffer] | AsyncIterator[Buffer] | None] | None,
    ]
    #: What answers one request in a worker process.
    ProcessHandler: TypeAlias = Callable[[bytes], Buffer | None]
    #: What answers all that are ready: a reply for each, or an exception in its place.
    BatchHandler: TypeAlias = Callable[[list[DataSocket], list[bytes]], Iterable[Buffer | Exception | Later | None]]
elif sys.version_info >= (3, 12):
    #: What may be sent, and what a handler may return: bytes, bytearray, memoryview, array, mmap, a numpy array ...
    from collections.abc import Buffer
else:
    Buffer = bytes | bytearray | memoryview

__all__ = ["Buffer"]
