"""The machine: which cores are used for what, and what a result must say about where it was measured."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bench.build import ROOT
from bench.peers import compiler

DISTRIBUTIONS: Final = ("pysock-engine", "cffi", "uvloop", "gevent", "pyzmq", "pynng", "grpcio")


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server and its clients run."""

    server: int
    client: int

    @classmethod
    def choose(cls) -> Cores:
        """The first two of those this process may use; the same twice if there is only one."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1] if len(cores) > 1 else cores[0])

    @property
    def one(self) -> bool:
        """Whether server and clients have to share a core."""
        return self.server == self.client


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started meanwhile runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_descriptor_limit() -> int:
    """For the herd; return the limit. What is started afterwards has the same."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mitigations": _mitigations(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "libc": " ".join(platform.libc_ver()),
        "compiler": _output(compiler(), "--version"),
        "packages": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "commit": _output("git", "rev-parse", "HEAD"),
        "changed": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "somaxconn": _first_line("/proc/sys/net/core/somaxconn"),
    }


def _version(name: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line(path: str) -> str:
    with suppress(OSError):
        return (Path(path).read_text().splitlines() or [""])[0]
    return ""


def _mitigations() -> list[str]:
    """Those that make system calls dearer, by name."""
    found = sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
    return [path.name for path in found if _first_line(str(path)).startswith("Mitigation")]


def _output(*command: str) -> str:
    """The first line that a command prints."""
    with suppress(OSError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return (done.stdout.splitlines() or [""])[0]
    return ""


def missing_here() -> str:
    """Say why nothing can be measured on this system, or nothing."""
    if sys.platform != "linux":
        return f"the benchmarks read /proc and pin processes to cores: they need Linux, this is {sys.platform}"
    return ""
