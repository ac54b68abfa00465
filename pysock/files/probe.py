"""Whether a server listens at a socket file: ``connect()``, then a PING.

This file owns the judgement from outside. A connection is proof enough that somebody lives there, whatever is answered;
the PING (allowed before the CIR) only tells whether it is a pysock server of the framing ``pysock``.
"""

from __future__ import annotations

import errno
import os
import socket
from enum import Enum

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.wire.format import HEADER, Kind, encode
from pysock.wire.health import DRAINING, SERVING

if TYPE_CHECKING:
    from typing import Final

#: For the PONG to come, in seconds.
PATIENCE: Final = 0.2


class Finding(Enum):
    """What is behind a socket file."""

    STALE = "nobody"
    ANSWERS = "a pysock server"
    SILENT = "a server that gave no answer to a PING"


def probe(path: str) -> Finding:
    """Find out, within :data:`PATIENCE`.

    :raises PermissionError: this process may not connect there.
    :raises OSError: what else ``connect()`` says.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as handle:
        # Without waiting: a live server with a full backlog would hold us up, and answers EAGAIN instead.
        handle.setblocking(False)
        try:
            handle.connect(path)
        except ConnectionRefusedError:
            return Finding.STALE
        except OSError as error:
            # EAGAIN: its backlog is full. EPROTOTYPE: a datagram socket. Both are alive.
            if error.errno not in {errno.EAGAIN, errno.EPROTOTYPE}:
                raise
            return Finding.SILENT
        try:
            return Finding.ANSWERS if _answers(handle) else Finding.SILENT
        except OSError:
            return Finding.SILENT


def _answers(handle: socket.socket) -> bool:
    payload = os.urandom(8)
    expected = {encode(Kind.PONG, payload, code=code) for code in (SERVING, DRAINING)}
    size = HEADER.size + len(payload)
    deadline = monotonic() + PATIENCE
    handle.settimeout(PATIENCE)
    no_sigpipe(handle)
    handle.sendall(encode(Kind.PING, payload), NO_SIGNAL)
    answer = b""
    while len(answer) < size and (left := deadline - monotonic()) > 0:
        handle.settimeout(left)
        part = handle.recv(size - len(answer))
        if not part:
            break
        answer += part
    return answer in expected
