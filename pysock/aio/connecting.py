"""``pysock.aio.connect()``: what is awaited for an asyncio client, or entered by ``async with``."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Generator, Sequence
from functools import partial

from pysock.access.peers import Ids
from pysock.address import Address, AddressLike
from pysock.aio.client import AsyncClient
from pysock.aio.connection import Connection
from pysock.aio.healing import HealingAsyncClient
from pysock.aio.keeper import Keeper
from pysock.aio.opening import Opening
from pysock.aio.output import Output
from pysock.aio.tracked import TrackedOutput
from pysock.answering.services import ClientServices
from pysock.balance.balancer import balancer_of
from pysock.balance.targets import Targets, rounded
from pysock.base import kinds
from pysock.base.deadlines import checked_timeout, deadline_of
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.handshake import Trust
from pysock.calls.heartbeat import checked_heartbeat, period
from pysock.calls.mailbox import PUSHES_MAX, Mailbox
from pysock.errors import PysockError
from pysock.healing.policy import Backoff, checked_reconnect, checked_wait
from pysock.parameters import checked_deadline, checked_most
from pysock.wire.cir import encode_name
from pysock.wire.features import client_features

if TYPE_CHECKING:
    from typing import Any


class Connecting:
    """What :func:`connect` returns: ``await`` it, or enter it by ``async with``."""

    def __init__(self, address: Targets, name: str | None, timeout: float | None, options: dict[str, Any]) -> None:
        checked_most(options["max_payload"], options["max_pushes"])
        self._backoff = checked_reconnect(options["reconnect"])
        self._balancer = balancer_of(address, options["balance"], discovers=self._backoff is not None, options=options)
        self._wait = None if options["wait"] is None else checked_wait(options["wait"])
        self._name = name or ""
        encode_name(self._name)
        self._timeout = None if timeout is None else checked_timeout(timeout)
        self._inherits = checked_deadline(options["deadline"])
        self._heartbeat = checked_heartbeat(options["heartbeat"])
        services = options["services"]
        self._services = None if services is None else ClientServices(services, waits=True)
        self._options = options
        for one in self._balancer.seeds:  # what is wrong is told before anything is awaited
            self._trust(one)
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, Any, AsyncClient]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncClient:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *exc_info: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _trust(self, address: Address) -> Trust:
        options = self._options
        return Trust.of(address, options["server_uid"], options["authkey"], options["tls"], options["proxy"])

    async def _open(self) -> AsyncClient:
        _refuse_other_loops()
        tracked = TrackedOutput if self._backoff is not None else Output
        backoff = self._backoff or Backoff()
        keeper = Keeper(self._balancer, backoff, partial(self._one, tracked), self._timeout)
        heals = self._backoff is not None
        first = self._wait if self._wait is not None else self._timeout if heals else 0.0
        try:
            client = await keeper.first(
                deadline_of(None if first == math.inf else first), whole=not heals or self._wait is not None
            )
        except BaseException:
            keeper.close()
            raise
        if heals:
            healing = HealingAsyncClient(keeper, self._name, self._timeout, self._inherits)
            return self._serving(healing)
        client._connection.watch = None
        return self._serving(client)

    def _serving(self, client: AsyncClient) -> AsyncClient:
        """Its services are called with it, from the next pass of the loop on."""
        if self._services is not None:
            self._services.owner = weakref.ref(client)
        return client

    async def _one(self, output: type[Output], address: Address, left: float | None) -> AsyncClient:
        """A plain client at one address."""
        most = self._options["max_payload"]
        trust = self._trust(address)
        backend = trust.engine(self._options["backend"])
        services = self._services
        features = client_features(services is not None)
        opening = Opening(address, rounded(left), trust, features)
        sock, inlet, welcome = await opening.open(self._name, most, backend.inlet)
        try:
            mail = Mailbox(f"the asyncio client of {address}", self._options["max_pushes"])
            every = period(self._heartbeat, address, welcome.idle_timeout)
            connection = Connection(
                sock, inlet, backend.outlet, opening.inbox, welcome, mail, every, output, services, opening.channel
            )
        except BaseException:
            sock.close()
            raise
        most = self._options["max_payload"]
        client = AsyncClient(connection, welcome, address, self._name, self._timeout, self._inherits, most)
        client._tls = opening.info
        return client


def _refuse_other_loops() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise PysockError(
            "pysock.aio needs a running loop of asyncio or uvloop, and there is none in this thread: with another one,"
            " as trio's, use pysock.connect() in a thread"
        ) from None


def connect(
    address: AddressLike | Sequence[AddressLike],
    name: str | None = None,
    *,
    timeout: float | None = 10.0,
    backend: kinds.BackendName = "auto",
    max_payload: int = 16 * 1024 * 1024,
    max_pushes: int = PUSHES_MAX,
    authkey: bytes | None = None,
    server_uid: Ids | None = None,
    deadline: kinds.Deadline = "inherit",
    heartbeat: float | None = None,
    services: kinds.AsyncClientServices | None = None,
    tls: kinds.TLS | None = None,
    proxy: kinds.Proxy | None = None,
    reconnect: bool | Backoff = False,
    wait: float | None = None,
    balance: kinds.Balance | None = None,
) -> Connecting:
    """Connect to a server in a loop of asyncio or uvloop: ``await`` it, or enter it by ``async with``.

    The parameters are those of :func:`pysock.connect`, and so are the exceptions. The heartbeat goes on whether or not
    the program listens. Services may be ``async def``: each call is a task then, which is cancelled where the server
    doesn't wait any more, or the connection has ended.

    :raises PysockError: awaited where no loop of asyncio or uvloop runs.
    """
    options = {
        "backend": backend,
        "max_payload": max_payload,
        "max_pushes": max_pushes,
        "authkey": authkey,
        "server_uid": server_uid,
        "deadline": deadline,
        "heartbeat": heartbeat,
        "reconnect": reconnect,
        "wait": wait,
        "balance": balance,
        "services": services,
        "tls": tls,
        "proxy": proxy,
    }
    return Connecting(address, name, timeout, options)
