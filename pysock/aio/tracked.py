"""What a healing asyncio client has to send: it knows which requests the kernel hasn't taken whole."""

from __future__ import annotations

from collections.abc import Iterator

from pysock.aio.output import Output
from pysock.base.lean import TYPE_CHECKING
from pysock.wire.format import HEADER, Kind

if TYPE_CHECKING:
    from typing import Any, Final

_SRM: Final = int(Kind.SRM)


class TrackedOutput(Output):
    """See the head of this file."""

    __slots__ = ("_begun", "_cut", "unsent")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._begun = 0  # the bytes in front that belong to a frame of which some has gone
        self._cut = 0  # its id
        self.unsent: set[int] | None = set()

    def _sent(self, count: int) -> None:
        self._begun = 0 if count == self.size else self._rest_of_frame(count)
        super()._sent(count)

    def _rest_of_frame(self, count: int) -> int:
        """How much is left of the frame that ends behind the first ``count`` bytes."""
        if count <= self._begun:
            return self._begun - count
        for end, _, number in self._frames():
            if end >= count:
                self._cut = number
                return end - count
        return 0

    def _frames(self) -> Iterator[tuple[int, int, int]]:
        """Where each frame of which nothing has gone ends, its kind and its id. No header lies in two pieces."""
        at, start = self._begun, 0
        for piece in self._pieces:
            while at < start + len(piece):
                length, kind, _, _, number = HEADER.unpack_from(piece, at - start)
                at += HEADER.size + length
                yield at, kind, number
            start += len(piece)

    def drop(self) -> None:
        """Forget everything, but for which requests these were."""
        self._take()
        if self.unsent is not None:
            self.unsent.update(number for _, kind, number in self._frames() if kind == _SRM)
            if self._begun:
                self.unsent.add(self._cut)
        self._begun = 0
        super().drop()
