"""What a server sends unasked: pushes, its goodbye, and its last words.

This file owns what has come and not been taken yet, and the hook that takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pysock.logs import client_log as log
from pysock.protocol import Frame, Kind
from pysock.unique import Unique

#: Pushes kept when nobody takes them; then the oldest goes for each new one.
PUSHES_MAX: Final = 10_000


class Mailbox(Unique):
    """The unasked things of one client. Only :meth:`take` and :meth:`deliver` may be called by several threads."""

    def __init__(self) -> None:
        self.hook: Callable[[bytes], Any] | None = None
        self.dropped = 0
        #: Why the server ends; ``None`` as long as it hasn't said goodbye.
        self.goodbye: str | None = None
        #: What it said before it closed the connection without a goodbye: an ERROR that answers no request.
        self.last_words = ""
        self._pushes: deque[bytes] = deque()

    def sort(self, inbox: deque[Frame]) -> None:
        """Empty the link's inbox."""
        while inbox:
            frame = inbox.popleft()
            if frame.kind == Kind.PUSH:
                self._keep(frame.payload)
            elif frame.kind == Kind.GOAWAY:
                self.goodbye = frame.payload.decode("utf-8", "replace")
            elif frame.kind == Kind.ERROR and not frame.request_id:
                self.last_words = frame.payload.decode("utf-8", "replace")
            # Anything else answers a request that nobody waits for any more.

    def _keep(self, payload: bytes) -> None:
        if len(self._pushes) >= PUSHES_MAX:
            self._pushes.popleft()
            self.dropped += 1
        self._pushes.append(payload)

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
