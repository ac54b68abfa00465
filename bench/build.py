"""Compiling the servers that are C programs, into ``build/bench``."""

from __future__ import annotations

import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from bench.peers import compiler

ROOT: Final = Path(__file__).resolve().parent.parent
SERVERS: Final = ROOT / "bench" / "servers"
ENGINE: Final = ROOT / "csrc"
BUILD: Final = ROOT / "build" / "bench"

#: As the extension is compiled.
FLAGS: Final = ("-std=gnu11", "-D_GNU_SOURCE", "-O3", "-fvisibility=hidden", "-pthread", "-Icsrc")


class BuildFailed(Exception):
    """With the compiler's own words."""


@cache
def built(source: str) -> Path:
    """Return the program made from ``bench/servers/SOURCE``; compile it unless it is there and new enough."""
    target = BUILD / Path(source).stem
    parts = [SERVERS / source]
    if "engine.h" in parts[0].read_text():
        parts += sorted(path for path in ENGINE.glob("*/*.c") if path.parent.name not in {"python", "load"})
    libraries = ("-lssl", "-lcrypto") if "<openssl/" in parts[0].read_text() else ()
    newest = max(path.stat().st_mtime for path in [*parts, *SERVERS.glob("*.h"), *ENGINE.rglob("*.h")])
    if not target.exists() or target.stat().st_mtime < newest:
        _compile(parts, target, libraries)
    return target


def _compile(parts: list[Path], target: Path, libraries: tuple[str, ...]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    names = [str(path.relative_to(ROOT)) for path in parts]
    fresh = target.with_suffix(".new")  # never a half-written program under the final name
    command = [*shlex.split(compiler()), *FLAGS, "-o", str(fresh), *names, *libraries]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise BuildFailed(f"{target.name} doesn't compile: {first}")
    fresh.replace(target)
