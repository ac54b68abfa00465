"""Three servers of one service are restarted, one after the other, under load: no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter

import pytest
from support import Program, own_host, wait_for

import pysock
from pysock import aio

SERVER = """
import os, sys, pysock

server = pysock.Server(sys.argv[1], backend=sys.argv[2], advertise=sys.argv[3], insecure=True, linger=0)

@server.service
def echo(client, request):
    return b"%d %s" % (os.getpid(), request)

@server.on_state
def state(old, new):
    if new is pysock.ServerState.SERVING:
        print("serves", flush=True)

server.serve_forever(grace=5)
"""


class Load:
    """Threads and tasks that ask, as fast as they are answered, until told to stop; a request may not be run twice."""

    def __init__(self, text, backend, threads=1, tasks=2):
        self.text, self.backend, self.tasks = text, backend, tasks
        self.is_over = False
        self.answers = Counter()  # by the process that gave them
        self.failed = []
        self.threads = [threading.Thread(target=self.blocking) for _ in range(threads)]
        self.threads += [
            threading.Thread(target=self.pooled),
            threading.Thread(target=asyncio.run, args=(self.loop(),)),
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self.is_over = True
        for thread in self.threads:
            thread.join(20)

    def note(self, number, reply):
        pid, _, payload = reply.partition(b" ")
        if payload != b"%d" % number:
            self.failed.append(f"{number}: {reply!r}")
        self.answers[int(pid)] += 1

    @property
    def options(self):
        return {"balance": "p2c", "reconnect": True, "backend": self.backend}

    def blocking(self):
        with pysock.connect(self.text, linger=0, **self.options) as client:
            self.ask(client)

    def pooled(self):
        with pysock.Pool(self.text, 3, linger=0, **self.options) as pool:
            self.ask(pool)

    def ask(self, client):
        number = 0
        while not self.is_over:
            number += 1
            try:
                self.note(number, client.request(b"%d" % number))
            except Exception as error:
                self.failed.append(repr(error))
            time.sleep(0.003)  # the others want the processor, too

    async def loop(self):
        async with aio.connect(self.text, **self.options) as client, aio.Pool(self.text, 3, **self.options) as pool:
            await asyncio.gather(*(self.task(client if at % 2 else pool) for at in range(self.tasks)))

    async def task(self, client):
        number = 0
        while not self.is_over:
            number += 1
            try:
                self.note(number, await client.request(b"%d" % number))
            except Exception as error:
                self.failed.append(repr(error))
            await asyncio.sleep(0.003)


def restarted(old, place, backend, text):
    """The next server at this place; the old one was asked to go, and has."""
    old.signal(signal.SIGTERM)
    code, _, errors = old.end()
    assert (code, errors) == (0, "")
    new = Program(SERVER, place, backend, text)
    assert new.line() == "serves"
    return new


@pytest.fixture
def places(transport, socket_dir):
    if transport == "unix":
        return [f"unix:{socket_dir}/s{at}" for at in range(3)]
    with contextlib.ExitStack() as probes:
        ports = []
        for _ in range(3):
            probe = probes.enter_context(socket.socket())
            probe.bind((own_host(), 0))
            ports.append(probe.getsockname()[1])
        return [f"tcp://{own_host()}:{port}" for port in ports]


def _roll(backend, places, rounds):
    text = ",".join(places)
    with contextlib.ExitStack() as ends:
        servers = [Program(SERVER, place, backend, text) for place in places]
        ends.callback(lambda: [server.__exit__() for server in servers])
        for server in servers:
            assert server.line() == "serves"
        with Load(text, backend) as load:
            wait_for(lambda: sum(load.answers.values()) > 50)
            for _ in range(rounds):
                for at, place in enumerate(places):
                    before = sum(load.answers.values())
                    servers[at] = restarted(servers[at], place, backend, text)
                    wait_for(lambda: sum(load.answers.values()) > before + 20)  # noqa: B023  # it is over in this pass
        assert load.failed == []
        assert len(load.answers) >= 3


@pytest.mark.parametrize("transport", ["unix"], indirect=True)
def test_no_request_fails_while_three_servers_are_restarted(backend, places):
    _roll(backend, places, 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nor_in_the_long_run(backend, places):
    _roll(backend, places, 3)


@pytest.mark.slow
def test_a_server_that_is_killed_costs_no_more_than_what_it_had(backend, socket_dir):
    """What may be run twice doesn't fail, and what may not is told as unknown."""
    places = [f"unix:{socket_dir}/s{at}" for at in range(3)]
    text = ",".join(places)
    with contextlib.ExitStack() as ends:
        servers = [Program(SERVER, place, backend, text) for place in places]
        ends.callback(lambda: [server.__exit__() for server in servers])
        for server in servers:
            server.line()
        with pysock.connect(text, balance="p2c", reconnect=True, backend=backend) as client:
            for number in range(30):
                if number % 10 == 5:
                    pid = int(client.request(b"x", idempotent=True).partition(b" ")[0])
                    os.kill(pid, signal.SIGKILL)
                    at = next(at for at, server in enumerate(servers) if server.process.pid == pid)
                    servers[at].__exit__()
                    servers[at] = Program(SERVER, places[at], backend, text)
                assert client.request(b"%d" % number, idempotent=True).endswith(b" %d" % number)
