"""Faults: which there are, and running them, one after the other, in programs that do as they are told.

Such a program reads a fault a line and answers ``ok STRUCK LOST``; at the end of its input it tells the places it has
seen, as ``site CALL PLACE HITS STRUCK FIRST``. A fault that isn't survived ends it, and the next one goes on behind it.
The program of the C engine is ``faults.c``, that of the pure engine ``faulty_pure.py``.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from support import environment

from lab.building import BUILD
from lab.errnos import ERRNOS
from lab.experiment import Failed, Scale, check

#: Calls whose trouble is that of one descriptor, and may last as long as that one.
PER_DESCRIPTOR = ("recvfrom", "recvmsg", "sendto", "sendmsg", "epoll_ctl")
#: They may do less than they were asked for.
BYTES = ("recvfrom", "recvmsg", "sendto", "sendmsg")
#: "object": memory for what the handler gets.
ALLOCATIONS = ("allocate", "resize", "object")
#: They are made by any thread.
FROM_ANYWHERE = (*ALLOCATIONS, "getsockopt")
SHORTEST, LONGEST = 1, 7
#: In the quick form: how many calls are tried with each errno, which of these with a fault that lasts, and which of the
#: allocations are.
FIRST_HITS, LASTING, NTH_ALLOCATION = 3, (1, 3), 11
#: Processes at once. A fault may cost waiting, not only work.
WORKERS = 8
SECONDS = 1800
#: Then it is of no use to go on.
FAILURES_MAX = 20


class Fault(NamedTuple):
    """The n-th call fails: once, from then on for the same descriptor, or from then on for ever."""

    call: str
    error: int  # 0: it does less than it was asked for
    cap: int  # bytes
    n: int
    mode: str

    def __str__(self) -> str:
        return f"{self.call} {self.error} {self.cap} {self.n} {self.mode}"

    def words(self) -> str:
        what = errno.errorcode[self.error] if self.error else f"at most {self.cap} bytes"
        return f"{self.call}: {what}, call {self.n}, {self.mode}"


#: It never strikes.
NOTHING = Fault("close", errno.EBADF, 0, 0, "once")


class Site(NamedTuple):
    """A place in the source that makes a call, as one run has seen it."""

    call: str
    place: str
    hits: int
    struck: int
    first: int


class Seen(NamedTuple):
    """What one process said; and its last words if it didn't end well."""

    struck: list[int]
    sites: list[Site]
    last_words: str


