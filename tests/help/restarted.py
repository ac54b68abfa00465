"""Servers that go and come back, at one address: real ones, and scripts one after the other."""

from __future__ import annotations

import threading
import time

from support import FakeServer, RawPeer, welcomed

import pysock
from pysock import Backoff
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.format import Kind, encode

FAST = Backoff(0.005, 0.02)


class Restarted:
    """A server that can be stopped, and started again."""

    def __init__(self, address, backend, **options):
        self.address, self.backend, self.options = address, backend, options
        self.server = None
        self.ran = []
        self.lock = threading.Lock()  # a client may have its answer before the thread that starts it goes on

    def start(self):
        with self.lock:
            self._start()
        return self

    def _start(self):
        server = pysock.Server(self.address, backend=self.backend, **self.options)

        @server.service
        def upper(client, request):
            self.ran.append(request)
            if request.startswith(b"slow"):
                time.sleep(0.2)
            return request.upper()

        @server.service("id")
        def number(client, request):
            return b"%d %s" % (client.id, client.name.encode())

        @server.service("push")
        def push(client, request):
            client.send(request)

        server.start()
        self.server, self.address = server, str(server.addresses[0])

    def stop(self, grace=1.0):
        with self.lock:
            if self.server is not None:
                self.server.stop(grace)
                self.server = None

    def restart(self):
        self.stop()
        return self.start()


class Played(FakeServer):
    """One script for each client that comes; each in a thread of its own."""

    def __init__(self, path, scripts):
        self.scripts = list(scripts)
        self.threads = []
        super().__init__(path, None)

    def run(self):
        try:
            while self.scripts:
                sock, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.one, args=(sock, self.scripts.pop(0))))
                self.threads[-1].start()
        except OSError:
            pass  # it is closed
        for thread in self.threads:
            thread.join(10)

    def one(self, sock, script):
        try:
            with RawPeer(sock) as peer:
                script(peer)
        except OSError:
            pass
        except Exception as error:
            self.errors.append(error)


def lose(requests):
    """Take so many requests, and go without a word."""
    return welcomed(lambda peer: [peer.frame() for _ in range(requests)])


def answers(peer):
    """An echo."""
    while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
        payload = frame.payload[4:] if frame.flags else frame.payload
        peer.send(encode(Kind.REPLY, payload, request_id=frame.request_id))


def speaking(play, in_flight=4):
    """Let in, with the features by which an ERROR has flags."""

    def whole(peer):
        peer.frame()
        peer.send(encode_accepted(7, encode_welcome(1_000_000, in_flight, [], "fake"), 3))
        play(peer)

    return whole
