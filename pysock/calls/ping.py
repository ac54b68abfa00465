"""A sign of life: PING there, PONG back."""

from __future__ import annotations

from pysock.base.aliases import Buffer
from pysock.base.clock import monotonic
from pysock.base.deadlines import deadline_of, time_left
from pysock.engine.link import Link
from pysock.errors import ProtocolError
from pysock.wire.format import Frame, Kind


def ping(link: Link, payload: Buffer, seconds: float | None) -> float:
    """Return the seconds there and back. What else comes meanwhile goes to the link's inbox.

    :raises ProtocolError: the server answered with other bytes; the link is closed then.
    """
    started = monotonic()
    request_id = link.next_request_id()
    link.send(Kind.PING, 0, request_id, payload, seconds)
    frame = _await_pong(link, request_id, deadline_of(seconds))
    elapsed = monotonic() - started
    if frame.payload != payload:
        link.close()
        raise ProtocolError("the server answered a ping with other bytes than those it was sent")
    return elapsed


def _await_pong(link: Link, request_id: int, deadline: float | None) -> Frame:
    while True:
        frame = link.receive(time_left(deadline))
        if frame.kind == Kind.PONG and frame.request_id == request_id:
            return frame
        link.inbox.append(frame)  # the mailbox knows what to do with it
