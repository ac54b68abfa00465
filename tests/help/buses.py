"""Buses as tests need them: real servers that can be stopped, killed and frozen, and nodes that note what they hear."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from itertools import count

import hiredis
from haproxy import free_ports
from programs import missing, tool
from support import PATIENCE, environment, own_host, wait_for

from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState
from pysock.cluster.bus.local import records

_HUB = """
import sys, threading
from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState
bus = bus_of(sys.argv[1], node="hub")
bus.start(lambda state: print(state.value, flush=True))
sys.stdin.read()
bus.close()
"""
#: What anybody may say under any subject.
RUBBISH = (b"", b"\0", b"\xff" * 40, b"NATS/1.0 503\r\n\r\n", bytes(range(256)) * 40)
_numbers = count(1)


class Stoppable:
    """A bus whose process can be stopped and go on; ``start`` begins it."""

    def mend(self):
        """It runs, whatever it did before."""
        if self.process.poll() is not None:
            self.start()
        elif self.is_frozen:
            self.thaw()

    def freeze(self):
        self.is_frozen = True
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        self.is_frozen = False
        os.kill(self.process.pid, signal.SIGCONT)


class LocalHub(Stoppable):
    """The local bus: its hub is in a process of its own, as long as that runs."""

    kind = "local"

    def __init__(self, directory):
        self.url = f"local:{directory}/bus.sock"
        self.start()

    def cut(self, nodes):
        """Nobody hears anybody. Where its process dies another one is the hub, so it only stops."""
        self.freeze()
        for one in nodes:
            one.bus.reconnect()
            one.wait(BusState.LOST)

    def start(self):
        self.is_frozen = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HUB, self.url],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "connected\n"

    def stop(self):
        self.process.stdin.close()
        self.ended()

    def kill(self):
        self.process.kill()
        self.ended()

    def say_rubbish(self, node):
        """As whoever may use the bus can: on the subjects of this node, the bus's own, too."""
        subjects = [f"{node.prefix}.a", f"{node.prefix}.q", f"{node.prefix}._i.{node.bus.token}"]
        rubbish = [
            records.node_hello(b"12345678", "stranger"),
            records.answer(0, 1, b""),
            records.answer(2**63, 1, b""),
        ]
        for subject in subjects:
            rubbish += [records.publish(subject.encode(), one) for one in RUBBISH]
            rubbish += [records.request(7, 7, subject.encode(), one) for one in RUBBISH]
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(PATIENCE)
            stranger.connect(self.url.partition(":")[2])
            message = b"".join(rubbish)
            stranger.sendall(struct.pack("!I", len(message)) + message)
            assert stranger.recv(1)

    def ended(self):
        self.process.wait(PATIENCE)
        for one in (self.process.stdin, self.process.stdout):
            one.close()

    def close(self):
        if self.process.poll() is None:
            self.thaw()
            self.kill()


class Serving(Stoppable):
    """A bus that is a server of its own: a process, at a port that it keeps."""

    kind = ""

    def __init__(self, directory):
        self.directory = directory
        (self.port,) = free_ports(own_host(), 1)
        self.start()

    @property
    def host(self):
        return f"{own_host()}:{self.port}"

    @property
    def url(self):
        return f"{self.kind}://{self.host}"

    def command(self):
        raise NotImplementedError

    def start(self):
        self.is_frozen = False
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, f"{self.kind} to listen")

    def answers(self):
        assert self.process.poll() is None, self.command()
        with contextlib.suppress(OSError), socket.create_connection((own_host(), self.port), 1):
            return True
        return False

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def cut(self, nodes):
        """Nobody hears anybody."""
        self.kill()
        for one in nodes:
            one.wait(BusState.LOST)

    def close(self):
        if self.process.poll() is None:
            self.kill()

    def subjects(self, node):
        """Those on which others can say something to this node."""
        own = f"{node.prefix}._i.{node.bus.token}"
        return [f"{node.prefix}.a", f"{node.prefix}.q", own]


class Nats(Serving):
    """A real nats-server.

    :param conf: more lines of its configuration.
    """

    kind = "nats"

    def __init__(self, directory, conf=""):
        self.conf = f'write_deadline: "2s"\n{conf}\n'
        super().__init__(directory)

    def command(self):
        program = shutil.which("nats-server", path=os.environ["PATH"] + ":/usr/sbin")
        conf = self.directory / f"nats-{self.port}.conf"
        conf.write_text(self.conf)
        program = program or missing("nats-server isn't installed: nothing has been tested with it")
        return [program, "-c", str(conf), "-a", own_host(), "-p", str(self.port)]

    def say_rubbish(self, node):
        subjects = [
            *self.subjects(node),
            f"{node.prefix}._i.{node.bus.token}.r.0",
            f"{node.prefix}._i.{node.bus.token}.r.x",
        ]
        with socket.create_connection((own_host(), self.port), PATIENCE) as sock:
            sock.sendall(b'CONNECT {"headers":true,"verbose":false}\r\n')
            for subject in subjects:
                for one in RUBBISH:
                    sock.sendall(b"PUB %s nobody.hears %d\r\n%s\r\n" % (subject.encode(), len(one), one))
                    sock.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(one), one))
            sock.sendall(b"PING\r\n")
            answer = b""
            while b"PONG" not in answer:
                part = sock.recv(65536)
                assert part
                assert b"-ERR" not in part, part
                answer += part


