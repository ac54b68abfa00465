"""An asyncio client that connects again hears of the servers that come and go, in a task for each connection: the
server holds a request to ``_nodes`` back until there is something new.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context

from pysock.balance.watch import LEFT, LOOK
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.logs import client_log as log
from pysock.errors import PysockError
from pysock.wire.format import Malformed
from pysock.wire.nodes import NODES, decode_nodes

if TYPE_CHECKING:
    from pysock.aio.client import AsyncClient
    from pysock.balance.balancer import Balancer


class Owner(Protocol):
    """Whose connection it is."""

    def leave(self, client: AsyncClient, why: str) -> None:
        """New calls go elsewhere."""


def watching(owner: Owner, client: AsyncClient, balancer: Balancer) -> asyncio.Task[None] | None:
    """The task; ``None``: this server doesn't tell of others."""
    if not balancer.discovers or NODES not in client.services or not client._connection.has_room:
        return None
    # In a context of its own: it mustn't keep that of whoever calls just now.
    return Context().run(client._loop.create_task, _watch(owner, client, balancer), name="pysock nodes")


async def _watch(owner: Owner, client: AsyncClient, balancer: Balancer) -> None:
    connection, number = client._connection, client._services.numbers[NODES]
    with suppress(PysockError):  # the server doesn't say, or the connection has ended
        while connection.error is None and connection.mail.goodbye is None:  # else nobody would answer
            future = client._loop.create_future()
            request_id = connection.submit(future, number, balancer.version, None)
            try:
                payload = await future
            except (asyncio.CancelledError, GeneratorExit):
                connection.give_up(request_id)
                raise
            try:
                gone = balancer.told(client.address, decode_nodes(payload))
            except Malformed as error:
                log.warning("%s sent a list of nodes that is broken: %s", client.address, error)
                return
            if gone:
                owner.leave(client, LEFT)
                while connection.waiting or connection.has_streams:
                    await asyncio.sleep(LOOK)
                client.close()
                return
