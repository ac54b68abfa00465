"""Behind a real HAProxy, with the configuration of the example: who drains is left alone, and restarts cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from haproxy import CONFIGURATIONS, SERVERS, Balancer, haproxy
from programs import Module, serving
from support import PATIENCE, ROOT, own_host, wait_for

import pysock
import pysock.aio
from pysock import HealthAgent, Server


@pytest.fixture
def balancer(socket_dir: Path) -> Iterator[Balancer]:
    with Balancer(own_host(), socket_dir) as one:
        yield one


class Node:
    """One server behind it, in this process: it comes and goes."""

    def __init__(self, balancer: Balancer, number: int, backend: str, agent: bool = False) -> None:
        self.balancer, self.number, self.backend, self.agent = balancer, number, backend, agent
        self.name = SERVERS[number]
        self.start()

    def start(self) -> None:
        self.server = Server(self.balancer.servers[self.number], backend=self.backend)
        name = self.name.encode()
        self.server.service(lambda client, request: name + b" " + request)

        @self.server.service("async")
        async def later(client: pysock.DataSocket, request: bytes) -> bytes:
            await asyncio.sleep(0.001)
            return name + b" " + request

        self.answering = HealthAgent(self.server, self.balancer.agents[self.number])
        self.server.start()
        if self.agent:
            self.answering.start()

    def stop(self, drain_delay: float = 0.0) -> None:
        self.server.stop(drain_delay=drain_delay)
        self.answering.stop()


@pytest.fixture
def nodes(balancer: Balancer, backend: str) -> Iterator[Callable[..., list[Node]]]:
    made: list[Node] = []

    def make(count: int, agent: bool = False) -> list[Node]:
        made.extend(Node(balancer, number, backend, agent) for number in range(count))
        for node in made:
            balancer.wait_until(node.name, up=True)
        return made

    yield make
    for node in made:
        node.server.stop(0)
        node.answering.stop()


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGURATIONS.iterdir()))
def test_the_examples_are_configurations_as_they_are(name: str) -> None:
    command = [haproxy(), "-c", "-f", str(CONFIGURATIONS / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr


def test_who_drains_leaves_the_rotation_before_it_says_goodbye(
    balancer: Balancer, nodes: Callable[..., list[Node]]
) -> None:
    one, _two = nodes(2)
    with contextlib.ExitStack() as stack:
        here = {}
        while len(here) < 2:
            client = stack.enter_context(pysock.connect(balancer.front))
            here[client.request(b"").split()[0]] = client
        one.server.lame()
        assert balancer.wait_until("one", up=False) == "NOLB"
        assert one.server.state is pysock.ServerState.SERVING
        for _ in range(4):  # all that come now go to the other
            with pysock.connect(balancer.front) as new:
                assert new.request(b"") == b"two "
        assert here[b"one"].request(b"still") == b"one still"  # who is connected stays, and notices nothing
        assert here[b"one"].ended is None
        one.server.resume()
        balancer.wait_until("one", up=True)
        names = set()
        for _ in range(4):
            with pysock.connect(balancer.front) as new:
                names |= {new.request(b"").strip()}
        assert b"one" in names


def test_what_its_agent_says(balancer: Balancer, nodes: Callable[..., list[Node]]) -> None:
    """It takes back what it has said."""
    one, _two = nodes(2, agent=True)
    one.server.lame()
    wait_for(lambda: balancer.is_drained("one"), "the agent's word")
    one.server.resume()
    balancer.wait_until("one", up=True)
    assert not balancer.is_drained("one")


def test_servers_at_unix_sockets(socket_dir: Path, backend: str) -> None:
    with Balancer(own_host(), socket_dir, "unix.cfg") as balancer, contextlib.ExitStack() as stack:
        one, two = (Server(f"unix:{path}?mode=0660&proxy=v2", backend=backend) for path in balancer.servers[:2])
        for server, name in ((one, b"one"), (two, b"two")):
            server.service(lambda client, request, name=name: name + b" " + str(client.address).encode())
            stack.enter_context(server)
        for name in SERVERS[:2]:
            balancer.wait_until(name, up=True)
        one.lame()
        assert balancer.wait_until("one", up=False) == "NOLB"
        for _ in range(3):
            with pysock.connect(balancer.front) as client:
                assert client.request(b"").startswith(b"two 127.")  # the client's own, which HAProxy tells


class Load:
    """Clients of both kinds that ask all the time; at the end none of them must have had an error."""

    def __init__(self, address: str, backend: str, threads: int = 4, tasks: int = 8) -> None:
        self.options = {"reconnect": True, "backend": backend, "timeout": PATIENCE}
        self.address, self.tasks = address, tasks
        self.answered = 0
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        works = [self.ask] * threads + [lambda: asyncio.run(self.ask_in_tasks())]
        self._threads = [threading.Thread(target=self.noted, args=(work,)) for work in works]

    def noted(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self.failures.append(error)

    def numbers(self) -> Iterator[bytes]:
        for number in itertools.count():
            if self._stop.is_set():
                return
            yield b"%d" % number
            self.answered += 1  # roughly, for threads may lose some

    def ask(self) -> None:
        with pysock.connect(self.address, **self.options) as client:
            for number in self.numbers():
                assert client.request(number).split()[1:] == [number]

    async def ask_in_tasks(self) -> None:
        async with await pysock.aio.connect(self.address, **self.options) as client:

            async def one() -> None:
                for number in self.numbers():
                    assert (await client.request(number, "async")).split()[1:] == [number]

            await asyncio.gather(*(one() for _ in range(self.tasks)))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert self.failures == []


def test_a_rolling_restart_fails_no_request(balancer: Balancer, nodes: Callable[..., list[Node]], backend: str) -> None:
    """Of three servers, with threads that wait for each answer and tasks that have several on their way."""
    three = nodes(3)
    with Load(balancer.front, backend) as load:
        for node in three:
            stopping = threading.Thread(target=node.stop, args=(0.15,))
            stopping.start()
            balancer.wait_until(node.name, up=False)
            before = load.answered
            stopping.join(PATIENCE)
            node.start()
            balancer.wait_until(node.name, up=True)
            wait_for(lambda before=before: load.answered > before, "answers meanwhile")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native"], indirect=True)
def test_a_rolling_restart_of_processes(balancer: Balancer, backend: str) -> None:
    """As the head of the example has them, by SIGTERM."""

    def start(number: int) -> Module:
        where, agent = balancer.servers[number], balancer.agents[number]
        arguments = ["--bind", where, "--agent", agent, "--drain-delay", "0.5", "--log-level", "error"]
        program = Module("pysock", "--backend", backend, "serve", "echoing:server", *arguments, **here)
        serving(program)
        return program

    here = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/help"}
    programs = [start(number) for number in range(3)]
    try:
        for name in SERVERS:
            balancer.wait_until(name, up=True)
        with Load(balancer.front, backend) as load:
            for number, name in enumerate(SERVERS):
                before = load.answered
                programs[number].signal(signal.SIGTERM)
                balancer.wait_until(name, up=False)
                assert programs[number].end() == (0, "", "")
                programs[number] = start(number)
                balancer.wait_until(name, up=True)
                assert load.answered > before
    finally:
        for program in programs:
            program.__exit__()
