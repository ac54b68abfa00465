"""``stats``: the counters of a server, and how it is. ``drain`` and ``resume``: whether new clients are welcome.

Nothing here waits for the loop. Whether that still turns is seen by a :class:`Pulse`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from pysock.admin.asked import Asked
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.states import ServerState

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.server import Server

#: A look at the pulse waits so long for the loop, in seconds: one that is well needs far less.
_PATIENCE: Final = 0.02


class Pulse:
    """Whether the loop of a server turns: it is asked to do next to nothing, once at a time, and when it did is seen.

    A loop that is held up by a handler, for a second or for ever, has one such wish waiting, however often it is
    looked at.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._asked_at: float | None = None  # of a wish that waits
        self._felt = threading.Event()

    def stuck_for(self) -> float:
        """Seconds for which the loop hasn't turned, as far as that is known; 0: it does, or there is none."""
        if self._server.state not in {ServerState.SERVING, ServerState.DRAINING}:
            return 0.0
        with self._lock:
            if self._asked_at is None and not self._ask():
                return 0.0
            felt = self._felt
        if felt.wait(_PATIENCE):
            return 0.0
        asked_at = self._asked_at
        return 0.0 if asked_at is None else monotonic() - asked_at

    def _ask(self) -> bool:
        engine = self._server._running.engine
        self._felt, self._asked_at = threading.Event(), monotonic()
        with suppress(Exception):  # it was closed, or couldn't be woken
            if engine is not None and engine.call_later(self._feel):
                return True
        self._asked_at = None
        return False

    def _feel(self) -> None:
        """In the loop's thread."""
        self._asked_at = None
        self._felt.set()


def stats(server: Server, pulse: Pulse, since: float, fields: Mapping[str, Any]) -> dict[str, Any]:
    """How the server is, and its counters.

    :param since: when it was first known to the admin socket, in seconds since the epoch.
    """
    Asked("stats", fields, ())
    return {
        "at": time.time(),
        "since": since,
        "name": server.name,
        "pid": os.getpid(),
        "engine": server.backend,
        "state": server.state.name,
        "lame": server.is_lame,
        "addresses": [str(address) for address in server.addresses],
        "max_clients": server.limits.max_clients,
        "stuck_for": round(pulse.stuck_for(), 3),
        "counters": server.stats(),
        **_measured(server),
    }


def _measured(server: Server) -> dict[str, Any]:
    """What only a server counts that was made with ``metrics=``: of each service, and of its loop. Read from the page,
    for which the loop isn't asked.
    """
    page = server.metrics
    found = None if page is None else page.read()
    if found is None:
        return {"services": {}, "loop": {}}
    services: dict[str, dict[str, Any]] = {
        name: {"requests": {}, "sum": times.sum, "buckets": {str(at): n for at, n in enumerate(times.counts) if n}}
        for name, times in found.histograms.items()
    }
    for (name, code), number in found.requests.items():
        services[name]["requests"][code] = number
    return {"services": services, "loop": {name: found.counters[name] for name in ("busy_ns", "outside_ns")}}


def drain(server: Server, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Health checks fail from now on, see :meth:`pysock.Server.lame`."""
    Asked("drain", fields, ())
    server.lame()
    return {"state": "draining"}


def resume(server: Server, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The end of that."""
    Asked("resume", fields, ())
    server.resume()
    return {"state": "serving"}
