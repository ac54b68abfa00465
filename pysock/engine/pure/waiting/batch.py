"""Batch services: requests of all clients are gathered, then one call of the handler answers them."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import copy_context

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.contract import Service
from pysock.engine.guards import type_name
from pysock.engine.pure.reply import Failure
from pysock.engine.pure.waiting.pending import done, free_id, may_start, why_unwanted
from pysock.engine.pure.waiting.served import Work
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.pure.core import Core
    from pysock.engine.pure.waiting.pending import Unanswered


class Batch:
    """The requests of one service. How many of one client may wait is bounded: see ``pending``."""

    def __init__(self, core: Core, number: int, service: Service) -> None:
        assert service.handler is not None
        self._core = core
        self._number = number
        self._handler = service.handler
        self._most = max(1, service.max_batch)
        self._max_wait = service.max_wait
        self._due = 0.0
        self._waiting: list[Unanswered] = []

    def add(self, waiting: Iterable[Unanswered]) -> None:
        """Take requests; who adds them calls ``pending.add``."""
        if not self._waiting:
            self._due = self._core.now + self._max_wait
        self._waiting += waiting

    def due(self) -> float | None:
        """When it must run; ``None`` if nobody waits."""
        return self._due if self._waiting else None

    def forget(self) -> None:
        """In a forked child: nobody waits here."""
        self._waiting = []

    def run(self, everything: bool = False) -> None:
        """Answer the requests that are due, or all of them."""
        if not self._waiting:
            return
        everything = everything or self._core.now >= self._due
        # What a handler makes wait while this runs is for the next turn.
        waiting, self._waiting = self._waiting, []
        at, most = 0, self._most
        while len(waiting) - at >= most or (everything and at < len(waiting)):
            self._answer(waiting[at : at + most])
            at += most
        rest = waiting[at:]
        if rest:
            # They came in this turn: what was older was at the front of a full batch.
            self._due = self._core.now + self._max_wait
        self._waiting = rest + self._waiting

    def _answer(self, waiting: list[Unanswered]) -> None:
        metering = self._core.metering
        waiting = [entry for entry in waiting if may_start(entry) or (metering and self._is_noted(entry))]
        if not waiting:
            return
        number, began = self._number, monotonic()
        replies = self._call(waiting)
        took = monotonic()
        self._core.held_up.took(number, took - began)
        self._core.began = came = self._due - self._max_wait
        before, gone = metering.failures if metering else 0, 0
        serving = self._core.serving
        if serving is not None and not serving.wants(took - began):
            serving = None
        for entry, reply in zip(waiting, replies, strict=True):
            connection, request_id, wants_reply, request, deadline = entry
            size = len(request)
            free_id(entry)
            if not done(connection, size):
                gone += 1
                self._core.deferrals.nobody_waits(reply)
                continue
            # A request that can't be answered alone has an exception in place of its reply.
            failed = type(reply) is not bytes and issubclass(type(reply), Exception)  # whatever its __class__ says
            connection.answer(number, request_id, wants_reply, size, deadline, Failure(reply) if failed else reply)
            if serving is not None:
                serving.tell(Work(connection.client_id, number, came, began, took, size), reply, failed)
        self._core.began = None
        if metering is not None:
            metering.answered_batch(number, int((took - came) * 1e9), len(waiting) - gone, before, gone)
        del reply, replies  # see Failure

    def _is_noted(self, entry: Unanswered) -> bool:
        """It isn't started, which is counted; and left out."""
        metering, code = self._core.metering, why_unwanted(entry)
        assert metering is not None
        if code is None:
            metering.gone(self._number)
        else:
            metering.note(self._number, code)
        return False

    def _call(self, waiting: list[Unanswered]) -> list[Any]:
        clients = [entry[0].client_object() for entry in waiting]
        try:
            requests = [entry[3] for entry in waiting]
            return _checked(copy_context().run(self._handler, clients, requests), len(waiting))
        except Exception as error:
            return [Failure(error)] * len(waiting)


def _checked(replies: Any, wanted: int) -> list[Any]:
    """What a batch handler returned, as a list."""
    if isinstance(replies, (str, bytes, bytearray, memoryview, dict)) or not hasattr(replies, "__getitem__"):
        raise TypeError(texts.NO_SEQUENCE % type_name(replies))
    found = list(replies)
    if len(found) != wanted:
        raise ValueError(texts.WRONG_COUNT % (len(found), wanted))
    return found
