"""Many requests of one link on their way at once: which are still to be sent, and whose reply has come. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure.client.call import Call, srm_parts
from pysock.engine.pure.output import GATHER_MAX
from pysock.wire.error_text import remote_error
from pysock.wire.format import HEADER, Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

_SRM: Final = int(Kind.SRM)
_LENGTH: Final = struct.Struct("!I")  # what a header begins with
_REPLY: Final = int(Kind.REPLY)
_ERROR: Final = int(Kind.ERROR)


class Pipeline(Call):
    """Requests on their way, and the replies to them."""

    def __init__(self, service: int, payloads: Sequence[Buffer], window: int, first_id: int, end: float | None) -> None:
        super().__init__()
        self._service = service
        self._payloads = payloads
        self._window = window
        self._first_id = first_id
        self._end = end  # which the server is told
        self._begun = 0  # requests that were put into `unsent` up to now
        self._handed = 0  # of these, the kernel took so many whole, when the other end hung up
        self.missing: int = len(payloads)  # replies
        self.errors: int = 0
        self.results: list[Any] = [None] * len(payloads)

    def fill(self) -> None:
        """Put the next requests together, if the last ones are on their way and the window allows more."""
        if self.unsent:
            return
        at = self._begun
        until = min(len(self._payloads), at + self._room())
        frames: list[Buffer] = []
        size = 0
        while at < until and size < GATHER_MAX:
            payload = self._payloads[at]
            frames += srm_parts(self._service, self._first_id + at, payload, self._end)
            size += HEADER.size + len(payload)
            at += 1
        self._begun = at
        self.unsent: Buffer = b"".join(frames)

    def has_more(self) -> bool:
        """Whether more of them may be sent before anything has come."""
        return not self.hung_up and self._begun < len(self._payloads) and self._room() > 0

    def unanswered(self) -> list[int]:
        """The ids that are on their way."""
        return [self._first_id + at for at in range(self._begun) if self.results[at] is None]

    def hang_up(self) -> None:
        """The other end takes no more."""
        if not self.hung_up:
            self._handed = self._begun - self._unsent_frames()
        self.hung_up = True

    def fates(self) -> list[Any]:
        """The answers that came; which requests were sent whole."""
        handed = self._handed if self.hung_up else self._begun - self._unsent_frames()
        return [
            (self._first_id + at if at < handed else False) if result is None else result
            for at, result in enumerate(self.results)
        ]

    def _unsent_frames(self) -> int:
        """How many of the frames that were put together last haven't gone whole."""
        data: Any = self.unsent  # bytes, or what is left of some
        whole: Any = data.obj if type(data) is memoryview else data
        at, sent, count = 0, len(whole) - len(data), 0
        while at < len(whole):
            (length,) = _LENGTH.unpack_from(whole, at)
            at += HEADER.size + length
            count += at > sent
        return count

    def _room(self) -> int:
        """How many more requests the window allows."""
        answered = len(self._payloads) - self.missing
        return self._window - (self._begun - answered)

    def take_whole(self, data: bytes, at: int, most: int) -> int:
        """Take the whole replies that ``data`` has from ``at`` on; up to where."""
        unpack_from, results, first = HEADER.unpack_from, self.results, self._first_id
        begun, end, taken = self._begun, len(data), 0
        while end - at >= 12:
            length, kind, flags, _code, request_id = unpack_from(data, at)
            stop, index = at + 12 + length, request_id - first
            if kind != _REPLY or flags or stop > end or length > most or not 0 <= index < begun:
                break
            if results[index] is not None:
                break
            results[index] = data[at + 12 : stop]
            taken += 1
            at = stop
        self.missing -= taken
        return at

    def take(self, frame: Frame) -> bool:
        """Take one frame, if it is an answer to a request of ours."""
        index = frame.request_id - self._first_id
        if frame.kind not in {_REPLY, _ERROR} or not 0 <= index < self._begun or self.results[index] is not None:
            return False
        if frame.kind == _REPLY:
            self.results[index] = frame.payload
        else:
            self.results[index] = remote_error(frame.code, frame.request_id, frame.payload, frame.flags)
            self.errors += 1
        self.missing -= 1
        return True
