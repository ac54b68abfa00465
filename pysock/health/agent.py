"""HealthAgent: what HAProxy's agent-check asks for: a line of text on a port of its own, which a thread answers.

This file owns that line; the thread and its connections are :mod:`pysock.aside.listener`'s. What may be said is in
HAProxy's manual, at "agent-check".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from pysock.address import AddressLike, as_address
from pysock.aside.listener import Aside, farewell, sent
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import ParameterError
from pysock.states import ServerState

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from typing import Final

    from pysock.address import Address
    from pysock.aside.listener import Wait
    from pysock.server import Server

#: How long whoever asks has to take its line and to close, in seconds.
_PATIENCE: Final = 2.0


def line_of(server: Server) -> str:
    """What is said of a server now.

    ``ready up 75%``: new clients are welcome, and three quarters of its places are free. ``drain``: who is connected is
    served, and no new ones are wanted, for it is lame or stops. ``down``: it doesn't serve.
    """
    state = server.state
    if state is not ServerState.SERVING:
        return "drain" if state is ServerState.DRAINING else "down"
    if server.is_lame:
        return "drain"
    return weight(len(server.clients), server.limits.max_clients)


def weight(clients: int, most: int) -> str:
    """What is said where new clients are welcome: how large a part of the places is free, rounded up."""
    # "ready" each time: only an agent can take back its own "drain", and HAProxy may have been started meanwhile.
    return f"ready up {math.ceil(100 * max(0, most - clients) / most)}%"


class HealthAgent(Unique):
    """Tells HAProxy's ``agent-check`` how a server is: whether it takes new clients, and how large a part of its
    ``max_clients`` is free. Usable in a ``with`` statement.

    :param server: which one; it need not have been started. Or a function that returns the line, which is called at
        each check in the agent's thread.
    :param address: where to listen, TCP: ``"127.0.0.1:9101"``. Whoever connects there is told, and can't do anything.
    :raises ValueError: the address is wrong, or none of TCP.
    """

    _instead = "make a new HealthAgent"

    def __init__(self, server: Server | Callable[[], str], address: AddressLike) -> None:
        where = as_address(address)
        if where.transport != "tcp":
            raise ParameterError("address", f"must be one of TCP, as HAProxy asks by TCP only, not {where}")
        self._line: Callable[[], str] = server if callable(server) else partial(line_of, server)
        self._aside = Aside(where, self._talk, "agent")

    @property
    def address(self) -> Address:
        """Where it listens; once started with the port that the kernel chose."""
        return self._aside.address

    def start(self) -> None:
        """Listen, and answer in a thread from now on.

        :raises OSError: the address can't be used.
        :raises PysockError: it was started before.
        """
        self._aside.start()
        log.info("HAProxy's agent-check is answered at %s", self.address)

    def stop(self) -> None:
        """Close all, and end the thread. Called again it does nothing."""
        self._aside.stop()

    def __enter__(self) -> HealthAgent:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _talk(self, sock: socket.socket) -> Generator[Wait, None, None]:
        """One line. What the other says is of no interest (``agent-send``)."""
        until = monotonic() + _PATIENCE
        yield from sent(sock, f"{self._line()}\n".encode(), until)
        yield from farewell(sock, until)
