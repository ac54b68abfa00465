"""Coverage of branches: of csrc by gcovr, of pysock by coverage.py, both from one run of the suite.

The suite runs in a copy of the checkout whose extension is built to be counted, after the C tests built likewise. What
was not reached is written to ``build/lab/coverage``: ``csrc.txt`` and ``pysock.txt``.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from support import ROOT

from lab.building import BUILD, fresh, make, need, run
from lab.experiment import Experiment, Failed, Missing, Scale, check
from lab.faults import inflict
from lab.faults_native import link, tortures

#: In percent: what must be reached in the quick form and in the full one.
CSRC, PYSOCK = (85.0, 95.0), (85.0, 95.0)
#: What the quick form leaves out: second ways to the same places, much of the same, and looking at the time,
SKIPPED = (
    *("tcp", "uvloop", "whole"),
    *("many", "flood", "flat", "costs", "survives", "interrupted", "quota", "threads_beside", "tls_command"),
    *("not_mapped", "soft_limit", "exit_is_quiet", "takes_its_processes", "kill_the_next"),
)
#: and what runs none of it: programs, which reach the commands only, and looks at the sources.
IGNORED = (
    "tests/process",
    *(f"tests/engines/test_{name}.py" for name in ("native_build", "layers", "layers_python", "abi", "pinned")),
    "tests/unit/test_copied_errors.py",
)
FAST = (
    *("-m", "not slow", "-k", " and ".join(f"not {word}" for word in SKIPPED)),
    *(f"--ignore={path}" for path in IGNORED),
)
REPORTS = BUILD / "coverage"

#: Of a test with many cases so many are tried in the quick form.
CASES = 5

#: Every Python that the suite starts is measured: this is found by each at its start.
SITE = "import coverage\ncoverage.process_startup()\n"
#: The sources by their path: some of the suite's Pythons find the package that is installed.
SETTINGS = """
[run]
branch = true
source = {source}
parallel = true
data_file = {data}
[report]
exclude_also =
    if TYPE_CHECKING:
    @abstractmethod
    \\.\\.\\.$
    sys.platform == "darwin"
