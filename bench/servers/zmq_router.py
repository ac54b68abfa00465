"""pyzmq, ROUTER: requests of many clients with several in flight; the first part of a message says whose it is."""

from __future__ import annotations

import zmq

from bench.servers.common import arguments

given = arguments()
handler = given.handler

with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
    router.sndhwm = router.rcvhwm = 0  # a window is the client's business
    router.bind(given.url)
    while True:
        client, request = router.recv_multipart()
        router.send_multipart((client, handler(request)))
