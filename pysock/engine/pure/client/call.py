"""What one thread wants of a link: its requests, what is still to be sent of them, and whose reply has come. No I/O."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.link import CUT_BY_ANOTHER
from pysock.engine.pure.output import GATHER_MAX
from pysock.errors import ConnectionLost, ProtocolError
from pysock.wire.features import encode_deadline
from pysock.wire.format import FLAG_DEADLINE, HEADER, Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.pure.client.waiter import Waiter

_ERROR: Final = int(Kind.ERROR)
_REPLY: Final = int(Kind.REPLY)
_SRM: Final = int(Kind.SRM)


class Call:
    """One call of one thread; alone it is a frame that is sent, and nothing is awaited."""

    #: It waits for what nobody asked for.
    listens: bool = False
    #: It waits for the others to end, and takes no role.
    drains: bool = False
    #: When it has what it wants, it takes what has come beside as well.
    greedy: bool = False
    #: The connection isn't initiated yet.
    greets: bool = False

    def __init__(self, unsent: Buffer = b"", rest: Buffer = b"") -> None:
        self.unsent: Buffer = unsent
        self.rest: Buffer = rest  # to be sent behind it, and not copied
        self.cut: bool = False  # a frame may be half sent
        self.hung_up: bool = False  # the other end took no more
        self.missing: int = 0  # answers
        self.thread: int = 0  # whose it is, while it runs
        self.dozes: bool = False  # it reads, and sleeps in the kernel
        self.sleeps: bool = False
        self.naps: bool = False  # who gives the reading up doesn't wake it
        self.news: bool = False  # it was told to look again
        self.turn: int = 0  # who read when it looked last
        self.wake: Any = None  # a lock, made when it has to sleep for the first time

    def fill(self) -> None:
        """Put together what may be sent next."""
        if not self.unsent and self.rest:
            self.unsent, self.rest = self.rest, b""

    def sent(self, size: int) -> None:
        """So much of ``unsent`` is on its way."""
        if size:
            self.unsent = b"" if size == len(self.unsent) else memoryview(self.unsent)[size:]
        self.cut = type(self.unsent) is memoryview or (not self.unsent and bool(self.rest))

    def take(self, frame: Frame) -> bool:
        """Take one frame, if it is awaited."""
        return False

    def unanswered(self) -> list[int]:
        """The ids that are on their way."""
        return []

    def hang_up(self) -> None:
        """The other end takes no more: what is unsent stays so, and isn't tried again."""
        self.hung_up = True

    def fates(self) -> list[Any]:
        """What is known of each request, where the call failed: see :class:`ConnectionLost`."""
        return []


class Asking(Call):
    """One request, or a ping: ``answer`` is the kind of frame that it waits for."""

    def __init__(self, request_id: int, answer: int, unsent: Buffer, rest: Buffer) -> None:
        super().__init__(unsent, rest)
        self._request_id = request_id
        self._answer = answer
        self.missing: int = 1
        self.frame: Any = None

    def take(self, frame: Frame) -> bool:
        """Take one frame, if it is the answer."""
        if frame.request_id != self._request_id or not self.missing:
            return False
        if frame.kind != self._answer and (frame.kind != _ERROR or self._answer != _REPLY):
            return False
        self.frame = frame
        self.missing = 0
        return True

    def unanswered(self) -> list[int]:
        """The ids that are on their way."""
        return [self._request_id] if self.missing else []

    def fates(self) -> list[Any]:
        """Whether it was sent whole."""
        return [False if self.hung_up or self.unsent or self.rest else self._request_id]


class Listening(Call):
    """It ends with the next frame that nobody asked for; where ``greets`` is true with any, which it keeps."""

    listens: bool = True

    def __init__(self, greets: bool = False) -> None:
        super().__init__()
        self.missing: int = 1
        self.greets: bool = greets
        self.greedy: bool = not greets
        self.waiter: Waiter | None = None  # of its own: another may wait as well, when the reading was taken from it
        self.frame: Any = None

    def take(self, frame: Frame) -> bool:
        """Take any frame, in the middle of the initiation."""
        if self.greets:
            self.frame = frame
            self.missing = 0
        return self.greets


class Draining(Call):
    """It waits until the others have ended."""

    drains: bool = True


def frame_parts(kind: int, flags: int, code: int, request_id: int, payload: Buffer) -> tuple[Buffer, Buffer]:
    """One frame: what is sent first, and what follows it without being copied."""
    head = HEADER.pack(len(payload), kind, flags, code, request_id)
    return (head + payload, b"") if len(payload) <= GATHER_MAX else (head, payload)


def srm_parts(service: int, request_id: int, payload: Buffer, end: float | None) -> tuple[Buffer, Buffer]:
    """One SRM, likewise, with the time that is left until ``end``."""
    said = b"" if end is None else encode_deadline(end - monotonic())
    if not said:
        return frame_parts(_SRM, 0, service, request_id, payload)
    head = HEADER.pack(len(said) + len(payload), _SRM, FLAG_DEADLINE, service, request_id) + said
    return (head + payload, b"") if len(payload) <= GATHER_MAX else (head, payload)


def as_others_hear(error: BaseException) -> Exception:
    """What ended the call of one thread, and with it the link, for the others."""
    return error if isinstance(error, ProtocolError) else ConnectionLost(CUT_BY_ANOTHER)
