"""The fault table of the C engine: each system call fails with each of its errnos, each allocation fails, and what then
happens to clients, to descriptors and to memory.

``faults.c`` has the scripts and the checks; this file builds it and says what it is to do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from support import ROOT

from lab.building import alone
from lab.errnos import ERRNOS
from lab.experiment import Experiment, Missing, Scale, check
from lab.faults import ALLOCATIONS, REACHED, Torture, inflict

CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "faults"

#: Needs an interpreter: what it allocates isn't reached from here. And what tests/c/test_moving.c tries without memory.
ELSEWHERE = ("python", "moving")
#: What only clients of the host's TLS sessions come to: tests/c/test_hosted.c has each call and allocation there fail,
#: and each step, in the course of a client's life.
HOSTED = ("hosted.c",)
#: Likewise, of the table.
RESERVED = ("        ps_conn **more = ps_sys.resize(table->chunks, chunks * sizeof *more);",)
#: What only a forked child does, where nothing can be made of an error.
IN_A_CHILD = ("        ps_sys.close(*fd);",)
#: What waits for another thread to stop reading while it may not sleep for that: no script comes there at will.
BY_CHANCE = ("    int ready = ps_sys.ppoll(&fd, 1, ps__share_sooner(left, PS_SHARE_NAP_NS));",)


@cache
def program(source: Path = Path(__file__).parent / "faults.c", name: str = "faults") -> Path:
    """Build it, against the engine with PYSOCK_FAULTS and under ASan, LSan and UBSan."""
    for tool in ("make", "gcc", "addr2line"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} isn't installed")
    archive = BUILD / "asan" / "engine.a"
    with alone():
        _build("make", "-s", "-j2", "-C", str(CSRC), "CC=gcc", f"BUILD={BUILD}", str(archive))
        return link(archive, BUILD / name, source=source)


def link(archive: Path, built: Path, *flags: str, source: Path = Path(__file__).parent / "faults.c") -> Path:
    """The program with the engine of this archive."""
    here = Path(__file__).parent
    common = "-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wconversion -Wshadow -Werror -g -O1 -fno-omit-frame-pointer"
    sanitizers = "-DPYSOCK_FAULTS -pthread -fsanitize=address,undefined -fno-sanitize-recover=undefined -no-pie"
    include = [f"-I{folder}" for folder in (CSRC, ROOT / "tests" / "c", here)]
    fresh = built.with_suffix(".fresh")  # another experiment may be running the old one
    _build("gcc", *common.split(), *sanitizers.split(), *include, *flags, "-o", str(fresh), str(source), str(archive))
    fresh.replace(built)
    return built


def _build(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}")


def places_in(built: Path, addresses: list[str]) -> list[str]:
    """File and line of the calls that return to these."""
    if not addresses:
        return []
    looking = ["addr2line", "-e", str(built), *(hex(int(address, 16) - 1) for address in addresses)]
    lines = subprocess.run(looking, capture_output=True, text=True, check=True).stdout.splitlines()
    return [re.sub(r".*/([^/:]+/[^/:]+:\d+).*", r"\1", line) for line in lines]


def _torture(script: str, framing: str, transport: str) -> Torture:
    return Torture(command(program(), script, framing, transport), partial(places_in, program()))


def command(built: Path, *arguments: str) -> tuple[str, ...]:
    """How it is started."""
    steady = ("setarch", os.uname().machine, "-R") if shutil.which("setarch") else ()
    return (*steady, str(built), *arguments)


def _experiment(script: str, framings: tuple[str, ...], transport: str) -> Callable[[Scale], str]:
    return lambda scale: inflict([_torture(script, framing, transport) for framing in framings], scale)


def tortures(built: Path) -> list[Torture]:
    """All scripts of a program that was linked elsewhere, for whoever only wants them to run."""
    return [
        Torture(command(built, script, framing, transport))
        for transport in ("unix", "tcp")
        for script, _, framings in _SCRIPTS
        for framing in framings
    ]


def _places_in_the_source() -> set[str]:
    """Where a wrapper is called."""
    calls = {
        f"{path.relative_to(CSRC)}:{number}": line
        for path in CSRC.glob("*/*.[ch]")
        if path.parent.name not in ELSEWHERE and path.stem != "sys"
        if path.parent.name != "transport" or path.name not in HOSTED
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\bps_sys\.\w+\(", line)
    }
    left_out = {*RESERVED, *IN_A_CHILD, *BY_CHANCE}
    check(left_out <= set(calls.values()), f"no such lines any more: {left_out - set(calls.values())}")
    return {place for place, line in calls.items() if line not in left_out}


def _every_place(_scale: Scale) -> str:
    wrappers = set(re.findall(r"\(\*(\w+)\)\(", (CSRC / "base" / "sys.h").read_text()))
    unknown = wrappers - set(ERRNOS) - set(ALLOCATIONS)
    check(not unknown, f"errnos.py knows nothing of {sorted(unknown)}")
    if not REACHED.is_dir():
        raise Missing("no other experiment of the fault table has run before this one")
    there = _places_in_the_source()
    missed = sorted(there - {place for file in REACHED.iterdir() for place in file.read_text().split()})
    check(not missed, f"{len(missed)} of {len(there)} places were never struck: {' '.join(missed)}")
    return f"all {len(there)} places were struck"


_SCRIPTS = (
    ("engine", "engine", ("pysock", "u32")),
    ("guest", "engine in a loop of the program's", ("pysock",)),
    ("proxied", "engine behind a proxy", ("pysock",)),
    ("client", "client's end", ("pysock",)),
    ("load", "load generator", ("pysock", "u32")),
    ("hand", "sockets used by hand", ("pysock",)),
)

EXPERIMENTS = [
    *(
        Experiment(
            f"faults/native/{transport}/{script}",
            f"each system call and allocation of the {words} fails",
            _experiment(script, framings, transport),
        )
        for transport in ("unix", "tcp")
        for script, words, framings in _SCRIPTS
    ),
    Experiment(
        "faults/native/places",
        "every place that makes a system call was struck by one before",
        _every_place,
        alone=True,
    ),
]
