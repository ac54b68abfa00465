"""What comes in on a client's connection that somebody else's loop watches, cut in Python."""

from __future__ import annotations

import os

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.inlet import TEXT_BAD_FRAME, TEXT_LARGE_FRAME, TEXT_LOST
from pysock.engine.pure.client.heads import TELL, comes_from_server, most_bytes
from pysock.engine.pure.core import LARGE_READ_MAX
from pysock.errors import ConnectionLost, ProtocolError, TLSError
from pysock.wire.features import Feature
from pysock.wire.format import Frame, Header, Kind
from pysock.wire.framing import FrameCutter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.engine.inbox import Inbox
    from pysock.tls.channel import ClientChannel

_REPLY: Final = int(Kind.REPLY)
#: What may come behind CIR_ACCEPTED at once, where it was asked for.
_ASKED: Final = TELL | int(Feature.GAP)


class PureInlet:
    """See :class:`pysock.engine.inlet.Inlet`."""

    __slots__ = ("_cutter", "_features", "_max_payload", "_read")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._read: Callable[[int, int], bytes] = os.read
        self._features = _ASKED  # until it is agreed on
        self._cutter: FrameCutter[None] = FrameCutter(self._judge)

    def agree(self, features: int) -> None:
        """What both ends speak."""
        self._features = features

    def receive(self, fd: int, waiting: dict[int, Any], inbox: Inbox) -> None:
        """Take what the kernel has."""
        try:
            data = self._read(fd, LARGE_READ_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except TLSError as error:
            raise ConnectionLost(f"TLS failed: {error}") from error
        except OSError as error:
            raise ConnectionLost(TEXT_LOST) from error
        if not data:
            raise ConnectionLost(TEXT_LOST)
        self._cutter.feed(data)
        while (frame := self._cutter.next()) is not None:
            waiter = waiting.pop(frame.request_id, None) if frame.kind == _REPLY and not frame.flags else None
            if waiter is None:
                inbox.append(frame)
            else:
                _resolve(waiter, frame)

    def receive_through(self, channel: ClientChannel) -> None:
        """What comes on the descriptor is TLS from now on."""
        self._read = lambda _fd, most: channel.receive(most)

    def _judge(self, header: Header) -> None:
        if not comes_from_server(header, self._features):
            raise ProtocolError(TEXT_BAD_FRAME)
        if header.length > most_bytes(header, self._max_payload):
            raise ProtocolError(TEXT_LARGE_FRAME)


def _resolve(waiter: Any, frame: Frame) -> None:
    if not waiter.done():  # it may have been cancelled a moment ago
        waiter.set_result(frame.payload)
