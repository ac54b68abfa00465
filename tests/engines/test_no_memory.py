"""An interpreter without memory, one allocation at a time: the program is ``starved.py``.

The C engine only: what goes on in Python code when Python has no memory is CPython's affair.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import native_is_missing
from support import ROOT, environment

STARVED = ROOT / "tests" / "help" / "starved.py"

#: Prints how many references to its code the making of a function has cost for which there was no memory.
FAILED_CLOSURES = """
import _testcapi, sys

def outer(value):
    return lambda: value

code = next(one for one in outer.__code__.co_consts if hasattr(one, "co_code"))
before = sys.getrefcount(code)
for nth in range(5):
    try:
        _testcapi.set_nomemory(nth, nth + 1)
        outer(1)
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print(before - sys.getrefcount(code))
"""


def survives_failed_closures() -> bool:
    """Whether this CPython lets go of a function's code only once where there is no memory for the function."""
    done = subprocess.run([sys.executable, "-c", FAILED_CLOSURES], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "0"


@pytest.mark.slow
@pytest.mark.skipif(native_is_missing(), reason="the native engine isn't built")
@pytest.mark.parametrize("who", ["server", "client", "ends"])
def test_each_allocation_in_turn(socket_dir, who):
    """None of them ends the server, and each costs at most the one client anything."""
    pytest.importorskip("_testcapi", reason="this Python comes without _testcapi")
    if who == "client" and not survives_failed_closures():
        version = sys.version.partition(" ")[0]
        pytest.skip(
            f"NOT TESTED: CPython {version} frees the code of a closure that it has no memory for, and crashes later"
            " (its issue 122752; seen in 3.12.1 and 3.13.0, not in 3.10 and 3.11)"
        )
    command = [sys.executable, str(STARVED), who, "native", str(socket_dir / "s"), "0", "150"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert len(set(seen["got"])) > 1, "no allocation failed where it matters"
    counters = seen["stats"]
    assert counters["established"] - counters["disconnected"] == counters["clients"] <= 1
    assert counters["pending"] == 0
