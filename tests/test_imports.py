"""What importing pysock brings with it: nothing that takes longer to import than it is worth."""

import subprocess
import sys

import pytest

#: Each of these brings others, or takes milliseconds, and is needed late or never.
SLOW = {
    "argparse",
    "ast",
    "asyncio",
    "dataclasses",
    "dis",
    "fnmatch",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "pathlib",
    "re",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "tokenize",
    "traceback",
    "typing",
    "urllib",
}


def new_modules(program):
    """What a program imports, beside what the interpreter has at its start."""
    listing = f"import sys\nbefore = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    # Without site-packages' .pth files, which may import anything; where pysock is found is said here.
    path = f"import sys; sys.path[:0] = {sys.path!r}\n"
    return set(
        subprocess.run(
            [sys.executable, "-S", "-c", path + listing], check=True, capture_output=True, text=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    "program", ["import pysock; pysock.Server; pysock.connect", "import pysock; pysock.MasterSocket"]
)
def test_the_first_use_imports_nothing_slow(program):
    assert not new_modules(program) & SLOW


def test_a_client_imports_nothing_slow(backend):
    program = f"""
import pysock
try:
    pysock.connect("unix:/nowhere/x.sock", backend={backend!r})
except FileNotFoundError:
    pass
"""
    assert not new_modules(program) & SLOW
