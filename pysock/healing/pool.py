"""Pool: several connections to one server, for any number of threads; a call takes the one with the fewest in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from pysock.address import AddressLike
from pysock.base import kinds
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.stream import LaterStream
from pysock.connecting import connect
from pysock.healing.members import Members, closed_pool

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.calls.stream import Stream
    from pysock.client import Client

    Result = TypeVar("Result")


class Pool(Members["Client"]):
    """At most ``size`` connections. The first is made at once, each other when all that there are have calls in them.

    With ``balance="p2c"`` they lead to three of the service's servers, other ones for each pool: of as many as it may
    have, one to each of the three is made at once. A call takes one of two at random, the one with fewer calls in it.

    :param address: as of :func:`pysock.connect`, also several.
    :param size: connections at most.
    :param options: the others of :func:`pysock.connect`. By default the clients connect again: ``reconnect=True``.
    :raises ValueError: the size is no number from 1 on.
    """

    def __init__(
        self, address: AddressLike | Sequence[AddressLike], size: int, name: str | None = None, **options: Any
    ) -> None:
        super().__init__(address, size, name, options)
        self._lock = threading.Condition()
        try:
            self._calls[self._new()] = 0
            while len(self._calls) < self._first_ones():
                self._calls[self._new()] = 0
        except BaseException:
            self.close()
            raise

    def _new(self) -> Client:
        return connect(self._address, self._name, **self._options)

    def request(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> bytes:
        """As :meth:`Client.request`, on one of the connections."""
        return self._call(lambda client: client.request(payload, service, timeout, **how))

    def stream(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> Stream:
        """As :meth:`Client.stream`, on one of the connections, with the first piece that is asked for."""
        taken: list[Client] = []

        def begin() -> tuple[Stream, bytes | None]:
            client = self._taken()
            taken.append(client)
            stream = client.stream(payload, service, timeout, **how)
            return stream, next(stream, None)

        return LaterStream(begin, lambda: self._left(*taken))

    def request_many(
        self,
        payloads: Iterable[kinds.Buffer],
        service: str | None = None,
        timeout: float | None = None,
        **how: bool,
    ) -> list[Any]:
        """As :meth:`Client.request_many`, on one of the connections."""
        return self._call(lambda client: client.request_many(payloads, service, timeout, **how))

    def notify(self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None) -> None:
        """As :meth:`Client.notify`, on one of the connections."""
        self._call(lambda client: client.notify(payload, service, timeout))

    def _call(self, call: Callable[[Client], Result]) -> Result:
        client = self._taken()
        try:
            return call(client)
        finally:
            self._left(client)

    def _left(self, *clients: Client) -> None:
        """A call in it has ended."""
        with self._lock:
            for client in clients:
                if client in self._calls:
                    self._calls[client] -= 1

    def _taken(self) -> Client:
        with self._lock:
            if self._closed:
                raise closed_pool()
            best, full = self._best()
            while best is None and full:  # they all are being made
                self._lock.wait()
                best, full = self._best()
            if best is not None and (full or not self._calls[best]):
                self._calls[best] += 1
                return best
            self._coming += 1
        return self._added()

    def _added(self) -> Client:
        try:
            client = self._new()
        finally:
            with self._lock:
                self._coming -= 1
                self._lock.notify_all()
        with self._lock:
            if not self._closed:
                self._calls[client] = 1
                return client
        client.close()
        raise closed_pool()

    def close(self) -> None:
        """Close all of them. Waits for the calls that are in them."""
        with self._lock:
            self._closed = True
            clients = list(self._calls)
            self._calls.clear()
        for client in clients:
            client.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
