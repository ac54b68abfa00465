"""Everything at once, for long: good clients, hostile ones, bad CIRs, killed processes; with a journal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lab.experiment import Failed, Scale, check, per_engine
from lab.handshakes import WAIT, flood, visit
from lab.hostile import LIMITS, drip, hoard
from lab.killed import massacre
from lab.load import at_rest, pace, talk
from lab.processes import Child, raise_descriptors
from lab.served import Served, folder, serving

#: How often the journal gets a line, in seconds.
EVERY = 0.5


class _Line(NamedTuple):
    """One line of the journal."""

    at: float
    clients: int
    pending: int
    requests: int
    refused: int
    timeouts: int
    descriptors: int
    memory: int


class _Journal:
    """What the server looked like over time; kept as a file, too, for whoever has to find out."""

    def __init__(self, server: Served, path: Path) -> None:
        self.server, self.began = server, time.monotonic()
        self.lines: list[_Line] = []
        self.file = path.open("w", encoding="ascii", buffering=1)
        self.file.write("\t".join(_Line._fields) + "\n")

    def write(self) -> bool:
        """Note how it is; ``False``: not again, it was done a moment ago."""
        now = time.monotonic() - self.began
        if self.lines and now < self.lines[-1].at + EVERY:
            return False
        self.server.check_alive()
        stats = self.server.stats()
        counts = [stats[name] for name in _Line._fields[1:6]]
        self.lines.append(_Line(now, *counts, self.server.descriptors(), self.server.memory()))
        self.file.write("\t".join(f"{value:.10g}" for value in self.lines[-1]) + "\n")
        return True

    def slope(self) -> float:
        """Bytes of memory that came to it in the second half: what the last quarter had more than the one before."""
        half = len(self.lines) // 2
        quarter = half + (len(self.lines) - half) // 2
        before, after = ([line.memory for line in part] for part in (self.lines[half:quarter], self.lines[quarter:]))
        return statistics.median(after) - statistics.median(before)


def _company(stack: ExitStack, scale: Scale, address: str) -> Iterator[tuple[str, Child]]:
    """The processes that are there all the time, by what they are."""
    for name, function, *arguments in (
        ("talkers", talk, 8, None),
        ("pacers", pace, 4, 0.02),
        ("visitors", visit),
        ("bad CIRs", flood, 2**62),
        ("slow", drip, 30),
        ("readless", hoard, 30),
    ):
        yield name, stack.enter_context(Child(function, address, *arguments, (scale.seed, name)))


def soak(scale: Scale, engine: str, transport: str) -> str:
    """The verdict comes from the counts, the descriptors and the memory."""
    seconds = scale.of(10.0, 1800.0)
    raise_descriptors(2048)
    with folder() as directory, ExitStack() as stack:
        server = stack.enter_context(serving(engine, transport, limits=LIMITS | {"idle_timeout": 5.0}))
        before = at_rest(server)
        journal = _Journal(server, directory / "journal")
        company = dict(_company(stack, scale, server.address))
        check(company["pacers"].receive() == "ready", "the pacers aren't ready")

        def go_on(clients: int) -> bool:
            is_new = journal.write()
            for name, child in company.items():
                if child.channel.poll():
                    raise Failed(f"{name}: {child.result()}")
            if is_new and len(journal.lines) % 600 == 0:
                scale.say(f"{journal.lines[-1]}, {clients} clients killed")
            return time.monotonic() < journal.began + seconds

        try:
            ends = massacre(server.address, go_on, (scale.seed, "soak"))
            for child in company.values():
                child.send("enough")
            results = {name: child.result() for name, child in company.items()}
            stats = server.wait_empty()
            server.check_descriptors(before)
        except Failed as failure:
            raise Failed(f"{failure}\njournal:\n{(directory / 'journal').read_text()}") from None
    counts, took, waited = results["talkers"], results["pacers"], results["visitors"]
    seen = (
        f"{counts['pairs']:,} pairs, {sum(ends.values()):,} clients killed,"
        f" {sum(results['bad CIRs'].values()):,} bad CIRs, {len(waited):,} visitors;"
        f" memory {journal.slope() / 2**20:+.1f} MiB in the last quarter"
    )
    check(not any(count for name, count in counts.items() if name != "pairs"), f"{counts}; {seen}")
    check(not stats["altered"], f"{stats['altered']} requests were altered: {seen}")
    check(max(waited) <= WAIT, f"a visitor waited {max(waited):.1f} s: {seen}")
    check(max(each[1] for each in took) < 2, f"a good client waited {max(each[1] for each in took):.1f} s: {seen}")
    check(journal.slope() <= scale.of(24, 4) * 2**20, f"memory grows: {seen}")
    return seen


EXPERIMENTS = per_engine("soak", "everything at once, for long", soak)
