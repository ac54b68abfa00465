"""How a program waits for another node: a task awaits, any other thread blocks, and the server's loop does neither."""

from __future__ import annotations

from collections.abc import Callable

from pysock.asking.asking import Waiting, loop_of_task
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.errors import PysockError

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    class Waiter(Protocol):
        """Who waits, as any thread may settle it; once."""

        def set_result(self, payload: bytes, /) -> object:
            """What came of it."""

        def set_exception(self, error: Exception, /) -> object:
            """It has failed."""


def settled(what: str, begin: Callable[[Waiter], object], is_loop: bool, made: Callable[[bytes], Any] = bytes) -> Any:
    """Have ``begin`` begin, and wait for its end: in a task of asyncio this is to be awaited.

    :param what: the method that is called, for an error.
    :param is_loop: whether this is the thread of the server's loop.
    :param made: makes of the bytes what is returned.
    :raises PysockError: it is, and in no task.
    """
    loop = loop_of_task()
    if loop is not None:
        return _awaited(loop, begin, made)
    if is_loop:
        raise PysockError(
            f"{what}() in the thread of the server's loop would keep all clients waiting for another node: use it in an"
            " async handler, in a service with threads=, or in another thread"
        )
    waiter = Waiting()
    begin(waiter)
    return made(waiter.wait(None))


async def _awaited(
    loop: asyncio.AbstractEventLoop, begin: Callable[[Waiter], object], made: Callable[[bytes], Any]
) -> Any:
    from pysock.asking.awaited import Elsewhere  # noqa: PLC0415  # it brings asyncio, which is there where this runs

    future: asyncio.Future[bytes] = loop.create_future()
    begin(Elsewhere(future, loop))
    return made(await future)
