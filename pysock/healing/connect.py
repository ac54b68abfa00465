"""``connect()`` where one attempt may not be enough: to several addresses, to a server that isn't there yet."""

from __future__ import annotations

import time

from pysock.balance.balancer import Balancer, balancer_of
from pysock.balance.opening import open_one
from pysock.balance.targets import Targets, rounded
from pysock.base.clock import monotonic
from pysock.base.deadlines import checked_timeout, deadline_of
from pysock.base.lean import TYPE_CHECKING
from pysock.client import Client
from pysock.healing.client import HealingClient
from pysock.healing.machine import Machine
from pysock.healing.policy import Backoff, checked_reconnect, checked_wait

if TYPE_CHECKING:
    from typing import Any

    from pysock.address import Address
    from pysock.balance.balancer import Balanced


def connect_patiently(
    address: Targets,
    name: str | None,
    reconnect: bool | Backoff,
    wait: float | None,
    balance: Balanced,
    options: dict[str, Any],
) -> Client:
    """See :func:`pysock.connect`."""
    backoff = checked_reconnect(reconnect)
    balancer = balancer_of(address, balance, discovers=backoff is not None, options=options)
    until = None if wait is None else checked_wait(wait)
    if backoff is not None:
        return HealingClient(balancer, name, backoff, until, options)
    machine = Machine(Backoff().spans(balancer.seeds), monotonic())
    end = monotonic() + (until or 0.0)
    while True:
        due = machine.due_in(monotonic()) or 0.0
        time.sleep(min(due, max(0.0, end - monotonic())))
        machine.begin()
        try:
            return _round(balancer, name, options)
        except Exception as error:
            if not machine.failed(error, monotonic()) or monotonic() >= end:
                raise


def _round(balancer: Balancer, name: str | None, options: dict[str, Any]) -> Client:
    seconds = options["timeout"]
    timeout = None if seconds is None else checked_timeout(seconds)

    def make(address: Address, left: float | None) -> Client:
        client = Client(address, name, **{**options, "timeout": rounded(left)})
        client._timeout = timeout  # of each call, as ever
        return client

    return open_one(balancer, make, deadline_of(timeout))
