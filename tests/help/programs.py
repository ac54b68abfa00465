"""For the tests that run our commands, and tools that others wrote, as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NoReturn

import pytest
from support import Program, environment


def tool(name: str) -> str:
    """Return the path of a program from outside. Without it the test is skipped, or fails where CI wants it."""
    return shutil.which(name) or missing(f"{name} isn't installed: nothing has been tested with it")


def missing(message: str) -> NoReturn:
    """Skip the test, or fail where CI wants it."""
    if os.environ.get("PYSOCK_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{message}, and PYSOCK_REQUIRE_TOOLS=1")
    pytest.skip(message)


class Module(Program):
    """``python -m`` in the background, for example ``Module("pysock.examples.upper", "--bind", address)``."""

    def __init__(self, *arguments: str, **changes: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment(**changes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def serving(program: Program) -> list[str]:
    """Wait until a server of ours says where it listens; return its addresses."""
    line = program.line()
    assert line.startswith("serving on "), line
    return [word for word in line.split() if ":" in word]


def run(*command: str, stdin: bytes = b"", timeout: float = 30.0, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(
        command, input=stdin, env=environment(**changes), capture_output=True, timeout=timeout, check=False
    )


def pysock_command(*arguments: str, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``pysock`` to its end."""
    return run(sys.executable, "-m", "pysock", *arguments, stdin=stdin, **changes)
