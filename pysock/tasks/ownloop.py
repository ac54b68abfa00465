"""An asyncio loop of the server's own: where ``start()`` and ``serve_forever()`` serve if there are async handlers.

This file owns its beginning and its end. In it the server is attached as to a program's.
"""

from __future__ import annotations

import asyncio

from pysock.attached import Attached
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import PysockError
from pysock.tasks.tasks import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.base import kinds
    from pysock.running import Running
    from pysock.server import Server

#: For tasks to be told that they are cancelled, in seconds.
_MOMENT: Final = 0.1


def made(kind: kinds.Loop) -> asyncio.AbstractEventLoop:
    """One to serve in.

    :raises PysockError: there can't be one.
    """
    if callable(kind):
        loop = kind()
        if not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_closed() or loop.is_running():
            raise PysockError(
                f"loop= must make an asyncio loop that isn't closed and doesn't run yet; {kind!r} returned {loop!r}."
                " In a loop that runs use `async with server`"
            )
        return loop
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if kind != "asyncio":
        try:
            import uvloop  # noqa: PLC0415  # it may not be there
        except ImportError as error:
            if kind == "uvloop":
                raise PysockError("loop='uvloop' needs uvloop: pip install uvloop, or use loop='auto'") from error
        else:
            make = uvloop.new_event_loop
    return make()


def serve(running: Running, server: Server, loop: asyncio.AbstractEventLoop) -> None:
    """To the end of both, in this thread.

    :raises BaseException: what a handler raised that isn't an ``Exception``.
    """
    try:
        loop.run_until_complete(_serve(running, server))
    except BaseException:
        if running.tasks is not None:
            running.tasks.patience = _MOMENT  # a second signal, or an exit: at once
        raise
    finally:
        _close(loop)


async def _serve(running: Running, server: Server) -> None:
    running.attached = attached = Attached(running, server)
    attached.begin()
    await attached.wait_closed()


def refuse_inner() -> None:
    """Raise where a loop runs in this thread already: there can't be another one in it."""
    if asyncio._get_running_loop() is not None:
        raise PysockError(
            "an asyncio loop runs in this thread already, and this server has async handlers: use `async with server`"
            " here, or server.start()"
        )


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """What tasks there are have a moment to end in; what still goes on then never ends."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=PATIENCE + _MOMENT))
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()  # it waits for no thread
