"""Turns in a loop of the program's: as many as are fair to its tasks. ``csrc/loop/guest.c`` has the same rules.

There the next moment is a timer's in the poll; here the host is told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique
from pysock.engine.contract import OVER, WHEN_READABLE

if TYPE_CHECKING:
    from typing import Final, TypeVar

    Result = TypeVar("Result")

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.push import Pushes

#: After so many looks, or so many seconds, the host's loop goes on.
_LOOKS: Final = 4
_TURN: Final = 0.0002

#: Why a loop can't be a guest.
NOT_WATCHED: Final = (
    "this system has no epoll or kqueue, so no other loop can watch this engine's: run it in a thread, with start()"
)

Events = list[tuple[int, int]]


class _Engine(Protocol):
    """What a guest's turn asks of its engine."""

    def turn_if_possible(self, wait: Callable[[], Events]) -> None: ...

    def goes_on(self) -> bool: ...

    def timeout(self) -> float: ...

    def are_open(self) -> bool: ...


class Guest(Unique):
    """The turns of one engine."""

    def __init__(self, core: Core, pushes: Pushes, engine: _Engine) -> None:
        self._core = core
        self._pushes = pushes
        self._engine = engine
        self._turns = False
        self._over = False
        self._error: BaseException | None = None
        self.host: int | None = None  # the thread that calls for turns

    def begin(self) -> None:
        """From now on this thread calls for turns."""
        self._pushes.loop, self.host = None, get_ident()

    def end(self) -> None:
        """The last of them is over."""
        self._pushes.loop, self.host = get_ident(), None

    def turn(self) -> float:
        """As :meth:`pysock.engine.contract.Engine.turn`."""
        if self._turns:
            return WHEN_READABLE  # a handler runs the host's loop: the turn that it is in goes on later
        self._turns, self._pushes.loop = True, get_ident()
        try:
            self._look_and_turn()
        except OSError as error:
            self._over = True
            if self._core.has_poll():
                self._error = error
        except BaseException as error:  # a handler's, which ends the loop
            self._error = error
        finally:
            self._turns, self._pushes.loop = False, None
        if self._over or self._error is not None or not self._engine.goes_on():
            return OVER
        return self._engine.timeout()

    def _look_and_turn(self) -> None:
        end = monotonic() + _TURN
        for looks in range(_LOOKS):
            events = self._core.poller.wait(0)
            if not events and looks:
                return
            if not events:
                self._engine.are_open()
            self._engine.turn_if_possible(lambda found=events: found)  # type: ignore[misc]
            if not events or not self._engine.goes_on() or monotonic() >= end:
                return

    def between(self, act: Callable[[], Result], otherwise: Result, wants_turn: Callable[[], None]) -> Result:
        """Answer a deferred request between two turns, or send a piece of the answer: it is as within one, but for the
        end, where what was queued is sent.

        :param otherwise: what is returned where it has ended the loop.
        """
        core = self._core
        core.now, self._pushes.loop = monotonic(), get_ident()
        result = otherwise
        try:
            result = act()
        except BaseException as error:  # a hook's, which ends the loop
            self._error = error
        finally:
            self._pushes.loop = None
        if core.dirty or core.dead or core.deferrals.told or self._error is not None:
            wants_turn()
        return result

    def raise_error(self) -> None:
        """What has ended it, if it was an error."""
        if self._error is not None:
            raise self._error
