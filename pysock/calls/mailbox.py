"""What a server sends unasked: pushes, its goodbye, and its last words.

This file owns what has come and not been taken yet, and the hook that takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import client_log as log
from pysock.base.unique import Unique
from pysock.calls.ended import Ended, of_goodbye
from pysock.engine.inbox import Inbox
from pysock.wire.error_text import remote_error
from pysock.wire.format import FLAG_GAP, FLAG_MORE, GAP, GOAWAY_REPLACED, GOAWAY_SETTLED, Kind

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.calls.ended import How
    from pysock.calls.pieces import Pieces
    from pysock.errors import ConnectionLost

    PushHook = Callable[[bytes], Any]
    GapHook = Callable[[int], Any]

#: Pushes kept by default when nobody takes them; then the oldest goes for each new one.
PUSHES_MAX: Final = 10_000

_PUSH: Final = int(Kind.PUSH)
_GOAWAY: Final = int(Kind.GOAWAY)
_ERROR: Final = int(Kind.ERROR)
_QUESTIONS: Final = frozenset((int(Kind.ASK), int(Kind.ASK_CANCEL)))
_REPLY: Final = int(Kind.REPLY)


class _Marked(NamedTuple):
    """A push, and how many before it the server has dropped."""

    lost: int
    payload: bytes


def _marked(payload: bytes) -> _Marked:
    (lost,) = GAP.unpack_from(payload)
    return _Marked(lost, payload[GAP.size :])


class Mailbox(Unique):
    """The unasked things of one client, as its link's inbox.

    :param whose: of which client, for the log.
    :param most: pushes that are kept.
    """

    def __init__(self, whose: str = "a client", most: int = PUSHES_MAX) -> None:
        #: Somebody takes them by ``on_push``; the hook is the client's, whom nothing here keeps alive.
        self.hooked: bool = False
        #: Pushes that were thrown away because nobody took them.
        self.dropped: int = 0
        #: One for each call that goes on, which takes to the hook, as it ends, what has come meanwhile. A list, for
        #: threads without a GIL would lose count of a number.
        self.calls: list[None] = []
        self._whose = whose
        self._most = most
        #: Why the server ends; ``None`` as long as it hasn't said goodbye.
        self.goodbye: str | None = None
        #: It has said that what has no answer was not run.
        self.settled: bool = False
        #: Another client has come by this one's name, and the server doesn't want this one back.
        self.unwanted: bool = False
        #: What it said before it closed the connection without a goodbye: an ERROR that answers no request.
        self.last_words: str = ""
        #: Why the connection ended, where nobody was in a call.
        self.lost: str = ""
        #: Why it ended, or is about to: what came first.
        self.ended: Ended | None = None
        #: Takes what the server asks: kind, number and payload of an ASK or ASK_CANCEL.
        self.asked: Callable[[int, int, bytes], object] | None = None
        #: Who waits for the pieces of a stream, by request id, until it is over.
        self.streams: dict[int, Pieces] = {}
        #: Pushes that the server has dropped, as far as it has said so.
        self.missed: int = 0
        self._untold: deque[int] = deque()  # of these, what pushes told that were thrown away here
        self._idle: deque[bytes | _Marked] = deque()  # came while nobody was in a call; older than the others
        self._pushes: deque[bytes | _Marked] = deque()

    def __bool__(self) -> bool:
        return bool(self._idle or self._pushes)

    def append(self, frame: tuple[int, int, int, int, bytes]) -> None:
        """Take a frame from the link; only the thread that reads does."""
        kind, flags, code, request_id, payload = frame
        if kind == _PUSH:
            self._keep(_marked(payload) if flags & FLAG_GAP else payload)
        elif kind == _GOAWAY:
            self.goodbye = payload.decode("utf-8", "replace")
            self.unwanted = code == GOAWAY_REPLACED
            self.settled = code == GOAWAY_SETTLED
            self.ended = self.ended or of_goodbye(self.goodbye)
        elif kind in _QUESTIONS and self.asked is not None:
            self.asked(kind, request_id, payload)
        elif request_id:
            self._answer(kind, flags, code, request_id, payload)
        elif kind == _ERROR:
            self.last_words = payload.decode("utf-8", "replace")

    def _answer(self, kind: int, flags: int, code: int, request_id: int, payload: bytes) -> None:
        """It is of a stream, or of a request for which nobody waits any more."""
        pieces = self.streams.get(request_id)
        if pieces is None:
            return
        if kind == _REPLY and flags & FLAG_MORE:
            pieces.put(payload)
        elif kind == _REPLY:
            self.streams.pop(request_id, None)
            pieces.set_result(payload)
        elif kind == _ERROR:
            self.streams.pop(request_id, None)
            pieces.set_exception(remote_error(code, request_id, payload, flags))

    def take_over(self, inbox: Inbox) -> None:
        """Empty an inbox: what came before the client was let in, or on a connection of a loop's."""
        self._drop(inbox.take_dropped())
        while inbox:
            self.append(inbox.popleft())

    def over(self, how: How, reason: str = "") -> None:
        """The connection has ended; what was known before counts."""
        self.ended = self.ended or Ended(how, reason)

    @property
    def timed_out(self) -> bool:
        """Whether it ended because one side heard nothing for too long."""
        return self.ended is not None and self.ended.how == "timed out"

    def farewell(self) -> str | None:
        """The server's goodbye in words, if it has said one."""
        return None if self.goodbye is None else f"the server said goodbye: {self.goodbye}"

    def fates(self, error: ConnectionLost) -> list[Any] | None:
        """Those of a call that it cut short, as far as they are known now: what the server hasn't run is as good as
        what wasn't sent.
        """
        if not self.settled or error.fates is None:
            return error.fates
        return [False if type(fate) is int else fate for fate in error.fates]

    def blamed(self, error: Exception) -> str | None:
        """What its last words blame the end on, if it has said any."""
        return f"{error}; it said: {self.last_words}" if self.last_words else None

    def _keep(self, push: bytes | _Marked) -> None:
        if isinstance(push, _Marked):
            self.missed += push.lost
        # Another thread may have taken the last one just now.
        if len(self._idle) + len(self._pushes) >= self._most and (oldest := self._next()) is not None:
            if isinstance(oldest, _Marked):
                self._untold.append(oldest.lost)
            self._drop(1)
        if self.hooked and not self.calls and not self._pushes:
            self._idle.append(push)
        else:
            self._pushes.append(push)

    def _drop(self, count: int) -> None:
        if count and not self.dropped:
            log.warning(
                "%s throws pushes away, for nobody takes them: it keeps at most %d; take them by pushes() or on_push,"
                " or give connect() a larger max_pushes=; dropped_pushes counts them, and this is said once",
                self._whose,
                self._most,
            )
        self.dropped += count

    def _next(self) -> bytes | _Marked | None:
        with suppress(IndexError):
            return self._idle.popleft()
        with suppress(IndexError):
            return self._pushes.popleft()
        return None

    def take(self, gap: GapHook | None) -> bytes | None:
        """The oldest push, if there is one.

        :param gap: is told first of pushes before it that the server has dropped.
        """
        push = self._next()
        return None if push is None else self._told(push, gap)

    def _told(self, push: bytes | _Marked, gap: GapHook | None) -> bytes:
        lost = 0
        while self._untold:
            with suppress(IndexError):
                lost += self._untold.popleft()
        if isinstance(push, _Marked):
            lost += push.lost
            push = push.payload
        if lost and gap is not None:
            _call(gap, lost, "on_gap")
        return push

    def deliver(self, hook: PushHook, gap: GapHook | None) -> None:
        """Give all pushes to the hook. What it raises is logged, so that no reply is lost by it."""
        while self and (payload := self.take(gap)) is not None:
            _call(hook, payload, "on_push")

    def has_idle(self) -> bool:
        """Whether something came while nobody was in a call."""
        return bool(self._idle)

    def deliver_idle(self, hook: PushHook, gap: GapHook | None) -> None:
        """Give that to the hook; a call that has just ended may have taken it."""
        while self._idle:
            with suppress(IndexError):
                _call(hook, self._told(self._idle.popleft(), gap), "on_push")


def _call(hook: Callable[[Any], Any], what: Any, name: str) -> None:
    try:
        hook(what)
    except Exception:
        log.exception("the %s hook %r failed", name, hook)
