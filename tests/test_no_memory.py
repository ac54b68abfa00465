"""An interpreter without memory, one allocation at a time: the program is ``scarce.py``.

The C engine only: what goes on in Python code when Python has no memory is CPython's affair.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import native_is_missing
from support import environment

SCARCE = Path(__file__).with_name("scarce.py")


@pytest.mark.slow
@pytest.mark.skipif(native_is_missing(), reason="the native engine isn't built")
@pytest.mark.parametrize("who", ["server", "client"])
def test_each_allocation_in_turn(socket_dir, who):
    """None of them ends the server, and each costs at most the one client anything."""
    pytest.importorskip("_testcapi", reason="this Python comes without _testcapi")
    command = [sys.executable, str(SCARCE), who, "native", str(socket_dir / "s"), "0", "150"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert len(set(seen["got"])) > 1, "no allocation failed where it matters"
    counters = seen["stats"]
    assert counters["established"] - counters["disconnected"] == counters["clients"] <= 1
    assert counters["pending"] == 0
