"""Two servers in one process, one of which hands its clients over to the other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from pysock import Server
from pysock.errors import PysockError
from pysock.handover import tags
from pysock.handover.channel import Channel, Heard
from pysock.handover.give import give
from pysock.handover.messages import Kind, encode_versions
from pysock.handover.options import Given, Options
from pysock.handover.relay import take

QUICK = Options(step=2.0, prepare=5.0, grace=5.0)


def pair() -> tuple[int, int]:
    """Both ends of a channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.detach(), theirs.detach()


def channels() -> tuple[Channel, int]:
    """One end to speak by, and the other for a server."""
    ours, theirs = pair()
    return Channel(ours), theirs


class Handing:
    """A hand-over that goes on in a thread."""

    def __init__(self, server: Server, fd: int, options: Options = QUICK, **more: Any) -> None:
        self.result: Given | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._give, args=(server, fd, options, more))
        self._thread.start()

    def _give(self, server: Server, fd: int, options: Options, more: dict[str, Any]) -> None:
        try:
            self.result = give(server, fd, options=options, **more)
        except (PysockError, OSError) as error:
            self.error = error

    def end(self) -> Given:
        """What came of it, or what it raised."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def hand_over(old: Server, new: Server, options: Options = QUICK, ready: Callable[[], object] | None = None) -> Given:
    """All of it; the old one is stopped then."""
    ours, theirs = pair()
    take(new, theirs, ready=ready, options=options)
    giving = Handing(old, ours, options)
    try:
        new.start()
    except BaseException:
        giving._thread.join(20)
        raise
    given = giving.end()
    old.stop(1.0)
    return given


def greeted(channel: Channel, server: Server) -> Heard:
    """Be a new side, up to the listeners."""
    fields = {
        tags.VERSIONS: encode_versions(),
        tags.FRAMING: b"\0",
        tags.ADDRESS: str(server.addresses[0]).encode(),
        tags.LENT: b"\1",
    }
    channel.send(Kind.HELLO, fields.items(), patience=2)
    return channel.receive(5)
