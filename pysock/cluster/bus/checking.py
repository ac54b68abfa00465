"""A bus as an operator looks at it: a node of its own comes, says something to itself under each subject, and goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from statistics import median

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.bus.contract import BusReport, BusState
from pysock.errors import BusDown

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.bus.contract import Heard, Outcome
    from pysock.cluster.bus.spine import Spine

#: So many requests to itself, of which the round trip is the median.
_TRIPS: Final = 9
#: How often it is looked whether an attempt has failed for good, in seconds.
_LOOK_EVERY: Final = 0.02


def check(make: Callable[[], Spine], subjects: tuple[str, ...], timeout: float) -> BusReport:
    """See :class:`pysock.cluster.bus.contract.Bus`.

    :param make: of the end that does it.
    """
    until = monotonic() + timeout
    bus = make()
    try:
        unheard = _Unheard(bus, subjects)
        _connect(bus, until, timeout)
        trip = _round_trip(bus, until)
        findings = [
            *bus.findings(),
            *(
                f"messages under {subject} don't come back: allow this user to publish and to subscribe under"
                f" {bus.prefix}, and whatever begins with {bus.prefix}."
                for subject in unheard.ask(until)
            ),
        ]
        return BusReport(bus.kind, bus.software, trip, bus.max_payload, tuple(findings))
    finally:
        bus.close()


def _connect(bus: Spine, until: float, timeout: float) -> None:
    connected = threading.Event()
    bus.start(lambda state: connected.set() if state is BusState.CONNECTED else None)
    while not connected.wait(_LOOK_EVERY):
        if bus.is_refused or monotonic() >= until:
            late = "" if bus.is_refused else f", tried for {timeout:g} seconds"
            raise BusDown(f"the bus {bus.where} can't be used: {bus.why}{late}")


def _round_trip(bus: Spine, until: float) -> float:
    """Seconds for a request to itself and its answer."""
    subject = f"{bus.prefix}._i.{bus.token}.trip"
    bus.subscribe(subject, lambda heard: heard.answer(b"") if heard.answer is not None else None)
    trips = []
    for _ in range(_TRIPS):
        done = threading.Event()
        begin = monotonic()

        def ended(_outcome: Outcome, _payload: bytes, done: threading.Event = done) -> None:
            done.set()

        bus.request(subject, b"", until - begin, ended)
        done.wait(max(0.0, until - begin))
        trips.append(monotonic() - begin)
    return median(trips)


class _Unheard:
    """Subjects under which nothing has come back yet."""

    def __init__(self, bus: Spine, subjects: tuple[str, ...]) -> None:
        self._bus = bus
        self._left = dict.fromkeys(subjects)
        self._all_heard = threading.Event()
        for subject in subjects:
            bus.subscribe(subject, self._heard)

    def _heard(self, heard: Heard) -> None:
        self._left.pop(heard.subject, None)
        if not self._left:
            self._all_heard.set()

    def ask(self, until: float) -> list[str]:
        """Say something under each, and return those where that wasn't heard, though all were."""
        for subject in list(self._left):
            self._bus.publish(subject, b"")
        if self._left:
            self._all_heard.wait(min(1.0, max(0.0, until - monotonic())))
        return list(self._left)
