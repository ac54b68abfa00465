"""Who is measured: each server, what it needs, and who puts it under load."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One row of the tables.

    :ivar id: for ``--peer``; those with clients in Python begin with ``py-``.
    :ivar server: a module of ``bench.servers``, or a C file there.
    :ivar arguments: of the server, after its address.
    :ivar environment: variables of server and client.
    :ivar client: ``module`` or ``module:function`` of ``bench.clients``; empty: the load generator in C.
    :ivar framing: what the load generator speaks.
    :ivar needs: the module that must be there, and the distribution that brings it.
    :ivar group: peers that are idioms of one library; summaries show the best of them.
    :ivar quick: whether the quick mode measures it.
    """

    id: str
    title: str
    server: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    client: str = ""
    framing: str = "u32"
    needs: tuple[str, str] = ("", "")
    group: str
    quick: bool = False

    @property
    def in_c(self) -> bool:
        """Whether the server is a C program."""
        return self.server.endswith(".c")

    def missing(self) -> str:
        """Say why it can't be measured here; nothing if it can."""
        module, distribution = self.needs
        if module and _lacks(module):
            return f"not installed: {distribution}"
        if not self.client and _lacks("pysock._engine"):
            return f"no load generator: {_EXTENSION[1]}"
        if self.in_c and shutil.which(compiler()) is None:
            return f"not built: there is no {compiler()!r}; CC=... names another C compiler"
        return ""


def compiler() -> str:
    """The C compiler's command."""
    return os.environ.get("CC") or "cc"


