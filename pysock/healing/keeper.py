"""The thread that connects again where no call does: for a client whose hook listens, or whose calls don't wait.

It is made when it is needed, and ends with the client, or as soon as there is nothing to wait for.
"""

from __future__ import annotations

import threading

from pysock.base.green import would_block
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import PysockError

if TYPE_CHECKING:
    from pysock.healing.connections import Connections


def start_keeping(connections: Connections) -> None:
    """See to it that there is one."""
    thread = connections.keeper
    if (thread is None or not thread.is_alive()) and not would_block("native"):
        connections.keeper = threading.Thread(
            target=_keep, args=(connections,), name="pysock connects again", daemon=True
        )
        connections.keeper.start()


def _keep(connections: Connections) -> None:
    while True:
        try:
            session = connections.usable(None)
        except (PysockError, OSError):
            return  # for good: the client's `ended` tells why
        reader = session.client._reader
        if reader is None or reader.thread is None:
            return
        reader.thread.join()
        connections.note(session)
