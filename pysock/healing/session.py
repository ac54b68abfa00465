"""One connection of a client that heals, and what can be seen of it without asking the server."""

from __future__ import annotations

import threading

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import ConnectionLost, ProtocolError, PysockError, RequestTimeout

if TYPE_CHECKING:
    from typing import Final

    from pysock.balance.watch import Watch
    from pysock.client import Client

#: A connection on which nothing was done for so many seconds is looked at before it is used.
QUIET: Final = 0.00005


class Session(Unique):
    """See the head of this file.

    :ivar client: a plain one, which doesn't connect again.
    :ivar heard: when something came on it, or it was looked at.
    :ivar watch: hears of servers that come and go, if anything does.
    """

    __slots__ = ("__weakref__", "_looking", "client", "heard", "watch")

    def __init__(self, client: Client) -> None:
        self.client: Client = client
        self.heard: float = monotonic()
        self.watch: Watch | None = None
        # Re-entrant, for a signal's handler may be below a look.
        self._looking = threading.RLock()

    def is_fit(self) -> bool:
        """Whether a request may go on it."""
        client = self.client
        if client.closed or client._mail.goodbye is not None:
            return False
        if monotonic() - self.heard >= QUIET:
            with self._looking:  # who comes meanwhile waits for what is found: another look would see nothing
                now = monotonic()
                if now - self.heard >= QUIET:
                    self._look()
                    self.heard = now
        return not client.closed and client._mail.goodbye is None

    def _look(self) -> None:
        """Take what the server has sent: its goodbye, or the end of the connection, of which a request would not be
        told before it is on its way.
        """
        try:
            self.client._link.listen(0.0, has=False)
        except RequestTimeout:
            pass  # nothing came
        except (ConnectionLost, ProtocolError) as error:
            self.client._mail.over("lost", str(error))
        except PysockError:
            pass  # this thread is in the middle of a call, below a signal's handler

    @property
    def is_idle(self) -> bool:
        """Whether no call is in it, and no stream open."""
        return not self.client._mail.calls and not self.client._mail.streams
