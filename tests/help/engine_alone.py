"""An engine alone, without the facade, and clients that speak bytes to it."""

from __future__ import annotations

import socket
import struct
import threading
import time

from pysock.causes import Cause
from pysock.engine.choice import choose
from pysock.engine.contract import Callbacks, EngineOptions, Service
from pysock.errors import FrameTooLarge
from pysock.limits import Limits
from pysock.states import DISCONNECT_REASONS
from pysock.wire import format as p
from pysock.wire.cir import decode_welcome, encode_cir, encode_welcome
from pysock.wire.format import ErrorCode, Framing, Kind, encode


def srm(payload=b"x", service=0, request_id=9, flags=0):
    return encode(Kind.SRM, payload, code=service, request_id=request_id, flags=flags)


def reply(payload=b"x", request_id=9):
    return encode(Kind.REPLY, payload, request_id=request_id)


def u32(*messages):
    return b"".join(struct.pack("!I", len(message)) + message for message in messages)


def echo(client, request):
    return request


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.002)


class Peer:
    """A client that speaks bytes."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(path)

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, f"the server closed after {data!r}"
            data += piece
        return data

    def expect(self, *frames):
        wanted = b"".join(frames)
        assert self.read(len(wanted)) == wanted

    def frame(self):
        head = self.read(12)
        return p.decode(head + self.read(p.decode_header(head).length))

    def to_the_end(self):
        data = b""
        while piece := self.sock.recv(65536):
            data += piece
        return data

    def let_in(self, **cir):
        self.send(encode_cir(**cir))
        frame = self.frame()
        assert frame.kind == Kind.CIR_ACCEPTED, frame
        return decode_welcome(frame.payload).client_id


class Running:
    """An engine in a thread, and what it called."""

    def __init__(self, path, **options):
        self.path = path
        self.gone = []
        self.logged = []
        self.noted = []
        self.failures = []
        self.raised = None
        self.drained = 0
        self.peers = []
        callbacks = {
            "client": lambda client_id: client_id,
            "connect": options.pop("connect", None),
            "disconnect": lambda client_id, reason: self.gone.append((client_id, DISCONNECT_REASONS[reason])),
            "failed": self._failed,
            "draining": self._draining,
            "log": lambda level, text: self.logged.append((level, text)),
            "noted": lambda cause, times: self.noted.append((Cause(cause), times)),
        }
        callbacks |= options.pop("callbacks", {})
        proxies = options.pop("proxies", None)
        services = options.pop("services", [Service("", options.pop("handler", echo))])
        self.engine = choose(options.pop("backend", "pure")).engine(
            EngineOptions(
                framing=options.pop("framing", Framing.PYSOCK),
                limits=Limits(**options.pop("limits", {})),
                linger=options.pop("linger", None),
                services=services,
                callbacks=Callbacks(**callbacks),
                welcome=encode_welcome(1000, 10, [(0, "")], "test/1"),
                watch_disconnects=options.pop("watch_disconnects", True),
            )
        )
        assert not options
        self.master = socket.socket(socket.AF_UNIX)
        self.master.bind(path)
        self.master.listen(100)
        self.engine.add_master(self.master.fileno(), proxies=proxies)
        self.thread = threading.Thread(target=self._run)

    def _failed(self, client_id, service, request_id, began, error):
        self.failures.append(error)
        code = ErrorCode.PAYLOAD_TOO_LARGE if isinstance(error, FrameTooLarge) else ErrorCode.HANDLER_FAILED
        return code, str(error).encode(), True

    def _draining(self):
        self.drained += 1
        self.master.close()

    def _run(self):
        try:
            self.engine.run()
        except BaseException as error:
            self.raised = error

    def peer(self):
        peer = Peer(self.path)
        self.peers.append(peer)
        return peer

    def stop(self, grace=5.0):
        self.engine.stop(grace)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def reasons(self):
        return [str(reason) for _, reason in self.gone]


def started(socket_dir):
    """Yield ``start(**options)``, which makes an engine run in a thread; end all of them afterwards."""
    made = []

    def start(**options):
        running = Running(f"{socket_dir}/{len(made)}", **options)
        made.append(running)
        running.thread.start()
        return running

    yield start
    for running in made:
        running.stop(0)
        running.engine.close()
        running.engine.close()
        running.master.close()
        for peer in running.peers:
            peer.sock.close()
