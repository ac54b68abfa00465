"""Running scenarios: which peer under which load, in which order.

Rounds are interleaved: every peer once, then every peer again, so that what disturbs the machine for a while disturbs
all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench import machine, tls
from bench.machine import Cores
from bench.peers import PEERS, Peer
from bench.results import Results, Row
from bench.run import RunFailed, capacity, run
from bench.scenarios import CAPACITY_OF, Load, Scenario

#: Descriptors that a server needs beside those of the herd, and its clients too.
OTHER_DESCRIPTORS: Final = 500

#: Of clients in Python always measured: ratios refer to it, as of the others to the first.
BASE: Final = "py-floor"


@dataclass(frozen=True, slots=True)
class Job:
    """One load, and who is put under it; all with clients of the same kind."""

    scenario: Scenario
    load: Load
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long, and how often."""

    rounds: int
    seconds: float
    warmup: float
    quick: bool
    cores: Cores = field(default_factory=Cores.choose)

    def as_dict(self) -> dict[str, Any]:
        """For the result."""
        return {
            "rounds": self.rounds,
            "seconds": self.seconds,
            "warmup": self.warmup,
            "quick": self.quick,
            "server_core": self.cores.server,
            "client_core": self.cores.client,
            "one_core": self.cores.one,
        }


def is_wanted(peer: Peer, names: list[str], few: bool) -> bool:
    """Whether it was asked for: by its id or group, or with no names by the mode."""
    if names:
        return peer.id in names or peer.group in names
    return peer.quick or not few


def plan(scenarios: tuple[Scenario, ...], names: list[str], few: bool) -> list[Job]:
    """The jobs, in the order of the tables. One with nobody to compare isn't there."""
    limit = machine.raise_descriptor_limit()
    jobs = []
    for scenario in scenarios:
        peers = [peer for name, peer in PEERS.items() if name in scenario.peers]
        for load in scenario.loads:
            for by_python in (False, True):
                if load.by not in ("both", "python" if by_python else "generator"):
                    continue
                chosen = [peer for peer in peers if bool(peer.client) == by_python and is_wanted(peer, names, few)]
                wanted = BASE if by_python else scenario.peers[0]
                base = [peer for peer in peers if peer.id == wanted and peer not in chosen]
                if chosen:
                    jobs.append(Job(scenario, _within(load, limit), (*base, *chosen)))
    return jobs


def lacking(jobs: list[Job], known: Results) -> list[Job]:
    """The jobs, without what was measured there."""
    measured = {(row.scenario, row.load, row.peer) for row in known.rows if row.runs}
    left = [
        replace(
            job, peers=tuple(peer for peer in job.peers if (job.scenario.id, job.load.title, peer.id) not in measured)
        )
        for job in jobs
    ]
    return [job for job in left if job.peers]


def _within(load: Load, limit: int) -> Load:
    """A herd no larger than the descriptors that a process may have."""
    most = limit - OTHER_DESCRIPTORS
    return replace(load, idle=most) if load.idle > most else load


def count_runs(jobs: list[Job], rounds: int) -> int:
    """How many there will be if nothing is missing."""
    return sum(len(job.peers) for job in jobs) * rounds


class Suite:
    """Runs jobs and gathers rows. ``on_run(text)`` is called before each run, ``on_job(job, rows)`` after each job."""

    def __init__(
        self,
        settings: Settings,
        on_run: Callable[[str], None] = lambda _text: None,
        on_job: Callable[[Job, list[Row]], None] = lambda _job, _rows: None,
    ) -> None:
        self.settings = settings
        self.on_run, self.on_job = on_run, on_job
        self._capacities: dict[tuple[str, int, int], float] = {}
        self.results = Results(
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            environment=machine.environment(),
            settings=settings.as_dict(),
        )

    def run(self, jobs: list[Job]) -> Results:
        """All of them."""
        for job in jobs:
            rows = [_row(job, peer) for peer in job.peers]
            self.results.rows += rows
            self._run_job(job, rows)
            self.on_job(job, rows)
        return self.results

    def _run_job(self, job: Job, rows: list[Row]) -> None:
        try:
            load = self._with_rate(job.load)
        except RunFailed as error:
            for row in rows:
                row.failed = f"the rate isn't known: {error}"
            return
        for number, peer, row in self._rounds(job, rows):
            self.on_run(f"{job.scenario.id} {row.load}: {peer.title}, round {number + 1}")
            hopeless = row.failed and not row.runs and number > 1  # not after one failure: it may have been bad luck
            if row.missing or hopeless:
                continue
            try:
                row.add(self._measure(run, peer, load))
            except RunFailed as error:
                row.failed = str(error)

    def _rounds(self, job: Job, rows: list[Row]) -> Iterator[tuple[int, Peer, Row]]:
        for number in range(self.settings.rounds):
            for peer, row in zip(job.peers, rows, strict=True):
                yield number, peer, row

    def _measure(self, how: Callable[..., Any], peer: Peer, load: Load) -> Any:
        settings = self.settings
        return how(peer, load, seconds=settings.seconds, warmup=settings.warmup, cores=settings.cores)

    def _with_rate(self, load: Load) -> Load:
        """Turn a share of the capacity into a rate."""
        if load.share is None:
            return load
        key = load.transport, load.connections, load.size
        if key not in self._capacities:
            there = [peer for name in CAPACITY_OF if not (peer := PEERS[name]).missing()]
            if not there:
                raise RunFailed(PEERS[CAPACITY_OF[-1]].missing())
            peer = there[0]
            self._capacities[key] = self._measure(capacity, peer, load)
            self.results.settings["capacity"] = {"of": peer.id, "messages_per_second": round(self._capacities[key])}
        return replace(load, rate=max(1.0, load.share * self._capacities[key]), share=None)


def _row(job: Job, peer: Peer) -> Row:
    return Row(
        scenario=job.scenario.id,
        load=job.load.title,
        peer=peer.id,
        title=peer.title,
        group=peer.group,
        own_client=bool(peer.client),
        missing=peer.missing() or (tls.missing() if job.load.transport == "tls" else ""),
    )
