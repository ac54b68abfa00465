"""Waiting for a descriptor that somebody else may have made non-blocking, or given a timeout."""

from __future__ import annotations

import select


def wait_until_ready(fd: int, event: int) -> None:
    """Until a call on it needn't wait: ``select.POLLIN`` or ``POLLOUT``. Signals' handlers run meanwhile (PEP 475)."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
