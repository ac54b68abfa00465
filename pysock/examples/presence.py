"""One room over three servers: who is there, what is said, and what becomes of it when a server is killed.

    python -m pysock.examples.presence
    python -m pysock.examples.presence --bus nats
    python -m pysock.examples.presence --bus redis://127.0.0.1:6379

It starts a bus, three nodes in processes of their own, and four clients; then it kills a node with SIGKILL, and prints
each change of what another node knows of the cluster: the dead node is suspected after 3 seconds of silence and gone
after 5, its client is back at another node long before. The bus is the local one, which needs no other program; by
"nats" or "redis" the server of that name, which has to be installed, or one that runs already, by its URL. One node by
hand, and a look at all of them:

    python -m pysock.examples.presence --node a --bus local:room --bind unix:a.sock
    pysock cluster watch local:room/presence
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pysock
from pysock.examples import _arguments

NODES: Final = ("a", "b", "c")
#: Who comes to which node at first.
CLIENTS: Final = {"anna": "a", "bert": "b", "carl": "c", "dora": "a"}
#: Seconds for anything that should have happened long ago.
PATIENCE: Final = 20.0


# A node


def make_server(addresses: list[str], bus: str, node: str) -> pysock.Server:
    """Return a node: its own clients come to it, and it knows all."""
    cluster = pysock.Cluster(bus, name="presence", node=node, required=PATIENCE)
    server = pysock.Server(*addresses, cluster=cluster)

    @server.service("enter")
    def enter(client: pysock.DataSocket, _request: bytes) -> None:
        client.join("room")

    @server.service("say")
    def say(client: pysock.DataSocket, request: bytes) -> None:
        cluster.group("room").send(f"{client.name}: {request.decode()}".encode())

    @server.service("whisper", threads=1)  # it waits for another node, which the loop must not
    def whisper(client: pysock.DataSocket, request: bytes) -> bytes:
        to, _, text = request.decode().partition(" ")
        try:
            there = cluster.send(to, f"{client.name} whispers: {text}".encode())
        except pysock.NodeGone:
            return b"surely not: the node has gone"
        except pysock.DeliveryUnknown:
            return b"not known: the node doesn't answer"
        return b"yes" if there else b"surely not: nobody is called so"

    @server.service("who")
    def who(_client: pysock.DataSocket, _request: bytes) -> bytes:
        nodes = sorted(f"{one.name}{'?' if one.suspect else ''}" for one in cluster.nodes)
        clients = sorted(f"{row.name}@{row.node}" for row in cluster.clients.values() if row.name)
        return f"nodes {' '.join(nodes)}, clients {' '.join(clients)}".encode()

    return server


# The story: a bus, three nodes, and clients


@contextmanager
def a_bus(kind: str, directory: str) -> Iterator[str]:
    """Yield the URL of one: that which was given, or of one that is started."""
    if kind == "local":
        yield f"local:{directory}/bus.sock"  # the nodes themselves run it
        return
    if kind not in {"nats", "redis"}:
        yield kind
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    name = f"{kind}-server"
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # where Debian has that of NATS
    if program is None:
        raise FileNotFoundError(f"{name} isn't installed: install it, or give the URL of one that runs")
    options = {"nats": ["-a", "127.0.0.1", "-p", port], "redis": ["--bind", "127.0.0.1", "--port", port, "--save", ""]}
    quiet = subprocess.DEVNULL
    command = [program, *options[kind]]
    process = subprocess.Popen(command, cwd=directory, stdout=quiet, stderr=quiet)  # noqa: S603  # none of it is foreign
    try:
        yield f"{kind}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Node:
    """A node in a process of its own.

    :ivar address: where it serves.
    """

    def __init__(self, name: str, bus: str, directory: str) -> None:
        self.address: str = f"unix:{directory}/{name}.sock"
        command = [sys.executable, "-m", "pysock.examples.presence", "--node", name]
        command += ["--bus", bus, "--bind", self.address, "--quiet"]
        self.process: subprocess.Popen[str] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this very program

    def wait(self) -> None:
        """Until it serves."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("serving on"):
            raise pysock.PysockError("a node hasn't come to serve")

    def end(self) -> None:
        """Let it go in order, if it is still there."""
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Person:
    """A client that is in the room, and is back in it whenever it had to connect again.

    :ivar heard: what it was told.
    """

    def __init__(self, name: str, address: str) -> None:
        self.heard: list[str] = []
        self.client: pysock.Client = pysock.connect(address, name=name, reconnect=True, balance="first")
        self.client.on_push(lambda push: self.heard.append(push.decode()))
        self.client.on_reconnect(self._enter)
        self._enter(self.client)

    def _enter(self, client: pysock.Client) -> None:
        client.request(b"", service="enter", idempotent=True)

    def whisper(self, to: str, text: str) -> str:
        """Say it to one alone: whether that has got it."""
        return self.client.request(f"{to} {text}".encode(), service="whisper").decode()


