"""A server in a loop of the program's, asyncio's or uvloop's: how its engine is called for, and how it ends.

The loop watches the engine's own poll, however many clients there are, and calls for a turn when it is readable.
It all happens in the loop's thread, so a handler that takes long holds up the program's tasks, and they hold up the
server.

A task, the guardian, stands for the server among those of the program: ``asyncio.run`` cancels all when the main one
has ended, and with the guardian the server ends, as by ``stop(0)``.
"""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from contextvars import Context

from pysock.asking import awaited  # noqa: F401  # a task may ask, and nothing is imported any more when it serves
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.contract import OVER, WHEN_READABLE
from pysock.errors import PysockError
from pysock.parameters import checked_grace
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Final

    from pysock.engine.contract import Engine
    from pysock.running import Running
    from pysock.server import Server
    from pysock.tasks.tasks import Tasks

#: How often the engine looks, at least, whether its descriptors are still its own, in seconds.
_LOOK: Final = 1.0
#: What a timer may be late or early without being set anew, in seconds.
_SLACK: Final = 0.0001


def _loop_here() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise PysockError(
            "no asyncio loop runs in this thread: use `async with server` in a coroutine that asyncio.run() or"
            " uvloop.run() runs; elsewhere server.start(), or serve_forever()"
        ) from None


def attach(running: Running, server: Server) -> None:
    """As ``async with server``."""
    attached = Attached(running, server)

    def launch() -> None:
        running.attached = attached
        try:
            attached.begin()
        except BaseException:
            running.attached = None  # there is nothing to wait for
            raise

    running.open(launch)


async def wait_closed(running: Running) -> None:
    """As :meth:`pysock.Server.wait_closed`."""
    running.check_here()
    if running.attached is not None:
        await running.attached.wait_closed()
    elif running.state is not ServerState.CLOSED:
        raise PysockError(
            "this server is in no asyncio loop: `async with server` attaches it to the one that runs; one that was"
            " started in another way ends by stop()"
        )


async def aclose(running: Running, grace: float, delay: float) -> None:
    """As :meth:`pysock.Server.aclose`."""
    grace, delay = checked_grace(grace), checked_grace(delay, "drain_delay")
    if running.attached is not None:
        running.attached.check_loop()
        if delay and running.state is ServerState.SERVING:
            running.lameness.announce()
            await running.attached.wait(delay)
        running.stop(grace)  # it doesn't wait: this is the loop's own thread
    elif running.state is ServerState.NEW:
        running.stop(grace)
    await wait_closed(running)


