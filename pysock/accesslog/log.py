"""The access log of one server: a thread that writes its lines to the logger ``pysock.access``.

The loop does next to nothing for it. Who has gone is in the engine's table for a while anyway, where this thread looks;
of requests the loop leaves those that are told of in a ring. Where the ring is full, or more clients have gone than the
table remembers, lines are missing, and one says how many. However long a line takes to be written, or whatever its
handler raises, nobody waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from pysock.accesslog.lines import connection_fields, line_of, request_fields
from pysock.accesslog.wanted import Wanted
from pysock.base.daemons import explained_without_daemons
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import INFO, WARNING, tell_unraisable
from pysock.base.unique import Unique
from pysock.directory.rows import left_of
from pysock.engine.noticing import Listener, Noticing

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.contract import Engine
    from pysock.engine.rows import Served
    from pysock.services import Services

    #: When it was, what it is about, and the fields of its line.
    Entry = tuple[float, str, dict[str, Any]]

log: Final = logging.getLogger("pysock.access")

#: So many requests wait to be written, and so many are told of in one turn of the loop.
ROOM: Final = 4096
A_TURN: Final = 64
#: Seconds between two looks, the fewer the more there is; and so long it may still write when the server has ended.
_LEAST, _MOST = 0.02, 0.25
PATIENCE: Final = 2.0
#: So many who have gone, or more, are much: then it looks again soon.
_MUCH: Final = 100


class AccessLog(Unique):
    """That of one server.

    :param noticing: tells of requests.
    """

    def __init__(self, wanted: Wanted, services: Services, noticing: Noticing) -> None:
        self._wanted = wanted
        self._where: Callable[[int], str] = str
        self._services = services
        self._engine: Engine | None = None
        self._ring: deque[tuple[float, Served, str | None]] = deque()
        self._left_out = 0  # of requests; in the loop's thread
        self._said = 0  # how many of those, and of connections, a line has told of
        self._seen = 0  # clients that have gone, those among them that are missing, and who was the last
        self._missing = 0
        self._last: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if wanted.every:
            noticing.want(Listener(self._told), None, wanted.every, A_TURN)

    def begin(self, engine: Engine, where: Callable[[int], str]) -> None:
        """The server is about to serve.

        :param where: gives the address of a master socket.
        """
        self._engine, self._where = engine, where
        with explained_without_daemons():
            self._thread = threading.Thread(target=self._run, name="pysock-access", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """It has served; its engine is there still."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    # --- in the loop's thread ---

    def _told(self, request: Served, skipped: int) -> None:
        self._left_out += skipped
        if len(self._ring) >= ROOM:
            self._left_out += 1
            return
        engine = self._engine
        info = engine.info(request.client_id) if engine is not None and request.client_id else None
        self._ring.append((time.time(), request, None if info is None else info.name))

    # --- in the log's own ---

    def _run(self) -> None:
        pause, ends = _MOST, False
        while not ends:
            ends = self._stop.wait(pause)
            written = 0
            for entry in self._entries():
                self._write(INFO, entry)
                written += 1
            self._tell_missing()
            pause = _LEAST if written >= _MUCH else min(2 * pause, _MOST)

    def _entries(self) -> Iterator[Entry]:
        for _ in range(len(self._ring)):  # not those that come meanwhile: the others have their turn
            at, request, name = self._ring.popleft()
            service = None if request.service < 0 else self._services.name(request.service)
            yield at, "request", request_fields(request, service, name)
        if self._wanted.connections:
            yield from self._gone()

    def _gone(self) -> Iterator[Entry]:
        """Those who went since the last time."""
        engine = self._engine
        assert engine is not None
        count = engine.stats().disconnected
        if count <= self._seen:
            return
        found = engine.gone(count - self._seen + _MUCH)  # a few may have gone, and aren't counted yet
        ids = [gone.row.client_id for gone in found]
        if self._last is not None and self._last not in ids:
            found = engine.gone()
            ids = [gone.row.client_id for gone in found]
        new = found[len(ids) - ids[::-1].index(self._last) :] if self._last in ids else found
        self._seen += len(new)
        if count > self._seen:  # who is neither there any more
            self._missing += count - self._seen
            self._seen = count
        if ids:
            self._last = ids[-1]
        for gone in new:
            left = left_of(gone, (), self._where)
            yield left.left_at, "connection", connection_fields(left)

    def _tell_missing(self) -> None:
        missing = self._missing + self._left_out
        if missing > self._said:
            missing, self._said = missing - self._said, missing
            self._write(WARNING, (time.time(), "missing", {"lines": missing}))

    def _write(self, level: int, entry: Entry) -> None:
        """One line; a logger's filters and handlers are the program's, and may raise anything."""
        at, what, fields = entry
        try:
            if log.isEnabledFor(level):
                record = log.makeRecord(log.name, level, __file__, 0, "%s", (line_of(what, fields),), None)
                record.created, record.msecs = at, at % 1 * 1000
                record.access = {"what": what, **fields}  # for formatters that want the values
                log.handle(record)
        except Exception as error:
            tell_unraisable(error)