class Story:
    """What is seen and heard, with the seconds since the last thing that was done."""

    def __init__(self, people: dict[str, Person]) -> None:
        self.people = people
        self._since = time.monotonic()
        self._seen = ""

    def tell(self, text: str) -> None:
        """Print it."""
        print(f"{time.monotonic() - self._since:5.1f} s  {text}", flush=True)

    def do(self, text: str) -> None:
        """Something new begins."""
        self._since = time.monotonic()
        print(f"\n{text}", flush=True)

    def watch_until(self, wanted: str) -> re.Match[str]:
        """Print what anna's node knows, at each change, until it is of this form."""
        until = time.monotonic() + PATIENCE
        while not (found := re.fullmatch(wanted, self._seen)):
            seen = self.people["anna"].client.request(b"", service="who").decode()
            if seen != self._seen:
                self.tell(f"anna's node knows: {seen}")
                self._seen = seen
            pause(until, f"anna's node to know: {wanted}")
        return found

    def say(self, name: str, text: str) -> None:
        """One says something, until everybody has heard it: a node may not have told yet that it has members."""
        until, line = time.monotonic() + PATIENCE, f"{name}: {text}"
        while any(line not in person.heard for person in self.people.values()):
            self.people[name].client.request(text.encode(), service="say")
            pause(until, f"all to hear {line!r}")
        self.tell(f"all four have heard {line!r}")

    def whisper(self, name: str, to: str, text: str) -> None:
        """One says something to another one alone."""
        self.tell(f"{name} whispers to {to}. Has it arrived? {self.people[name].whisper(to, text)}")


def pause(until: float, what: str) -> None:
    """A moment, but not for ever."""
    if time.monotonic() >= until:
        raise pysock.RequestTimeout(f"waited in vain for {what}")
    threading.Event().wait(0.05)


def tell_all(kind: str) -> None:
    """The story, from the beginning to the end."""
    with tempfile.TemporaryDirectory(prefix="pysock-") as directory, ExitStack() as stack:
        bus = stack.enter_context(a_bus(kind, directory))
        print(f"the bus is {bus}; nodes {', '.join(NODES)} start", flush=True)
        nodes = {name: Node(name, bus, directory) for name in NODES}
        for node in nodes.values():
            stack.callback(node.end)
        for node in nodes.values():
            node.wait()
        people: dict[str, Person] = {}
        for name, at in CLIENTS.items():
            people[name] = Person(name, nodes[at].address)
            stack.callback(people[name].client.close)
        happens(Story(people), nodes["b"].process.pid)


def happens(story: Story, victim: int) -> None:
    """What comes to pass in it."""
    story.do("Anna and dora are at node a, bert is at b, and carl at c.")
    story.watch_until("nodes a b c, clients anna@a bert@b carl@c dora@a")
    story.say("anna", "hello")
    story.whisper("anna", "bert", "psst")
    story.do("Node b is killed.")
    os.kill(victim, signal.SIGKILL)
    found = story.watch_until("nodes a c, clients anna@a bert@([ac]) carl@c dora@a")
    story.do(f"Bert is back, at node {found[1]}.")
    story.say("bert", "what was that?")
    story.whisper("carl", "bert", "welcome")
    story.whisper("carl", "emil", "and you?")


def main() -> None:
    """Tell the story, or be one node with ``--node``."""
    parser = _arguments.parser("presence", __doc__, "unix:presence.sock")
    parser.add_argument("--node", metavar="NAME", help="be this node alone")
    parser.add_argument("--bus", metavar="URL", default="local", help="local, nats, redis or a URL (default: local)")
    parser.add_argument("--quiet", action="store_true", help="don't tell when the bus is lost")
    options = parser.parse_args()
    if options.quiet:
        logging.basicConfig(level=logging.ERROR)
    with _arguments.one_line_errors():
        if options.node:
            _arguments.serve(make_server(_arguments.addresses(options), options.bus, options.node))
        else:
            tell_all(options.bus)


if __name__ == "__main__":
    main()
