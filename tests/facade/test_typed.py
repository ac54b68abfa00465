"""Type checkers find what is wrong in users' programs, and nothing in those that are right: tests/typed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import pysock

CHECK = Path(__file__).parents[1] / "typed" / "check.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_type_checker_finds_what_is_wrong_and_no_more(checker):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} isn't installed: it comes with the extra lint")
    done = subprocess.run([sys.executable, str(CHECK), checker], capture_output=True, text=True, check=False)
    assert done.stdout == f"as expected: {checker}\n", done.stdout + done.stderr


def test_modules_that_people_write_out_are_there():
    program = "import pysock; pysock.errors.ConnectionLost; pysock.states.IllegalTransition"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_misspelt_name_gets_a_suggestion():
    done = subprocess.run(
        [sys.executable, "-c", "import pysock; pysock.Serverr"], capture_output=True, text=True, check=False
    )
    assert "module 'pysock' has no attribute 'Serverr'. Did you mean: 'Server'?" in done.stderr


def test_what_may_be_sent_is_a_kind_of_its_own():
    assert isinstance(b"", pysock.Buffer)
    assert isinstance(memoryview(b""), pysock.Buffer)
    assert not isinstance("", pysock.Buffer)
