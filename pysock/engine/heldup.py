"""Whose handlers have held up the loop, for the pure engine: ``csrc/python/heldup.c`` has the same rules.

What of a long turn were the handlers of each service is known where they are timed: batches and streams always are;
plain requests only for a while after such a turn, for that costs each of them some hundredths. Before, a request that
was alone in its turn is known all the same.
"""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.contract import EngineOptions

    Handler = Callable[[Any, Any], Any]

#: So long each handler is timed, in seconds.
_TIMED: Final = 60.0


class HeldUp(Unique):
    """The turns of one engine."""

    def __init__(
        self,
        options: EngineOptions,
        handlers: dict[int, Handler],
        streaming: dict[int, Handler],
        turn: Callable[[], float],
    ) -> None:
        """``turn()``: when the turn began that runs. The others as in ``Core``."""
        self._tell = options.callbacks.held_up
        self._least = options.held_up  # what takes as long is told of
        self._handlers = handlers
        self._plain = dict(handlers)
        self._streaming = streaming
        self._timed_until = 0.0
        #: The handler of the last request that came in a frame, and how many there were in this turn.
        self.called: Handler | None = None
        self.requests: int = 0
        self._turn_of = turn
        self._turn = 0.0
        self._took: dict[int, float] = {}  # of that turn, by service

    def wrap(self, wrapper: Callable[[int, Handler], Handler]) -> None:
        """Put something around each handler, for good; any thread may."""
        for handlers in (self._plain, self._handlers, self._streaming):
            handlers.update({number: wrapper(number, each) for number, each in handlers.items()})

    def took(self, service: int, seconds: float) -> None:
        """Its handlers have taken so long of this turn."""
        if self._turn != self._turn_of():
            self._turn, self._took = self._turn_of(), {}
        self._took[service] = self._took.get(service, 0.0) + seconds

    def turn_took(self, seconds: float) -> None:
        """What a turn has taken is told of if it is long enough."""
        if self._tell is not None and seconds >= self._least:
            self._blame(self._tell, seconds)

    def _blame(self, tell: Callable[[int, float], None], seconds: float) -> None:
        took = self._took if self._turn == self._turn_of() else {}
        most = max(took, key=took.__getitem__, default=-1)
        if most >= 0 and took[most] >= seconds / 2:
            tell(most, took[most])
        else:
            tell(self._last() if self.requests == 1 else -1, seconds)
        if not self._timed_until:
            self._handlers.update({number: self._timed(number, each) for number, each in self._plain.items()})
        self._timed_until = monotonic() + _TIMED

    def _last(self) -> int:
        """The service of the last request; -1 if it was for a batch."""
        all_of_them = self._handlers | self._streaming
        found = [number for number, handler in all_of_them.items() if handler is self.called]
        return found[0] if found else -1

    def _timed(self, service: int, handler: Handler) -> Handler:
        def call(client: Any, request: Any) -> Any:
            began = monotonic()
            try:
                return handler(client, request)
            finally:
                now = monotonic()
                self.took(service, now - began)
                if now > self._timed_until:
                    self._timed_until = 0.0
                    self._handlers.update(self._plain)

        return call
