"""Answers that come later: what a handler may return in place of a reply, and what is told when nobody waits any more.

This file owns the rule that a deferred request is answered once, whichever thread comes first; a job of a pool has one
that answers it, and keeps that rule by itself. The engine keeps the
record of each, see :attr:`pysock.engine.contract.Callbacks.defer`.
"""

from __future__ import annotations

from _thread import allocate_lock
from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import PysockError, RemoteError
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Final

    from pysock.engine.contract import Engine


class Ended(IntEnum):
    """Why nobody waits for the answer to a deferred request any more."""

    CANCELLED = 1  # by its client
    LATE = 2  # its deadline has passed
    GONE = 3  # the client has left
    STOPPED = 4  # the server ends, and its grace is over


class ReplyDropped(RemoteError):
    """In the place of an answer: whoever was to give it has forgotten it."""

    def __init__(self, message: str = "the handler dropped its reply", code: int = ErrorCode.HANDLER_FAILED) -> None:
        super().__init__(message, code)


_ANSWERED: Final = "this request has been answered already"
_TAKEN: Final = "this deferred reply was returned for another request before"


class Kept(Unique):
    """What the engine keeps of a request whose answer comes later."""

    __slots__ = ()

    def begin(self, engine: Engine, handle: int) -> bool:
        """The handler has returned this for the request with this handle. ``False``: and for another one before."""
        raise NotImplementedError

    def tell(self, why: Ended) -> bool:
        """Nobody waits for the answer any more. Whether the work has begun: if not, the request is over; else it is in
        flight until the engine gets an answer.
        """
        raise NotImplementedError

    def flow(self, left: int, limit: int) -> None:
        """What of a stream may be sent: as :attr:`pysock.engine.contract.Callbacks.flow`."""


class Deferred(Kept):
    """One that anybody may answer; a subclass says whose work that is.

    :param lock: of several; ``None``: its own.

    The request is in flight until :meth:`answer` has been called, also when nobody waits for it any more.
    """

    __slots__ = ("_answer", "_engine", "_handle", "_is_answered", "_lock", "_why")

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self._lock: AbstractContextManager[Any] = allocate_lock() if lock is None else lock
        self._engine: Engine | None = None
        self._handle = 0
        self._answer: Any = None  # one that came before the handler returned this
        self._is_answered = False
        self._why: Ended | None = None

    @property
    def why(self) -> Ended | None:
        """Why nobody waits any more; ``None``: somebody does, as far as is known here."""
        return self._why

    @property
    def is_answered(self) -> bool:
        """Whether :meth:`answer` has been called, or needn't be any more."""
        return self._is_answered

    def answer(self, reply: Any) -> bool:
        """Answer the request, from any thread, once: by what a handler may return, or by the ``Exception`` that made it
        fail. It may come before the handler has returned this. ``False``: nobody waits for it any more.

        :raises PysockError: it has been answered already.
        """
        with self._lock:
            if self._is_answered:
                raise PysockError(_ANSWERED)
            self._is_answered = True
            engine = self._engine
            if engine is None:
                self._answer = reply
                return True
        is_waited_for = self._why is None
        return engine.answer(self._handle, reply) and is_waited_for

    def ended(self, why: Ended) -> bool:
        """Nobody waits any more: called in the loop's thread, once at most, unless it has been answered. Whether the
        work has begun: if not, the request is over; else :meth:`answer` is called when it has ended.
        """
        del why
        return True

    # --- for the callbacks of the engine ---

    def begin(self, engine: Engine, handle: int) -> bool:
        """As :meth:`Kept.begin`."""
        with self._lock:
            if self._engine is not None:
                return False
            self._engine, self._handle = engine, handle
            answered, reply, self._answer = self._is_answered, self._answer, None
        if answered:
            engine.answer(handle, reply)
        return True

    def tell(self, why: Ended) -> bool:
        """:meth:`ended`, if it matters still."""
        with self._lock:
            if self._is_answered:
                return True
            self._why = why
        begun = self.ended(why)
        if not begun:
            with self._lock:
                self._is_answered = True
        return begun


class Deferrals:
    """The callbacks ``defer`` and ``ended`` of one server.

    :param deferred_of: what is to be kept for what a handler has returned; ``None``: it isn't for later.
    """

    def __init__(self, deferred_of: Any) -> None:
        self._deferred_of = deferred_of
        self._engine: Engine | None = None

    def serve(self, engine: Engine) -> None:
        """From now on this one serves."""
        self._engine = engine

    def defer(self, handle: int, result: Any) -> Kept | None:
        """As :attr:`pysock.engine.contract.Callbacks.defer`."""
        kept: Kept | None = self._deferred_of(result)
        engine = self._engine
        if kept is None or engine is None:
            return None
        if kept.begin(engine, handle):
            return kept
        instead = Deferred()  # this request's own, for what is wrong with it
        instead.begin(engine, handle)
        instead.answer(PysockError(_TAKEN))
        return instead

    @staticmethod
    def flow(kept: Kept, left: int, limit: int) -> None:
        """As :attr:`pysock.engine.contract.Callbacks.flow`."""
        kept.flow(left, limit)

    @staticmethod
    def ended(kept: Kept, why: int) -> bool:
        """As :attr:`pysock.engine.contract.Callbacks.ended`."""
        return kept.tell(Ended(why))
