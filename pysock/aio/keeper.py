"""The connections of an asyncio client that heals, one after the other: it drives the machine of ``healing/machine.py``
in a task, which there is only while there is no connection.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from pysock.aio.client import AsyncClient
from pysock.aio.rounds import open_one
from pysock.aio.watch import watching
from pysock.base.clock import monotonic
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import client_log as log
from pysock.calls.ended import Ended
from pysock.engine.link import nothing_sent
from pysock.errors import ConnectionLost, RequestTimeout
from pysock.healing.life import Life
from pysock.healing.machine import State

if TYPE_CHECKING:
    from typing import Any

    from pysock.address import Address
    from pysock.balance.balancer import Balancer
    from pysock.healing.policy import Backoff

#: Whose connection is being restored, in the task of its hook and in those that it makes.
_restoring: ContextVar[object] = ContextVar("pysock restoring", default=None)


class Keeper(Life):
    """See the head of this file.

    :param make: opens a plain client at an address, within so many seconds.
    :param timeout: seconds for one round of the addresses.
    """

    def __init__(
        self,
        balancer: Balancer,
        backoff: Backoff,
        make: Callable[[Address, float | None], Awaitable[AsyncClient]],
        timeout: float | None,
    ) -> None:
        super().__init__(balancer, backoff, timeout)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.newest: AsyncClient | None = None
        #: Called with each connection but the first before anybody may use it, in a task which may.
        self.restore: Callable[[], Any] | None = None
        self._make = make
        self.current: AsyncClient | None = None  # new calls go over it
        self._left: set[AsyncClient] = set()  # the server has said goodbye; requests may be on their way on them still
        self._fresh: AsyncClient | None = None  # for the task that restores
        self._task: asyncio.Task[Any] | None = None  # that connects
        self._watching: asyncio.Task[Any] | None = None  # hears of servers that come and go
        self._waiting: set[asyncio.Future[AsyncClient]] = set()

    async def first(self, end: float | None, whole: bool) -> AsyncClient:
        """The first connection, made in the caller's task; what the last attempt failed with is raised.

        :param end: no attempt is begun after that.
        :param whole: each attempt has all of the timeout, else what is left until then.
        """
        told: Exception | None = None
        while True:
            due, left = self._machine.due_in(monotonic()) or 0.0, time_left(end)
            await asyncio.sleep(due if left is None else min(due, left))
            try:
                return await self._attempt(self._timeout if whole else time_left(end))
            except Exception as error:
                if self._failed(error):
                    raise
                told = error if told is None or not isinstance(error, RequestTimeout) else told
                if time_left(end) == 0:
                    raise told from None

    async def usable(self, end: float | None, wait: bool = True) -> AsyncClient:
        """A connection to use.

        :param end: until when it is waited for.
        :param wait: or not at all.
        """
        if self.current is not None:
            return self.current
        if self._fresh is not None and _restoring.get() is self:
            if self._fresh.closed:
                raise ConnectionLost(f"the connection ended before it was restored{self._because()}")
            return self._fresh
        if self.state is State.CLOSED:
            raise self._for_good()
        if not wait:
            raise nothing_sent(f"not connected to {self._balancer}{self._because()}")
        future: asyncio.Future[AsyncClient] = self.loop.create_future()
        left = time_left(end)
        timer = None if left is None else self.loop.call_later(left, self._expire, future)
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)
            if timer is not None:
                timer.cancel()

    def _expire(self, future: asyncio.Future[AsyncClient]) -> None:
        if not future.done():
            future.set_exception(self._late())

    # The task

    async def _heal(self) -> None:
        try:
            while (due := self._machine.due_in(monotonic())) is not None:
                await asyncio.sleep(due)
                try:
                    await self._attempt(self._timeout)
                except Exception as error:
                    self._failed(error)
        finally:
            self._task = None
            if self.state is not State.OPEN:  # it was cancelled: the loop ends
                self.close()

    async def _attempt(self, seconds: float | None) -> AsyncClient:
        """One round of the addresses, and what is to be done before others may use it."""
        self._machine.begin()
        before, client = self.newest, await self._open(seconds)
        try:
            if before is not None and self.restore is not None:
                self._fresh = client
                await self._restored(self.restore)
            client._raise_end()
        except BaseException:
            client.close()
            self._balancer.ended(client.address, monotonic(), lost=False)
            raise
        finally:
            self._fresh = None
        self._machine.let_in(monotonic())
        if before is not None:
            self._count_pushes(before)
            log.info("connected to %s again; what was pushed meanwhile is lost", client.address)
        self.newest = self.current = client
        client._connection.watch = lambda: self._changed(client)
        self._watching = watching(self, client, self._balancer)
        for future in self._waiting:
            if not future.done():
                future.set_result(client)
        if client._connection.mail.goodbye is not None:
            self._changed(client)
        return client

    async def _restored(self, restore: Callable[[], Any]) -> None:
        _restoring.set(self)  # also in the tasks that it makes
        try:
            result = restore()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            log.exception("an on_reconnect hook failed")
            raise ConnectionLost(f"the on_reconnect hook failed: {error!r}") from error

    async def _open(self, seconds: float | None) -> AsyncClient:
        return await open_one(self._balancer, self._make, deadline_of(self._round_within(seconds)))

    def _failed(self, error: Exception) -> bool:
        """Whether it is for good."""
        if self.state is not State.CONNECTING:
            return True
        if self._machine.failed(error, monotonic()):
            return False
        self._end(Ended("refused", str(error)))
        return True

    # What happens to a connection

    def _changed(self, client: AsyncClient) -> None:
        """It has ended, or the server has said goodbye on it."""
        connection = client._connection
        if connection.error is not None:
            self._left.discard(client)
        if client is not self.current:
            return
        self.current = None
        mail, now = connection.mail, monotonic()
        self._balancer.ended(client.address, now, lost=mail.goodbye is None)
        if connection.error is None:
            self._left.add(client)
        if mail.unwanted:
            self._machine.unwanted(ConnectionLost(mail.farewell() or ""))
            self._end(mail.ended)
        elif mail.goodbye is not None:
            self._machine.goodbye(now)
        else:
            self._machine.lost(now)
        if self.state is not State.CLOSED and self._task is None and not self.loop.is_closed():
            self._task = self.loop.create_task(self._heal(), name="pysock connects again")

    def leave(self, client: AsyncClient, why: str) -> None:
        """New calls go elsewhere, as if the server had said goodbye."""
        mail = client._connection.mail
        if mail.goodbye is None:
            mail.goodbye = why
        self._changed(client)

    # The end

    def close(self) -> AsyncClient | None:
        """For good; the connection that there was is the caller's to close."""
        self._machine.close()
        self._end(Ended("left"))
        current, self.current = self.current, None
        if current is not None:
            self._balancer.ended(current.address, monotonic(), lost=False)
        task = self._task
        if task is not None and not self.loop.is_closed():
            task.cancel()
        for client in tuple(self._left):
            client.close()
        self._left.clear()
        return current

    def _end(self, why: Ended | None) -> None:
        self._ended_by(why)
        if self.loop.is_closed():
            return
        for future in self._waiting:
            if not future.done():
                future.set_exception(self._for_good())
