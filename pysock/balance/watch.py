"""A blocking client that connects again hears of the servers that come and go: the server it is connected to holds a
request to ``_nodes`` back until there is something new.

What has come is taken by whichever thread reads, in the middle of a call of its own, so what follows of it is done by a
thread that lasts for a moment: the next question, or to leave a server that isn't listed any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pysock.base.green import would_block
from pysock.base.lean import TYPE_CHECKING, Protocol
from pysock.base.logs import client_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError
from pysock.wire.format import Kind, Malformed
from pysock.wire.nodes import NODES, decode_nodes

if TYPE_CHECKING:
    from typing import Final

    from pysock.balance.balancer import Balancer
    from pysock.client import Client

#: Seconds for a question to be sent; seconds between two looks whether nobody uses a connection any more.
_SENT_WITHIN: Final = 10.0
LOOK: Final = 0.02

LEFT: Final = "it isn't listed among the servers any more"


class Watched(Protocol):
    """A connection of a client that connects again."""

    client: Client

    @property
    def is_idle(self) -> bool:
        """Whether no call is in it."""


class Watch(Unique):
    """One connection's. To the mailbox it is one that waits for the answer to a request.

    :param move: has new calls go elsewhere.
    """

    def __init__(self, session: Watched, move: Callable[[], object], balancer: Balancer) -> None:
        self._session = session
        self._move = move
        self._balancer = balancer
        self._request_id = 0
        self._is_over = False

    def ask(self) -> None:
        """Send the question. If it can't be sent the connection has ended, as others will find."""
        client = self._session.client
        number = client._services.numbers.get(NODES)
        if number is None or self.is_over():
            return
        with suppress(PysockError, OSError):
            link, self._request_id = client._link, client._link.next_request_id()
            client._mail.streams[self._request_id] = self  # type: ignore[assignment]  # it is as one to the mailbox
            if self.is_over():  # meanwhile
                self.leave()
                return
            link.send(Kind.SRM, number, self._request_id, self._balancer.version, _SENT_WITHIN)

    def is_over(self) -> bool:
        """Whether nothing it is told is of interest any more."""
        return self._is_over

    def leave(self) -> None:
        """What may still come is of no interest."""
        self._is_over = True
        self._session.client._mail.streams.pop(self._request_id, None)

    # For the mailbox, in the middle of somebody's call:

    def put(self, piece: bytes) -> None:
        """It is no stream."""

    def set_exception(self, error: Exception) -> None:
        """The server doesn't say, or goes."""

    def set_result(self, payload: bytes) -> None:
        """There is something new."""
        try:
            gone = self._balancer.told(self._session.client.address, decode_nodes(payload))
        except Malformed as error:
            log.warning("%s sent a list of nodes that is broken: %s", self._session.client.address, error)
            return
        if would_block(self._session.client._backend):
            return  # what it says now is asked with the next connection
        with suppress(RuntimeError):  # the interpreter ends
            threading.Thread(target=self._go if gone else self.ask, name="pysock nodes", daemon=True).start()

    def _go(self) -> None:
        """To another server; what is on its way here is answered."""
        self._move()
        while not self._session.is_idle:
            time.sleep(LOOK)
        self._session.client.close()