@dataclass(frozen=True)
class Torture:
    """One program with its arguments, and how what it says of places is made readable."""

    command: tuple[str, ...]
    places: Callable[[list[str]], list[str]] = list
    #: Errors that can't come about there.
    never: frozenset[int] = frozenset()
    #: One of so many faults is drawn in the quick form, where a program is slow: others with another seed.
    one_of: int = 1

    def run(self, faults: Iterable[Fault]) -> Seen:
        """Run it to its end."""
        done = subprocess.run(
            self.command,
            input="".join(f"{fault}\n" for fault in faults),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env=environment(ASAN_OPTIONS="detect_leaks=1:quarantine_size_mb=8", UBSAN_OPTIONS="print_stacktrace=1"),
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        sites = [words[1:] for words in lines if words[0] == "site"]
        places = self.places([words[1] for words in sites])
        return Seen(
            [int(words[1]) for words in lines if words[0] == "ok"],
            [Site(words[0], place, *map(int, words[2:])) for words, place in zip(sites, places, strict=True)],
            f"exit {done.returncode}: {done.stderr[-3000:]}" if done.returncode else "",
        )

    def faults(self, scale: Scale) -> list[Fault]:
        """All faults of this program; its calls are counted in a run without any."""
        seen = self.run([NOTHING])
        check(not seen.last_words, f"{self}: without a fault: {seen.last_words}")
        faults = list(faults_of(seen.sites, scale, self.never))
        if scale.full:
            return faults
        return scale.random(self).sample(faults, -(-len(faults) // self.one_of))

    def __str__(self) -> str:
        return " ".join(self.command[-3:])


# Which faults


def _ordinals(call: str, sites: list[Site], scale: Scale) -> list[int]:
    total = sum(site.hits for site in sites if site.call == call)
    if scale.full:
        return list(range(1, total + 1))
    if call in ALLOCATIONS:
        return list(range(1, total + 1, NTH_ALLOCATION))
    return list(range(1, min(FIRST_HITS, total) + 1))


def _later(call: str, sites: list[Site], scale: Scale) -> list[int]:
    """The first call of each place that isn't reached by the first few. Where other threads make such calls, too, its
    number depends on how many they make meanwhile, so those around it are tried as well.
    """
    tried, reach = _ordinals(call, sites, scale), 2 if call in FROM_ANYWHERE else 0
    firsts = [site.first for site in sites if site.call == call and site.first not in tried]
    around = {n for first in firsts for n in range(max(1, first - reach), first + reach + 1)}
    return sorted(around.difference(tried))


def faults_of(sites: list[Site], scale: Scale, never: frozenset[int]) -> Iterator[Fault]:
    """All for the system calls and allocations of these places."""
    for call in sorted({site.call for site in sites}):
        ordinals, later = _ordinals(call, sites, scale), _later(call, sites, scale)
        modes = ("once", "same", "ever") if call in PER_DESCRIPTOR else ("once", "ever")
        errors = [errno.ENOMEM] if call in ALLOCATIONS else [error for error in ERRNOS[call] if error not in never]
        for error in errors:
            yield from (
                Fault(call, error, 0, n, mode)
                for n in ordinals
                for mode in modes
                if mode == "once" or scale.full or n in LASTING or call in ALLOCATIONS
            )
        for error in errors[:2]:
            yield from (Fault(call, error, 0, n, "once") for n in later)
        for cap in range(SHORTEST, LONGEST + 1) if call in BYTES else ():
            yield from (Fault(call, 0, cap, n, "once") for n in (*ordinals, *later))
            yield Fault(call, 0, cap, 1, "ever")


# Running them


class Tally:
    """What all processes of one experiment have seen."""

    def __init__(self) -> None:
        self.faults = self.struck = 0
        self.places: Counter[str] = Counter()  # how often a fault struck there
        self.failures: list[str] = []

    def add(self, seen: Seen) -> None:
        self.faults += len(seen.struck)
        self.struck += sum(map(bool, seen.struck))
        for site in seen.sites:
            self.places[site.place] += site.struck

    def endure(self, torture: Torture, faults: list[Fault]) -> None:
        """All of these, in as many processes as it takes."""
        while faults and len(self.failures) < FAILURES_MAX:
            seen = torture.run(faults)
            self.add(seen)
            if not seen.last_words:
                return
            done = len(seen.struck)
            culprit = faults[done].words() if done < len(faults) else "after the last one"
            self.failures.append(f"{torture}: {culprit}: {seen.last_words}")
            faults = faults[done + 1 :]


#: Where each experiment of this run of the laboratory writes down the places that its faults struck.
REACHED = BUILD / "places" / str(os.getpid())


def inflict(tortures: Iterable[Torture], scale: Scale) -> str:
    """Run all faults of all of these; say how many there were."""
    tally = Tally()
    with ThreadPoolExecutor(WORKERS) as pool:
        for torture in tortures:
            faults = torture.faults(scale)
            parts = [faults[i::WORKERS] for i in range(WORKERS)]
            list(pool.map(lambda part, torture=torture: tally.endure(torture, part), parts))
    reached = {place for place, struck in tally.places.items() if struck}
    REACHED.mkdir(parents=True, exist_ok=True)
    (REACHED / str(os.getpid())).write_text("".join(f"{place}\n" for place in sorted(reached)))
    for failure in tally.failures:
        scale.say(failure)
    if tally.failures:
        raise Failed(f"{len(tally.failures)} of {tally.faults} faults: {tally.failures[0]}")
    return f"{tally.faults} faults, {tally.struck} struck, at {len(reached)} of {len(tally.places)} places"
