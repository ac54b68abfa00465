"""``slowlog``: which requests took long. ``tail``: which ones there are, while somebody looks on.

The engine tells of both by one callback, in the loop's thread: of all that are slow, and for some seconds after each
``tail`` of a few of the others, turn by turn. Here the last ones are kept, each with a number; who asks again with the
last number gets what has come since.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from pysock.admin.asked import Asked
from pysock.base.clock import monotonic
from pysock.base.ids import shown
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.noticing import Listener
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.rows import Served
    from pysock.server import Server

#: So many slow requests are kept, and of those that somebody looks at.
SLOW_KEPT: Final = 128
TAIL_KEPT: Final = 1024
#: Seconds for which ``tail`` goes on unless it is asked for again.
LEASE: Final = 5.0
#: Requests that take so long, in seconds, are slow if nothing else is said; less than the other is never slow.
SLOW: Final = 0.01
LEAST: Final = 0.001
#: When ``tail`` begins it waits so long at most until the loop has heard of it.
_PATIENCE: Final = 0.05

_LARGEST: Final = 2**53


def checked_slow(slow: float) -> float:
    """As ``slowlog=`` of :class:`pysock.Admin`.

    :raises ValueError: it is nothing that could be.
    """
    if isinstance(slow, bool) or not isinstance(slow, (int, float)) or not LEAST <= slow <= 86_400:
        raise ParameterError("slowlog", f"must be a number of seconds from {LEAST:g} to 86400, not {slow!r}")
    return float(slow)


class _Ring:
    """The last entries, and how many there were in all."""

    def __init__(self, room: int) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=room)
        self.count = 0

    def add(self, entry: dict[str, Any]) -> None:
        self.count += 1
        self._entries.append(entry | {"number": self.count})

    def after(self, number: int) -> list[dict[str, Any]]:
        return [entry for entry in self._entries.copy() if entry["number"] > number]


class Requests:
    """Those of one server.

    :param slow: seconds.
    """

    def __init__(self, server: Server, slow: float) -> None:
        self._server = server
        self._slow = slow
        self._lock = threading.Lock()
        self._slow_ones = _Ring(SLOW_KEPT)
        self._all = _Ring(TAIL_KEPT)
        self._skipped = 0
        self._until: float | None = None  # of the lease
        self._noticing = server._running.hooks.noticing
        self._listener = Listener(self._told)
        self._noticing.want(self._listener, slow)

    # --- in the loop's thread ---

    def _told(self, request: Served, skipped: int) -> None:
        entry = self._entry(request)
        is_slow = (
            not self._streams(request.service)
            and entry["took"] + (entry["waited"] if request.kept is not None else 0.0) >= self._slow
        )
        with self._lock:
            self._skipped += skipped
            if is_slow:
                self._slow_ones.add(entry)
            if self._until is None:
                return
            if monotonic() < self._until:
                self._all.add(entry)
                return
            self._until = None
        self._noticing.want(self._listener, self._slow)

    def _streams(self, service: int) -> bool:
        """Its replies are streams, which take as long as their clients read."""
        return self._server._services.streams(service)

    def _entry(self, request: Served) -> dict[str, Any]:
        engine = self._server._running.engine
        info = None if engine is None or not request.client_id else engine.info(request.client_id)
        began = max(getattr(request.kept, "begun_at", 0.0), request.began)  # of one that a worker has had
        return {
            "at": time.time(),
            "service": None if request.service < 0 else self._server._services.name(request.service),
            "client": shown(request.client_id) if request.client_id else None,
            "name": None if info is None else info.name,
            "waited": round(max(0.0, began - request.came), 6),
            "took": round(max(0.0, request.ended - began), 6),
            "size": None if request.size < 0 else request.size,
            "reply_size": None if request.reply_size < 0 else request.reply_size,
            "failed": request.failed,
            "among": request.among,
        }

    # --- for who asks ---

    def slowlog(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The slow ones.

        :param fields: ``after``: those whose number is larger; ``limit``: so many of the last ones.
        """
        asked = Asked("slowlog", fields, ("after", "limit"))
        after, limit = asked.whole("after", 0, _LARGEST, 0) or 0, asked.whole("limit", 1, SLOW_KEPT, SLOW_KEPT)
        with self._lock:
            entries, count = self._slow_ones.after(after), self._slow_ones.count
        assert limit is not None
        return {"at": time.time(), "slow": self._slow, "total": count, "slowlog": entries[-limit:], "next": count}

    def tail(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Those that were since the last time; the first one gets none, and has it begin.

        :param fields: ``after``: as ``next`` was the last time.
        """
        asked = Asked("tail", fields, ("after",))
        after = asked.whole("after", 0, _LARGEST)
        begins = self._lease()
        if begins:
            self._notice()
        with self._lock:
            count = self._all.count
            after = None if after is None or after > count else after  # one that it was told by who had its place
            entries = [] if after is None else self._all.after(after)
            skipped, self._skipped = self._skipped, 0
        missed = 0 if after is None else max(0, count - after - len(entries))
        return {"at": time.time(), "tail": entries, "skipped": skipped + missed, "lease": LEASE, "next": count}

    def _lease(self) -> bool:
        """Whether it begins."""
        with self._lock:
            begins = self._until is None
            self._until = monotonic() + LEASE
            if begins:
                self._skipped = 0
        return begins

    def _notice(self) -> None:
        """What is served from now on."""
        engine = self._server._running.engine
        if engine is None:
            return
        self._noticing.want(self._listener, self._slow, every=1)
        heard = threading.Event()  # its next turn times what it serves; one that hangs isn't waited for
        engine.call_later(heard.set)
        heard.wait(_PATIENCE)
