"""``connect()`` where one attempt may not be enough: to several addresses, to a server that isn't there yet."""

from __future__ import annotations

import time

from pysock.base.clock import monotonic
from pysock.base.deadlines import checked_timeout, deadline_of, time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.client import Client
from pysock.healing.client import HealingClient
from pysock.healing.machine import Machine
from pysock.healing.policy import Backoff, checked_reconnect, checked_wait
from pysock.healing.targets import Targets, checked_targets, in_order, rounded

if TYPE_CHECKING:
    from typing import Any

    from pysock.address import Address


def connect_patiently(
    address: Targets, name: str | None, reconnect: bool | Backoff, wait: float | None, options: dict[str, Any]
) -> Client:
    """See :func:`pysock.connect`."""
    addresses, backoff = checked_targets(address), checked_reconnect(reconnect)
    until = None if wait is None else checked_wait(wait)
    if backoff is not None:
        return HealingClient(addresses, name, backoff, until, options)
    machine = Machine(Backoff().spans(addresses), monotonic())
    end = monotonic() + (until or 0.0)
    while True:
        due = machine.due_in(monotonic()) or 0.0
        time.sleep(min(due, max(0.0, end - monotonic())))
        machine.begin()
        try:
            return _round(addresses, name, options)
        except Exception as error:
            if not machine.failed(error, monotonic()) or monotonic() >= end:
                raise


def _round(addresses: tuple[Address, ...], name: str | None, options: dict[str, Any]) -> Client:
    seconds = options["timeout"]
    end = deadline_of(None if seconds is None else checked_timeout(seconds))
    for address, may_go_on in in_order(addresses):
        try:
            client = Client(address, name, **{**options, "timeout": rounded(time_left(end))})
        except Exception as error:  # noqa: PERF203  # it is what is looped for
            if not may_go_on(error):
                raise
        else:
            client._timeout = None if seconds is None else checked_timeout(seconds)  # of each call, as ever
            return client
    raise AssertionError  # the last one raises
