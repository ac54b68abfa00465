"""Exporter: the metrics of a server, or of several, for Prometheus, by HTTP in a thread of its own.

This file owns the paths and what is told there; the thread and its connections are :mod:`pysock.aside.listener`'s. It
reads the pages, so that it also tells of a loop that hangs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial

from pysock.aside.listener import Aside, farewell, received, sent
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import ParameterError
from pysock.metrics import http, text
from pysock.metrics.families import HUNG_AFTER, families, readings
from pysock.metrics.http import Answer, Asked
from pysock.metrics.place import checked_exporter
from pysock.metrics.watched import cluster_of, ready_of, sources_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from typing import Final

    from pysock.address import Address, AddressLike
    from pysock.aside.listener import Wait
    from pysock.metrics.families import Family, Reading
    from pysock.metrics.watched import Sources
    from pysock.server import Server

#: How long somebody has to ask, then to take the answer, then to close, in seconds.
_TO_ASK: Final = 5.0
_TO_TAKE: Final = 30.0
_TO_CLOSE: Final = 2.0


class Exporter(Unique):
    """Answers HTTP for Prometheus, and for whoever checks whether a server lives. Usable in a ``with`` statement.

    ``/metrics`` has all that is counted, in Prometheus's format or in OpenMetrics, as is asked for; ``/livez`` says 200
    as long as the loop comes round, ``/readyz`` as long as new clients are welcome, else 503 and why; ``/statusz`` has
    it for people, as JSON.

    :param subject: a server, which is measured from then on, if it wasn't made so: then it must not have been started
        yet. Or a function that returns the sources of now, which is called at each scrape in the exporter's thread.
    :param address: where to listen: ``"127.0.0.1:9100"``, ``"unix:/run/app/metrics.sock"``. Whoever can connect may
        read.
    :param extra: returns more families.
    :param ready: returns why it isn't ready; empty: it is. A server knows that itself.
    :param hung_after: from how many seconds on without a turn of the loop it isn't taken to be alive.
    :raises ValueError: the address is wrong, or of another kind.
    :raises PysockError: the server runs already, and isn't measured.
    """

    _instead = "make a new Exporter"

    def __init__(
        self,
        subject: Server | Sources,
        address: AddressLike,
        *,
        extra: Callable[[], Iterable[Family]] | None = None,
        ready: Callable[[], str] | None = None,
        hung_after: float = HUNG_AFTER,
    ) -> None:
        where = checked_exporter(address)
        if hung_after <= 0:
            raise ParameterError("hung_after", f"must be more than 0 seconds, not {hung_after!r}")
        self._sources = sources_of(subject)
        self._ready = ready or ready_of(subject)
        self._cluster = partial(cluster_of, subject)
        self._extra = extra
        self._hung_after = hung_after
        self._aside = Aside(where, self._talk, "exporter")
        self._pages: dict[str, Callable[[Asked], Answer]] = {
            "/": lambda _: Answer(200, "".join(f"{path}\n" for path in list(self._pages)[1:])),
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/statusz": self._statusz,
        }

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
        log.info("metrics are read at %s, path /metrics", str(self.address.bare()).replace("tcp://", "http://"))

    def stop(self) -> None:
        """Close all, and end the thread. Called again it does nothing."""
        self._aside.stop()

    def __enter__(self) -> Exporter:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # --- one request ---

    def _talk(self, sock: socket.socket) -> Generator[Wait, None, None]:
        until, head = monotonic() + _TO_ASK, bytearray()
        while (end := http.head_end(head)) < 0 and len(head) <= http.HEAD_MAX:
            part = yield from received(sock, until)
            if not part:
                return
            head += part
        request = None if end < 0 else http.asked(bytes(head[:end]))
        answer = Answer(431, "the head of this request is too long\n") if end < 0 else self._answer(request)
        yield from sent(sock, http.answered(answer, request), monotonic() + _TO_TAKE)
        yield from farewell(sock, monotonic() + _TO_CLOSE)

    def _answer(self, request: Asked | None) -> Answer:
        if request is None:
            return Answer(400, "this is no request of HTTP/1.1\n")
        if request.path not in self._pages:
            return Answer(404, f"there is nothing here; there is: {' '.join(self._pages)}\n")
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, "this can only be read: GET or HEAD\n")
        try:
            return self._pages[request.path](request)
        except Exception as error:
            log.exception("metrics: %s could not be answered", request.path)
            return Answer(500, f"this failed, and the server's log says why: {type(error).__name__}\n")

    # --- what is told ---

    def _read(self) -> list[Reading]:
        return readings(self._sources(), self._hung_after)

    def _metrics(self, request: Asked) -> Answer:
        found = families(self._read())
        found += self._extra() if self._extra else ()
        if text.wants_open(request.fields.get("accept", "")):
            return Answer(200, text.openmetrics(found), text.OPEN_TYPE)
        return Answer(200, text.plain(found), text.PLAIN_TYPE)

    def _livez(self, _request: Asked) -> Answer:
        found = self._read()
        if any(reading.is_up for reading in found):
            return Answer(200, "ok\n")
        return Answer(
            503, "".join(f"{_why_down(reading)}\n" for reading in found if reading.is_there) or "nothing runs\n"
        )

    def _readyz(self, request: Asked) -> Answer:
        answer = self._livez(request)
        if answer.status == 200 and (why := self._ready()):
            return Answer(503, f"{why}\n")
        return answer

    def _statusz(self, _request: Asked) -> Answer:
        told = {
            "ready": self._ready() or "yes",
            **self._cluster(),
            "workers": [_told(reading) for reading in self._read() if reading.is_there],
        }
        return Answer(200, json.dumps(told, indent=1) + "\n", "application/json")


def _why_down(reading: Reading) -> str:
    snapshot = reading.snapshot
    who = f"worker {reading.labels['worker']}" if reading.labels else "the server"
    if snapshot is None:
        return f"{who} doesn't run yet"
    if not snapshot.in_turn:
        return f"{who} has ended, or is stopped: its loop came round last {snapshot.age():.0f} s ago"
    return f"{who} hangs since {snapshot.age():.0f} s; the service called last is {snapshot.called!r}"


def _told(reading: Reading) -> dict[str, object]:
    """Of one server, for people."""
    told: dict[str, object] = {**reading.labels, "up": reading.is_up}
    if (snapshot := reading.snapshot) is not None:
        told |= {
            "pid": snapshot.pid,
            "version": snapshot.version,
            "backend": snapshot.backend,
            "started": snapshot.started,
            "age": round(snapshot.age(), 3),
            "in_turn": snapshot.in_turn,
            "called": snapshot.called,
            "counters": dict(snapshot.counters),
            "services": {
                name or "(unnamed)": {
                    "requests": histogram.count,
                    "p50": round(histogram.quantile(0.5), 7),
                    "p99": round(histogram.quantile(0.99), 7),
                }
                for name, histogram in snapshot.histograms.items()
            },
        }
    return told
