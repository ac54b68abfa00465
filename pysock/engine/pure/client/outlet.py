"""What an asyncio client sends, gathered in Python."""

from __future__ import annotations

import struct

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.outlet import FULL, PARTS, SHARED, SMALL
from pysock.wire.features import LONGEST
from pysock.wire.format import FLAG_DEADLINE, HEADER, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

_SRM: Final = int(Kind.SRM)
_pack: Final = HEADER.pack
_pack_timed: Final = struct.Struct(HEADER.format + "I").pack
_IDS: Final = 2**32


class PureOutlet:
    """See :class:`pysock.engine.outlet.Outlet`."""

    __slots__ = (
        "_again",
        "_bytes",
        "_deadline",
        "_gathered",
        "_id",
        "_largest",
        "_seconds",
        "_shared",
        "_timed",
        "_told",
        "_until",
        "_unwanted",
        "_waiting",
        "_window",
    )

    def __init__(
        self,
        *,
        waiting: dict[int, Any],
        unwanted: set[int],
        gathered: Callable[[bool], None],
        deadline: Callable[[float, int], list[Any]],
        window: int,
        largest: int,
        timed: bool,
        after: int = 0,
    ) -> None:
        self._waiting = waiting
        self._unwanted = unwanted
        self._gathered = gathered
        self._deadline = deadline
        self._window = window
        self._largest = min(largest, SMALL)
        self._timed = timed
        self._bytes = bytearray()
        self._told = False
        self._id = after
        self._again = False
        self._shared: list[Any] = [0.0, 0, -1]
        self._seconds = 0.0
        self._until = 0.0

    def submit(self, waiter: Any, service: int, payload: Any, seconds: float | None) -> int:
        """Gather a request, and enter who waits for it."""
        if not self._is_ordinary(payload):
            return 0
        number = self.next_id()
        if seconds is not None:
            self._due(number, seconds)
            if not self._is_ordinary(payload):  # any more: what was called may itself have gathered
                return 0
        gathered = self._bytes
        idle = not (gathered or self._waiting or self._unwanted)
        self._waiting[number] = waiter
        if seconds is not None and self._timed and seconds <= LONGEST:
            gathered += _pack_timed(len(payload) + 4, _SRM, FLAG_DEADLINE, service, number, round(seconds * 1e6))
        else:
            gathered += _pack(len(payload), _SRM, 0, service, number)
        gathered += payload
        at_once = idle or len(gathered) >= FULL
        if at_once or not self._told:
            self._gathered(at_once)
            self._told = bool(gathered)
        return number

    def _is_ordinary(self, payload: Any) -> bool:
        return (
            type(payload) is bytes
            and len(payload) <= self._largest
            and len(self._bytes) + len(payload) <= FULL + SMALL
            and len(self._waiting) + len(self._unwanted) < self._window
        )

    def _due(self, number: int, seconds: float) -> None:
        now = monotonic()
        shared = self._shared
        if seconds == self._seconds and now < self._until and number == shared[2] + 1:
            shared[2] = number
            return
        self._shared = self._deadline(now + seconds, number)
        self._seconds = seconds
        self._until = now + min(SHARED, seconds / PARTS)

    def next_id(self) -> int:
        """A number for what is sent otherwise."""
        while True:
            self._id = number = (self._id + 1) % _IDS
            if not number:
                self._again = True
            elif not self._again or (number not in self._waiting and number not in self._unwanted):
                return number

    def take(self) -> bytes:
        """What was gathered since this was last called."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        self._told = False
        return taken