def _lacks(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


_EXTENSION: Final = ("pysock._engine", "PYSOCK_BUILD=require pip install -e .")
_UVLOOP: Final = ("uvloop", "pip install uvloop")
_NO_URING: Final = (("UV_USE_IO_URING", "0"),)

_pysock: Final = Peer(
    id="pysock",
    title="pysock",
    server="pysock_echo",
    arguments=("--backend", "native"),
    needs=_EXTENSION,
    group="pysock",
    quick=True,
)
_asyncio: Final = Peer(id="asyncio", title="asyncio Protocol", server="asyncio_protocol", group="asyncio", quick=True)
_uvloop: Final = Peer(
    id="uvloop",
    title="uvloop Protocol",
    server="asyncio_protocol",
    arguments=("--loop", "uvloop"),
    needs=_UVLOOP,
    group="uvloop",
    quick=True,
)
_floor: Final = Peer(id="floor", title="C epoll (floor)", server="floor.c", group="floor", quick=True)

#: Under load from the generator in C.
SERVERS: Final = (
    _floor,
    replace(
        _floor, id="floor-polling", title="C epoll, polling 20 us", arguments=("--poll-us", "20"), group="floor polling"
    ),
    replace(_floor, id="tls-floor", title="C epoll and OpenSSL (floor)", server="floor_tls.c", group="floor TLS"),
    Peer(id="engine-only", title="engine only, C hook", server="engine_only.c", group="engine only", quick=True),
    _pysock,
    replace(
        _pysock,
        id="pysock-cir",
        title="pysock, framing pysock",
        arguments=("--backend", "native", "--framing", "pysock"),
        framing="pysock",
        group="pysock framing pysock",
        quick=False,
    ),
    replace(
        _pysock,
        id="pysock-batch",
        title="pysock, batch service",
        arguments=("--backend", "native", "--batch"),
        group="pysock batch",
        quick=False,
    ),
    replace(
        _pysock,
        id="pysock-linger0",
        title="pysock, linger=0",
        arguments=("--backend", "native", "--linger", "0"),
        group="pysock linger=0",
    ),
    replace(
        _pysock,
        id="pysock-ssl",
        title="pysock, Python's module ssl",
        arguments=("--backend", "native", "--driver", "ssl"),
        group="pysock ssl",
        quick=False,
    ),
    replace(
        _pysock,
        id="pysock-pure",
        title="pysock pure",
        arguments=("--backend", "pure"),
        needs=("", ""),
        group="pysock pure",
    ),
    _uvloop,
    replace(_uvloop, id="uvloop-no-uring", title="uvloop Protocol, no io_uring", environment=_NO_URING, quick=False),
    replace(_uvloop, id="uvloop-buffered", title="uvloop BufferedProtocol", server="asyncio_buffered", quick=False),
    replace(_uvloop, id="uvloop-streams", title="uvloop streams", server="asyncio_streams", quick=False),
    _asyncio,
    replace(_asyncio, id="asyncio-buffered", title="asyncio BufferedProtocol", server="asyncio_buffered", quick=False),
    replace(_asyncio, id="asyncio-streams", title="asyncio streams", server="asyncio_streams", quick=False),
    Peer(
        id="gevent",
        title="gevent",
        server="gevent_streams",
        needs=("gevent", "pip install gevent"),
        group="gevent",
        quick=True,
    ),
    *(
        replace(
            _pysock,
            id=f"pysock-{kind}",
            title=title,
            server="pysock_handlers",
            arguments=("--kind", kind),
            needs=_EXTENSION if kind in {"threads", "processes"} else _UVLOOP,
            group=f"pysock {kind}",
            quick=False,
        )
        for kind, title in (
            ("def", "pysock in uvloop, def"),
            ("async", "pysock in uvloop, async def that never waits"),
            ("waits", "pysock in uvloop, async def that awaits sleep(0)"),
            ("threads", "pysock, threads=1"),
            ("processes", "pysock, processes=2"),
        )
    ),
    *(
        replace(
            _uvloop,
            id=f"uvloop-{kind}",
            title=f"uvloop streams, {title}",
            server="streams_executor",
            arguments=("--loop", "uvloop", "--executor", kind),
            group=f"uvloop {kind}",
            quick=False,
        )
        for kind, title in (("threads", "ThreadPoolExecutor(1)"), ("processes", "ProcessPoolExecutor(2)"))
    ),
    Peer(id="socketserver", title="socketserver, threads", server="socketserver_threads", group="socketserver"),
    # Without an authkey its wire format is u32, up to 2 GiB.
    Peer(id="mp", title="mp.connection, threads", server="mp_connection", group="mp.connection"),
)

#: With a client in Python, compared with each other only.
WITH_PYTHON_CLIENTS: Final = (
    replace(_floor, id="py-floor", title="C epoll (floor), plain socket", client="plain_socket", group="py-floor"),
    Peer(
        id="py-pysock",
        title="pysock Client",
        server="pysock_echo",
        arguments=("--backend", "native", "--framing", "pysock"),
        environment=(("PYSOCK_BACKEND", "native"),),
        client="pysock_client",
        needs=_EXTENSION,
        group="py-pysock",
        quick=True,
    ),
    Peer(
        id="py-pysock-linger",
        title="pysock Client, linger 100 us",
        server="pysock_echo",
        arguments=("--backend", "native", "--framing", "pysock", "--linger", "100e-6"),
        environment=(("PYSOCK_BACKEND", "native"),),
        client="pysock_client:connect_lingering",
        needs=_EXTENSION,
        group="py-pysock linger",
    ),
    Peer(
        id="py-pysock-pure",
        title="pysock Client, pure",
        server="pysock_echo",
        arguments=("--backend", "pure", "--framing", "pysock"),
        environment=(("PYSOCK_BACKEND", "pure"),),
        client="pysock_client",
        group="py-pysock pure",
    ),
    Peer(
        id="py-aio-pysock",
        title="pysock.aio, uvloop, tasks",
        server="pysock_echo",
        arguments=("--backend", "native", "--framing", "pysock"),
        environment=(("PYSOCK_BACKEND", "native"),),
        client="aio_tasks",
        needs=_UVLOOP,
        group="py-aio-pysock",
    ),
    Peer(
        id="py-aio-streams",
        title="uvloop streams by hand, tasks",
        server="pysock_echo",
        arguments=("--backend", "native", "--framing", "pysock"),
        client="aio_tasks:connect_streams",
        needs=_UVLOOP,
        group="py-aio-streams",
    ),
    replace(
        _uvloop,
        id="py-uvloop",
        title="uvloop Protocol, plain socket",
        client="plain_socket",
        group="py-uvloop",
        quick=False,
    ),
    Peer(
        id="py-mp",
        title="multiprocessing.connection",
        server="mp_connection",
        client="mp_connection",
        group="py-mp",
        quick=True,
    ),
    Peer(
        id="py-zmq-req",
        title="pyzmq REQ/REP",
        server="zmq_rep",
        client="zmq_req",
        needs=("zmq", "pip install pyzmq"),
        group="py-zmq",
        quick=True,
    ),
    Peer(
        id="py-zmq-req-nocopy",
        title="pyzmq REQ/REP, copy=False",
        server="zmq_rep",
        arguments=("--no-copy",),
        client="zmq_req:connect_without_copy",
        needs=("zmq", "pip install pyzmq"),
        group="py-zmq",
    ),
    Peer(
        id="py-zmq-dealer",
        title="pyzmq DEALER/ROUTER",
        server="zmq_router",
        client="zmq_dealer",
        needs=("zmq", "pip install pyzmq"),
        group="py-zmq",
    ),
    Peer(
        id="py-nng",
        title="pynng Req0/Rep0",
        server="nng_rep",
        client="nng_req",
        needs=("pynng", "pip install pynng"),
        group="py-nng",
    ),
    Peer(
        id="py-grpc",
        title="grpcio, for context",
        server="grpc_unary",
        client="grpc_unary",
        needs=("grpc", "pip install grpcio"),
        group="py-grpc",
    ),
)

PEERS: Final = {peer.id: peer for peer in (*SERVERS, *WITH_PYTHON_CLIENTS)}
