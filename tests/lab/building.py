"""Building for experiments: ``make`` in a folder of the tests, with what it says where it fails."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import ROOT

from lab.experiment import Failed, Missing

#: Where experiments build, so that a second run finds what the first has made.
BUILD = ROOT / "build" / "lab"
#: What was found is kept here, to be looked at and run again.
FOUND = BUILD / "found"

CLANGS = ("clang", *(f"clang-{number}" for number in range(20, 12, -1)))


def need(*names: str) -> str:
    """The path of the first of these programs that is there."""
    if sys.platform != "linux":
        raise Missing("it needs Linux")
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise Missing(f"{names[0]} isn't installed")


def make(folder: str, target: str, **variables: object) -> None:
    """``make target`` there.

    :raises Failed: with what make said.
    """
    need("make")
    command = ["make", "-C", str(ROOT / folder), "--no-print-directory", target]
    with alone():
        done = run([*command, *(f"{name}={value}" for name, value in variables.items())])
    if done.returncode:
        raise Failed(f"make {target} failed:\n{done.stdout[-3000:]}")


@contextmanager
def alone() -> Iterator[None]:
    """Build while no other experiment does: two of them may need the same parts."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[object], timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it says on both streams is in ``stdout``."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )


def steady() -> list[str]:
    """In front of a program under a sanitizer: the sanitizers of gcc 12 and clang 14 die now and then of the widest
    address randomisation of newer kernels."""
    machine = os.uname().machine
    prefix = ["setarch", machine, "-R"]
    if (
        shutil.which("setarch") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        return []
    return prefix


def fresh(path: Path) -> Path:
    """An empty directory of this name."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
