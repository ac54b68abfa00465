"""A sign of life: PING there, PONG back."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.clock import monotonic
from pysock.engine.link import Link
from pysock.errors import ProtocolError


def ping(link: Link, payload: Buffer, seconds: float | None) -> float:
    """Return the seconds there and back. What else comes meanwhile goes to the link's inbox.

    :raises ProtocolError: the server answered with other bytes; the link is closed then.
    """
    started = monotonic()
    answer = link.ping(payload, seconds)
    elapsed = monotonic() - started
    if answer != payload:
        link.close()
        raise ProtocolError("the server answered a ping with other bytes than those it was sent")
    return elapsed
