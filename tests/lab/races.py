"""Servers that start at the same moment for one path: exactly one wins, and no live socket is stolen."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from lab.experiment import Failed, Scale, check, per_engine
from lab.load import ask, let_in
from lab.processes import Child
from lab.served import WHO, Services, folder
from pysock import AddressInUse, Server


def start(channel: Connection, engine: str, address: str) -> None:
    """When told, wait for so many seconds, and start a server; tell how it went, and serve until told to stop."""
    logging.basicConfig(handlers=[logging.NullHandler()])
    server = Server(address, backend=engine)
    Services(server)
    until = time.monotonic() + channel.recv()
    while time.monotonic() < until:
        pass
    try:
        server.start()
    except AddressInUse as error:
        channel.send(str(error))
        return
    channel.send(None)
    channel.recv()
    server.stop(0.5)


def _answered_by(address: str) -> int:
    with let_in(address) as sock:
        return int(ask(sock, b"who?", 1, service=WHO).split()[0])


class _Path:
    """The path that they race for, and the server that has it."""

    def __init__(self, scale: Scale, engine: str, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix:{directory}/s"
        self.engine = engine
        self.chance = scale.random("races", engine)
        self.owner: Child | None = None
        self.kinds: Counter[str] = Counter()
        self.starters = 0

    def race(self, number: int) -> None:
        """One round. The last owner is alive, leaves in order, leaves at this moment, or has been killed."""
        kind = "nothing there" if self.owner is None else self.chance.choice(("alive", "gone", "leaving", "killed"))
        self.kinds[kind] += 1
        children = [Child(start, self.engine, self.address) for _ in range(self.chance.randint(2, 8))]
        self.starters += len(children)
        leaving = self._end(kind)
        for child in children:
            child.send(self.chance.choice((0.0, 0.0, self.chance.random() * 0.003)))
        if kind == "leaving":
            time.sleep(self.chance.random() * 0.003)
            leaving.send("stop")  # type: ignore[union-attr]
        winners = [child for child in children if child.receive() is None]
        for child in children:
            if child not in winners:
                child.result()
                child.channel.close()
        if leaving is not None:
            leaving.result()
            leaving.channel.close()
        expected = {"alive": {0}, "leaving": {0, 1}}.get(kind, {1})
        if len(winners) not in expected:
            raise Failed(f"round {number}, {kind}: {len(winners)} of {len(children)} starters won")
        if winners:
            self.owner = winners[0]
        if self.owner is not None:
            answered_by = _answered_by(self.address)
            check(answered_by == self.owner.pid, f"round {number}, {kind}: {answered_by} answers, not {self.owner.pid}")

    def _end(self, kind: str) -> Child | None:
        """End the last owner in this way; the child if it is to leave at the moment of the race."""
        owner = self.owner
        if owner is None or kind == "alive":
            return None
        self.owner = None
        if kind == "leaving":
            return owner
        if kind == "killed":
            owner.kill()
        else:
            owner.send("stop")
            owner.result()
            left = os.listdir(self.directory)
            check(not left, f"a server that stopped has left {left}")
        owner.channel.close()
        return None


def races(scale: Scale, engine: str, _: str) -> str:
    """2 to 8 starters at once; before them: nothing, a live server, one that leaves, a killed one's socket."""
    rounds = scale.of(16, 5000)
    with folder() as directory:
        path = _Path(scale, engine, directory)
        try:
            for number in range(rounds):
                path.race(number)
                if number % 500 == 499:
                    scale.say(f"{number + 1} races")
        finally:
            if path.owner is not None:
                path.owner.kill()
    kinds = ", ".join(f"{count} {kind}" for kind, count in path.kinds.items())
    return f"{rounds:,} races of {path.starters:,} starters ({kinds}): one winner each, none stolen"


EXPERIMENTS = per_engine("races", "servers that start at once for one path", races, transports=["unix"])
