"""Records of TLS as they come, by their heads alone (RFC 8446, 5.1): how many of them bring nothing.

OpenSSL deals with changes of keys and the like inside of SSL_read(), as many as there are. Somebody who sends nothing
else would have the server compute for nothing.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import TLSError

if TYPE_CHECKING:
    from typing import Final

#: So many in a row may bring nothing.
SILENT_MAX: Final = 32
_HEAD: Final = 5
_HANDSHAKE, _ALERT = 22, 21


class Records(Unique):
    """Those of one direction.

    :ivar strange: what came first isn't the head of one that can come first.
    """

    __slots__ = ("_begun", "_brought", "_head", "_left", "_silent", "_strict", "_whole", "strange")

    def __init__(self) -> None:
        self.strange: bool = False
        self._begun = False
        self._head = b""
        self._left = 0  # bytes that are missing of the one that is being received
        self._whole = 0  # whole ones, of which it isn't known yet whether they bring something
        self._brought = 0  # so many do
        self._silent = 0  # those in a row that didn't
        self._strict = False  # the handshake is done

    def feed(self, data: bytes) -> None:
        """Count those that are whole with this."""
        if not self._begun:
            self._begun = True
            self.strange = data[0] not in (_HANDSHAKE, _ALERT)
        at, size = 0, len(data)
        while at < size and not self.strange:
            if not self._left:
                at = self._begin(data, at)
            step = min(self._left, size - at)
            self._left -= step
            at += step
            self._whole += not self._left and not self._head

    def _begin(self, data: bytes, at: int) -> int:
        """Take what there is of a head; up to where."""
        end = min(at + _HEAD - len(self._head), len(data))
        head = self._head + data[at:end]
        whole = len(head) == _HEAD
        self._head = b"" if whole else head
        self._left = head[3] << 8 | head[4] if whole else 0
        return end

    def brought(self, count: int) -> None:
        """So many bytes, or records, were for the program."""
        self._brought += count

    def all_read(self) -> None:
        """All that is whole was looked at.

        :raises TLSError: too many brought nothing.
        """
        silent = max(0, self._whole - self._brought)
        self._silent = silent if self._brought else self._silent + silent
        self._whole = self._brought = 0
        if self._strict and self._silent > SILENT_MAX:
            raise TLSError("too many records that bring nothing")

    def secured(self) -> None:
        """The handshake is done."""
        self._whole = self._brought = self._silent = 0
        self._strict = True
