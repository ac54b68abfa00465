"""``python -m tests.lab``: run the experiments, print a table of what was seen, exit with 1 if anything failed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

# The tests' own helpers, as pytest finds them.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.experiment import Experiment, Failed, Missing, Scale

#: The modules that have experiments, in the order in which they are run.
MODULES: tuple[str, ...] = ()


def experiments() -> list[Experiment]:
    return [item for name in MODULES for item in importlib.import_module(f"lab.{name}").EXPERIMENTS]


def main() -> int:
    given = _options()
    chosen = [
        item for item in experiments() if not given.only or any(item.name.startswith(begin) for begin in given.only)
    ]
    if given.list:
        for item in chosen:
            print(f"{item.name:32} {item.title}")
        return 0
    if not chosen:
        print("lab: no experiment of that name; --list shows what there is", file=sys.stderr)
        return 2
    print(f"seed {given.seed}, {'quick' if given.quick else 'full'} form", flush=True)
    rows = [_run(item, Scale(not given.quick, given.seed, _say)) for item in chosen]
    _table(rows)
    bad = sum(row[1] in {"FAILED", "MISSING"} for row in rows)
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Break pysock on purpose, and see it hold."
    )
    parser.add_argument("--quick", action="store_true", help="the form that runs in CI")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only those that begin so")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="repeat a run")
    parser.add_argument("--list", action="store_true", help="show what there is")
    return parser.parse_args()


def _run(item: Experiment, scale: Scale) -> tuple[str, str, float, str]:
    print(f"\n--- {item.name}: {item.title}", flush=True)
    began = time.monotonic()
    try:
        outcome, seen = "ok", item.run(scale)
    except Missing as missing:
        outcome, seen = "MISSING" if os.environ.get("PYSOCK_REQUIRE_TOOLS") == "1" else "left out", str(missing)
    except Failed as failure:
        outcome, seen = "FAILED", str(failure)
    except Exception as error:
        traceback.print_exc()
        outcome, seen = "FAILED", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    print(f"    {outcome} after {seconds:.1f} s: {seen}", flush=True)
    return item.name, outcome, seconds, seen


def _say(text: str) -> None:
    print(f"    {text}", flush=True)


def _table(rows: list[tuple[str, str, float, str]]) -> None:
    wide = max(len(row[0]) for row in rows)
    print()
    for name, outcome, seconds, seen in rows:
        print(f"{name:{wide}}  {outcome:8}  {seconds:7.1f} s  {seen.splitlines()[0] if seen else ''}")


if __name__ == "__main__":
    sys.exit(main())
