"""A cluster whose hosts are cut off, go deaf and mute, lose packets, are stopped, have wrong clocks, and lose the bus.

Real hosts: see ``hosts.py``; the nodes: ``chaos_node.py``. What is done to them, and when, has a seed. Afterwards each
node knows just the clients that there are, within some seconds. No client has got a message twice, or one of a path
after a later one; what was told to have arrived has; what was told not to has not; and nothing else is missing but what
was sent while something was wrong.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from support import environment, short_directory

import pysock
from lab.experiment import Experiment, Failed, Missing, Scale, check
from lab.hosts import ALL, DEAF, LOSSY, MUTE, Hosts, apart_from

NODES = 3
#: Seconds within which all know all, when nothing is wrong any more.
HEALED = 5.0
#: Seconds in which nothing is wrong, and nothing may be missing that was sent then; and how many messages that must be.
QUIET, QUIET_MANY = 2.0, 50
#: Seconds for which a message may have been on its way when something began to be wrong.
BEFORE = 1.0
_PROGRAM = str(Path(__file__).with_name("chaos_node.py"))
#: The clocks of the nodes.
_CLOCKS = ("+0", "+1h", "-1h")


class Bus:
    """Servers on the first hosts: two of NATS that are one, or one Redis."""

    def __init__(self, kind: str, hosts: Hosts, directory: Path) -> None:
        self.kind, self._hosts = kind, hosts
        self.count = 2 if kind == "nats" else 1
        self._directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(self.count):
            self.start(number)

    def url(self, node: int) -> str:
        """For this node."""
        return f"{self.kind}://{Hosts.address(node % self.count)}:{4222 if self.kind == 'nats' else 6379}"

    def _command(self, number: int) -> list[str]:
        address = Hosts.address(number)
        if self.kind == "redis":
            options = ["--save", "", "--protected-mode", "no", "--dir", str(self._directory)]
            return [_tool("redis-server"), "--bind", address, *options]
        conf = self._directory / f"nats-{number}.conf"
        others = ",".join(f'"nats://{Hosts.address(other)}:6222"' for other in range(self.count) if other != number)
        cluster = f'cluster {{ name: "x", listen: "{address}:6222", routes: [{others}] }}'
        conf.write_text(f'listen: "{address}:4222"\nserver_name: "s{number}"\nping_interval: "2s"\n{cluster}\n')
        return [_tool("nats-server"), "-c", str(conf)]

    def start(self, number: int) -> None:
        """Run it."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes[number] = self._hosts.start(number, self._command(number), **quiet)

    def kill(self, number: int) -> None:
        """It is gone at once."""
        self._processes[number].kill()
        self._processes[number].wait()

    def signal(self, number: int, what: int) -> None:
        """It is stopped, say."""
        self._processes[number].send_signal(what)

    def close(self) -> None:
        """End all."""
        for number in self._processes:
            self.kill(number)


class Node:
    """One node, as whoever has started it sees it."""

    def __init__(self, number: int, hosts: Hosts, bus: Bus, directory: Path, seed: str) -> None:
        self.host = bus.count + number
        self.address = f"unix:{directory}/n{number}"
        given = {"address": self.address, "url": bus.url(number), "node": f"n{number}", "seed": seed}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, _PROGRAM, json.dumps(given)]
        variables = environment(**_skewed(_CLOCKS[number % len(_CLOCKS)]))
        self.process = hosts.start(self.host, command, env=variables, **pipes)

    def wait(self) -> None:
        """Until it serves."""
        assert self.process.stdout is not None
        check(self.process.stdout.readline() == b"up\n", "a node doesn't start")

    def ask(self, service: str) -> Any:
        """One of its services for whoever has started it."""
        with pysock.connect(self.address, timeout=30) as client:
            answer = client.request(b"", service, timeout=30)
        return json.loads(answer) if answer else None

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Trouble:
    """What is wrong now, and when anything was.

    :ivar times: from when to when.
    """

    def __init__(self, chance: random.Random, hosts: Hosts, bus: Bus, nodes: list[Node]) -> None:
        self._chance, self._hosts, self._bus, self._nodes = chance, hosts, bus, nodes
        self.times: list[tuple[float, float]] = []
        #: Since when something is wrong that hasn't healed yet; at first not all are there.
        self._open: list[float] = [0.0]
        self.seen: dict[str, int] = {}

    def strike(self, longest: float) -> None:
        """One thing, for a while; the whole of it has healed afterwards."""
        kinds = ["cut", "deaf", "mute", "lossy", "stopped", "bus stopped", "bus killed"]
        kind = self._chance.choice([*kinds, "halves"] if self._bus.count > 1 else kinds)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        begin = time.monotonic()
        with ExitStack() as mended:
            self._begin(kind, mended)
            time.sleep(self._chance.uniform(0.3, longest))
        self._open.append(begin - BEFORE)

    def _begin(self, kind: str, mended: ExitStack) -> None:
        node, server = self._chance.choice(self._nodes), self._chance.randrange(self._bus.count)
        rules = {"cut": ALL, "deaf": DEAF, "mute": MUTE, "lossy": LOSSY}
        if kind in rules:
            self._lose(node.host, rules[kind], mended)
        elif kind == "halves":
            self._lose(1, apart_from(Hosts.address(0)), mended)
        elif kind == "stopped":
            node.process.send_signal(signal.SIGSTOP)
            mended.callback(node.process.send_signal, signal.SIGCONT)
        elif kind == "bus stopped":
            self._bus.signal(server, signal.SIGSTOP)
            mended.callback(self._bus.signal, server, signal.SIGCONT)
        else:
            self._bus.kill(server)
            mended.callback(self._bus.start, server)

    def _lose(self, host: int, rules: dict[str, str], mended: ExitStack) -> None:
        self._hosts.lose(host, rules)
        mended.callback(self._hosts.lose, host, {})

    def is_over(self) -> None:
        """All know all again: from now on messages come."""
        self.times += [(begin, time.monotonic()) for begin in self._open]
        self._open.clear()

    def is_then(self, when: float) -> bool:
        """Whether something was wrong."""
        return any(begin <= when <= end for begin, end in self.times)


