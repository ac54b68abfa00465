"""The pools of one server: one for each service that was registered with workers."""

from __future__ import annotations

from collections.abc import Callable

from pysock.base.green import refuse_green_pools
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.pools.processes import Processes
from pysock.pools.stream import Streams
from pysock.pools.target import target_of
from pysock.pools.threads import Threads

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.contract import Engine, Service
    from pysock.pools.pool import Pool
    from pysock.pools.wanted import Wanted

#: How many requests may wait for the workers of a service, where nothing else is said.
DEFAULT_QUEUE: Final = 1024


class Pools(Unique):
    """Those of one server."""

    def __init__(self) -> None:
        self.by_number: dict[int, Pool] = {}  # those of their services

    def add(
        self,
        number: int,
        name: str,
        handler: Callable[..., Any],
        wanted: Wanted,
        *,
        has_ids: bool,
        finishes: bool,
        streams: bool,
    ) -> None:
        """The service with this number has workers.

        :param has_ids: else a client has one request at a time here, and isn't read meanwhile: all may wait.
        :param finishes: what a client that has left has asked for is begun all the same, and goes on to its end.
        :param streams: its handler answers by streams.
        :raises ValueError: worker processes can't import the handler.
        """
        most = (wanted.queue or DEFAULT_QUEUE) if has_ids else None
        pool: Pool
        if wanted.threads is not None:
            kind = Streams if streams else Threads
            pool = kind(name, handler, wanted.threads, most, finishes)
        else:
            target = target_of(handler)
            pool = Processes(name, handler, target, wanted.processes or 0, most, wanted.kill, finishes)
        self.by_number[number] = pool

    def in_place(self, number: int, service: Service) -> Service:
        """With what the engine calls in the place of a handler that has workers."""
        pool = self.by_number.get(number)
        return service if pool is None else service._replace(handler=pool.ask)

    def numbers(self) -> set[int]:
        """Of the services that have workers."""
        return set(self.by_number)

    def start(self) -> None:
        """Make all workers, and wait until they can work.

        :raises PysockError: a worker process can't import its handler; or threads are green ones here.
        """
        if self.by_number:
            refuse_green_pools()
        for pool in self.by_number.values():
            pool.start()

    def serve(self, engine: Engine) -> None:
        """They work for this one."""
        for pool in self.by_number.values():
            pool.serve(engine)

    def close(self) -> None:
        """End them: nothing is begun any more."""
        for pool in self.by_number.values():
            pool.close()

    def abandon(self) -> None:
        """In a forked child: the workers are the parent's."""
        for pool in self.by_number.values():
            pool.abandon()

    def serves_here(self) -> bool:
        """Whether this thread is one of the workers', whose end must not be waited for in it."""
        return any(pool.serves_here() for pool in self.by_number.values())