class Attached(Unique):
    """One server in the loop that runs in this thread; made before the server is opened.

    :raises PysockError: none runs.
    """

    def __init__(self, running: Running, server: Server) -> None:
        self._running = running
        self._server = server
        self.loop: asyncio.AbstractEventLoop = _loop_here()
        #: Done when the server has ended.
        self._closed: asyncio.Future[None] = self.loop.create_future()
        #: Done when its engine has.
        self._over: asyncio.Future[None] = self.loop.create_future()
        self._error: Exception | None = None
        self._engine: Engine | None = None
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._due = WHEN_READABLE
        self._is_soon = False  # a turn comes in the next pass
        self._context = Context()
        self._guardian: asyncio.Task[None] | None = None
        self._tasks: Tasks | None = None

    # The beginning

    def begin(self) -> None:
        """From now on the loop calls for turns."""
        engine = self._running.engine
        assert engine is not None
        engine.begin()
        engine.wants_turn = self._plan_soon
        self._engine, self._turn, self._tasks = engine, engine.turn, self._running.tasks
        # A reader keeps the context that it was added in, and handlers get a copy: nobody's variables are to be in it.
        try:
            self._context.run(self._watch)
        except BaseException:
            self._engine = None
            self._leave_loop()
            with suppress(Exception):
                engine.end()
            raise

    def _watch(self) -> None:
        assert self._engine is not None
        if self._tasks is not None:
            self._tasks.begin(self.loop, self._plan_soon)
        fd = self._engine.poll_fd
        try:
            self.loop.add_reader(fd, self._on_ready)
        except NotImplementedError:
            raise PysockError(
                f"the loop {self.loop!r} can't watch descriptors: use asyncio's selector loop or uvloop, or start()"
            ) from None
        self._fd = fd
        self._guardian = self.loop.create_task(self._guard(), name=f"pysock-{self._server.name or 'server'}")
        self._on_ready()  # it may have to be called for sooner than its poll is readable

    # While it runs

    def _on_ready(self) -> None:
        if self._engine is None:
            return
        left = self._turn()
        if left == WHEN_READABLE:
            return
        if left == OVER:
            self.finish()
        else:
            self._plan(left)

    def _plan(self, left: float) -> None:
        """A turn in so many seconds; where one is planned for earlier, it will see."""
        due = self.loop.time() + left
        if due > self._due - _SLACK:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_later(left, self._on_time)

    def _plan_soon(self) -> None:
        """A turn in the next pass of the loop: answers wait to be sent."""
        if not self._is_soon:
            self._is_soon = True
            self.loop.call_soon(self._turn_soon, context=self._context)

    def _turn_soon(self) -> None:
        self._is_soon = False
        self._on_ready()

    def _on_time(self) -> None:
        self._timer, self._due = None, WHEN_READABLE
        self._on_ready()

    async def _guard(self) -> None:
        try:
            while not self._over.done():
                await asyncio.wait([self._over], timeout=_LOOK)
                self._on_ready()
        finally:
            self.end_now()
            await self._end_tasks()

    async def _end_tasks(self) -> None:
        """Those of handlers, which the engine has cancelled; then the server has ended."""
        try:
            if self._tasks is not None and self.loop.is_running():  # else it is this task's own end, with all others
                await self._tasks.end()
        finally:
            self._end_server()

    def check_loop(self) -> None:
        """Raise where another loop runs, or none."""
        if _loop_here() is not self.loop:
            raise PysockError(
                "this server is attached to another loop than the one that runs here: wait for it there; stop() ends it"
                " from any thread"
            )

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the server has ended."""
        await asyncio.wait([self._closed], timeout=seconds)

    async def wait_closed(self) -> None:
        """As :meth:`pysock.Server.wait_closed`."""
        self.check_loop()
        await asyncio.shield(self._closed)  # who waits may be cancelled without harm to the others
        if self._error is not None:
            raise self._error

    # The end

    def end_now(self) -> None:
        """End it at once, in the loop's thread: what was accepted is answered, the clients are told."""
        engine = self._engine
        if engine is None:
            return
        with suppress(OSError):
            engine.stop(0)
        with suppress(Exception):
            self._turn()  # it drains, and its time is over
        self.finish()

    def finish(self) -> None:
        """It is over: everything is closed. Called again it does nothing.

        :raises BaseException: what a handler raised that isn't an ``Exception``.
        """
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._leave_loop()
        try:
            engine.end()
        except Exception as error:
            log.critical("%r ended because of an exception", self._server, exc_info=True)
            self._error = error
        finally:
            if self._tasks is None or not self._tasks.running or not self.loop.is_running():
                self._end_server()
            else:
                self._over.set_result(None)  # the guardian waits for them

    def _end_server(self) -> None:
        if self._tasks is not None:
            self._tasks.close()  # before the engine is
        try:
            self._running.end()
        finally:
            self._tell()

    def _leave_loop(self) -> None:
        """Before the descriptor is closed, for its number may be given to somebody else at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fd, self._fd = self._fd, -1
        if fd >= 0 and not self.loop.is_closed():
            self.loop.remove_reader(fd)

    def _tell(self) -> None:
        for future in () if self.loop.is_closed() else (self._over, self._closed):
            if not future.done():
                future.set_result(None)

    def abandon(self) -> None:
        """In a forked child: the loop is the parent's, and so is all that it watches."""
        self._engine = None

    def end_at_exit(self) -> None:
        """At the interpreter's exit: if its loop doesn't run any more, nobody else ends it."""
        if self._engine is None or self.loop.is_running():
            return
        if self._tasks is not None:
            self._tasks.abandon()
        self.end_now()
        if self._guardian is not None:
            self._guardian._log_destroy_pending = False  # type: ignore[attr-defined]  # it has nothing to do any more
        warnings.warn(
            f"{self._server!r} was attached to a loop that has ended without it: leave `async with server`, or"
            " await server.aclose(), before",
            ResourceWarning,
            stacklevel=1,
        )
