"""pyzmq, REP: one request, one reply, from whichever client. ``--no-copy``: messages as frames instead of bytes."""

from __future__ import annotations

import zmq

from bench.servers.common import arguments

given = arguments(**{"no-copy": False})
handler, copy = given.handler, not given.no_copy

with zmq.Context() as context, context.socket(zmq.REP) as rep:
    rep.bind(given.url)
    while True:
        rep.send(handler(rep.recv(copy=copy)), copy=copy)
