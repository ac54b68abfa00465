"""gevent's ``StreamServer``, with a greenlet for each client."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gevent import socket
from gevent.server import StreamServer

from bench.servers.common import arguments, prepare, serve_blocking

given = arguments()


def client(sock: Any, _address: Any) -> None:
    with suppress(ConnectionError):
        serve_blocking(sock, given.handler)


listener = socket.socket(socket.AF_UNIX if given.is_unix else socket.AF_INET)
StreamServer(prepare(listener, given.is_unix, given.where), client).serve_forever()
