"""The service table of a server: which names there are, and who answers them.

This file owns the rules of registration. The engine gets the finished table; an index in it is a number on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from pysock._version import __version__
from pysock.base.deadlines import FOREVER
from pysock.base.functions import checked_function, described, is_async, is_async_generator, is_generator
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.engine.contract import Service
from pysock.errors import ParameterError, PysockError
from pysock.parameters import checked_advertised
from pysock.pools.wanted import NO_WORKERS
from pysock.wire.cir import encode_welcome
from pysock.wire.format import LARGEST_NAME, Framing, ServiceOption
from pysock.wire.nodes import NODES, RESERVED

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import AddressLike
    from pysock.base import kinds
    from pysock.clients import ClientTable
    from pysock.engine.contract import Engine
    from pysock.engine.meter import Meter
    from pysock.limits import Limits
    from pysock.listening import Listening
    from pysock.metrics.page import Page
    from pysock.pools.pool import Pool
    from pysock.pools.pools import Pools
    from pysock.pools.wanted import Wanted

#: The number of a service has 16 bits.
SERVICES_MAX: Final = 0xFFFF


class Services:
    """The services of one server, in the order of their numbers; number 0 is the unnamed one."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._table = [Service("", None)]
        self._names = {""}
        self._options: dict[int, int] = {}  # what clients are told of them
        self._coroutines: dict[int, bool] = {}  # whose handlers run in tasks: whether one stays
        #: Puts something around the handler of a service; it is told of its pool, and whether it runs in tasks.
        self.around: Callable[[Service, Pool | None, bool], Service] | None = None
        self.page: Page | None = None  # where the engine counts for those who look from outside
        #: The workers of services that have some; imported with the first, for most servers have none.
        self._pools: Pools | None = None

    def add(
        self,
        name: str | None,
        handler: Callable[..., Any],
        *,
        batch: bool = False,
        max_batch: int = 1024,
        max_wait: float = 0.0,
        kind: str | None = None,
        on_leave: str = "cancel",
        endless: bool = False,
        idempotent: bool = False,
        wanted: Wanted = NO_WORKERS,
    ) -> None:
        """Add one; without a name it is the unnamed service.

        :param wanted: the workers that the handler is to run in.
        :raises ValueError: the name is taken, or can't be one; or the framing has no names; or there can't be such
            workers.
        :raises TypeError: the handler can't be called so; or it is one of a batch, and an async function or generator.
        """
        call = "handler(clients, requests)" if batch else wanted.call
        instead = "handlers of batches are plain functions that return the replies" if batch else None
        coroutine = not batch and (kind == "async" or is_async(handler) or is_async_generator(handler))
        streams = not batch and (kind == "stream" or is_generator(handler) or is_async_generator(handler))
        wanted.check(handler, coroutine)
        _check_kind(kind, on_leave)
        if streams:
            self._check_stream(handler, kind, wanted, finishes=on_leave == "finish" and not coroutine)
        checked_function("handler", handler, call, instead, yields=not batch)
        _check_batch(max_batch, max_wait)
        if endless and not (streams or coroutine or wanted.any):
            problem = "is of a stream, of an async handler, or of one that has workers: this one runs in the loop"
            raise ParameterError("endless", problem, name="endless=")
        max_wait = min(max_wait, FOREVER)
        if name is None:
            if self._table[0].handler is not None:
                problem = 'the unnamed service is registered already; give this one a name: @server.service("name")'
                raise ParameterError("name", problem, name="")
        else:
            self._check_name(name)
        if wanted.any:
            self._add_workers(name, handler, wanted, on_leave == "finish", streams)
        if name is None:
            self._table[0] = Service("", handler, batch, max_batch, max_wait, streams, endless)
        else:
            self._append(Service(name, handler, batch, max_batch, max_wait, streams, endless))
        number = 0 if name is None else len(self._table) - 1
        if coroutine:
            self._coroutines[number] = on_leave == "finish"
        if bits := ServiceOption.STREAMS * streams | ServiceOption.IDEMPOTENT * bool(idempotent):
            self._options[number] = int(bits)

    def add_own(self, name: str, handler: Callable[..., Any]) -> None:
        """Add one of the server's own, which may be asked twice.

        :raises ValueError: the framing has no names.
        """
        self._check_framing()
        self._options[len(self._table)] = int(ServiceOption.IDEMPOTENT)
        self._append(Service(name, handler))

    def advertise(
        self, advertise: kinds.Advertise | None, listening: Listening, clients: ClientTable, capacity: int
    ) -> None:
        """Tell clients who ask where the service's servers are, and how many clients this one has.

        :raises ValueError: see :func:`pysock.parameters.checked_advertised`.
        """
        if advertise is None:
            return
        from pysock.directory.nodes import Advertised  # noqa: PLC0415  # most servers don't

        addresses = checked_advertised(advertise, self._framing)
        nodes = Advertised(addresses, lambda: listening.addresses, lambda: len(clients), capacity)
        clients.nodes = nodes
        self.add_own(NODES, nodes.serve)

    def advertise_now(self, addresses: Iterable[AddressLike], clients: ClientTable) -> None:
        """As :meth:`pysock.Server.advertise`."""
        if clients.nodes is None:
            raise PysockError("this server was made without advertise=, so that no client asks: give it an empty list")
        clients.nodes.set(checked_advertised(addresses, self._framing))

    def _append(self, service: Service) -> None:
        self._table.append(service)
        self._names.add(service.name)

    def _add_workers(
        self, name: str | None, handler: Callable[..., Any], wanted: Wanted, finishes: bool, streams: bool
    ) -> None:
        from pysock.pools.pools import Pools  # noqa: PLC0415  # see __init__

        self._pools = self._pools or Pools()
        number = 0 if name is None else len(self._table)
        has_ids = self._framing is Framing.PYSOCK
        self._pools.add(number, name or "", handler, wanted, has_ids=has_ids, finishes=finishes, streams=streams)

    def _check_stream(self, handler: Callable[..., Any], kind: str | None, wanted: Wanted, *, finishes: bool) -> None:
        if self._framing is not Framing.PYSOCK:
            problem = (
                f"the framing {self._framing.name.lower()!r} has no streams, for nothing would tell where one ends: use"
                " framing='pysock', or return the whole reply"
            )
            raise ParameterError("handler", problem, name="")
        if wanted.processes is not None:
            problem = f"is for functions that return the reply: {handler!r} yields it; use threads="
            raise ParameterError("processes", problem, name="processes=")
        if kind == "async" and is_generator(handler):
            raise ParameterError("kind", f"can't be 'async': {handler!r} is a plain generator")
        if finishes and wanted.threads is None:
            problem = "can't be 'finish' of a stream that the loop runs: use threads=, or an async generator"
            raise ParameterError("on_leave", problem)

    def _check_framing(self) -> None:
        if not self.has_names:
            problem = (
                f"the framing {self._framing.name.lower()!r} can't name services: register the unnamed one,"
                " with @server.service, or use framing='pysock'"
            )
            raise ParameterError("name", problem, name="")

    def _check_name(self, name: str) -> None:
        self._check_framing()
        try:
            length = len(name.encode("utf-8"))
        except UnicodeEncodeError as error:
            problem = f"the service name {name!r} can't be encoded in UTF-8: {error}"
            raise ParameterError("name", problem, name="") from None
        if name.startswith(RESERVED):
            problem = f"the service name {name!r} begins with {RESERVED!r}, as the server's own do: choose another name"
            raise ParameterError("name", problem, name="")
        if not 1 <= length <= LARGEST_NAME:
            problem = f"a service name has 1 to {LARGEST_NAME} bytes of UTF-8, not {length}: {name!r}"
            raise ParameterError("name", problem, name="")
        if self.has(name):
            problem = f"the service {name!r} is registered already; choose another name for this one"
            raise ParameterError("name", problem, name="")
        if len(self._table) > SERVICES_MAX:
            raise ValueError(f"a server has at most {SERVICES_MAX} named services")

    def named(self) -> list[str]:
        """The names by number, from 1 on."""
        return [service.name for service in self._table[1:]]

    def follow(self, names: Sequence[str]) -> None:
        """Take over the numbers that clients have learned from the server before: new names come behind, and where one
        is gone there is nobody who answers.

        :param names: as ``named`` of that one.
        :raises ValueError: there are too many then.
        """
        mine = {service.name: number for number, service in enumerate(self._table) if number}
        order = [0, *(mine.pop(name, -1) for name in names), *mine.values()]
        if len(order) > SERVICES_MAX + 1:
            raise ValueError(f"a server has at most {SERVICES_MAX} named services, also with those that are gone")
        gone = iter(name for name in names if not self.has(name))
        self._table = [self._table[old] if old >= 0 else Service(next(gone), None) for old in order]
        pools = {} if self._pools is None else self._pools.by_number
        told: tuple[dict[int, Any], ...] = (self._options, self._coroutines, pools)
        for by_number in told:
            kept = {new: by_number[old] for new, old in enumerate(order) if old in by_number}
            by_number.clear()
            by_number.update(kept)

    @property
    def has_names(self) -> bool:
        """Whether the framing has any."""
        return self._framing is Framing.PYSOCK

    def has(self, name: str) -> bool:
        """Whether there is one of this name."""
        return name in self._names

    @property
    def has_async(self) -> bool:
        """Whether a handler needs an asyncio loop."""
        return bool(self._coroutines)

    def table(
        self, starter: Callable[[Callable[..., Any], bool, bool], Callable[..., Any]] | None = None
    ) -> tuple[Service, ...]:
        """All of them, as the engine takes them.

        :param starter: makes of an async handler one that the engine can call, needed if there is any; it is told
            whether that goes on when its client has left, and whether it streams.
        """
        return tuple(self._for_engine(number, service, starter) for number, service in enumerate(self._table))

    def _for_engine(self, number: int, service: Service, starter: Callable[..., Callable[..., Any]] | None) -> Service:
        if self.around is not None:
            pool = None if self._pools is None else self._pools.by_number.get(number)
            service = self.around(service, pool, number in self._coroutines)
        if starter is not None and service.handler and number in self._coroutines:
            return service._replace(handler=starter(service.handler, self._coroutines[number], service.streams))
        return service if self._pools is None else self._pools.in_place(number, service)

    def measure(self, metrics: bool | int | Page) -> None:
        """As ``metrics=`` of :class:`pysock.Server`.

        :raises ParameterError: it is nothing that could be.
        """
        from pysock.metrics.page import page_of  # noqa: PLC0415  # few servers are measured

        self.page = page_of(metrics)

    def meter(self, backend: str) -> Meter | None:
        """Where an engine counts that is to be made; ``None``: nowhere."""
        return None if self.page is None else self.page.lay_out([each.name for each in self._table], backend)

    def welcome(self, limits: Limits) -> bytes:
        """What CIR_ACCEPTED tells every client of them, and of the limits."""
        return encode_welcome(
            limits.max_payload,
            limits.max_in_flight,
            [(number, service.name) for number, service in enumerate(self._table) if number and service.handler],
            f"pysock/{__version__}",
            sorted(self._options.items()),
            limits.idle_timeout,
        )

    def name(self, number: int) -> str:
        """The name of a service."""
        return self._table[number].name

    def streams(self, number: int) -> bool:
        """Whether its replies are streams."""
        return number >= 0 and self._table[number].streams

    def title(self, number: int) -> str:
        """The name of a service for a log."""
        return repr(self._table[number].name) if 0 < number < len(self._table) else "(unnamed)"

    def titles(self, handler: Callable[..., Any]) -> str:
        """Those of the services that have this handler, or the one that is called by it, for a log."""
        inner = (handler, getattr(handler, "__wrapped__", handler))
        found = [number for number, each in enumerate(self._table) if any(each.handler is one for one in inner)]
        return ", ".join(map(self.title, found))

    def only(self) -> int | None:
        """The number of the service whose handler the loop calls, if there is no other such."""
        workers: set[int] = set() if self._pools is None else self._pools.numbers()
        found = [number for number, each in enumerate(self._table) if each.handler and number not in workers]
        return found[0] if len(found) == 1 else None

    def handler(self, number: int) -> str:
        """Its handler for a log: the name, and where it stands."""
        return described(self._table[number].handler) if number < len(self._table) else "none"

    def warn_if_none(self, server: object) -> None:
        """Log it if no request can be answered."""
        if not any(service.handler for service in self.table() if not service.name.startswith(RESERVED)):
            log.warning(
                "%r has no service, so that no request can be answered: register one before the start, with"
                " @server.service",
                server,
            )

    # The workers of those that have some

    def start_workers(self) -> None:
        """Make them, and wait until they can work.

        :raises PysockError: they can't.
        """
        if self._pools is not None:
            self._pools.start()

    def work_for(self, engine: Engine) -> None:
        """It is this one that asks the workers."""
        if self._pools is not None:
            self._pools.serve(engine)

    def works_here(self) -> bool:
        """Whether this thread is one of the workers', whose end must not be waited for in it."""
        return self._pools is not None and self._pools.serves_here()

    def end_workers(self) -> None:
        """Nothing is begun any more."""
        if self._pools is not None:
            self._pools.close()

    def abandon_workers(self) -> None:
        """In a forked child: they are the parent's."""
        if self._pools is not None:
            self._pools.abandon()


def _check_kind(kind: str | None, on_leave: str) -> None:
    if kind not in {None, "async", "stream"}:
        raise ParameterError("kind", f"must be 'async' or 'stream', or left out, not {kind!r}")
    if on_leave not in {"cancel", "finish"}:
        raise ParameterError("on_leave", f"must be 'cancel' or 'finish', not {on_leave!r}")


def _check_batch(max_batch: int, max_wait: float) -> None:
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch < 2**31:
        raise ParameterError("max_batch", f"must be a whole number of at least 1, not {max_batch!r}")
    if not isinstance(max_wait, (int, float)) or not 0 <= max_wait < math.inf:
        raise ParameterError("max_wait", f"must be 0 or more seconds, not {max_wait!r}")
