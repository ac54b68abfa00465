"""The loop leaves Python threads that compute beside it a share of the processor, however busy it is.

What is compared is processor time of threads, not time on the wall, so a busy machine changes nothing.
"""

from __future__ import annotations

import threading
import time

import pytest
from conftest import native_is_missing
from programs import Module
from support import wait_for

from pysock import connect

if native_is_missing():
    pytest.skip("the load generator is part of the native engine", allow_module_level=True)


#: Processor time over which shares are compared, in seconds: many of CPython's switch intervals.
ENOUGH = 0.2


class Burner(threading.Thread):
    """Computes until it is told to end, and tells how much processor time it had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ends = False

    def run(self) -> None:
        while not self.ends:
            pass

    def seconds(self) -> float:
        assert self.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self.ident))


def echo(client, request):
    return request


@pytest.mark.parametrize("handler", [echo, {}.get], ids=["bytecode", "no bytecode"])
def test_a_thread_that_computes(make_server, backend, unix_address, handler):
    server = make_server(unix_address, framing="u32")
    server.service(handler)
    burner = Burner()
    requests = 600_000 if backend == "native" else 20_000
    load = ("--framing", "u32", "--connections", "8", "--in-flight", "128", "--duration", "60", "--quiet")
    with server, Module("pysock", "bench", unix_address, *load) as bench:
        burner.start()
        wait_for(lambda: server.stats()["requests"])
        burned, used, before = -burner.seconds(), -time.process_time(), server.stats()["requests"]
        wait_for(lambda: server.stats()["requests"] >= before + requests)
        wait_for(lambda: used + time.process_time() > ENOUGH)
        burned, used = burned + burner.seconds(), used + time.process_time()
        burner.ends = True
        burner.join(10)
        bench.process.kill()
    assert burned > 0.2 * used


@pytest.mark.parametrize(("server_linger", "client_linger"), [(0.5, 0.0), (0.0, 0.5)], ids=["server", "client"])
def test_a_long_linger(make_server, backend, unix_address, server_linger, client_linger):
    """Who polls for most of a second doesn't hold the GIL so long; here the other end can't go on without it."""
    server = make_server(unix_address, linger=server_linger)
    server.service(echo)
    burner = Burner()
    with server, connect(unix_address, backend=backend, linger=client_linger) as client:
        burner.start()
        burned, used = -burner.seconds(), -time.process_time()
        while used + time.process_time() < ENOUGH:
            client.request(b"x")
        burned, used = burned + burner.seconds(), used + time.process_time()
        burner.ends = True
        burner.join(10)
    assert burned > 0.2 * used
