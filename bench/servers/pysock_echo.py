"""pysock: either engine, either framing; ``--batch`` answers all requests of a turn in one call."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import pysock
from bench.servers.common import arguments

given = arguments(framing=["u32", "pysock"], backend=["auto", "native", "pure"], linger=None, driver=None, batch=False)
work = given.handler
options = {} if given.linger is None else {"linger": float(given.linger)}
if given.driver:
    options["tls_driver"] = given.driver
# More than the default, for the herd.
limits = pysock.Limits(max_clients=max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64))
tls = None if given.cert is None else pysock.TLS(given.cert, ca=given.cert if given.ask else None)
server = pysock.Server(
    given.address, framing=given.framing, backend=given.backend, limits=limits, tls=tls, insecure=True, **options
)


def echo(_client: pysock.DataSocket, request: bytes) -> bytes:
    return request


def working(_client: pysock.DataSocket, request: bytes) -> bytes:
    return work(request)


def echo_all(_clients: Sequence[pysock.DataSocket], requests: Sequence[bytes]) -> Sequence[bytes]:
    return requests


def broadcast(_client: pysock.DataSocket, request: bytes) -> bytes:
    server.clients.broadcast(request)
    return b""


if given.broadcast:
    server.service(broadcast)
elif given.batch:
    server.batch_service(echo_all)
else:
    server.service(working if given.work_us else echo)
server.serve_forever()
