"""``pysock.aio.connect()``: what is awaited for an asyncio client, or entered by ``async with``."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from pysock.access.peers import Ids, expected_server
from pysock.address import AddressLike, as_address
from pysock.aio.client import AsyncClient
from pysock.aio.connection import Connection
from pysock.aio.opening import Opening
from pysock.base import kinds
from pysock.base.deadlines import checked_timeout
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.handshake import Trust
from pysock.calls.heartbeat import checked_heartbeat, period
from pysock.calls.mailbox import PUSHES_MAX, Mailbox
from pysock.engine.choice import choose
from pysock.errors import PysockError
from pysock.parameters import checked_deadline, checked_most, client_proof

if TYPE_CHECKING:
    from typing import Any


class Connecting:
    """What :func:`connect` returns: ``await`` it, or enter it by ``async with``."""

    def __init__(self, address: AddressLike, name: str | None, timeout: float | None, options: dict[str, Any]) -> None:
        checked_most(options["max_payload"], options["max_pushes"])
        self._address = as_address(address)
        self._name = name or ""
        self._timeout = None if timeout is None else checked_timeout(timeout)
        self._inherits = checked_deadline(options["deadline"])
        self._heartbeat = checked_heartbeat(options["heartbeat"])
        key = options["authkey"]
        servers = expected_server(self._address, options["server_uid"])
        self._trust = Trust(servers, None if key is None else client_proof(key))
        self._options = options
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, Any, AsyncClient]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncClient:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *exc_info: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _open(self) -> AsyncClient:
        _refuse_other_loops()
        most = self._options["max_payload"]
        backend = choose(self._options["backend"])
        inlet = backend.inlet(most)
        opening = Opening(self._address, self._timeout, self._trust)
        sock, welcome = await opening.open(self._name, inlet, most)
        try:
            mail = Mailbox(f"the asyncio client of {self._address}", self._options["max_pushes"])
            every = period(self._heartbeat, self._address, None)
            connection = Connection(sock, inlet, backend.outlet, opening.inbox, welcome, mail, every)
        except BaseException:
            sock.close()
            raise
        return AsyncClient(connection, welcome, self._address, self._name, self._timeout, self._inherits)


def _refuse_other_loops() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise PysockError(
            "pysock.aio needs a running loop of asyncio or uvloop, and there is none in this thread: with another one,"
            " as trio's, use pysock.connect() in a thread"
        ) from None


def connect(
    address: AddressLike,
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
) -> Connecting:
    """Connect to a server in a loop of asyncio or uvloop: ``await`` it, or enter it by ``async with``.

    The parameters are those of :func:`pysock.connect`, and so are the exceptions. The heartbeat goes on whether or not
    the program listens.

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
    }
    return Connecting(address, name, timeout, options)
