"""``multiprocessing.connection``: a listener, and a thread for each client."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection, Listener

from bench.servers.common import BACKLOG, arguments, no_delay_fd

given = arguments()


def client(connection: Connection) -> None:
    no_delay_fd(connection.fileno())
    with connection:
        try:
            while True:
                connection.send_bytes(given.handler(connection.recv_bytes()))
        except (EOFError, ConnectionError):
            pass


with Listener(given.where, backlog=BACKLOG) as listener:
    while True:
        threading.Thread(target=client, args=(listener.accept(),), daemon=True).start()
