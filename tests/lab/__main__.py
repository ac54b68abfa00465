"""``python -m tests.lab``: run the experiments, print a table of what was seen, exit with 1 if anything failed."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from pathlib import Path

# The tests' own helpers, as pytest finds them.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "help"))

from lab.experiment import Experiment
from lab.runner import Outcome, run_all

#: The modules that have experiments, in the order in which they are run.
MODULES: tuple[str, ...] = (
    "pairs",
    "held",
    "ceiling",
    "hostile",
    "handshakes",
    "killed",
    "restarts",
    "healing",
    "directory",
    "chaos",
    "races",
    "access",
    "injected",
    "ends",
    "soak",
    "tls.suite",
    "tls.functions",
    "faults_native",
    "faults_pure",
    "faults_start",
    "coverage",  # the longest: beside those that only compute, and not what is left at the end
    "fuzzing",
    "machine",
    "memcheck",
)


def experiments() -> list[Experiment]:
    return [item for name in MODULES for item in importlib.import_module(f"lab.{name}").EXPERIMENTS]


def main() -> int:
    given = _options()
    chosen = [
        item for item in experiments() if not given.only or any(item.name.startswith(begin) for begin in given.only)
    ]
    if given.list:
        for item in chosen:
            print(f"{item.name:24} {item.title}")
        return 0
    if not chosen:
        print("lab: no experiment of that name; --list shows what there is", file=sys.stderr)
        return 2
    print(f"{len(chosen)} experiments, {'quick' if given.quick else 'full'} form, --seed {given.seed}", flush=True)
    began = time.monotonic()
    outcomes = run_all(chosen, full=not given.quick, seed=given.seed, jobs=given.jobs)
    _table(outcomes)
    bad = [outcome for outcome in outcomes if outcome.is_bad]
    print(
        f"\n{len(outcomes) - len(bad)} of {len(outcomes)} in order, {time.monotonic() - began:.0f} s, seed {given.seed}"
    )
    for outcome in bad:
        form = "--quick " if given.quick else ""
        print(f"again: python -m tests.lab {form}--seed {given.seed} --only {outcome.name}")
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Break pysock on purpose, and see it hold."
    )
    parser.add_argument("--quick", action="store_true", help="the form that runs in CI")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only those that begin so")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="repeat a run")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="run so many side by side, except those that measure time"
    )
    parser.add_argument("--list", action="store_true", help="show what there is")
    return parser.parse_args()


def _table(outcomes: list[Outcome]) -> None:
    """One line for each, short enough for the terminal; a failure's whole text has been printed already."""
    wide = max(len(outcome.name) for outcome in outcomes)
    room = max(40, shutil.get_terminal_size((160, 24)).columns - wide - 33)
    print(f"\n{'experiment':{wide}}  {'outcome':8}  {'seconds':>7}  {'cpu':>7}  seen")
    print(f"{'-' * wide}  {'-' * 8}  {'-' * 7}  {'-' * 7}  {'-' * min(room, 60)}")
    for name, outcome, seconds, cpu, seen in outcomes:
        first = seen.splitlines()[0] if seen else ""
        shown = first if len(first) <= room else first[: room - 3] + "..."
        print(f"{name:{wide}}  {outcome:8}  {seconds:7.1f}  {cpu:7.1f}  {shown}")


if __name__ == "__main__":
    sys.exit(main())
