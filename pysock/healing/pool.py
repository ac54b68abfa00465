"""Pool: several connections to one server, for any number of threads; a call takes the one with the fewest in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from pysock.address import AddressLike
from pysock.base import kinds
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.connecting import connect
from pysock.errors import ConnectionLost
from pysock.healing.size import checked_size

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from pysock.client import Client

    Result = TypeVar("Result")


class Pool(Unique):
    """At most ``size`` connections. The first is made at once, each other when all that there are have calls in them.

    :param address: as of :func:`pysock.connect`, also several.
    :param size: connections at most.
    :param options: the others of :func:`pysock.connect`. By default the clients connect again: ``reconnect=True``.
    :raises ValueError: the size is no number from 1 on.
    """

    _instead = "make a Pool of its own"

    def __init__(
        self, address: AddressLike | Sequence[AddressLike], size: int, name: str | None = None, **options: Any
    ) -> None:
        self._size = checked_size(size)
        self._address = address
        self._name = name
        self._options = {"reconnect": True, **options}
        self._lock = threading.Condition()
        self._calls: dict[Client, int] = {}  # that are in each
        self._coming = 0  # connections that are being made
        self._closed = False
        self._calls[self._new()] = 0

    def _new(self) -> Client:
        return connect(self._address, self._name, **self._options)

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._calls)

    def request(
        self, payload: kinds.Buffer, service: str | None = None, timeout: float | None = None, **how: bool
    ) -> bytes:
        """As :meth:`Client.request`, on one of the connections."""
        return self._call(lambda client: client.request(payload, service, timeout, **how))

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
            with self._lock:
                if client in self._calls:
                    self._calls[client] -= 1

    def _taken(self) -> Client:
        with self._lock:
            if self._closed:
                raise ConnectionLost("this pool is closed: make a new one")
            best, full = self._best()
            while best is None and full:  # they all are being made
                self._lock.wait()
                best, full = self._best()
            if best is not None and (full or not self._calls[best]):
                self._calls[best] += 1
                return best
            self._coming += 1
        return self._added()

    def _best(self) -> tuple[Client | None, bool]:
        """The one with the fewest calls, and whether there may be no more."""
        for client in [one for one in self._calls if one.closed]:
            del self._calls[client]
        best = min(self._calls, key=self._calls.__getitem__, default=None)
        return best, len(self._calls) + self._coming >= self._size

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
        raise ConnectionLost("this pool is closed: make a new one")

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

    def __repr__(self) -> str:
        return f"<Pool {len(self._calls)} of {self._size} {'closed' if self._closed else 'open'} {self._address}>"