def chaos(scale: Scale, kind: str) -> str:
    """Some rounds of trouble and rest."""
    chance, directory = scale.random("chaos", kind), short_directory()
    rounds, strikes, longest = scale.of((1, 4, 2.0), (60, 6, 6.0))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        hosts = Hosts((2 if kind == "nats" else 1) + NODES)
        stack.callback(hosts.close)
        bus = Bus(kind, hosts, directory)
        stack.callback(bus.close)
        nodes = []
        for number in range(NODES):
            nodes.append(Node(number, hosts, bus, directory, f"{scale.seed}"))
            stack.callback(nodes[-1].close)
        for node in nodes:
            node.wait()
        trouble, healed = Trouble(chance, hosts, bus, nodes), [_healed(nodes, 20.0)]
        trouble.is_over()
        for number in range(rounds):
            for _ in range(strikes):
                trouble.strike(longest)
            healed.append(_healed(nodes, HEALED, trouble.seen))
            trouble.is_over()
            time.sleep(QUIET)
            scale.say(f"round {number + 1}, {healed[-1]:.1f} s")
        seen = _judge(nodes, trouble)
    what = ", ".join(f"{times} {kind}" for kind, times in trouble.seen.items())
    return f"{what}; {seen}; all knew all within {max(healed[1:]):.1f} s"


def _healed(nodes: list[Node], within: float, seen: object = "") -> float:
    """Seconds until each node knows the clients that there are; those come and go on until then."""
    begin = time.monotonic()
    while True:
        for node in nodes:
            node.ask("settle")
        looks = [node.ask("look") for node in nodes]
        union = sorted(name for look in looks for name in look["own"])
        took = time.monotonic() - begin
        if all(look["known"] == union and look["state"] == "connected" for look in looks):
            return took
        if took > within:
            wrong = [(look["state"], look["nodes"], sorted({*look["known"]} ^ {*union})) for look in looks]
            raise Failed(f"after {took:.1f} s without trouble the nodes don't know all: {wrong}; it was {seen}")
        time.sleep(0.05)


def _judge(nodes: list[Node], trouble: Trouble) -> str:
    """What was sent, and what came of it."""
    for node in nodes:
        node.ask("hush")
    time.sleep(1.5)  # for the last ones
    reports = [node.ask("report") for node in nodes]
    got = {key: numbers for came, _ in reports for key, numbers in came.items()}
    for key, numbers in got.items():
        is_in_order = all(a < b for a, b in pairwise(numbers))
        check(is_in_order, f"{key}: doubled or disordered: {numbers}")
    came = {key: set(numbers) for key, numbers in got.items()}
    clients = [name for node in nodes for name in node.ask("look")["own"] if not name.startswith("passing")]
    many = lost = quiet = 0
    for number, (_, sent) in enumerate(reports):
        for key, messages in sent.items():
            to, path = key.split()
            takers = [to] if to != "*" else [name for name in clients if not name.startswith(f"n{number}-")]
            for taker in takers:
                there = came.get(f"{taker} {path} n{number}", set())
                many += len(messages)
                quiet += sum(not trouble.is_then(when) for _, when, _ in messages)
                lost += sum(
                    _is_missing(each, each[0] in there, trouble, f"{taker} {key} n{number}") for each in messages
                )
    check(quiet >= QUIET_MANY, f"only {quiet} of {many} messages were sent while nothing was wrong")
    return f"{many} messages, {quiet} of them in quiet; {lost} missing, each told or in trouble"


def _is_missing(message: tuple[int, float, str], came: bool, trouble: Trouble, key: str) -> bool:
    number, when, said = message
    check(came or said != "here", f"{key}: {number} was said to be there, and isn't")
    check(not came or said != "lost", f"{key}: {number} was said to be nowhere, and came")
    check(came or said == "lost" or trouble.is_then(when), f"{key}: {number} was lost, and nothing was wrong")
    return not came


def _tool(name: str) -> str:
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        raise Missing(f"{name} isn't installed")
    return found


def _skewed(by: str) -> dict[str, str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise Missing("faketime isn't installed")
    return {"LD_PRELOAD": str(library), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _bound(kind: str) -> Any:
    return lambda scale: chaos(scale, kind)


EXPERIMENTS = [
    Experiment(
        f"chaos/{kind}", "hosts of a cluster cut off, deaf, stopped, with wrong clocks", _bound(kind), alone=True
    )
    for kind in ("nats", "redis")
]
