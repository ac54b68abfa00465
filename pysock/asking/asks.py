"""What one client was asked, until it has answered. This file owns the numbers of these requests.

Each is answered once, also one that nobody waits for any more, and its number is free then, not sooner: so no answer
ever reaches somebody else, and what a client is asked stays bounded, however often those who ask give up.
"""

from __future__ import annotations

from _thread import allocate_lock
from contextlib import suppress

from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost, Overloaded
from pysock.wire.error_text import remote_error
from pysock.wire.format import HEADER, Kind

if TYPE_CHECKING:
    from typing import Final

    from pysock.base.aliases import Buffer
    from pysock.engine.contract import Engine

    class Waiter(Protocol):
        """Who waits for an answer: a future of the loop's own thread, or what looks like one and can be settled from
        any.
        """

        def done(self) -> bool:
            """Whether it was cancelled, or has run out of time."""

        def set_result(self, payload: bytes, /) -> object:
            """The answer; once."""

        def set_exception(self, error: Exception, /) -> object:
            """There is none."""


_ASK: Final = int(Kind.ASK)
_ASK_CANCEL: Final = int(Kind.ASK_CANCEL)
_pack: Final = HEADER.pack
LATE: Final = "the client didn't answer in time"


class Asks(Unique):
    """Of one client.

    :param most: so many wait for their answer at once.
    """

    __slots__ = ("_client", "_last", "_lock", "_most", "_over", "_waiting")

    def __init__(self, client_id: int, most: int) -> None:
        self._client = client_id
        self._most = most
        self._lock = allocate_lock()
        self._last = 0
        #: By number; ``None``: nobody waits any more, and the answer hasn't come.
        self._waiting: dict[int, Waiter | None] = {}
        self._over = ""  # why nothing is asked any more

    def ask(self, engine: Engine, name: bytes, payload: Buffer, waiter: Waiter) -> int:
        """Send it; its number.

        :param name: of the service, its length in front.
        :raises ConnectionLost: the client is gone.
        :raises Overloaded: too many wait already.
        """
        number = self._enter(waiter)
        size = len(payload)
        frame = _pack(len(name) + size, _ASK, 0, 0, number) + name + payload
        try:
            if engine.ask(self._client, frame, size):
                return number
        except BaseException:
            self._leave(number)
            raise
        self._leave(number)
        raise ConnectionLost(f"client {shown(self._client)} isn't connected any more, and can't be asked")

    def _enter(self, waiter: Waiter) -> int:
        with self._lock:
            if self._over:
                raise ConnectionLost(self._over)
            waiting = self._waiting
            if len(waiting) >= self._most:
                raise Overloaded(
                    f"client {shown(self._client)} has {len(waiting)} requests of this server to answer already:"
                    " no more than Limits.max_asks"
                )
            self._last = number = self._last + 1 & 0xFFFFFFFF or 1
            while number in waiting:
                self._last = number = number + 1 & 0xFFFFFFFF or 1
            waiting[number] = waiter
            return number

    def _leave(self, number: int) -> None:
        """Nothing was sent."""
        with self._lock:
            self._waiting.pop(number, None)

    def answered(self, number: int, code: int, payload: bytes) -> bool:
        """An answer has come. ``False``: to nothing that was asked, or the second one."""
        with self._lock:
            if number not in self._waiting:
                return False
            waiter = self._waiting.pop(number)
        if waiter is None or waiter.done():
            return True
        if code:
            waiter.set_exception(remote_error(code, number, payload))
        else:
            waiter.set_result(payload)
        return True

    @property
    def are_open(self) -> bool:
        """Whether an answer is still to come, also one that nobody waits for any more."""
        return bool(self._waiting)

    def give_up(self, engine: Engine, number: int) -> None:
        """Nobody waits for this one any more: the client is told."""
        with self._lock:
            if self._waiting.get(number) is None:
                return
            self._waiting[number] = None
        with suppress(OSError):  # the loop can't be told now: the client does in vain what it would have been spared
            engine.ask(self._client, _pack(0, _ASK_CANCEL, 0, 0, number), 0)

    def end(self, why: str) -> None:
        """The connection has ended, or nothing more is read of it: nothing can be answered any more."""
        with self._lock:
            self._over = self._over or why
            waiters = [waiter for waiter in self._waiting.values() if waiter is not None]
            self._waiting = dict.fromkeys(self._waiting)
        for waiter in waiters:
            # Any thread may end it, and a future is its loop's.
            loop_of = getattr(waiter, "get_loop", None)
            if loop_of is None:
                waiter.set_exception(ConnectionLost(why))
            else:
                with suppress(RuntimeError):  # it is closed: nobody waits any more
                    loop_of().call_soon_threadsafe(_fail, waiter, ConnectionLost(why))


def _fail(waiter: Waiter, error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
