"""The row of a listener that speaks TLS: see ``pysock/engine/pure/transport.py``."""

from __future__ import annotations

import socket
from operator import attrgetter

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.pure.tls.connection import KINDS
from pysock.engine.pure.transport import Transport
from pysock.tls.channel import Channel
from pysock.tls.session import Session, server_side

if TYPE_CHECKING:
    from typing import Any


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
        _no_words,
        KINDS,
    )


def _no_words(_sock: socket.socket, _frame: bytes) -> None:
    """Before the handshake nothing can be said that the client would believe."""
