"""The part of the Redis protocol (RESP, version 2) that the ``hiredis`` parser doesn't do for a server.

That is writing replies, and reading the inline form of commands.
"""

from __future__ import annotations

from typing import TypeAlias

import hiredis

Reply: TypeAlias = "str | int | bytes | list[Reply] | None"

#: Bytes of an inline command that isn't finished yet. Redis has the same limit.
LONGEST_LINE = 65536


class CommandError(Exception):
    """What the client gets to read as an error."""


class InlineReader:
    """Cuts the inline form into commands; ``feed`` and ``gets`` as hiredis.Reader has them."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def gets(self) -> list[bytes] | bool:
        """Return the next command, or ``False`` if no whole one is there."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            if len(line) > LONGEST_LINE:
                raise hiredis.ProtocolError("too big inline request")
            return False
        self._buffer = rest
        return line.split()


def encode(reply: Reply) -> bytes:
    """Return a reply as the protocol writes it: RESP, version 2."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, str):
        return b"+%s\r\n" % reply.encode()
    return b"*%d\r\n%s" % (len(reply), b"".join(map(encode, reply)))
