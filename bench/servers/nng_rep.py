"""pynng, Rep0."""

from __future__ import annotations

import pynng

from bench.servers.common import arguments

given = arguments()
handler = given.handler

with pynng.Rep0(listen=given.url, recv_max_size=0) as rep:
    while True:
        rep.send(handler(rep.recv()))
