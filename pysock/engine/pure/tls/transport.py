"""The row of a listener that speaks TLS: see ``pysock/engine/pure/transport.py``."""

from __future__ import annotations

import socket
from operator import attrgetter

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure.tls.connection import KINDS
from pysock.engine.pure.transport import Transport, tell_at_once
from pysock.tls.channel import Channel
from pysock.tls.session import Session, server_side
from pysock.wire.format import HEADER, Refusal

if TYPE_CHECKING:
    from typing import Any, Final

#: Alerts: the latter is for good in nobody's eyes.
_ACCESS_DENIED: Final = 49
_INTERNAL_ERROR: Final = 80


def secured(tls: Any) -> Transport:
    """Make one.

    :param tls: a :class:`pysock.TLS` or an ``ssl.SSLContext``.
    """
    context, alpn = server_side(tls)
    return Transport(
        lambda sock: Channel(sock, Session(context, server=True, alpn=alpn)),
        attrgetter("receive"),
        attrgetter("send"),
        Channel.send_pieces,
        _alert,
        KINDS,
    )


def _alert(sock: socket.socket, frame: bytes) -> None:
    """Before a handshake a text can't be said, but an alert can (RFC 8446, 6.2). No handshake is paid for it."""
    denied = HEADER.unpack_from(frame)[3] == Refusal.NOT_ALLOWED
    tell_at_once(sock, bytes((21, 3, 3, 0, 2, 2, _ACCESS_DENIED if denied else _INTERNAL_ERROR)))