"""


@functools.cache
def _measured(full: bool) -> Path:
    """The copy of the checkout in which everything has been run."""
    need("cc"), need("make")
    if importlib.util.find_spec("coverage") is None:
        raise Missing("coverage isn't installed")
    copy = _copied(fresh(BUILD / "measured"))
    _build(copy)
    _run_tests_in_c(copy, full)
    (copy / "site").mkdir()
    (copy / "site" / "sitecustomize.py").write_text(SITE)
    (copy / "coveragerc").write_text(SETTINGS.format(source=copy / "pysock", data=copy / "data" / "coverage"))
    (copy / "data").mkdir()
    _run_suite(copy, full)
    return copy


def _copied(to: Path) -> Path:
    """What git has, or would have, of the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise Missing("this isn't a checkout of git")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def _build(copy: Path) -> None:
    script = copy / "csrc" / "build_engine.py"
    text = script.read_text()
    check('"-O3"' in text, "build_engine.py doesn't say any more how it optimises")
    script.write_text(text.replace('"-O3"', '"-O0"'))  # an optimised program has other branches than its source
    flags = "--coverage -fprofile-update=atomic -g"
    done = run(
        ["env", "-C", copy, sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        PYSOCK_BUILD="require", PYSOCK_WERROR="0", CFLAGS=flags, LDFLAGS="--coverage",
    )  # fmt: skip
    check(done.returncode == 0, f"the extension can't be built to be counted:\n{done.stdout[-3000:]}")


def _run_tests_in_c(copy: Path, full: bool) -> None:
    """The C tests and the corpus of the fuzzers; in the full form also the quick form of the fault table."""
    make(str(copy / "csrc"), "coverage", BUILD=copy / "check")
    make(str(copy / "tests" / "fuzz"), "coverage", BUILD=copy / "replayed")
    if not full:
        return
    program = link(copy / "check" / "coverage" / "engine.a", copy / "check" / "faults", "--coverage")
    with suppress(Failed):  # a fault that isn't survived is another experiment's affair
        inflict(tortures(program), Scale(full=False, seed=0))


def _run_suite(copy: Path, full: bool) -> None:
    workers = ["-n", "auto"] if importlib.util.find_spec("xdist") else []
    fast = () if full else FAST
    done = run(
        ["env", "-C", copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *fast],
        timeout=3600, COVERAGE_PROCESS_START=str(copy / "coveragerc"), PYTEST_ADDOPTS="",
        PYSOCK_TEST_CASES="" if full else str(CASES),
        PYTHONPATH=os.pathsep.join([str(copy / "site"), str(copy)]),
    )  # fmt: skip
    (fresh(REPORTS) / "suite.txt").write_text(done.stdout)
    # A test that fails only here, since counting is slow, is the suite's affair: what counts is what was reached.
    check(done.returncode in {0, 1}, f"the suite did not run:\n{done.stdout[-3000:]}")


def _failures(copy_report: Path = REPORTS / "suite.txt") -> str:
    last = copy_report.read_text().strip().splitlines()[-1]
    return last.strip("= ")


# csrc


def _gcovr() -> list[str]:
    if importlib.util.find_spec("gcovr") is not None:
        return [sys.executable, "-m", "gcovr"]
    return [need("gcovr")]


_SHOWN = ("--merge-mode-functions=separate", "--exclude-unreachable-branches", "--gcov-ignore-parse-errors=all")


def _ran(*command: object) -> None:
    done = run(command, timeout=900)
    check(done.returncode == 0, done.stdout[-3000:])


def _c(scale: Scale) -> str:
    gcovr = _gcovr()
    copy = _measured(scale.full)
    # Where the compiler ran, and where what it wrote lies: the names of the sources are as seen from there.
    parts = {
        "extension": (copy, copy / "build"),
        "tests": (copy / "csrc", copy / "check"),
        "corpus": (copy / "tests" / "fuzz", copy / "replayed"),
    }
    summary = REPORTS / "csrc.json"
    for name, (folder, objects) in parts.items():
        _ran(
            *gcovr,
            *_SHOWN,
            "-j0",
            "--root",
            copy,
            "--filter",
            f"{copy}/csrc/",
            "--object-directory",
            folder,
            "--json",
            REPORTS / f"{name}.json",
            objects,
        )
    _ran(
        *gcovr,
        *_SHOWN,
        "--root",
        copy,
        *(f"--add-tracefile={REPORTS / name}.json" for name in parts),
        "--json-summary",
        summary,
        "--txt",
        REPORTS / "csrc.txt",
        "--json",
        REPORTS / "csrc-lines.json",
    )
    figures = json.loads(summary.read_text())
    _list_branches(json.loads((REPORTS / "csrc-lines.json").read_text()))
    reached, bar = figures["branch_percent"], scale.of(*CSRC)
    worst = sorted(
        (row["branch_percent"] or 0.0, Path(row["filename"]).name) for row in figures["files"] if row["branch_total"]
    )
    scale.say(", ".join(f"{name} {percent:.0f} %" for percent, name in worst[:12]))
    text = f"{reached:.1f} % of {figures['branch_total']:,} branches of csrc, the bar is {bar:.0f} % ({_failures()})"
    check(reached >= bar, f"{text}; see {REPORTS / 'csrc.txt'}")
    return text


def _list_branches(data: dict) -> None:
    """For whoever writes the missing tests: file, line, which of its branches were never taken."""
    told = []
    for file in data["files"]:
        for line in file["lines"]:
            branches = line.get("branches", ())
            never = sum(not branch["count"] for branch in branches)
            if never:
                told.append(f"{file['file']}:{line['line_number']}: {never} of {len(branches)} never taken")
    (REPORTS / "csrc-missing.txt").write_text("\n".join(told) + "\n")


# pysock


def _coverage(copy: Path, *arguments: object) -> str:
    command, *options = arguments
    done = run(
        ["env", "-C", copy, sys.executable, "-m", "coverage", command, f"--rcfile={copy / 'coveragerc'}", *options],
    )
    check(done.returncode == 0, f"coverage {command}: {done.stdout[-3000:]}")
    return done.stdout


def _python(scale: Scale) -> str:
    copy = _measured(scale.full)
    _coverage(copy, "combine", "--keep", "-q", copy / "data")
    report = _coverage(copy, "report", "-m", "--skip-covered", "--precision=1")
    (REPORTS / "pysock.txt").write_text(report)
    total = re.search(r"^TOTAL +(\d+) +\d+ +(\d+) +\d+ +([\d.]+)%", report, re.MULTILINE)
    check(total, f"coverage says no total:\n{report[-300:]}")
    statements, branches, percent = total.groups()
    reached, bar = float(percent), scale.of(*PYSOCK)
    text = (
        f"{reached:.1f} % of {int(statements):,} statements and {int(branches):,} branches of pysock,"
        f" the bar is {bar:.0f} %"
    )
    check(reached >= bar, f"{text}; see {REPORTS / 'pysock.txt'}")
    return text


def _both(scale: Scale) -> str:
    _gcovr()  # where it is missing, that is said before the suite has run for minutes
    return f"{_c(scale)}; {_python(scale)}"


EXPERIMENTS = [
    Experiment("coverage", "branches of csrc and of pysock that the suite takes", _both, deadline=(1400, 3600)),
]
