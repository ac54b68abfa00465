"""The standard library's ``socketserver``, with a thread for each client."""

from __future__ import annotations

import socket
import socketserver
from contextlib import suppress

from bench.servers.common import BACKLOG, arguments, serve_blocking

given = arguments()


class Client(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionError):
            serve_blocking(self.request, given.handler)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    address_family = socket.AF_UNIX if given.is_unix else socket.AF_INET
    allow_reuse_address = not given.is_unix
    request_queue_size = BACKLOG
    daemon_threads = True


Server(given.where, Client).serve_forever()
