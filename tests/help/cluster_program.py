"""A program: a node of a cluster in a process of its own, with clients. It is asked by its service ``look``.

python cluster_program.py '{"address": ..., "url": ..., "name": ..., "node": ..., "clients": [...]}'
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pysock
from pysock.cluster.directory import messages


def main(address, url, name, node, clients=(), major=messages.MAJOR):
    """Be it, until the standard input ends."""
    messages.MAJOR = major
    cluster = pysock.Cluster(url, name=name, node=node, required=10.0)
    server = pysock.Server(address, cluster=cluster)

    @server.service("look")
    def look(client, request):
        rows = sorted(row.name for row in cluster.clients.values())
        seen = {"nodes": sorted(node.name for node in cluster.nodes), "clients": rows, "state": cluster.state}
        seen |= {"epoch": cluster._member.directory.epoch, "dropped": cluster._bus.dropped, "time": time.time()}
        return json.dumps(seen).encode()

    with server, ExitStack() as stack:
        for one in clients:
            stack.enter_context(pysock.connect(address, name=one)).request(b"", "look")
        print("up", flush=True)
        sys.stdin.read()


class NodeProcess:
    """That program as whoever has started it sees it.

    :param variables: of its environment.
    """

    def __init__(self, address, environment, **given):
        self.address = address
        command = [sys.executable, __file__, json.dumps({"address": address, **given})]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"up\n"

    def look(self):
        """What it knows, through a client that has no name."""
        with pysock.connect(self.address) as client:
            return json.loads(client.request(b"", "look"))

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
