"""The connections of a blocking client that heals, one after the other: it drives the machine of ``machine.py``.

There is no thread for it: whoever needs a connection while there is none makes the next one, and the others wait for
that. This file owns the lock; nothing that may wait is done under it, but to wait on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from pysock.balance.opening import open_one
from pysock.balance.watch import LEFT, Watch
from pysock.base.clock import monotonic
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import client_log as log
from pysock.calls.ended import Ended
from pysock.engine.link import nothing_sent
from pysock.errors import ConnectionLost, PysockError, RequestTimeout
from pysock.healing.keeper import start_keeping
from pysock.healing.life import Life
from pysock.healing.machine import State
from pysock.healing.session import Session

if TYPE_CHECKING:
    from typing import Any

    from pysock.address import Address
    from pysock.balance.balancer import Balancer
    from pysock.client import Client
    from pysock.healing.policy import Backoff


class Connections(Life):
    """See the head of this file.

    :param make: makes a plain client of an address, within so many seconds.
    :param timeout: seconds for one round of the addresses.
    """

    def __init__(
        self,
        balancer: Balancer,
        backoff: Backoff,
        make: Callable[[Address, float | None], Client],
        timeout: float | None,
    ) -> None:
        super().__init__(balancer, backoff, timeout)
        self.newest: Client | None = None
        self.keeper: threading.Thread | None = None
        #: Called with each connection but the first before anybody may use it, in the thread that made it, which may.
        self.restore: Callable[[], object] | None = None
        #: Called with each connection when it is used.
        self.equip: Callable[[Client], object] | None = None
        self.gap: Callable[[int], Any] | None = None  # the hook on_gap of each connection
        self._make = make
        self._changed = threading.Condition()
        self.current: Session | None = None  # new calls go over it
        self._left: set[Session] = set()  # the server has said goodbye; calls may be in them still
        self._fresh: Session | None = None  # for the one that restores
        self._connector: int | None = None  # the thread that connects

    def first(self, end: float | None, whole: bool) -> Session:
        """The first one; what the last attempt failed with is raised.

        :param end: no attempt is begun after that.
        :param whole: each attempt has all of the timeout, else what is left until then.
        """
        self._connector, told = threading.get_ident(), None
        try:
            while True:
                with self._changed:
                    due, left = self._machine.due_in(monotonic()) or 0.0, time_left(end)
                    self._changed.wait(due if left is None else min(due, left))
                    self._machine.begin()
                try:
                    return self._attempt(None if whole else end)
                except Exception as error:
                    if self._failed(error):
                        raise
                    told = error if told is None or not isinstance(error, RequestTimeout) else told
                    if time_left(end) == 0:
                        raise told from None
        finally:
            self._connector = None

    def usable(self, end: float | None, wait: bool = True) -> Session:
        """A connection to use. It is made, if there is none.

        :param end: until when it is waited for.
        :param wait: or not at all: then a thread makes it.
        """
        session = self.current
        if session is not None:
            if session.is_fit():
                return session
            self.note(session)
        me = threading.get_ident()
        with self._changed:
            while (found := self._found(me)) is None:
                if not wait:
                    break
                if self._connector is None:
                    self._connector = me
                    break
                if time_left(end) == 0:
                    raise self._late()
                self._changed.wait(time_left(end))
        if found is not None:
            return found
        if not wait:
            start_keeping(self)
            raise nothing_sent(f"not connected to {self._balancer}{self._because()}")
        try:
            return self._connect(end)
        finally:
            with self._changed:
                if self.state is State.CONNECTING:  # a signal's exception ended it
                    self._machine.given_up(monotonic())
                self._connector = None
                self._changed.notify_all()

    def _found(self, me: int) -> Session | None:
        if self.current is not None:
            return self.current
        if self._connector == me:
            if self._fresh is None:
                raise PysockError("this thread makes the connection already, below a signal's handler")
            if self._fresh.client.closed:
                raise ConnectionLost(f"the connection ended before it was restored{self._because()}")
            return self._fresh
        if self.state is State.CLOSED:
            raise self._for_good()
        return None

    def _connect(self, end: float | None) -> Session:
        while True:
            self._until_due(end)
            try:
                return self._attempt(end)
            except Exception as error:
                if self._failed(error):
                    raise
                if time_left(end) == 0:
                    raise self._late() from error

    def _until_due(self, end: float | None) -> None:
        """Wait for the moment of the next attempt, and begin it."""
        with self._changed:
            while due := self._machine.due_in(monotonic()):
                left = time_left(end)
                if left == 0:
                    raise self._late()
                self._changed.wait(due if left is None else min(due, left))
            if self.state is State.CLOSED:
                raise self._for_good()
            self._machine.begin()

    def _failed(self, error: Exception) -> bool:
        """Whether it is for good.

        :raises ConnectionLost: the client was closed meanwhile, and what the attempt failed with doesn't matter.
        """
        with self._changed:
            if self.state is not State.CONNECTING:
                raise self._for_good() from error
            if self._machine.failed(error, monotonic()):
                return False
            self._ended_by(Ended("refused", str(error)))
            return True

    def _attempt(self, end: float | None) -> Session:
        """One round of the addresses, and what is to be done before others may use it."""
        until = deadline_of(self._round_within(time_left(end)))
        before, session = self.newest, Session(open_one(self._balancer, self._make, until))
        try:
            if before is not None and self.restore is not None:
                self._fresh = session
                self._restored(self.restore)
            with self._changed:
                if self.state is not State.CONNECTING:
                    raise self._for_good()
                self._machine.let_in(monotonic())
                if before is not None:
                    self._count_pushes(before)
                self.newest, self.current = session.client, session
        except BaseException:
            session.client.close()
            self._balancer.ended(session.client.address, monotonic(), lost=False)
            raise
        finally:
            self._fresh = None
        if self._balancer.discovers and session.client._window > 1:
            session.watch = Watch(session, partial(self.leave, session, LEFT), self._balancer)
            session.watch.ask()
        session.client._gap = self.gap
        if self.equip is not None:
            self.equip(session.client)
        if before is not None:
            log.info("connected to %s again; what was pushed meanwhile is lost", session.client.address)
        return session

    def _restored(self, restore: Callable[[], object]) -> None:
        try:
            restore()
        except Exception as error:
            log.exception("an on_reconnect hook failed")
            raise ConnectionLost(f"the on_reconnect hook failed: {error!r}") from error

    # What is known of the others

    def note(self, session: Session) -> None:
        """Look at what has become of it."""
        mail = session.client._mail
        if mail.goodbye is not None or session.client.closed:
            with self._changed:
                if session is self.current:
                    self._gone(session)
        self.sweep()

    def _gone(self, session: Session) -> None:
        self.current = None
        self._left.add(session)
        mail, now = session.client._mail, monotonic()
        self._over(session, now, lost=mail.goodbye is None)
        if mail.unwanted:
            self._machine.unwanted(ConnectionLost(mail.farewell() or ""))
            self._ended_by(mail.ended)
        elif mail.goodbye is not None:
            self._machine.goodbye(now)
        else:
            self._machine.lost(now)
        self._changed.notify_all()

    def _over(self, session: Session, now: float, *, lost: bool) -> None:
        self._balancer.ended(session.client.address, now, lost=lost)
        if session.watch is not None:
            session.watch.leave()

    def leave(self, session: Session, why: str) -> None:
        """New calls go elsewhere, as if the server had said goodbye."""
        mail = session.client._mail
        if mail.goodbye is None:
            mail.goodbye = why
        self.note(session)

    def sweep(self) -> None:
        """Close those that nobody uses any more."""
        if not self._left:
            return
        with self._changed:
            idle = [session for session in self._left if session.is_idle]
            self._left.difference_update(idle)
        for session in idle:
            session.client.close()

    def sleep(self, seconds: float) -> None:
        """For so long, or until something happens."""
        with self._changed:
            self._changed.wait(seconds)

    # The end

    def close(self) -> None:
        """For good. Called again it does nothing."""
        with self._changed:
            if self.state is State.CLOSED and self.current is None and not self._left:
                return
            self._machine.close()
            self._ended_by(Ended("left"))
            session, self.current = self.current, None
            if session is not None:
                self._left.add(session)
                self._over(session, monotonic(), lost=False)
            left, self._left = self._left, set()
            self._changed.notify_all()
        for one in left:
            one.client.close()

    def forked(self) -> None:
        """In a forked child: the connections are the parent's, and so was whoever held the lock."""
        self._changed = threading.Condition()
        self.current = self._fresh = self._connector = self.newest = self.keeper = None
        self._left = set()
        self._balancer.forked()
        self._machine.forked(monotonic())

    def _why(self) -> object:
        why = super()._why()
        return self.newest.ended if why is None and self.newest is not None else why
