"""Runs experiments: each in a process group of its own, with a deadline, and nothing is left of it afterwards."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from lab.experiment import Experiment, Failed, Missing, Scale


class Outcome(NamedTuple):
    """How one ended."""

    name: str
    outcome: str  # ok, FAILED, MISSING (what it needs isn't here, and must be), left out
    seconds: float
    cpu: float  # seconds of processors, by it and by what it started and waited for
    seen: str

    @property
    def is_bad(self) -> bool:
        return self.outcome in {"FAILED", "MISSING"}


class _Running(NamedTuple):
    item: Experiment
    pid: int
    result: Connection
    began: float
    deadline: float


def run_all(chosen: Sequence[Experiment], *, full: bool, seed: int, jobs: int) -> list[Outcome]:
    """Those that may run side by side first, ``jobs`` at once, then the others. How each ended, in their order."""
    together = [item for item in chosen if not item.alone] if jobs > 1 else []
    waiting = together + [item for item in chosen if item not in together]
    running: list[_Running] = []
    outcomes: dict[str, Outcome] = {}
    gc.freeze()  # the collector would touch, and so copy, every page in every child
    try:
        while waiting or running:
            while waiting and len(running) < (jobs if waiting[0] in together else 1):
                running.append(_start(waiting.pop(0), full, seed, jobs))
            ready = wait([each.result for each in running], timeout=0.5)
            now = time.monotonic()
            for each in [each for each in running if each.result in ready or now > each.deadline]:
                running.remove(each)
                outcome = _finish(each)
                outcomes[outcome.name] = outcome
                told = f"{outcome.outcome} after {outcome.seconds:.1f} s ({outcome.cpu:.1f} s of processors)"
                _print(each.item.name, f"{told}: {outcome.seen}", jobs)
    finally:
        for each in running:
            _kill(each.pid)
    return [outcomes[item.name] for item in chosen]


def _print(name: str, text: str, jobs: int) -> None:
    begin = f"{name}: " if jobs > 1 else "    "
    sys.stdout.write("".join(f"{begin}{line}\n" for line in text.splitlines() or [""]))
    sys.stdout.flush()


def _start(item: Experiment, full: bool, seed: int, jobs: int) -> _Running:
    print(f"\n--- {item.name}: {item.title}" if jobs == 1 else f"--- {item.name}: {item.title}", flush=True)
    ours, theirs = Pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            ours.close()
            theirs.send(_tried(item, Scale(full, seed, lambda text: _print(item.name, text, jobs))))
        finally:
            os._exit(0)
    with suppress(OSError):  # both sides do it, so that neither can come too late
        os.setpgid(pid, pid)
    theirs.close()
    return _Running(item, pid, ours, began, began + item.deadline[full])


def _tried(item: Experiment, scale: Scale) -> tuple[str, str]:
    try:
        return "ok", item.run(scale)
    except Missing as missing:
        return "MISSING" if os.environ.get("PYSOCK_REQUIRE_TOOLS") == "1" else "left out", str(missing)
    except Failed as failure:
        return "FAILED", str(failure)
    except BaseException as error:
        return "FAILED", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


def _finish(each: _Running) -> Outcome:
    outcome, seen = "FAILED", f"it hung, and was ended after {each.item.deadline} s (quick, full)"
    if each.result.poll():
        try:
            outcome, seen = each.result.recv()
        except (EOFError, OSError):
            seen = "its process died without a word"
    cpu = _kill(each.pid)
    each.result.close()
    return Outcome(each.item.name, outcome, time.monotonic() - each.began, cpu, seen)


def _kill(pid: int) -> float:
    """The experiment and all that it started. How long processors worked for it, in seconds."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    try:
        used = os.wait4(pid, 0)[2]
    except ChildProcessError:
        return 0.0
    return used.ru_utime + used.ru_stime
