"""The whole suite over TLS, by each driver, on both engines: whatever asks for a transport has it for a third one."""

from __future__ import annotations

import os
import sys

from support import ROOT

from lab.building import run
from lab.experiment import Experiment, Scale, check

#: In the quick form a few cases of these, which cut bytes in all ways.
QUICK = ("tests/wire/test_wire_srm.py", "tests/wire/test_wire_cir.py")


def _suite(scale: Scale) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", scale.of("2", "auto")]
    command += ["-m", "not slow", "-k", "tls", *scale.of(QUICK, ("tests",))]
    done = run(
        ["env", "-C", ROOT, *command],
        timeout=3600,
        PYSOCK_TEST_TLS="1",
        PYSOCK_TEST_CASES=scale.of("1", ""),
        PYTEST_ADDOPTS="",
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    )
    check(done.returncode == 0, f"the suite fails over TLS:\n{done.stdout[-6000:]}")
    return done.stdout.strip().splitlines()[-1].strip("= ")


EXPERIMENTS = [Experiment("tls/suite", "the whole suite over TLS", _suite, alone=True)]
