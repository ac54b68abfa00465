"""Which server a client asks for (SNI; RFC 6066, 3), and what it offers to speak inside (ALPN; RFC 7301): read from its
first message, as it comes.

The module ssl tells the name by a callback; but one that isn't ASCII it takes for an error, of which the interpreter
prints a traceback: so anybody could fill a log. Of protocols it tells nothing, and OpenSSL under it goes on where the
client offers others alone. What is no whole message is OpenSSL's business, which refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

_HANDSHAKE: Final = 22  # a record's kind
_CLIENT_HELLO: Final = 1
_SERVER_NAME, _ALPN = 0, 16  # extensions
_RECORD_HEAD, _HEAD = 5, 4
#: Where what may be of any length begins, behind the version and a random number.
_SESSION_AT: Final = _HEAD + 2 + 32
#: A longer message is none that anybody sends.
_LONGEST: Final = 64 * 1024


class Asked(Unique):
    """By the client of one connection.

    :ivar name: ``""``: it doesn't say, or hasn't yet.
    :ivar protocols: those that it offers; ``None``: it doesn't say, or hasn't yet.
    """

    __slots__ = ("_hello", "_is_over", "_raw", "name", "protocols")

    def __init__(self) -> None:
        self.name: str = ""
        self.protocols: tuple[bytes, ...] | None = None
        self._raw = bytearray()  # of records, what isn't whole
        self._hello = bytearray()
        self._is_over = False

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._is_over:
            return
        raw, at = self._raw, 0
        raw += data
        while not self._is_over and len(raw) - at >= _RECORD_HEAD:
            end = at + _RECORD_HEAD + _number(raw, at + 3, 2)
            if raw[at] != _HANDSHAKE or len(self._hello) > _LONGEST:
                self._end()
                return
            if len(raw) < end:
                break
            self._hello += raw[at + _RECORD_HEAD : end]
            at = end
            self._look()  # at once: what comes behind the message is none of its records
        del raw[:at]

    def _look(self) -> None:
        hello = self._hello
        if len(hello) < _HEAD or len(hello) < _HEAD + _number(hello, 1, 3):
            return
        if hello[0] == _CLIENT_HELLO:
            for kind, value in _extensions_of(hello):
                if kind == _SERVER_NAME:  # the size of a list, then of its first name the kind, the size, and itself
                    self.name = value[5 : 5 + _number(value, 3, 2)].decode("utf-8", "replace")
                elif kind == _ALPN:
                    self.protocols = tuple(_names_in(value))
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._raw, self._hello = bytearray(), bytearray()


def _number(data: bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _extensions_of(hello: bytearray) -> Iterator[tuple[int, bytearray]]:
    at = _SESSION_AT
    for size in (1, 2, 1):  # the session, ciphers, compressions
        at += size + _number(hello, at, size)
    at += 2
    while at < len(hello):
        end = at + 4 + _number(hello, at + 2, 2)
        yield _number(hello, at, 2), hello[at + 4 : end]
        at = end


def _names_in(value: bytearray) -> Iterator[bytes]:
    """The size of a list, then of each its size, and itself."""
    at = 2
    while at < len(value):
        end = at + 1 + value[at]
        yield bytes(value[at + 1 : end])
        at = end
