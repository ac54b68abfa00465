"""What a server sends unasked: pushes, its goodbye, and its last words.

This file owns what has come and not been taken yet, and the hook that takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import client_log as log
from pysock.base.unique import Unique
from pysock.engine.inbox import Inbox
from pysock.wire.format import Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

#: Pushes kept by default when nobody takes them; then the oldest goes for each new one.
PUSHES_MAX: Final = 10_000


class Mailbox(Unique):
    """The unasked things of one client. Only :meth:`take` and :meth:`deliver` may be called by several threads.

    :param whose: of which client, for the log.
    :param most: pushes that are kept.
    """

    def __init__(self, whose: str = "a client", most: int = PUSHES_MAX) -> None:
        self.hook: Callable[[bytes], Any] | None = None
        #: Pushes that were thrown away because nobody took them.
        self.dropped: int = 0
        self._whose = whose
        self._most = most
        #: Why the server ends; ``None`` as long as it hasn't said goodbye.
        self.goodbye: str | None = None
        #: What it said before it closed the connection without a goodbye: an ERROR that answers no request.
        self.last_words: str = ""
        self._pushes: deque[bytes] = deque()

    def sort(self, inbox: Inbox) -> None:
        """Empty the link's inbox."""
        if inbox.dropped:
            self._drop(inbox.take_dropped())
        while inbox:
            frame: Frame = inbox.popleft()
            if frame.kind == Kind.PUSH:
                self._keep(frame.payload)
            elif frame.kind == Kind.GOAWAY:
                self.goodbye = frame.payload.decode("utf-8", "replace")
            elif frame.kind == Kind.ERROR and not frame.request_id:
                self.last_words = frame.payload.decode("utf-8", "replace")
            # Anything else answers a request that nobody waits for any more.

    def farewell(self) -> str | None:
        """The server's goodbye in words, if it has said one."""
        return None if self.goodbye is None else f"the server said goodbye: {self.goodbye}"

    def blamed(self, error: Exception) -> str | None:
        """What its last words blame the end on, if it has said any."""
        return f"{error}; it said: {self.last_words}" if self.last_words else None

    def _keep(self, payload: bytes) -> None:
        # Another thread may have taken the last one just now.
        if len(self._pushes) >= self._most and self.take() is not None:
            self._drop(1)
        self._pushes.append(payload)

    def _drop(self, count: int) -> None:
        if not self.dropped:
            log.warning(
                "%s throws pushes away, for nobody takes them: it keeps at most %d; take them by pushes() or on_push,"
                " or give connect() a larger max_pushes=; dropped_pushes counts them, and this is said once",
                self._whose,
                self._most,
            )
        self.dropped += count

    def take(self) -> bytes | None:
        """The oldest push, if there is one."""
        try:
            return self._pushes.popleft()
        except IndexError:
            return None

    def deliver(self) -> None:
        """Give all pushes to the hook, if there is one. What it raises is logged, so that no reply is lost by it."""
        while (hook := self.hook) is not None and (payload := self.take()) is not None:
            _call(hook, payload)


def _call(hook: Callable[[bytes], Any], payload: bytes) -> None:
    try:
        hook(payload)
    except Exception:
        log.exception("the on_push hook %r failed", hook)
