"""What comes in on a client's connection that somebody else's loop watches, cut in C."""

from __future__ import annotations

import errno
import os

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.inlet import TEXT_BAD_FRAME, TEXT_LARGE_FRAME, TEXT_LOST
from pysock.engine.native.crossing import lib, result_of
from pysock.errors import ConnectionLost, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.engine.inbox import Inbox

_ERRORS: Final = {
    errno.ECONNRESET: (ConnectionLost, TEXT_LOST),
    errno.EMSGSIZE: (ProtocolError, TEXT_LARGE_FRAME),
    errno.EPROTO: (ProtocolError, TEXT_BAD_FRAME),
}


class NativeInlet:
    """See :class:`pysock.engine.inlet.Inlet`."""

    __slots__ = ("_agree", "_receive")

    def __init__(self, max_payload: int) -> None:
        made: list[Any] = []
        result_of(lib.ps_pyinlet_new(max_payload, id(made)))
        self._receive: Callable[[int, dict[int, Any], Inbox], int] = made[0]
        self._agree: Callable[[int], None] = made[1]

    def agree(self, features: int) -> None:
        """What both ends speak."""
        self._agree(features)

    def receive(self, fd: int, waiting: dict[int, Any], inbox: Inbox) -> None:
        """Take what the kernel has."""
        result = self._receive(fd, waiting, inbox)
        if result:
            kind, text = _ERRORS.get(-result, (ConnectionLost, os.strerror(-result)))
            raise kind(text)