class Redis(Serving):
    """A real redis-server.

    :param conf: more lines of its configuration.
    :param is_tls: of which some make it speak TLS alone.
    """

    kind = "redis"

    def __init__(self, directory, conf="", is_tls=False):
        self.conf = f'save ""\nappendonly no\n{conf}\n'
        self.is_tls = is_tls
        super().__init__(directory)

    def command(self):
        conf = self.directory / f"redis-{self.port}.conf"
        ports = f"port 0\ntls-port {self.port}\n" if self.is_tls else f"port {self.port}\n"
        conf.write_text(f"bind {own_host()}\nprotected-mode no\ndir {self.directory}\n{ports}{self.conf}")
        return [tool("redis-server"), str(conf)]

    def say(self, *words):
        """One command, as a stranger; its answer."""
        reader = hiredis.Reader()
        with socket.create_connection((own_host(), self.port), PATIENCE) as sock:
            sock.sendall(hiredis.pack_command(words))
            while (answer := reader.gets()) is False:
                part = sock.recv(65536)
                assert part
                reader.feed(part)
        assert not isinstance(answer, Exception), answer
        return answer

    def say_rubbish(self, node):
        token = node.bus.token
        own = f"{node.prefix}._i.{token}"
        for subject in (f"{node.prefix}.a", f"{node.prefix}.q@{token}", own, f"{own}.r", f"{node.prefix}._i.queues"):
            for one in RUBBISH:
                assert self.say("PUBLISH", subject, one) > 0


class Sentinel(Redis):
    """A real Sentinel, which decides alone.

    :param conf: of which one line says what it monitors.
    """

    @property
    def url(self):
        return f"redis+sentinel://{self.host}/shop"

    def command(self):
        conf = self.directory / f"sentinel-{self.port}.conf"
        lines = self.conf.partition("appendonly no\n")[2]
        conf.write_text(f"port {self.port}\nbind {own_host()}\nprotected-mode no\ndir {self.directory}\n{lines}")
        return [tool("redis-server"), str(conf), "--sentinel"]


class Node:
    """One end of a bus, and what it has heard, by subject."""

    def __init__(self, url, name, prefix):
        self.bus = bus_of(url, node=name, prefix=prefix)
        self.prefix = prefix
        self.states = []
        self.heard = defaultdict(list)

    def start(self, wait=True):
        self.bus.start(self.states.append)
        if wait:
            self.wait(BusState.CONNECTED)
        return self

    def wait(self, state):
        wait_for(lambda: self.bus.state is state, f"{state}: {self.bus.why}", timeout=20)

    def hear(self, word, answer=None, queue=False):
        """Note what comes under a subject, and answer requests by what ``answer`` makes of them."""

        def heard(message):
            self.heard[word].append(message.payload)
            if message.answer is not None and answer is not None:
                message.answer(answer(message.payload))

        return self.bus.subscribe(f"{self.prefix}.{word}", heard, queue=queue)

    def say(self, word, payload):
        self.bus.publish(f"{self.prefix}.{word}", payload)

    def ask(self, word, payload=b"", timeout=5.0):
        """Ask, and wait for the end."""
        done = threading.Event()
        ends = self.begin(word, payload, timeout, done)
        assert done.wait(PATIENCE + timeout)
        return ends[0]

    def begin(self, word, payload=b"", timeout=5.0, done=None):
        """Ask; how it ends is put into the list that this returns."""
        ends = []

        def ended(outcome, answer):
            ends.append((outcome, answer))
            if done is not None:
                done.set()

        self.bus.request(f"{self.prefix}.{word}", payload, timeout, ended)
        return ends

    def settle(self):
        """What was subscribed before is known to the bus, when a message to oneself is back."""
        word = f"settled{next(_numbers)}"
        subscription = self.hear(word)
        wait_for(lambda: self.try_to_say(word) and self.heard[word], f"{self.bus.why}")
        subscription.end()

    def try_to_say(self, word):
        with contextlib.suppress(ConnectionError):
            self.say(word, b"")
        return True

    def got(self, word, many):
        """Wait for so many messages; all of them."""
        wait_for(lambda: len(self.heard[word]) >= many, f"{many} messages, {len(self.heard[word])} came")
        return self.heard[word]


ENGINES = {"local": LocalHub, "nats": Nats, "redis": Redis}
