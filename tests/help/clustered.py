"""A server for ``pysock serve --cluster``, which tells what it knows of the others."""

from __future__ import annotations

import os

import pysock

server = pysock.Server("unix:clustered.sock")


@server.service("pid")
def pid(client: pysock.DataSocket, request: bytes) -> bytes:
    return b"%d" % os.getpid()


@server.service
def which(client: pysock.DataSocket, request: bytes) -> bytes:
    return b"[%d, %d, %d]" % (server.worker, server.workers, os.getpid())


@server.service("nodes")
def nodes(client: pysock.DataSocket, request: bytes) -> bytes:
    return " ".join(node.name for node in server.cluster.nodes).encode()


@server.service("where")
def where(client: pysock.DataSocket, request: bytes) -> bytes:
    return " ".join(row.node for row in server.cluster.all_by_name(request.decode())).encode()


@server.service("tell", threads=1)
def tell(client: pysock.DataSocket, request: bytes) -> bytes:
    return str(server.cluster.send(request.decode(), b"told by %d" % os.getpid())).encode()
