"""Whether type checkers find in wrong.py what they must, and nothing else there and in right.py.

``python tests/typed/check.py`` runs every checker that is installed beside it, against the checkout's package; it ends
with 1 and a list where they find too little or too much.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
PROGRAMS = [HERE / "right.py", HERE / "wrong.py"]


def expected() -> set[tuple[str, int]]:
    """File and number of each line that is wrong."""
    return {
        (program.name, number)
        for program in PROGRAMS
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }


def mypy() -> dict[tuple[str, int], str]:
    """What ``mypy --strict`` finds: a line, and what it says of it."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty",
             "--config-file=", f"--cache-dir={cache}", *map(str, PROGRAMS)],
            cwd=CHECKOUT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert not done.stderr, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        path, number, kind, text = line.split(":", 3)
        # What it says of the package itself is no business of these programs.
        if kind.strip() == "error" and Path(path).name in {program.name for program in PROGRAMS}:
            found[Path(path).name, int(number)] = text.strip()
    return found


def basedpyright() -> dict[tuple[str, int], str]:
    """The same of ``pyright``, in the wheel that brings all it needs."""
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(HERE)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(done.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }


CHECKERS = {"mypy": mypy, "basedpyright": basedpyright}


def differences(checker: str) -> list[str]:
    """What a checker misses, and what it finds besides."""
    found, wrong = CHECKERS[checker](), expected()
    missed = [f"{checker} misses {name}:{number}" for name, number in sorted(wrong - set(found))]
    return missed + [f"{checker} has {name}:{number}: {text}" for (name, number), text in sorted(found.items())
                     if (name, number) not in wrong]  # fmt: skip


if __name__ == "__main__":
    problems = []
    for checker in sys.argv[1:] or CHECKERS:
        problems += differences(checker)
    print("\n".join(problems) or f"as expected: {', '.join(sys.argv[1:] or CHECKERS)}")
    sys.exit(bool(problems))
