"""One master socket, and what is common to all connections that come through it: the profile of a listener.

Whatever differs by where a client comes in is asked of the connection's listener, not of the engine: how its bytes are
cut, by what they come and go, what is served to it.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.pure.transport import PLAIN
from pysock.wire.framing import FRAMINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pysock.engine.proxies import Proxies
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.transport import Transport
    from pysock.engine.pure.waiting.batch import Batch
    from pysock.wire.framing import FramingFacts
    from pysock.wire.rules import Rules


class Listener(Unique):
    """The descriptor of the master socket is the caller's, who closes it."""

    __slots__ = (
        "batches",
        "checked",
        "fd",
        "framing",
        "handlers",
        "index",
        "interest",
        "prepared",
        "proxies",
        "rules",
        "shut",
        "sock",
        "tcp",
        "transport",
    )

    def __init__(
        self,
        core: Core,
        fd: int,
        index: int,
        *,
        checked: bool,
        prepared: bool,
        transport: Transport = PLAIN,
        proxies: Proxies | None = None,
    ) -> None:
        self.fd: int = fd
        self.index: int = index  # in the order in which they were added
        self.framing: FramingFacts = FRAMINGS[core.options.framing]
        self.transport: Transport = transport
        self.rules: Rules = core.rules
        self.handlers: dict[int, Callable[[Any, Any], Any]] = core.handlers
        self.batches: dict[int, Batch] = core.batches
        self.checked: bool = checked  # who comes is held against the rule of access before a byte is read
        self.prepared: bool = prepared  # its data sockets inherit the options of TCP that they need
        self.proxies: Proxies | None = proxies  # its clients come through these
        # Python finds out about family and type by itself.
        self.sock: socket.socket = socket.socket(fileno=fd)
        try:
            self.sock.setblocking(False)
        except OSError:
            self.sock.detach()
            raise
        self.tcp: bool = self.sock.family != socket.AF_UNIX
        self.interest: int = 0
        self.shut: bool = False  # somebody else has shut it down

    def count_accepted(self, core: Core) -> None:
        """A connection has come through it."""
        core.counts.accepted += 1
        if core.metering is not None:
            core.metering.came[self.tcp if self.transport is PLAIN else 2] += 1


def transport_of(tls: Any) -> Transport:
    """By what the bytes of its connections come and go."""
    if tls is None:
        return PLAIN
    from pysock.engine.pure.tls.transport import secured  # noqa: PLC0415  # the module ssl takes a while to import

    return secured(tls)


def drop(sock: socket.socket) -> None:
    """Close one that has no row yet, without a word."""
    with suppress(OSError):
        sock.close()
