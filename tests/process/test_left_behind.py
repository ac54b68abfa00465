"""What a run of the tests leaves in the temporary directory, however it ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, TEST_DIRECTORY, environment, wait_for

pytest.importorskip("xdist", reason="pytest-xdist isn't installed")

TESTS = """
import os, pathlib, time

def test_fails(socket_dir, tmp_path):
    (socket_dir / "file").touch()
    (tmp_path / "file").touch()
    assert False

def test_hangs(socket_dir, tmp_path):
    (tmp_path / "file").touch()
    said = pathlib.Path(__file__).with_name("said")
    said.with_suffix(".new").write_text(os.environ["%s"])
    said.with_suffix(".new").rename(said)
    time.sleep(float(os.environ["HANG"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ends_by", [None, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left(tmp_path, ends_by):
    (tmp_path / "test_it.py").write_text(TESTS % TEST_DIRECTORY)
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests", ROOT / "tests" / "help"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "1",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]
    changes = {"PYTHONPATH": path, "PYTHONWARNINGS": "", "PYTEST_ADDOPTS": "", "HANG": "30" if ends_by else "0"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            wait_for((tmp_path / "said").exists, "the second test", timeout=30)
            if ends_by:
                run.send_signal(ends_by)
            output, _ = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode == (2 if ends_by else 1), output
    assert not Path((tmp_path / "said").read_text()).exists(), output
