"""How an asyncio client comes to its connection where there may be several nodes: the driver of ``balance/opening.py``.

Names are resolved in a thread of the loop's executor, for the system's resolver blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pysock.balance.opening import Ask, Connect, Find, opening
from pysock.balance.targets import any_names, nodes_of
from pysock.base.lean import TYPE_CHECKING
from pysock.wire.nodes import NODES

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from pysock.address import Address
    from pysock.aio.client import AsyncClient
    from pysock.balance.balancer import Balancer
    from pysock.balance.opening import Step

    Make: TypeAlias = Callable[[Address, float | None], Awaitable[AsyncClient]]


async def open_one(balancer: Balancer, make: Make, until: float | None) -> AsyncClient:
    """As :func:`pysock.balance.opening.open_one`."""
    steps = opening(balancer, until)
    try:
        step = next(steps)
        while True:
            try:
                result = await _done(step, make)
            except Exception as error:  # noqa: PERF203  # it is what is looped for
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as over:
        client: AsyncClient = over.value
        return client
    finally:
        steps.close()


async def _done(step: Step, make: Make) -> Any:
    if isinstance(step, Connect):
        return await make(step.address, step.seconds)
    if isinstance(step, Ask):
        return await step.client.request(b"", NODES, step.seconds)
    if isinstance(step, Find):
        return await asyncio.get_running_loop().run_in_executor(None, step.finder.find, step.seconds)
    if any_names(step.addresses):
        return await asyncio.get_running_loop().run_in_executor(None, nodes_of, step.addresses)
    return nodes_of(step.addresses)
