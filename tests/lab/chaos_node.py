"""A program: a node of a cluster whose clients note what they get, and which sends numbers to those of others.

    python chaos_node.py '{"address": ..., "url": ..., "node": ..., "seed": ...}'

Each message says by which path it goes, from which node, and its number there; each node notes of every number what it
was told. Its services are for whoever has started it: ``look``, ``settle`` (nobody comes or goes from now on), ``hush``
(nothing is sent from now on), ``report``.
"""

from __future__ import annotations

import json
import random
import select
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress

import pysock

#: Clients that stay, and those that come and go.
STAYING, PASSING = 2, 8
#: Seconds between two messages.
PAUSE = 0.01


class Node:
    """See the head of this file."""

    def __init__(self, address, url, node, seed):
        self.name, self.address = node, address
        self.chance = random.Random(f"{seed} {node}")
        self.cluster = pysock.Cluster(url, name="chaos", node=node, required=20.0)
        self.server = pysock.Server(address, cluster=self.cluster)
        self.got = defaultdict(list)  # "client path sender" -> numbers, as they came
        self.sent = defaultdict(list)  # "client path" -> [number, when, what was said]
        self.is_passing = self.is_sending = True
        self.passing = []
        self.server.service("enter")(lambda client, request: client.join("all"))
        self.server.service("look")(lambda client, request: json.dumps(self.look()).encode())
        self.server.service("settle")(lambda client, request: setattr(self, "is_passing", False))
        self.server.service("hush")(lambda client, request: setattr(self, "is_sending", False))
        self.server.service("report")(lambda client, request: json.dumps([self.got, self.sent]).encode())

    def run(self):
        """Until the standard input ends."""
        with self.server:
            staying = [self.come(f"{self.name}-{number}") for number in range(STAYING)]
            for client in staying:
                client.request(b"", "enter")
            threads = [threading.Thread(target=each, daemon=True) for each in (self.send, self.come_and_go)]
            for thread in threads:
                thread.start()
            print("up", flush=True)
            sys.stdin.read()

    def come(self, name):
        client = pysock.connect(self.address, name=name)
        client.on_push(lambda payload: self.note(name, bytes(payload).decode()))
        client.request(b"", "look")
        return client

    def note(self, client, text):
        path, sender, number = text.split()
        self.got[f"{client} {path} {sender}"].append(int(number))

    def look(self):
        """What it has, and what it knows; but those who look have no name."""
        own = sorted(client.name for client in self.server.clients.values() if client.name)
        known = sorted(row.name for row in self.cluster.clients.values() if row.name)
        return {"own": own, "known": known, "state": self.cluster.state, "nodes": len(self.cluster.nodes)}

    # What it does meanwhile

    def come_and_go(self):
        number = 0
        while True:
            rest(self.chance.random() * 0.2)
            if not self.is_passing:
                continue
            if len(self.passing) >= PASSING or (self.passing and self.chance.random() < 0.4):
                self.passing.pop(self.chance.randrange(len(self.passing))).close()
            else:
                number += 1
                self.passing.append(self.come(f"passing-{self.name}-{number}"))

    def send(self):
        number = 0
        while True:
            rest(PAUSE)
            others = [row.name for row in self.cluster.clients.values() if is_staying(row.name) and not row.is_local]
            if not self.is_sending or not others:
                continue
            number += 1
            path = self.chance.choice(("direct", "direct", "direct", "group", "all"))
            to = self.chance.choice(others) if path == "direct" else "*"
            begin = time.monotonic()
            said = self.say(path, to, f"{path} {self.name} {number}".encode())
            self.sent[f"{to} {path}"].append((number, begin, said))

    def say(self, path, to, payload):
        """Send it; what is known of it then: ``here``, ``lost``, ``open``."""
        try:
            if path == "direct":
                is_sure = self.chance.random() < 0.5
                there = self.cluster.send(to, payload, ack=is_sure, timeout=1.0)
                return ("here" if is_sure else "open") if there else "lost"
            spread = self.cluster.group("all").send(payload) if path == "group" else self.cluster.broadcast(payload)
        except (pysock.NodeGone, pysock.BusDown):
            return "lost"
        except pysock.DeliveryUnknown:
            return "open"
        return "open" if spread.published else "lost"


def rest(seconds):
    """``time.sleep`` fails where a program's clock is wrong by faketime."""
    select.select([], [], [], seconds)


def is_staying(name):
    return not name.startswith("passing") and "-" in name


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        Node(**json.loads(sys.argv[1])).run()
