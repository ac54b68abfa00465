"""``python -m bench``: measure; ``python -m bench report``: draw what was measured.

Exit codes: 0 fine, 1 a row failed or nothing could be measured, 2 wrong usage, 130 Ctrl-C (what was measured until
then is saved). A peer that isn't installed is a row that says so, not a failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from bench import machine
from bench.build import ROOT
from bench.peers import PEERS
from bench.results import Results, Row
from bench.scenarios import SCENARIOS, chosen
from bench.suite import Job, Settings, Suite, count_runs, lacking, plan

RESULTS: Final = ROOT / "bench" / "results"
LATEST: Final = RESULTS / "latest.json"
CHARTS: Final = ROOT / "bench" / "charts"
PAGE: Final = ROOT / "bench" / "README.md"

#: rounds, seconds of a run, seconds of warm-up.
FULL: Final = (3, 2.0, 0.3)
QUICK: Final = (3, 0.2, 0.05)


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return report(words[1:]) if words[:1] == ["report"] else measure(words)
    except ImportError as error:
        if error.name not in {"rich", "matplotlib"}:
            raise
        print(f"bench: {error.name} isn't installed: pip install -e '.[bench]'", file=sys.stderr)
        return 1


# Measuring


def measure(words: list[str]) -> int:
    given = _measure_options(words)
    if reason := machine.missing_here():
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    mode = "quick" if given.quick else "published" if given.published else "full"
    jobs = plan(chosen(given.scenario, mode), given.peer, few=given.quick)
    try:
        known = None if given.add_to is None else Results.load(given.add_to)
    except (OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if known is not None:
        jobs = lacking(jobs, known)
    if given.list:
        _show_plan(jobs)
        return 0
    if not jobs:
        what = "no load of these scenarios is for these peers; --list shows what there is"
        print(f"bench: {what if known is None else f'nothing is lacking, or {what}'}", file=sys.stderr)
        return 2
    rounds, seconds, warmup = QUICK if given.quick else FULL
    settings = Settings(
        rounds=given.rounds or rounds, seconds=given.seconds or seconds, warmup=warmup, quick=given.quick
    )
    code = _run(jobs, settings, output := given.output or RESULTS / time.strftime("%Y%m%d-%H%M%S.json"))
    if known is not None and code == 0:
        known.rows += [row for row in Results.load(output).rows if row.runs]
        known.save(given.add_to)
    return code


def _measure_options(words: list[str]) -> argparse.Namespace:
    peers = sorted({name for peer in PEERS.values() for name in (peer.id, peer.group)})
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Hold pysock against its peers and a bare C server.",
        epilog="`python -m bench report` draws the results. The published ones are made by"
        " `python -m bench --published --output bench/results/latest.json && python -m bench report`.",
    )
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--quick", action="store_true", help="one load of each scenario, fewer peers; under 3 minutes")
    less.add_argument("--published", action="store_true", help="what the pages show, at full length; half an hour")
    parser.add_argument(
        "--scenario", action="append", default=[], choices=[scenario.id for scenario in SCENARIOS], help="only this"
    )
    parser.add_argument(
        "--peer", action="append", default=[], choices=peers, metavar="ID", help="only this, and the floor; see --list"
    )
    parser.add_argument("--rounds", type=_positive(int), help=f"of each row [{FULL[0]}, quick {QUICK[0]}]")
    parser.add_argument("--seconds", type=_positive(float), help=f"of each run [{FULL[1]:g}, quick {QUICK[1]:g}]")
    parser.add_argument("--output", type=Path, help="the JSON file [bench/results/DATE-TIME.json]")
    parser.add_argument(
        "--add-to",
        type=Path,
        metavar="FILE",
        help="measure what this result lacks, with the same rounds, and add it there",
    )
    parser.add_argument("--list", action="store_true", help="show what would be measured, and what is missing")
    return parser.parse_args(words)


def _positive(kind: type[int] | type[float]):  # noqa: ANN202 - argparse's own business
    def parse(text: str) -> float:
        if not 0 < (value := kind(text)) < float("inf"):
            raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def _show_plan(jobs: list[Job]) -> None:
    for job in jobs:
        print(f"{job.scenario.id} {job.load.title}: {', '.join(peer.id for peer in job.peers)}")
    for peer in dict.fromkeys(peer for job in jobs for peer in job.peers):
        print(f"{peer.id:18} {peer.missing() or peer.title}")


def _run(jobs: list[Job], settings: Settings, output: Path) -> int:
    from bench.screen import Screen  # noqa: PLC0415 - rich may be missing

    with Screen(count_runs(jobs, settings.rounds), settings) as screen:
        suite = Suite(settings, screen.on_run, screen.on_job)
        try:
            suite.run(jobs)
        except KeyboardInterrupt:
            suite.results.settings["interrupted"] = True
    suite.results.save(output)
    screen.end(suite.results, output)
    if suite.results.settings.get("interrupted"):
        return 130
    return _exit_code(suite.results.rows)


def _exit_code(rows: list[Row]) -> int:
    return 1 if any(row.failed for row in rows) or not any(row.runs for row in rows) else 0


# Reporting


def report(words: list[str]) -> int:
    given = _report_options(words)
    try:
        results = Results.load(given.file)
    except (OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    from bench.charts import draw  # noqa: PLC0415 - matplotlib may be missing
    from bench.report import NoPlace, bars, refresh, tables  # noqa: PLC0415

    for path in draw(results, given.charts):
        print(path)
    for page, part in ((given.page, tables(results)), (given.readme, bars(results))):
        try:
            changed = refresh(page, part)
        except (OSError, NoPlace) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        print(page, "refreshed" if changed else "was fresh already")
    return 0


def _report_options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench report",
        description="Draw an SVG for each scenario, and refresh bench/README.md and the README's figures.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=LATEST, help="[bench/results/latest.json]")
    parser.add_argument("--charts", type=Path, default=CHARTS, help="where the drawings go [bench/charts]")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page for the tables [bench/README.md]")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the page for the figures [README.md]")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
