"""Clients over TLS: each function of OpenSSL's that a server calls fails, in one call or from it on, and so does what
the files of that driver ask of the system. ``faults.c`` beside this has the clients and the checks.
"""

from __future__ import annotations

import ctypes.util
import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.errnos import ERRNOS
from lab.experiment import Experiment, Missing, Scale, check
from lab.faults import ALLOCATIONS, BYTES, NOTHING, Fault, Site, Torture, faults_of, inflict
from lab.faults_native import command, places_in, program

#: Calls of the system that the files of this driver make.
SYSTEM = ("recvfrom", "sendto", "shutdown", "allocate", "resize")
#: Of a function that is called often, so many of its calls fail in the full form, each.
FULL = 40
#: In the quick form; and so many calls before and after the one that was seen.
ERRORS = 2
AROUND = 3


@dataclass(frozen=True)
class OverTLS(Torture):
    """The program, and its faults: those of the system strike once, or the loop would wait for better times."""

    def faults(self, scale: Scale) -> list[Fault]:
        """All of them; the calls are counted in a run without any."""
        seen = self.run([NOTHING])
        check(not seen.last_words, f"{self}: without a fault: {seen.last_words}")
        system = [site for site in seen.sites if site.call in SYSTEM]
        functions = [site for site in seen.sites if site.call not in ERRNOS and site.call not in ALLOCATIONS]
        faults = [*_of_functions(functions, scale)]
        if scale.full:
            return faults + [fault for fault in faults_of(system, scale, frozenset()) if fault.mode == "once"]
        return [*faults, *_of_the_system(system)]


def _of_functions(sites: list[Site], scale: Scale) -> Iterator[Fault]:
    for site in sites:
        calls = range(1, min(site.hits, FULL) + 1) if scale.full else {1, (site.hits + 1) // 2}
        for n in calls:
            yield Fault(site.call, errno.EIO, 0, n, "once")
            if scale.full or n == 1:
                yield Fault(site.call, errno.EIO, 0, n, "ever")


def _of_the_system(sites: list[Site]) -> Iterator[Fault]:
    """Each place that makes a call, by the first that it makes; how many came before varies for those that send."""
    for site in sites:
        errors = [errno.ENOMEM] if site.call in ALLOCATIONS else ERRNOS[site.call][-ERRORS:]
        around = AROUND if site.call == "sendto" else 0
        for error in errors:
            for n in range(max(1, site.first - around), site.first + around + 1):
                yield Fault(site.call, error, 0, n, "once")
    for call in BYTES:
        if any(site.call == call for site in sites):
            yield Fault(call, 0, 1, 1, "once")


def _all(scale: Scale) -> str:
    if shutil.which("openssl") is None or ctypes.util.find_library("ssl") is None:
        raise Missing("OpenSSL isn't installed, the program and the library")
    built = program(Path(__file__).parent / "faults.c", "faults_tls")
    return inflict([OverTLS(command(built), partial(places_in, built))], scale)


EXPERIMENTS = [Experiment("faults/native/tls", "each function of OpenSSL's fails under a server over TLS", _all)]
